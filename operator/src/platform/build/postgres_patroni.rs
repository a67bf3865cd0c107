//! ConfigMap with Patroni's configuration. What Patroni reads at every start stands at its root; what it reads only when the
//! cluster is made, and keeps in its own store afterwards, under `bootstrap.dcs`.

use std::collections::BTreeMap;

use crds::names::{self, Component};
use crds::platform::postgres::{ManagedPostgres, Synchronous};
use serde_json::{Value, json};

use super::{metadata, pod};
use crate::platform::object::{Kind, Object};
use crate::platform::validate::Platform;

/// Connections that one instance allows, unless `parameters` says otherwise.
pub const MAX_CONNECTIONS: u32 = 200;
/// Where Patroni finds its configuration.
pub const CONFIG_DIR: &str = "/etc/patroni";

/// The ConfigMap.
pub fn build(platform: &Platform, postgres: &ManagedPostgres) -> Object {
    let name = names::postgres_config(&platform.name);
    let manifest = json!({
        "metadata": metadata::owned(platform, Component::Postgres, &name),
        "data": {"patroni.yaml": text(platform, postgres)},
    });
    Object::new(Kind::ConfigMap, name, manifest)
}

/// Digest of what a running Patroni does not take over by itself.
pub fn checksum(platform: &Platform) -> Value {
    pod::checksum(&[&static_part(platform).to_string()])
}

/// JSON is YAML, and stays the same to the byte for the same content.
fn text(platform: &Platform, postgres: &ManagedPostgres) -> String {
    let mut config = static_part(platform);
    config["bootstrap"] = json!({
        "dcs": dynamic_part(postgres),
        "initdb": [{"encoding": "UTF8"}, {"locale-provider": "builtin"}, {"locale": "C.UTF-8"}, "data-checksums"],
        "post_bootstrap": "/usr/local/bin/tanka-post-bootstrap",
    });
    format!("{config:#}\n")
}

fn static_part(platform: &Platform) -> Value {
    let scope = names::component(&platform.name, Component::Postgres);
    json!({
        "scope": scope,
        "restapi": {"listen": format!("0.0.0.0:{}", names::PATRONI_PORT)},
        "kubernetes": {
            "use_endpoints": false,
            "scope_label": names::PATRONI_SCOPE_LABEL,
            "role_label": names::PATRONI_ROLE_LABEL,
            "leader_label_value": "primary",
            "follower_label_value": "replica",
            "standby_leader_label_value": "standby",
            "labels": metadata::selector(platform, Component::Postgres),
        },
        "postgresql": {
            "listen": format!("0.0.0.0:{}", names::POSTGRES_PORT),
            "data_dir": "/var/lib/postgresql/data/pgdata",
            "bin_dir": "/usr/lib/postgresql/17/bin",
            "pgpass": "/tmp/pgpass",
            // A copy of the primary starts with a checkpoint; left to itself that is spread over minutes.
            "basebackup": [{"checkpoint": "fast"}],
            // A replica that has gone another way than the primary and cannot be rewound is copied anew. Left as it is it would never
            // stream again, and under quorum replication what it holds beyond the primary was never acknowledged.
            "remove_data_directory_on_rewind_failure": true,
            "remove_data_directory_on_diverged_timelines": true,
            "authentication": {
                "superuser": {"username": "postgres"},
                "replication": {"username": "replicator"},
                "rewind": {"username": "postgres"},
            },
            "parameters": {"unix_socket_directories": "/var/run/postgresql"},
            "pg_hba": [
                "local all all scram-sha-256",
                "host all all all scram-sha-256",
                "host replication replicator all scram-sha-256",
            ],
        },
    })
}

/// What Patroni keeps in its store: the four times, the way of replication, and the parameters of PostgreSQL.
pub fn dynamic_part(postgres: &ManagedPostgres) -> Value {
    let times = &postgres.failover;
    json!({
        "ttl": times.ttl.ceil_seconds(),
        "loop_wait": times.loop_wait.ceil_seconds(),
        "retry_timeout": times.retry_timeout.ceil_seconds(),
        "primary_start_timeout": times.primary_start_timeout.ceil_seconds(),
        "maximum_lag_on_failover": 1_048_576,
        "failsafe_mode": true,
        "synchronous_mode": if postgres.synchronous == Synchronous::Async { json!("off") } else { json!("quorum") },
        "synchronous_mode_strict": postgres.synchronous == Synchronous::QuorumStrict,
        // With five instances two replicas hold each write, so that a failover needs only three of the four others.
        "synchronous_node_count": (postgres.instances / 2).max(1),
        // The slot of a member that was scaled away holds log, and rows that vacuum could remove, for this long.
        "member_slots_ttl": 600,
        "postgresql": {
            "use_pg_rewind": true,
            "use_slots": true,
            "parameters": parameters(postgres),
        },
    })
}

