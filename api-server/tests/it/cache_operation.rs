//! The cache as those see it who operate the platform, and as Redis holds it.

use std::collections::BTreeMap;
use std::time::Duration;

use api_server::cache::kind::{Entity, Kind};
use api_server::routing::Scope;
use api_server::store::invalidations::ForgetInvalidations;
use axum::http::Method;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::{PATIENCE, Person, TestApp, until, until_some, write_config};
use crate::cache::{LIST, remember};
use crate::process::Process;
use crate::services::connect;

const STATS: &str = "/api/v1/cache/stats";
/// A server that asks for nothing on its own account.
const UNWARMED: &str = "cache: {warmUp: {onStart: false}}";

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

/// Hits and misses of lists of memories in the figures of all processes; none while Redis does not tell them.
async fn figures(app: &TestApp, operator: &Person) -> Option<(i64, i64)> {
    let stats = app.get_as(operator, STATS).await.expect(200).json();
    let kinds = stats["kinds"].as_array().unwrap();
    let kind = kinds.iter().find(|kind| kind["name"] == "memories").unwrap();
    let count = |name: &str| kind[name].as_i64().unwrap();
    let hits = count("hits_local") + count("hits_shared");
    (stats["scope"] == "platform").then(|| (hits, count("misses")))
}

/// The same as this process alone has counted them.
async fn counted(app: &TestApp) -> (i64, i64) {
    let count = async |outcome: &str| {
        let name = format!(r#"tanka_cache_lookups_total{{cache="memories",outcome="{outcome}"}}"#);
        app.metric(&name).await
    };
    let hits = count("hit_local").await + count("hit_shared").await;
    (hits, count("miss").await)
}

/// J26, J35, F25: hits and misses are counters, which move by exactly what was done, here and in the figures of all processes; the rates
/// are computed from them when somebody asks, and no metric holds a percentage.
#[tokio::test]
async fn hits_and_misses_move_by_what_was_done() {
    // Alone, because what others do moves the figures, too.
    let app = TestApp::builder().config(UNWARMED).alone().start().await;
    let (person, operator) = (app.person().await, app.person().await);
    make_operator(&operator, true).await;
    let granted = async || app.get_as(&operator, STATS).await.status == 200;
    until("the grant is everywhere", granted).await;
    let before = until_some("the figures are those of all", async || {
        figures(&app, &operator).await
    })
    .await;
    let own = counted(&app).await;
    let (mut hits, mut misses) = (0, 0);
    for round in 1..=3 {
        remember(&app, &person, &round.to_string()).await.expect(201);
        for _ in 0..10 {
            match app.get_as(&person, LIST).await.expect(200).header("x-cache") {
                "hit" => hits += 1,
                "miss" => misses += 1,
                other => panic!("neither a hit nor a miss: {other}"),
            }
        }
    }
    println!("{hits} hits and {misses} misses");
    assert!(misses >= 3, "each write replaces what was cached: {misses}");
    assert!(hits > misses, "{hits} hits, {misses} misses");
    assert_eq!(counted(&app).await, (own.0 + hits, own.1 + misses));
    until("the figures of all have moved as far", async || {
        figures(&app, &operator).await == Some((before.0 + hits, before.1 + misses))
    })
    .await;
    let stats = app.get_as(&operator, STATS).await.expect(200).json();
    let number = |name: &str| stats[name].as_f64().unwrap();
    let all = number("cache_hits") + number("cache_misses");
    assert!((number("total_requests") - all).abs() < 0.5, "{stats}");
    let rate = number("cache_hits") * 100.0 / all;
    assert!((number("hit_rate") - rate).abs() < 0.1, "{stats}");
    assert!((number("miss_rate") - (100.0 - rate)).abs() < 0.1, "{stats}");
    let exposed = app.ops("/metrics").await.expect(200).text;
    assert!(
        exposed.contains("# TYPE tanka_cache_lookups counter\n"),
        "{exposed}"
    );
    assert!(
        !exposed.contains("percent") && !exposed.contains("hit_rate"),
        "{exposed}"
    );
}

/// How often Redis has carried out each command since it began, whoever asked.
async fn carried_out(app: &TestApp) -> BTreeMap<String, u64> {
    let connected = app.running.app.redis().get().unwrap();
    let mut connection = connected.all().next().unwrap();
    let info: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(&mut connection)
        .await
        .unwrap();
    info.lines()
        .filter_map(|line| {
            let (name, figures) = line.trim_end().strip_prefix("cmdstat_")?.split_once(':')?;
            let calls = figures.strip_prefix("calls=")?.split(',').next()?;
            Some((name.to_owned(), calls.parse().ok()?))
        })
        .collect()
}

/// F03, F40: no request makes Redis look through its keys or through a set: no write, no invalidation by person, kind or entity, no list of
/// connections.
#[tokio::test]
async fn no_request_looks_through_the_keys_of_redis() {
    const LOOKING: [&str; 6] = ["keys", "scan", "sscan", "hscan", "zscan", "randomkey"];
    // Alone, because Redis counts for all, and other tests do look.
    let app = TestApp::builder().config(UNWARMED).alone().start().await;
    let (person, operator) = (app.person().await, app.person().await);
    make_operator(&operator, true).await;
    let granted = async || app.get_as(&operator, STATS).await.status == 200;
    until("the grant is everywhere", granted).await;
    let looks = |counts: &BTreeMap<String, u64>| LOOKING.map(|name| counts.get(name).copied().unwrap_or(0));
    let before = carried_out(&app).await;
    let tenant = Uuid::parse_str(&person.tenant_id).unwrap().simple();
    let user = Uuid::parse_str(&person.user_id).unwrap().simple();
    for path in [
        format!("user/{}", person.user_id),
        "prefix/memories".to_owned(),
        format!("key/memories:v1:{tenant}:{user}"),
    ] {
        remember(&app, &person, "tea").await.expect(201);
        until("the list is cached", async || {
            app.get_as(&person, LIST).await.header("x-cache") == "hit"
        })
        .await;
        let path = format!("/api/v1/cache/{path}");
        app.as_with(&operator, Method::DELETE, &path, &[], None)
            .await
            .expect(200);
        let reply = app.get_as(&person, LIST).await;
        assert_eq!(reply.header("x-cache"), "miss", "{path}");
    }
    app.get_as(&person, "/api/v1/tenant/connections")
        .await
        .expect(200);
    let after = carried_out(&app).await;
    assert_eq!(looks(&after), looks(&before), "{LOOKING:?}");
    // It is this Redis that was used, and it would have counted.
    let scripts = |counts: &BTreeMap<String, u64>| counts.get("evalsha").copied().unwrap_or(0);
    assert!(scripts(&after) > scripts(&before), "{after:?}");
    let connected = app.running.app.redis().get().unwrap();
    redis::cmd("KEYS")
        .arg("nothing")
        .query_async::<Vec<String>>(&mut connected.all().next().unwrap())
        .await
        .unwrap();
    assert_eq!(looks(&carried_out(&app).await)[0], looks(&before)[0] + 1);
}

/// What is left of the life of an entity's entries in Redis, in milliseconds: the shortest; none if there is no entry.
async fn left_to_live(app: &TestApp, entity: Entity) -> Option<i64> {
    let connected = app.running.app.redis().get().unwrap();
    let mut connection = connected.all().next().unwrap();
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(format!("tanka:cache:*:d:{entity}:*"))
        .query_async(&mut connection)
        .await
        .unwrap();
    let mut shortest = None;
    for key in keys.iter().filter(|key| !key.ends_with(":lease")) {
        let left: i64 = redis::cmd("PTTL")
            .arg(key)
            .query_async(&mut connection)
            .await
            .unwrap();
        shortest = Some(shortest.map_or(left, |shortest: i64| shortest.min(left)));
    }
    shortest
}

/// R09: an entry lives in Redis as long as the configuration says for its kind, less at most a tenth, so that those that were made together
/// do not end together.
#[tokio::test]
async fn entries_live_in_redis_as_long_as_the_configuration_says() {
    // Alone: other servers may load what people see first, and have other times.
    let app = TestApp::builder()
        .config("cache: {ttl: {memories: 20m, userProfile: 2h}, warmUp: {onStart: false}}")
        .alone()
        .start()
        .await;
    let person = app.person().await;
    remember(&app, &person, "tea").await.expect(201);
    let id = |text: &str| Uuid::parse_str(text).unwrap();
    for (kind, path, seconds) in [
        (Kind::Memories, LIST, 1_200),
        (Kind::UserProfile, "/api/v1/users/profile", 7_200),
        // The configuration says nothing else.
        (Kind::UsageAnalysis, "/api/v1/usage/analysis", 604_800),
    ] {
        let entity = Entity::of_person(kind, id(&person.tenant_id), id(&person.user_id));
        let left = until_some("an entry is in Redis", async || {
            app.get_as(&person, path).await.expect(200);
            left_to_live(&app, entity).await
        })
        .await;
        let whole = seconds * 1_000;
        println!("{path}: {left} of {whole} ms are left");
        assert!(left <= whole, "{path}: {left} of {whole} ms");
        // As long as a test may wait is lost at most.
        assert!(left > whole / 10 * 9 - 20_000, "{path}: {left} of {whole} ms");
    }
}

/// F50, R11: of processes that start together one warms the cache up, and the others leave it to that one.
#[tokio::test]
async fn of_two_processes_that_start_one_warms_up() {
    let app = TestApp::builder().config(UNWARMED).alone().start().await;
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
