//! Search of memories by words and by meaning. The endpoint for embeddings is a local server that speaks the protocol.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::app::{Person, TestApp, until};
use crate::approximate::clear;
use crate::resources::count;
use crate::services::{connect, instances};

const DIMENSIONS: usize = 16;

/// A vector that says which topics a text is about, so that texts without a common word can be near.
fn vector(text: &str) -> Vec<f32> {
    let topics = [
        ["car", "engine", "wheel"],
        ["bread", "oven", "flour"],
        ["sea", "boat", "sail"],
    ];
    let text = text.to_lowercase();
    let mut vector = vec![0.01; DIMENSIONS];
    for (place, words) in vector.iter_mut().zip(topics) {
        let known = words.iter().filter(|word| text.contains(**word));
        *place += known.map(|_| 1.0).sum::<f32>();
    }
    // A little of the text itself, so that no two are the same.
    let sum: u32 = text.bytes().map(u32::from).sum();
    let rest = u16::try_from(sum % 97).unwrap();
    vector[DIMENSIONS - 1] = f32::from(rest) / 1_000.0;
    vector
}

#[derive(Clone, Default)]
struct Endpoint {
    asked: Arc<AtomicU32>,
    failing: Arc<AtomicU32>,
}

async fn embed(State(endpoint): State<Endpoint>, Json(question): Json<Value>) -> Response {
    endpoint.asked.fetch_add(1, Ordering::SeqCst);
    if endpoint.failing.load(Ordering::SeqCst) > 0 {
        let left = endpoint.failing.fetch_sub(1, Ordering::SeqCst);
        let status = if left % 2 == 0 {
            StatusCode::TOO_MANY_REQUESTS
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        return (status, [("retry-after", "1")]).into_response();
    }
    let texts = question["input"].as_array().unwrap();
    if texts
        .iter()
        .any(|text| text.as_str().unwrap().contains("forbidden"))
    {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .rev()
        .map(|(index, text)| {
            let mut vector = vector(text.as_str().unwrap());
            vector.truncate(usize::try_from(question["dimensions"].as_u64().unwrap()).unwrap());
            json!({"object": "embedding", "index": index, "embedding": vector})
        })
        .collect();
    Json(json!({"object": "list", "model": question["model"], "data": data})).into_response()
}

/// Starts an endpoint; answers it, the section that configures it, and what its vectors belong to.
async fn endpoint() -> (Endpoint, String, String) {
    let endpoint = Endpoint::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/v1/embeddings", routing::post(embed))
        .with_state(endpoint.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    // A model of its own, so that vectors of other tests are none of ours.
    let model = uuid::Uuid::new_v4().simple().to_string();
    let section =
        format!("embeddings: {{url: 'http://{address}/v1', model: '{model}', dimensions: {DIMENSIONS}}}");
    (endpoint, section, format!("{model}@{DIMENSIONS}"))
}

async fn remember(app: &TestApp, person: &Person, content: &str) -> String {
    let reply = app
        .post_as(person, "/api/v1/memories", json!({"content": content}))
        .await
        .expect(201);
    reply.json()["id"].as_str().unwrap().to_owned()
}

async fn search(app: &TestApp, person: &Person, query: &str) -> Value {
    app.get_as(person, &format!("/api/v1/memories/search?{query}"))
        .await
        .expect(200)
        .json()
}

fn contents(answer: &Value) -> Vec<String> {
    let items = answer["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["content"].as_str().unwrap().to_owned())
        .collect()
}

/// T37: words, beginnings of words, whatever case; nobody else's.
#[tokio::test]
async fn words_find_memories() {
    let app = TestApp::start().await;
    let (person, stranger) = (app.person().await, app.person().await);
    for content in [
        "The project plan is late",
        "Projects need owners; the project is big",
        "Buy milk",
        "ÄRGER mit dem Projekt",
    ] {
        remember(&app, &person, content).await;
    }
    remember(&app, &stranger, "project of a stranger").await;
    until("everything is everywhere", async || {
        contents(&search(&app, &person, "q=milk").await) == ["Buy milk"]
    })
    .await;
    let found = search(&app, &person, "q=project").await;
    assert_eq!(
        (&found["mode"], &found["exact"]),
        (&json!("lexical"), &json!(true))
    );
    let all = contents(&found);
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(
        all[0], "Projects need owners; the project is big",
        "more places come first"
    );
    assert_eq!(contents(&search(&app, &person, "q=%C3%A4rger").await).len(), 1);
    assert_eq!(
        contents(&search(&app, &person, "q=MILK%20%27%3A%2A%20%26%20%7C").await),
        ["Buy milk"]
    );
    assert!(contents(&search(&app, &person, "q=%21%3F").await).is_empty());
    for query in ["q=", "q=x&limit=0", "q=x&limit=101"] {
        app.get_as(&person, &format!("/api/v1/memories/search?{query}"))
            .await
            .expect(422);
    }
    app.get_as(&person, "/api/v1/memories/search").await.expect(400);
}

/// Vectors are computed in the background, through failures of the endpoint; then what has no word in common is found. A text that the
/// endpoint refuses holds nobody back, and without the endpoint words still find.
#[tokio::test]
async fn meaning_finds_what_words_do_not() {
    let (endpoint, section, _) = endpoint().await;
    endpoint.failing.store(3, Ordering::SeqCst);
    // Workers of other servers would take memories of this test, and compute vectors of their own model.
    let app = TestApp::builder().config(&section).alone().start().await;
    let person = app.person().await;
    for content in [
        "a wheel came off",
        "flour and water",
        "a boat in the harbour",
        "forbidden text with a sail",
    ] {
        remember(&app, &person, content).await;
    }
    until("vectors are there in spite of failures", async || {
        let found = search(&app, &person, "q=engine").await;
        let first = found["items"]
            .as_array()
            .unwrap()
            .first()
            .cloned()
            .unwrap_or_default();
        found["mode"] == "hybrid" && first["content"] == "a wheel came off" && contents(&found).len() == 3
    })
    .await;
    let found = search(&app, &person, "q=engine").await;
    assert!(found["items"][0]["similarity"].as_f64().unwrap() > 0.9, "{found}");
    let both = search(&app, &person, "q=sail").await;
    assert!(contents(&both).contains(&"a boat in the harbour".to_owned()));
    assert!(
        contents(&both).contains(&"forbidden text with a sail".to_owned()),
        "by its word"
    );
    endpoint.failing.store(u32::MAX, Ordering::SeqCst);
    let lexical = search(&app, &person, "q=wheel").await;
    assert_eq!(
        (&lexical["mode"], contents(&lexical)),
        (&json!("lexical"), vec!["a wheel came off".to_owned()])
    );
    remember(&app, &person, "written while the endpoint is away").await;
}

/// A model whose vectors get another length is another one: nothing compares the two, vectors are computed anew, and search answers all
/// the while.
#[tokio::test]
async fn another_length_is_another_model() {
    let (_, section, _) = endpoint().await;
    let app = TestApp::builder().config(&section).alone().start().await;
    let person = app.person().await;
    remember(&app, &person, "a wheel came off").await;
    let by_meaning = async || contents(&search(&app, &person, "q=engine").await) == ["a wheel came off"];
    until("it is found by what it means", by_meaning).await;
    let path = app.directory.path().join("tanka.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let shorter = text.replace(&format!("dimensions: {DIMENSIONS}"), "dimensions: 8");
    assert_ne!(text, shorter);
    std::fs::write(&path, shorter).unwrap();
    until("it has a vector of the new length", async || {
        search(&app, &person, "q=engine").await;
        let found = format!(
            "SELECT count(*) FROM memory_embeddings WHERE user_id = '{}' AND vector_dims(embedding) = 8 AND model LIKE '%@8'",
            person.user_id
        );
        count(found).await == 1
    })
    .await;
    until("it is found by what it means again", by_meaning).await;
}

/// H25, finding 1: a person's own rows are searched exactly, however many others have: as many rows as there are, and a recall of at least
/// 0.99 against plain arithmetic in full precision, at 3, 100 and 1,000 memories among 20,000 of others. `TANKA_MEMORIES` names other numbers,
/// as `cargo e2e campaign` does.
#[tokio::test]
async fn the_nearest_are_found_whatever_others_have() {
    let (_, section, model) = endpoint().await;
    let app = TestApp::builder().config(&section).start().await;
    let other = app.person().await;
    seed(&other, &model, 20_000).await;
    let counts = std::env::var("TANKA_MEMORIES").unwrap_or_else(|_| "3,100,1000".to_owned());
    for count in counts.split(',').map(|text| text.parse::<i32>().unwrap()) {
        let there = usize::try_from(count).unwrap();
        let person = app.person().await;
        let vectors = seed(&person, &model, count).await;
        until("all of it is everywhere", async || {
            search(&app, &person, "q=nothing&limit=100").await["items"]
                .as_array()
                .unwrap()
                .len()
                == there.min(100)
        })
        .await;
        let (mut hits, mut slowest) = (0, std::time::Duration::ZERO);
        let questions = ["car", "bread oven", "sea", "boat and engine"];
        let wanted_hits = there.min(10) * questions.len();
        for question in questions {
            let wanted = vector(question);
            let mut exact: Vec<_> = vectors.iter().map(|(id, v)| (distance(v, &wanted), id)).collect();
            exact.sort_by(|a, b| a.0.total_cmp(&b.0));
            let bound = exact[there.min(10) - 1].0 + 1e-3;
            let started = tokio::time::Instant::now();
            let found = search(
                &app,
                &person,
                &format!("q={}&limit=10", question.replace(' ', "%20")),
            )
            .await;
            slowest = slowest.max(started.elapsed());
            let items = found["items"].as_array().unwrap();
            assert_eq!(items.len(), there.min(10), "as many as there are");
            hits += items
                .iter()
                .filter(|item| {
                    let id = item["id"].as_str().unwrap();
                    exact
                        .iter()
                        .any(|(distance, known)| *known == id && *distance <= bound)
                })
                .count();
        }
        println!(
            "{count} memories among 20,000 of others: recall {hits}/{wanted_hits}, slowest search {slowest:?}"
        );
        assert!(hits * 100 >= wanted_hits * 99, "{hits} of {wanted_hits}");
        clear(&[&person]).await;
    }
    clear(&[&other]).await;
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| {
        x.iter()
            .zip(y)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum::<f64>()
    };
    1.0 - dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}

/// Memories with vectors at random, written by plain SQL.
async fn seed(person: &Person, model: &str, count: i32) -> Vec<(String, Vec<f32>)> {
    let mut owner = connect("tanka_owner", 0).await;
    let (tenant, user) = (&person.tenant_id, &person.user_id);
    let statement = format!(
        "BEGIN; SET LOCAL tanka.tenant_id = '{tenant}';
         WITH made AS (
             INSERT INTO memories (id, tenant_id, user_id, memory_type, content)
             SELECT gen_random_uuid(), '{tenant}', '{user}', 'note', 'seeded ' || n FROM generate_series(1, {count}) n
             RETURNING id)
         INSERT INTO memory_embeddings (memory_id, tenant_id, user_id, model, embedding)
         SELECT id, '{tenant}', '{user}', '{model}',
                (SELECT array_agg(random()::real) FROM generate_series(1, {DIMENSIONS}) WHERE id IS NOT NULL)::halfvec
           FROM made;
         COMMIT"
    );
    owner
        .execute(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
    let read = format!(
        "BEGIN; SET LOCAL tanka.tenant_id = '{tenant}';
         SELECT memory_id::text AS id, embedding::vector::text AS vector FROM memory_embeddings WHERE user_id = '{user}'"
    );
    let rows = owner.fetch_all(sqlx::raw_sql(AssertSqlSafe(read))).await.unwrap();
    rows.iter()
        .map(|row| (row.get("id"), serde_json::from_str(row.get("vector")).unwrap()))
        .collect()
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all
}

/// T58, F19: nobody is given more memory for sorting than the default: not the role of the application on any instance, and no search, by
/// words or by meaning. A policy of the test hides memories from whoever has another setting. Nothing else could set it, because no source
/// and no migration names it.
#[tokio::test]
async fn no_session_has_more_memory_for_sorting_than_the_default() {
    let (_, section, model) = endpoint().await;
    // Alone, because the policy is for all.
    let app = TestApp::builder().config(&section).alone().start().await;
    let person = app.person().await;
    seed(&person, &model, 20).await;
    for instance in 0..instances().len() {
        let source: String = sqlx::query_scalar("SELECT source FROM pg_settings WHERE name = 'work_mem'")
            .fetch_one(&mut connect("tanka_app", instance).await)
            .await
            .unwrap();
        assert_eq!(source, "default", "instance {instance}");
    }
    let mut owner = connect("tanka_owner", 0).await;
    let policy = "DROP POLICY IF EXISTS usual_work_mem ON memories;
         CREATE POLICY usual_work_mem ON memories AS RESTRICTIVE FOR SELECT TO tanka_app
         USING (current_setting('work_mem') = '4MB')";
    owner.execute(sqlx::raw_sql(policy)).await.unwrap();
    // Whoever brings the token of this write sees the memories, and the policy is in force.
    let later = json!({"title": "later"});
    let later = app.post_as(&person, "/api/v1/conversations", later).await;
    let mut answers = Vec::new();
    for question in ["car", "seeded", "boat"].into_iter().cycle().take(30) {
        let path = format!("/api/v1/memories/search?q={question}&limit=10");
        answers.push(app.get_after(&person, &path, &later).await);
    }
    owner
        .execute("DROP POLICY usual_work_mem ON memories")
        .await
        .unwrap();
    for answer in answers {
        let found = answer.expect(200).json();
        assert_eq!((&found["mode"], contents(&found).len()), (&json!("hybrid"), 10));
    }
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = [files(&server.join("src")), files(&server.join("migrations"))].concat();
    assert!(all.len() > 200, "{} files", all.len());
    for file in all {
        let text = std::fs::read_to_string(&file).unwrap().to_lowercase();
        assert!(!text.contains("work_mem"), "{}", file.display());
    }
    clear(&[&person]).await;
}
