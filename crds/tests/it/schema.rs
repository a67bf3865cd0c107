use crds::TankaPlatformSpec;
use crds::platform::crd;

const COMMITTED: &str = include_str!("../../generated/tankaplatforms.tanka.dev.yaml");

#[test]
fn the_committed_definition_is_what_crdgen_prints() {
    let generated = serde_saphyr::to_string(&crd()).unwrap();
    assert!(
        generated == COMMITTED,
        "the committed CRD is out of date: run `make generate` and commit the result"
    );
}

#[test]
fn plain_kubectl_apply_can_take_the_definition() {
    // kubectl stores the applied object as JSON in an annotation, and annotations end at 256 KiB.
    let bytes = serde_json::to_vec(&crd()).unwrap().len();
    assert!(bytes < 256 * 1024, "the CRD has {bytes} bytes");
}

#[test]
fn an_empty_spec_means_all_defaults() {
    let spec: TankaPlatformSpec = serde_json::from_str("{}").unwrap();
    assert_eq!(spec, TankaPlatformSpec::default());
    assert_eq!(spec.postgres.managed.unwrap().instances, 3);
    assert_eq!(spec.redis.managed.unwrap().replicas, 3);
}

#[test]
fn every_field_of_the_spec_is_explained() {
    let crd = serde_json::to_value(crd()).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut silent = Vec::new();
    collect_unexplained("spec", spec, &mut silent);
    assert_eq!(silent, Vec::<String>::new());
}

fn collect_unexplained(path: &str, schema: &serde_json::Value, silent: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if property["description"].as_str().is_none_or(str::is_empty) {
            silent.push(path.clone());
        }
        collect_unexplained(&path, property, silent);
        collect_unexplained(&format!("{path}[]"), &property["items"], silent);
    }
}
