//! What rules and dashboards ask of this server.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::app::{TestApp, until};
use crate::socket::Socket;

const ASKING: [&str; 5] = [
    "config/alerts/platform.yaml",
    "config/dashboards/api.json",
    "config/dashboards/cache.json",
    "config/dashboards/database.json",
    "config/dashboards/events.json",
];
/// Series that begin with the first event of their kind, and nothing of that kind happens here.
const BEGINS_WITH_TROUBLE: [&str; 1] = ["tanka_realtime_dropped_total"];

/// Names of metrics in PromQL: whatever stands before a brace. Those of Patroni are not ours to expose.
fn asked() -> BTreeSet<String> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut names = BTreeSet::new();
    for file in ASKING {
        let text = fs::read_to_string(repository.join(file)).unwrap();
        for (end, _) in text.match_indices('{') {
            let before = &text[..end];
            let start = before
                .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .map_or(0, |at| at + 1);
            names.insert(before[start..].to_owned());
        }
    }
    names.retain(|name| name.starts_with("http_") || name.starts_with("tanka_"));
    names
}

#[tokio::test]
async fn rules_and_dashboards_name_metrics_that_are_there() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let resume = json!({"offset": 1, "epoch": uuid::Uuid::new_v4()});
    let (socket, _) = Socket::connect(&app, &person, Some(resume)).await;
    let conversation = app.conversation(&person, "first").await;
    app.post_as(
        &person,
        &format!("/api/v1/conversations/{conversation}/messages"),
        json!({"content": "hello"}),
    )
    .await
    .expect(201);
    drop(socket);
    until("sockets to be counted as closed", async || {
        app.metric("tanka_websocket_closed_total").await > 0
    })
    .await;
    let exposed = app.ops("/metrics").await.expect(200).text;
    let asked = asked();
    assert!(asked.len() > 25, "{asked:?}");
    let missing: Vec<&String> = asked
        .iter()
        .filter(|name| !BEGINS_WITH_TROUBLE.contains(&name.as_str()))
        .filter(|name| {
            !exposed
                .lines()
                .any(|line| line.split(['{', ' ']).next() == Some(name))
        })
        .collect();
    assert_eq!(missing, Vec::<&String>::new());
    // F12, F44: what grows with the number of tenants, people and paths is no label.
    for label in ["tenant", "tenant_id", "user", "user_id", "path"] {
        assert!(!exposed.contains(&format!("{label}=\"")), "{label}");
    }
}
