//! An upgrade of the operator alone restarts nothing: what earlier releases of it rendered for pods, this one renders too.
//!
//! `golden/RELEASE/CASE.json` holds, of each workload, everything of which a change replaces pods or is refused. When a release is made,
//! its files are written with `TANKA_UPDATE_GOLDEN=RELEASE`, and from then on they do not change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::tests::everything_with;
use crate::platform::fixtures::{external, platform};
use crate::platform::object::Kind;
use crate::platform::observe::apis::Apis;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden");

fn cases() -> [(&'static str, Value); 3] {
    let sample = include_str!("../../../../config/samples/production.yaml");
    let production: Value = serde_saphyr::from_str(sample).unwrap();
    [
        ("defaults", json!({})),
        ("production", production["spec"].clone()),
        ("external", external()),
    ]
}

/// Of each workload what its pods are made from, and what cannot be changed.
fn fixed(spec: Value) -> Value {
    let workloads: BTreeMap<String, Value> = everything_with(&platform(spec), &Apis::default())
        .into_iter()
        .filter(|object| matches!(object.key.kind, Kind::StatefulSet | Kind::Deployment))
        .map(|object| {
            let spec = &object.manifest["spec"];
            let fields = [
                "template",
                "selector",
                "serviceName",
                "volumeClaimTemplates",
                "podManagementPolicy",
            ];
            let fixed = fields
                .iter()
                .map(|field| ((*field).to_owned(), spec[*field].clone()));
            (object.key.to_string(), Value::Object(fixed.collect()))
        })
        .collect();
    json!(workloads)
}

fn releases() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(FOLDER).unwrap();
    folders.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn pods_are_what_every_earlier_release_of_the_operator_made_them() {
    if let Some(release) = std::env::var_os("TANKA_UPDATE_GOLDEN") {
        let folder = Path::new(FOLDER).join(release);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, spec) in cases() {
            let text = serde_json::to_string_pretty(&fixed(spec)).unwrap();
            std::fs::write(folder.join(format!("{name}.json")), text + "\n").unwrap();
        }
    }
    let releases = releases();
    assert!(!releases.is_empty());
    for release in releases {
        for (name, spec) in cases() {
            let text = std::fs::read_to_string(release.join(format!("{name}.json"))).unwrap();
            let then: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                fixed(spec),
                then,
                "pods of {name} would be replaced by an upgrade from operator {}",
                release.display()
            );
        }
    }
}