fn parameters(postgres: &ManagedPostgres) -> BTreeMap<String, String> {
    let max_connections = MAX_CONNECTIONS.to_string();
    let own = [
        ("max_connections", max_connections.as_str()),
        ("shared_buffers", "128MB"),
        ("wal_level", "replica"),
        ("hot_standby", "on"),
        // A feedback of what replicas read keeps vacuum from cancelling their queries.
        ("hot_standby_feedback", "on"),
        ("wal_log_hints", "on"),
        ("max_wal_senders", "10"),
        ("max_replication_slots", "10"),
        // A replica that is gone for good must not fill the primary's volume.
        ("max_slot_wal_keep_size", "2GB"),
        ("wal_receiver_status_interval", "1s"),
        // A replica that finds no stream yet asks again soon: after a switchover the first commit waits for it.
        ("wal_retrieve_retry_interval", "200ms"),
        ("wal_receiver_timeout", "5s"),
        ("wal_sender_timeout", "5s"),
        ("password_encryption", "scram-sha-256"),
        ("jit", "off"),
        ("log_checkpoints", "on"),
        ("shared_preload_libraries", "pg_stat_statements"),
        ("idle_in_transaction_session_timeout", "60s"),
    ];
    let mut parameters: BTreeMap<String, String> = own
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    parameters.extend(postgres.parameters.clone());
    parameters
}

/// Connections that an instance allows.
pub fn max_connections(postgres: &ManagedPostgres) -> u32 {
    postgres
        .parameters
        .get("max_connections")
        .and_then(|value| value.parse().ok())
        .unwrap_or(MAX_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::build::postgres_statefulset;
    use crate::platform::fixtures::platform;

    /// What Patroni reads at its start.
    fn file() -> Value {
        let object = build(&platform(json!({})), &ManagedPostgres::default());
        serde_json::from_str(object.manifest["data"]["patroni.yaml"].as_str().unwrap()).unwrap()
    }

    /// F32, B32: replicas stream through slots, with room for twice as many as there can be. Who follows whom is Patroni's to write, so
    /// none of the settings for that is among ours, real or made up.
    #[test]
    fn replication_has_real_settings_and_patroni_writes_the_way() {
        let file = file();
        let dcs = &file["bootstrap"]["dcs"];
        assert_eq!(dcs["postgresql"]["use_slots"], true);
        let parameters = &dcs["postgresql"]["parameters"];
        assert_eq!(parameters["wal_level"], "replica");
        assert_eq!(parameters["hot_standby"], "on");
        for name in ["max_wal_senders", "max_replication_slots"] {
            let count: u32 = parameters[name].as_str().unwrap().parse().unwrap();
            assert!(count >= 10, "{name} is {count}");
        }
        for name in [
            "replication",
            "replication_slot_name",
            "primary_slot_name",
            "primary_conninfo",
        ] {
            assert!(parameters.get(name).is_none(), "{name}");
        }
    }

    /// F32: no password is in what Patroni reads, and none in the pod: each variable that holds one takes it from the Secret.
    #[test]
    fn no_password_is_written_down() {
        let (platform, postgres) = (platform(json!({})), ManagedPostgres::default());
        let text = build(&platform, &postgres).manifest.to_string();
        assert!(!text.contains("conninfo"), "{text}");
        let rest = text.replace("password_encryption", "").to_lowercase();
        assert!(!rest.contains("password"), "{rest}");
        let pod = postgres_statefulset::build(&platform, &postgres).manifest;
        let variables = pod["spec"]["template"]["spec"]["containers"][0]["env"]
            .as_array()
            .unwrap();
        let secret = names::component(&platform.name, Component::Postgres);
        let mut passwords = 0;
        for variable in variables {
            if variable["name"].as_str().unwrap().ends_with("PASSWORD") {
                passwords += 1;
                assert!(variable.get("value").is_none(), "{variable}");
                assert_eq!(variable["valueFrom"]["secretKeyRef"]["name"], secret.as_str());
            }
        }
        assert_eq!(passwords, 7, "{variables:?}");
    }

    /// F33: what a lost replica holds back is bounded in bytes, and the slot of one that was scaled away in time; no platform can ask for
    /// another bound, or for none.
    #[test]
    fn a_lost_replica_does_not_fill_the_volume() {
        let file = file();
        let dcs = &file["bootstrap"]["dcs"];
        assert_eq!(dcs["postgresql"]["parameters"]["max_slot_wal_keep_size"], "2GB");
        assert_eq!(dcs["member_slots_ttl"], 600);
        let unbounded = BTreeMap::from([("max_slot_wal_keep_size".to_owned(), "-1".to_owned())]);
        assert!(crds::platform::postgres::parameters::refusal(&unbounded).is_some());
    }

    /// F19: how much memory a session sorts with is the default of PostgreSQL, unless the spec says so.
    #[test]
    fn memory_of_sessions_is_left_alone() {
        let parameters = parameters(&ManagedPostgres::default());
        for name in ["work_mem", "hash_mem_multiplier", "maintenance_work_mem"] {
            assert!(!parameters.contains_key(name), "{name}");
        }
    }
}
