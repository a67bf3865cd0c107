//! What people run by hand, as the real program: its words, its verdicts, and its log.

use std::path::Path;
use std::time::Duration;

use axum::http::Method;
use serde_json::json;
use sqlx::{Connection, Executor};

use crate::app::{TestApp, until, until_some, write_config};
use crate::process::{Process, command, printed};
use crate::services::connect;

/// The value after a label at the beginning of a line.
#[track_caller]
fn value<'a>(text: &'a str, label: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(label));
    let line = line.unwrap_or_else(|| panic!("no {label:?} in {text}"));
    line[label.len()..].trim_start_matches(':').trim()
}

/// R19: `db pool` counts the sessions of the servers, and says what it thinks of them.
#[tokio::test]
async fn the_pool_of_the_servers_is_counted_and_judged() {
    let app = TestApp::start().await;
    let config = app.directory.path().join("tanka.yaml");
    let pool = printed(&config, &["db", "pool"]).await;
    assert_eq!(value(&pool, "Instance"), "pg-0");
    assert_eq!(value(&pool, "Pool size"), "12 per process");
    let total: u32 = value(&pool, "Total").parse().unwrap();
    assert!(total >= 1, "{pool}");
    for label in ["Checked out", "Checked in", "Overflow", "Utilisation", "Server"] {
        assert!(
            value(&pool, label).starts_with(|first: char| first.is_ascii_digit()),
            "{pool}"
        );
    }
    assert!(value(&pool, "Verdict").contains(": "), "{pool}");
}

/// R20, R21, R22: `db slow` names what takes long, without parameters; `db indexes` and `db cache` give figures of this database.
#[tokio::test]
async fn slow_statements_indexes_and_buffers_are_shown() {
    let app = TestApp::start().await;
    let config = app.directory.path().join("tanka.yaml");
    let mut role = connect("tanka_app", 0).await;
    // The comment is part of the text by which PostgreSQL tells statements apart.
    sqlx::query("SELECT pg_sleep(0.25), $1::text AS told_slow")
        .bind("a secret")
        .execute(&mut role)
        .await
        .unwrap();
    let slow = printed(&config, &["db", "slow", "--threshold", "200"]).await;
    assert!(slow.contains("told_slow") && slow.contains("mean"), "{slow}");
    assert!(!slow.contains("a secret"), "{slow}");
    assert!(
        value(&slow, "Verdict").contains("take 200 ms or more on average"),
        "{slow}"
    );
    let indexes = printed(&config, &["db", "indexes"]).await;
    for index in ["idx_conv_active", "idx_messages_conv_created"] {
        let line = indexes.lines().find(|line| line.contains(index)).unwrap();
        assert!(line.contains("scans") && line.contains("KiB"), "{line}");
    }
    let count = value(&indexes, "Verdict")
        .split(' ')
        .rev()
        .nth(1)
        .unwrap()
        .parse::<u32>()
        .unwrap();
    assert!(count > 30, "{indexes}");
    let cache = printed(&config, &["db", "cache"]).await;
    assert!(value(&cache, "Hits").parse::<u64>().unwrap() > 1_000, "{cache}");
    assert!(value(&cache, "Hit rate").ends_with('%'), "{cache}");
}

/// R11, R13, R14, R15, T27: `cache stats|warm|invalidate` with their fields; what is invalidated is gone on a server that runs.
#[tokio::test]
async fn the_cache_is_shown_warmed_and_emptied() {
    let app = TestApp::start().await;
    let config = app.directory.path().join("tanka.yaml");
    let person = app.person().await;
    let list = "/api/v1/memories";
    app.post_as(&person, list, json!({"content": "tea"}))
        .await
        .expect(201);
    let cached = async || {
        until("the list is cached", async || {
            app.get_as(&person, list).await.header("x-cache") == "hit"
        })
        .await;
    };
    let tenant = uuid::Uuid::parse_str(&person.tenant_id).unwrap().simple();
    let user = uuid::Uuid::parse_str(&person.user_id).unwrap().simple();
    let key = format!("memories:v1:{tenant}:{user}");
    for what in [
        ["--user", &person.user_id],
        ["--prefix", "memories"],
        ["--key", &key],
    ] {
        cached().await;
        let said = printed(&config, &["cache", "invalidate", what[0], what[1]]).await;
        assert!(value(&said, "Invalidated").parse::<u32>().unwrap() >= 1, "{said}");
        until("the server has heard of it", async || {
            app.get_as(&person, list).await.header("x-cache") == "miss"
        })
        .await;
    }
    let warmed = printed(&config, &["cache", "warm", "--mode", "profiles", "--limit", "5"]).await;
    assert!(
        value(&warmed, "Profiles").parse::<u32>().unwrap() >= 1,
        "{warmed}"
    );
    assert_eq!(value(&warmed, "Failed"), "0");
    assert!(value(&warmed, "Total").contains("items in"), "{warmed}");
    let stats = printed(&config, &["cache", "stats"]).await;
    for label in ["Total Requests", "Cache Hits", "Cache Misses", "Errors"] {
        assert!(value(&stats, label).parse::<u64>().is_ok(), "{label}: {stats}");
    }
    assert!(
        value(&stats, "Hit Rate").ends_with('%') && value(&stats, "Miss Rate").ends_with('%'),
        "{stats}"
    );
    for (arguments, why) in [
        (vec!["cache", "invalidate"], "--user"),
        (vec!["cache", "invalidate", "--prefix", "nothing"], "nothing"),
        (vec!["cache", "warm", "--limit", "0"], "--limit"),
    ] {
        let refused = command(&config, &arguments).await;
        let words = String::from_utf8(refused.stderr).unwrap();
        assert!(
            !refused.status.success() && words.contains(why),
            "{arguments:?}: {words}"
        );
    }
}

