//! Rules for everything that runs: M1 to M3, M5, M6, M8, M10 and M11 of the security checklist, and A8. Each object is judged by what
//! it says, not by what a cluster would fill in.

use serde_json::Value;

/// Kinds of volumes that Pod Security Standard `restricted` allows.
const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// A variable of such a name holds a credential.
const CREDENTIALS: &[&str] = &["PASSWORD", "SECRET", "TOKEN", "PEPPER", "CREDENTIAL"];
/// Users below are the system's. PostgreSQL's packages and Redis' come with users of their own, which are not root.
const FIRST_USER: u64 = 1;

/// What breaks a rule, in words that name the object, its part, and the rule.
pub fn violations(objects: &[Value]) -> Vec<String> {
    objects.iter().flat_map(object).collect()
}

fn object(object: &Value) -> Vec<String> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let name = format!(
        "{kind} {}",
        object["metadata"]["name"].as_str().unwrap_or_default()
    );
    let found = match kind {
        "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => pod(&object["spec"]["template"]["spec"], kind),
        "Pod" => pod(&object["spec"], kind),
        "Service" => service(&object["spec"]),
        "ServiceAccount" => flag(
            object["automountServiceAccountToken"] == false,
            "M10: hands a token to every pod that does not refuse it",
        ),
        "ConfigMap" => config_map(&object["data"]),
        _ => Vec::new(),
    };
    found
        .into_iter()
        .map(|found| format!("{name}: {found}"))
        .collect()
}

fn flag(kept: bool, rule: &str) -> Vec<String> {
    if kept { Vec::new() } else { vec![rule.to_owned()] }
}

fn pod(pod: &Value, kind: &str) -> Vec<String> {
    let mut found = Vec::new();
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        found.extend(flag(pod[field] != true, &format!("M1: {field}")));
    }
    for volume in items(&pod["volumes"]) {
        let known = VOLUMES.iter().any(|kind| volume.get(kind).is_some());
        found.extend(flag(known, &format!("M1: volume {}", volume["name"])));
    }
    found.extend(flag(
        pod["serviceAccountName"]
            .as_str()
            .is_some_and(|name| name != "default"),
        "M10: runs as the namespace's default account",
    ));
    let asks_for_token = items(&pod["volumes"]).any(|volume| {
        items(&volume["projected"]["sources"]).any(|source| source.get("serviceAccountToken").is_some())
    });
    found.extend(flag(
        pod["automountServiceAccountToken"].is_boolean(),
        "A8: gets a token without asking for it",
    ));
    let lifetimes = items(&pod["volumes"]).flat_map(|volume| items(&volume["projected"]["sources"]));
    for token in lifetimes.filter_map(|source| source.get("serviceAccountToken")) {
        let seconds = token["expirationSeconds"].as_u64().unwrap_or(3_600);
        found.extend(flag(
            asks_for_token && seconds <= 3_600,
            "A8: its token lives longer than an hour",
        ));
    }
    if kind != "Job" && kind != "Pod" {
        found.extend(flag(
            pod["terminationGracePeriodSeconds"].as_u64().is_some(),
            "M7: says nothing about the time to end",
        ));
    }
    for container in items(&pod["initContainers"]).chain(items(&pod["containers"])) {
        let of = format!("container {}: ", container["name"].as_str().unwrap_or_default());
        found.extend(
            self::container(container, &pod["securityContext"])
                .into_iter()
                .map(|found| of.clone() + &found),
        );
    }
    if kind != "Job" && kind != "Pod" {
        for container in items(&pod["containers"]) {
            found.extend(flag(
                container.get("readinessProbe").is_some(),
                &format!("M6: container {} has no readiness probe", container["name"]),
            ));
        }
    }
    found
}

fn container(container: &Value, pod_context: &Value) -> Vec<String> {
    let context = &container["securityContext"];
    let either = |field: &str| match &context[field] {
        Value::Null => &pod_context[field],
        value => value,
    };
    let mut found = Vec::new();
    let mut rule = |kept: bool, rule: &str| found.extend(flag(kept, rule));
    rule(context["privileged"] != true, "M1: privileged");
    rule(
        items(&container["ports"]).all(|port| port.get("hostPort").is_none()),
        "M1: hostPort",
    );
    rule(
        context["allowPrivilegeEscalation"] == false,
        "M2: may gain privileges",
    );
    rule(
        context["readOnlyRootFilesystem"] == true,
        "M2: may write to its image",
    );
    rule(
        context["capabilities"]["drop"] == serde_json::json!(["ALL"])
            && context["capabilities"]["add"].is_null(),
        "M2: keeps capabilities",
    );
    rule(either("runAsNonRoot") == true, "M2: may run as root");
    rule(
        either("runAsUser").as_u64().is_none_or(|user| user >= FIRST_USER),
        "M2: runs as root",
    );
    rule(
        either("seccompProfile")["type"] == "RuntimeDefault",
        "M2: no seccomp profile",
    );
    for amount in ["cpu", "memory"] {
        rule(
            !container["resources"]["requests"][amount].is_null(),
            &format!("M3: requests no {amount}"),
        );
    }
    rule(
        !container["resources"]["limits"]["memory"].is_null(),
        "M3: no limit of memory",
    );
    let image = container["image"].as_str().unwrap_or_default();
    let tag = image.rsplit('/').next().unwrap_or_default();
    rule(
        tag.contains(['@', ':']) && !image.ends_with(":latest"),
        "M5: its image is whatever was pushed last",
    );
    rule(container["imagePullPolicy"].is_string(), "M5: no pull policy");
    for variable in items(&container["env"]) {
        let name = variable["name"].as_str().unwrap_or_default().to_uppercase();
        let credential = CREDENTIALS.iter().any(|word| name.contains(word)) && !name.ends_with("FILE");
        rule(
            !credential || variable["value"].as_str().is_none_or(str::is_empty),
            &format!("M11: {name} stands in the manifest"),
        );
    }
    found
}

