//! Scheduler and kubelet: a pod gets an address of its own on loopback, what it would run answers there, and it is ready.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crds::names;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::hands::Hands;
use super::operands::serve;
use super::{Operands, deleting, name, ready};
use crate::view::Objects;

/// Part of an image's name that makes it impossible to pull.
pub const BROKEN: &str = "broken";

/// A pod that answers.
pub struct Serving {
    ip: Ipv4Addr,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

pub async fn keep(
    hands: &Hands,
    world: &Objects,
    serving: &mut BTreeMap<String, Serving>,
    operands: &Arc<Mutex<Operands>>,
) {
    let pods = || {
        world
            .iter()
            .filter(|((plural, _), _)| *plural == "pods")
            .map(|(_, pod)| pod)
    };
    serving.retain(|uid, _| pods().any(|pod| pod["metadata"]["uid"] == **uid && !deleting(pod)));
    for pod in pods().filter(|pod| !deleting(pod)) {
        let images = pod["spec"]["containers"].as_array().into_iter().flatten();
        let broken = images
            .filter_map(|container| container["image"].as_str())
            .find(|image| image.contains(BROKEN));
        if let Some(image) = broken {
            hands.status("pods", pod, &waiting(pod, image)).await;
            continue;
        }
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        if let std::collections::btree_map::Entry::Vacant(place) = serving.entry(uid) {
            place.insert(start(pod, operands.clone()).await);
        }
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let ip = serving[uid].ip;
        if !ready(pod) || pod["status"]["podIP"] != ip.to_string() {
            hands.status("pods", pod, &running(ip)).await;
        }
    }
}

fn running(ip: Ipv4Addr) -> Value {
    json!({
        "phase": "Running", "podIP": ip.to_string(), "podIPs": [{"ip": ip.to_string()}],
        "conditions": [
            {"type": "PodScheduled", "status": "True"}, {"type": "Initialized", "status": "True"},
            {"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "True"},
        ],
    })
}

fn waiting(pod: &Value, image: &str) -> Value {
    let container = pod["spec"]["containers"][0]["name"].as_str().unwrap_or_default();
    let reason = json!({"waiting": {"reason": "ImagePullBackOff", "message": "not found"}});
    json!({
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
        "containerStatuses": [{
            "name": container, "image": image, "imageID": "", "ready": false, "restartCount": 0, "state": reason,
        }],
    })
}

/// Opens the ports at which the operator asks this kind of pod, at an address that nobody else has.
async fn start(pod: &Value, operands: Arc<Mutex<Operands>>) -> Serving {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let component = pod["metadata"]["labels"][names::COMPONENT_LABEL]
        .as_str()
        .unwrap_or_default();
    let ports: &[u16] = match component {
        "postgres" => &[names::PATRONI_PORT],
        "redis" => &[names::SENTINEL_PORT, names::REDIS_PORT],
        _ => &[names::API_OPS_PORT],
    };
    let pod = name(pod).to_owned();
    loop {
        // 127.64.0.0/10, from a place that differs from process to process.
        let offset = NEXT
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(std::process::id() << 12);
        let ip = Ipv4Addr::from(0x7f40_0000 | (offset & 0x003f_ffff));
        if ip.octets()[3] == 0 || ip.octets()[3] == 255 {
            continue;
        }
        if let Ok(listeners) = listen(ip, ports).await {
            let speaks_redis = component == "redis";
            let tasks = listeners.into_iter().map(|listener| {
                let (pod, operands) = (pod.clone(), operands.clone());
                if speaks_redis {
                    tokio::spawn(serve::redis(listener, pod, operands))
                } else {
                    tokio::spawn(serve::http(listener, pod, operands))
                }
            });
            return Serving {
                ip,
                tasks: tasks.collect(),
            };
        }
        tokio::task::yield_now().await;
    }
}

async fn listen(ip: Ipv4Addr, ports: &[u16]) -> std::io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::with_capacity(ports.len());
    for port in ports {
        listeners.push(TcpListener::bind(SocketAddr::from((ip, *port))).await?);
    }
    Ok(listeners)
}