/// `config check` names line, column and key of a mistake, and takes what the server takes.
#[tokio::test]
async fn a_mistake_in_the_configuration_is_shown_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tanka.yaml");
    let good = "database: {instances: [{name: a, host: a}]}\nredis: {sentinels: ['b:1']}\n";
    std::fs::write(&path, good).unwrap();
    let file = path.to_str().unwrap();
    assert_eq!(
        printed(&path, &["config", "check", file]).await,
        format!("{file} is valid\n")
    );
    for (line, place, named) in [
        ("cache:\n  l1Capactiy: 64Mi\n", "4:3", "l1Capactiy"),
        (
            "rateLimit:\n  burst: 100\n  loginPerMinute: many\n",
            "5:19",
            "many",
        ),
        ("http: {maxInFlight: 5}\n", "3", "maxInFlight"),
    ] {
        std::fs::write(&path, format!("{good}{line}")).unwrap();
        let refused = command(&path, &["config", "check", file]).await;
        let words = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success(), "{line}");
        assert!(words.contains(named), "{named} is not in {words}");
        let (row, column) = place.split_once(':').unwrap_or((place, ""));
        let shown = words.contains(&format!("line {row}")) && words.contains(&format!("column {column}"));
        assert!(shown || words.contains(place), "{place} is not in {words}");
    }
}

/// R28, F51, J49: a statement over the threshold is logged with its text and how long it took, and never with what a person wrote.
#[expect(clippy::too_many_lines, reason = "a story in its order")]
#[tokio::test]
async fn a_slow_statement_is_logged_without_its_parameters() {
    let app = TestApp::builder().alone().start().await;
    let person = app.person().await;
    let directory = tempfile::tempdir().unwrap();
    let process = Process::serve(&directory, &write_config(&directory, ""));
    let url = process.url().await;
    let bearer = format!("Bearer {}", person.token);
    let headers = [("authorization", bearer.as_str())];
    let list = format!("{url}/api/v1/memories");
    until("the process answers", async || {
        app.send(Method::GET, &list, &headers, None).await.status == 200
    })
    .await;
    let mut superuser = connect("postgres", 0).await;
    let mut locking = superuser.begin().await.unwrap();
    locking
        .execute("LOCK TABLE memories IN SHARE MODE")
        .await
        .unwrap();
    let secret = "a-canary-in-a-memory";
    let write = app.send(Method::POST, &list, &headers, Some(json!({"content": secret})));
    let unlock = async {
        until("the write waits", async || {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO memories%'";
            let mut observer = connect("postgres", 0).await;
            sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut observer).await.unwrap() == 1
        })
        .await;
        // What is measured is time itself.
        tokio::time::sleep(Duration::from_millis(300)).await;
        locking.rollback().await.unwrap();
    };
    let (reply, ()) = tokio::join!(write, unlock);
    reply.expect(201);
    let line = until_some("the statement is in the log", async || {
        process.lines().into_iter().find(|line| {
            line["message"] == "slow statement"
                && line["db.statement"]
                    .as_str()
                    .unwrap()
                    .contains("INSERT INTO memories")
        })
    })
    .await;
    let took = line["duration_ms"].as_f64().unwrap();
    assert!((300.0..5_000.0).contains(&took), "{line}");
    assert!(
        line["span"]["request.id"].is_string(),
        "the request can be found: {line}"
    );
    // J49: and the request itself is a line.
    let done = until_some("the request is in the log", async || {
        let of_request = |done: &serde_json::Value| {
            done["message"] == "request_completed" && done["span"]["request.id"] == line["span"]["request.id"]
        };
        process.lines().into_iter().find(of_request)
    })
    .await;
    assert_eq!(
        (&done["http.status"], &done["span"]["http.route"]),
        (&json!(201), &json!("/api/v1/memories"))
    );
    assert!(
        done["duration_ms"].as_f64().unwrap() >= took && done["db.statements"].as_u64().unwrap() >= 1,
        "{done}"
    );
    let log = std::fs::read_to_string(&process.log).unwrap();
    assert!(!log.contains(secret) && !log.contains(&person.token), "{log}");
}

/// C32, C33, C34: the size of a platform, as a part of its definition.
#[tokio::test]
async fn a_size_is_a_part_of_a_definition() {
    let nowhere = Path::new("/nowhere");
    let text = printed(
        nowhere,
        &["capacity", "--peak-users", "30000", "--average-users", "12000"],
    )
    .await;
    assert!(
        text.contains("      minReplicas: 3\n      maxReplicas: 9\n"),
        "{text}"
    );
    let refused = command(
        nowhere,
        &["capacity", "--peak-users", "10", "--average-users", "11"],
    )
    .await;
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && words.contains("must not be more than --peak-users"),
        "{words}"
    );
}
