//! Traces over OTLP: what a collector gets, and what becomes of the operator when there is none.

use std::collections::BTreeMap;
use std::net::TcpListener as StdListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::routing::post;
use kube::api::DeleteParams;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use operator::platform::object::Kind;
use prost::Message;
use serde_json::json;
use tokio::time::{Duration, Instant};

use crate::harness::{World, eventually, kubeconfig};
use crate::process::Operator;

/// A collector as small as it gets: it speaks OTLP over http/protobuf and keeps what it got.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ResourceSpans>>>);

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let app = Router::new()
            .route("/v1/traces", post(receive))
            .with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        let received = self.0.lock().unwrap();
        let scopes = received.iter().flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }
}

async fn receive(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> &'static [u8] {
    assert_eq!(headers[header::CONTENT_TYPE], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    collector.0.lock().unwrap().extend(request.resource_spans);
    b""
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes
        .iter()
        .filter_map(|attribute| match attribute.value.as_ref()?.value.as_ref()? {
            any_value::Value::StringValue(text) => Some((attribute.key.clone(), text.clone())),
            _ => None,
        })
        .collect()
}

fn start(world: &World, endpoint: &str) -> Operator {
    let arguments = [
        "--watch-namespaces",
        &world.namespace,
        "--namespace",
        &world.namespace,
        "--identity",
        "traced",
    ];
    Operator::start(
        Path::new(&kubeconfig()),
        &arguments,
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)],
    )
}

#[tokio::test]
async fn a_look_is_a_trace_with_its_steps() {
    let (collector, endpoint) = Collector::start().await;
    let mut world = World::empty("traces").await;
    world.adopt(start(&world, &endpoint));
    world.create("acme", json!({})).await;
    world.object(Kind::ConfigMap, "acme-api-config").await;
    let (look, steps) = eventually("a look with its steps", || async {
        let spans = collector.spans();
        let look = spans.iter().find(|span| span.name == "look")?.clone();
        let steps: Vec<_> = spans
            .into_iter()
            .filter(|span| span.parent_span_id == look.span_id)
            .collect();
        (steps.len() >= 3).then_some((look, steps))
    })
    .await;
    let names: Vec<_> = steps.iter().map(|span| span.name.as_str()).collect();
    for step in ["observe", "apply", "report"] {
        assert!(names.contains(&step), "{step} is not among {names:?}");
    }
    assert!(steps.iter().all(|span| span.trace_id == look.trace_id));
    let about = texts(&look.attributes);
    assert_eq!(
        (
            about["platform.name"].as_str(),
            about["platform.namespace"].as_str()
        ),
        ("acme", world.namespace.as_str())
    );
    let resource = collector.0.lock().unwrap()[0].resource.clone().unwrap();
    let resource = texts(&resource.attributes);
    assert_eq!(resource["service.name"], "tanka-operator");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
}

/// A collector that accepts and never answers is the worst there is: the operator works as if there were none, and ends in time.
#[tokio::test]
async fn a_collector_that_hangs_holds_nothing_up() {
    let silent = StdListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::empty("untraced").await;
    let mut operator = start(&world, &format!("http://{}", silent.local_addr().unwrap()));
    let begun = Instant::now();
    world.create("acme", json!({})).await;
    world.object(Kind::ConfigMap, "acme-api-config").await;
    let service = world.object(Kind::Service, "acme-postgres-ro").await;
    // Long enough for several batches to hang.
    eventually("the exporter to have tried", || async {
        (begun.elapsed() > Duration::from_secs(6)).then_some(())
    })
    .await;
    world
        .objects(Kind::Service)
        .delete("acme-postgres-ro", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the service to be back", || async {
        let again = world
            .objects(Kind::Service)
            .get_opt("acme-postgres-ro")
            .await
            .unwrap()?;
        (again.metadata.uid != service.metadata.uid).then_some(())
    })
    .await;
    operator.signal("TERM");
    let asked = Instant::now();
    assert!(operator.ended().await.success());
    assert!(asked.elapsed() < Duration::from_secs(12), "{:?}", asked.elapsed());
    world.kill_operator();
}
