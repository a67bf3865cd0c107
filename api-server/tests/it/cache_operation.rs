//! The cache as those see it who operate the platform, and as Redis holds it.

use std::time::Duration;

use api_server::cache::kind::{Entity, Kind};
use api_server::routing::Scope;
use api_server::store::invalidations::ForgetInvalidations;
use axum::http::Method;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::{PATIENCE, Person, TestApp, until, write_config};
use crate::cache::{LIST, remember};
use crate::process::Process;
use crate::services::connect;

/// Makes somebody operate the platform, or no longer.
pub async fn make_operator(person: &Person, granted: bool) {
    let mut owner = connect("tanka_owner", 0).await;
    let (tenant, user) = (&person.tenant_id, &person.user_id);
    let statement = format!(
        "BEGIN; SET LOCAL tanka.tenant_id = '{tenant}'; UPDATE users SET is_operator = {granted} WHERE id = '{user}';
         INSERT INTO access_changes (tenant_id, user_id) VALUES ('{tenant}', '{user}'); COMMIT"
    );
    owner
        .execute(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
}

/// J35, R14, R15: who operates the platform sees and empties the cache; nobody else does.
#[expect(clippy::too_many_lines, reason = "a story in its order")]
#[tokio::test]
async fn operators_see_and_empty_the_cache() {
    let app = TestApp::start().await;
    let (person, operator) = (app.person().await, app.person().await);
    remember(&app, &person, "tea").await.expect(201);
    app.get_as(&operator, "/api/v1/cache/stats").await.expect(403);
    let drop = async |path: &str, status| {
        let path = format!("/api/v1/cache/{path}");
        app.as_with(&operator, Method::DELETE, &path, &[], None)
            .await
            .expect(status)
    };
    drop(&format!("user/{}", person.user_id), 403).await;
    make_operator(&operator, true).await;
    let granted = async || app.get_as(&operator, "/api/v1/cache/stats").await;
    until("the grant is everywhere", async || granted().await.status == 200).await;
    let cached = async || {
        until("the list is cached", async || {
            app.get_as(&person, LIST).await.header("x-cache") == "hit"
        })
        .await;
    };
    let tenant = Uuid::parse_str(&person.tenant_id).unwrap().simple();
    let user = Uuid::parse_str(&person.user_id).unwrap().simple();
    for path in [
        format!("user/{}", person.user_id),
        "prefix/memories".to_owned(),
        format!("key/memories:v1:{tenant}:{user}"),
    ] {
        cached().await;
        drop(&path, 200).await;
        assert_eq!(
            app.get_as(&person, LIST).await.header("x-cache"),
            "miss",
            "{path}"
        );
    }
    for path in ["prefix/nothing", "key/memories", "user/me"] {
        drop(path, 404).await;
    }
    drop(&format!("user/{}", Uuid::new_v4()), 404).await;
    let stats = granted().await.expect(200).json();
    assert_eq!(stats["enabled"], true);
    for field in [
        "total_requests",
        "cache_hits",
        "cache_misses",
        "hit_rate",
        "miss_rate",
        "errors",
    ] {
        assert!(stats[field].is_number(), "{field} of {stats}");
    }
    let warmed = app
        .post_as(
            &operator,
            "/api/v1/cache/warm",
            json!({"mode": "profiles", "limit": 5}),
        )
        .await
        .expect(200)
        .json();
    assert!(
        warmed["profiles"].as_u64().unwrap() >= 1 && warmed["failed"] == 0,
        "{warmed}"
    );
    make_operator(&operator, false).await;
    until("the grant is gone", async || granted().await.status == 403).await;
}

/// F50, R11: of processes that start together one warms the cache up, and the others leave it to that one.
#[tokio::test]
async fn of_two_processes_that_start_one_warms_up() {
    let app = TestApp::builder()
        .config("cache: {warmUp: {onStart: false}}")
        .alone()
        .start()
        .await;
    let connected = app.running.app.redis().get().unwrap();
    // A server of another test may have had its turn a moment ago.
    let turn = "tanka:cache:warm:start";
    redis::cmd("DEL")
        .arg(turn)
        .query_async::<()>(&mut connected.of(turn))
        .await
        .unwrap();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let processes = folders
        .each_ref()
        .map(|folder| Process::serve(folder, &write_config(folder, "")));
    let said = |what: &str| -> usize {
        let lines = processes.iter().flat_map(Process::lines);
        lines
            .filter(|line| {
                line["message"].as_str().unwrap_or_default().starts_with(what) && line["why"] == "start"
            })
            .count()
    };
    let (did, left) = ("the cache was warmed up", "the cache is left to another process");
    until("both had their turn", async || said(did) + said(left) == 2).await;
    assert_eq!((said(did), said(left)), (1, 1));
}

/// F23: no secret is in Redis, whatever was cached.
#[tokio::test]
async fn nothing_secret_is_in_redis() {
    let app = TestApp::start().await;
    let person = app.person().await;
    remember(&app, &person, "plain").await.expect(201);
    until("the list is cached", async || {
        app.get_as(&person, LIST).await.header("x-cache") == "hit"
    })
    .await;
    let connected = app.running.app.redis().get().unwrap();
    let mut connection = connected.all().next().unwrap();
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("tanka:*")
        .query_async(&mut connection)
        .await
        .unwrap();
    let mut seen = 0;
    for key in keys {
        let kind: String = redis::cmd("TYPE")
            .arg(&key)
            .query_async(&mut connection)
            .await
            .unwrap();
        if kind != "string" {
            continue;
        }
        let value: Option<Vec<u8>> = redis::cmd("GET")
            .arg(&key)
            .query_async(&mut connection)
            .await
            .unwrap();
        let value = String::from_utf8_lossy(&value.unwrap_or_default()).into_owned();
        seen += usize::from(value.contains("plain"));
        for secret in [
            "$argon2",
            person.token.as_str(),
            person.refresh_token.as_str(),
            "password",
        ] {
            assert!(!value.contains(secret), "{key} holds {secret}");
        }
    }
    assert!(seen >= 1, "the list was looked at");
}

/// What every process has seen is removed, by the role of the requests, which may not change such rows.
#[tokio::test]
async fn old_invalidations_are_removed() {
    let app = TestApp::start().await;
    let mut owner = connect("postgres", 0).await;
    let mut made = Vec::new();
    for age in ["1 hour", "1 second"] {
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO cache_invalidations (target, created_at) VALUES ($2, now() - $1::text::interval) RETURNING id",
        )
        .bind(age)
        .bind(Entity::of_person(Kind::Memories, Uuid::nil(), Uuid::nil()).to_string())
        .fetch_one(&mut owner)
        .await
        .unwrap();
        made.push(id);
    }
    let scope = Scope {
        tenant: None,
        deadline: Instant::now() + PATIENCE,
        at_least: None,
        primary_only: true,
    };
    let old = ForgetInvalidations {
        age: Duration::from_mins(10),
    };
    app.running.app.database().write(scope, old).await.unwrap();
    let left: Vec<i64> = sqlx::query_scalar("SELECT id FROM cache_invalidations WHERE id = ANY ($1)")
        .bind(&made)
        .fetch_all(&mut owner)
        .await
        .unwrap();
    assert_eq!(left, made[1..]);
}