fn service(spec: &Value) -> Vec<String> {
    flag(
        spec["type"].is_null() || spec["type"] == "ClusterIP",
        "M8: can be reached from outside of the cluster",
    )
}

fn config_map(data: &Value) -> Vec<String> {
    let texts = data.as_object().into_iter().flatten();
    let credential = |text: &str| text.contains("-----BEGIN") || has_password(text);
    texts
        .filter(|(_, text)| text.as_str().is_some_and(credential))
        .map(|(key, _)| format!("M11: {key} holds a credential"))
        .collect()
}

/// Whether a URL in the text carries a password.
fn has_password(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '"', '\'', ' ', '\n']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| {
            user.split_once(':')
                .is_some_and(|(_, password)| !password.is_empty() && !password.starts_with('$'))
        })
    })
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": {"spec": {
            "serviceAccountName": "d", "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 30,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "c", "image": "mirror.example.com:5000/a/b:1", "imagePullPolicy": "IfNotPresent", "readinessProbe": {},
                "resources": {"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"memory": "1Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
                "env": [{"name": "DB_PASSWORD", "valueFrom": {}}, {"name": "TOKEN_FILE", "value": "/run/token"}],
            }],
            "volumes": [{"name": "v", "emptyDir": {}}],
        }}}})
    }

    #[test]
    fn a_hardened_pod_passes() {
        assert_eq!(violations(&[good()]), Vec::<String>::new());
    }

    /// Each planted fault is found, and alone.
    #[rstest]
    #[case("/hostNetwork", json!(true), "M1")]
    #[case("/volumes/0", json!({"name": "v", "hostPath": {"path": "/"}}), "M1")]
    #[case("/containers/0/ports", json!([{"hostPort": 80}]), "M1")]
    #[case("/containers/0/securityContext/privileged", json!(true), "M1")]
    #[case("/containers/0/securityContext/allowPrivilegeEscalation", json!(true), "M2")]
    #[case("/containers/0/securityContext/readOnlyRootFilesystem", json!(null), "M2")]
    #[case("/containers/0/securityContext/capabilities/add", json!(["NET_ADMIN"]), "M2")]
    #[case("/containers/0/securityContext/runAsUser", json!(0), "M2")]
    #[case("/securityContext/runAsNonRoot", json!(null), "M2")]
    #[case("/securityContext/seccompProfile", json!(null), "M2")]
    #[case("/containers/0/resources/requests/cpu", json!(null), "M3")]
    #[case("/containers/0/resources/limits", json!(null), "M3")]
    #[case("/containers/0/image", json!("mirror.example.com:5000/a/b"), "M5")]
    #[case("/containers/0/image", json!("a/b:latest"), "M5")]
    #[case("/terminationGracePeriodSeconds", json!(null), "M7")]
    #[case("/serviceAccountName", json!("default"), "M10")]
    #[case("/automountServiceAccountToken", json!(null), "A8")]
    #[case("/containers/0/env", json!([{"name": "DB_PASSWORD", "value": "hunter2"}]), "M11")]
    fn a_planted_fault_is_found(#[case] pointer: &str, #[case] value: Value, #[case] rule: &str) {
        let mut object = good();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let pod = object.pointer_mut("/spec/template/spec").unwrap();
        let parent = pod.pointer_mut(parent).unwrap();
        if let Ok(index) = field.parse::<usize>() {
            parent[index] = value;
        } else {
            parent[field] = value;
        }
        let found = violations(&[object]);
        assert!(found.len() == 1 && found[0].contains(rule), "{found:?}");
    }

    #[rstest]
    #[case(json!({"kind": "Service", "metadata": {}, "spec": {"type": "LoadBalancer"}}), "M8")]
    #[case(json!({"kind": "ServiceAccount", "metadata": {}}), "M10")]
    #[case(json!({"kind": "ConfigMap", "metadata": {}, "data": {"u": "postgres://app:hunter2@db/app"}}), "M11")]
    fn a_fault_of_another_object_is_found(#[case] object: Value, #[case] rule: &str) {
        let found = violations(&[object]);
        assert!(found.len() == 1 && found[0].contains(rule), "{found:?}");
    }

    #[test]
    fn an_address_without_a_password_is_no_credential() {
        let map = json!({"kind": "ConfigMap", "metadata": {}, "data": {"u": "http://10.0.0.1:80/x and postgres://app@db/app"}});
        assert_eq!(violations(&[map]), Vec::<String>::new());
    }
}
