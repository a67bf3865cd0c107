//! People with very many memories: their vectors go into an index, searches by meaning through it, and back when few are left.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use api_server::search::approximate::Scale;
use api_server::store::search::SETTINGS;
use axum::{Json, Router, routing};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};

use crate::app::{Person, TestApp, until};
use crate::indexes::statement;
use crate::services::connect;

const DIMENSIONS: usize = 384;
/// Of this many topics is whatever people write.
const TOPICS: u64 = 200;
/// What one text is about.
const OF_ONE: usize = 5;

/// A vector at random, of numbers between -1 and 1; the same for the same seed.
fn random_vector(seed: u64, size: f32) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..DIMENSIONS)
        .map(|_| random.random_range(-size..size))
        .collect()
}

static TOPIC_VECTORS: LazyLock<Vec<Vec<f32>>> =
    LazyLock::new(|| (0..TOPICS).map(|topic| random_vector(topic, 1.0)).collect());

/// The vector of a text: the sum of its topics, which are its numbers, and a little of its own; of length 1.
fn vector(text: &str) -> Vec<f32> {
    let seed = text.bytes().fold(7_u64, |seed, byte| {
        seed.wrapping_mul(31).wrapping_add(byte.into())
    });
    let mut vector = random_vector(seed, 0.5);
    let topics = text
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse::<usize>().ok());
    for topic in topics {
        for (part, of_topic) in vector.iter_mut().zip(&TOPIC_VECTORS[topic]) {
            *part += of_topic;
        }
    }
    let length = vector.iter().map(|part| part * part).sum::<f32>().sqrt();
    vector.into_iter().map(|part| part / length).collect()
}

/// A text of some topics; `letter` keeps texts apart that shall have no word in common.
fn about(random: &mut StdRng, letter: char) -> String {
    let topics = (0..OF_ONE).map(|_| format!("{letter}{}", random.random_range(0..TOPICS)));
    topics.collect::<Vec<_>>().join(" ")
}

async fn embed(Json(question): Json<Value>) -> Json<Value> {
    let texts = question["input"].as_array().unwrap();
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| json!({"index": index, "embedding": vector(text.as_str().unwrap())}))
        .collect();
    Json(json!({"object": "list", "model": question["model"], "data": data}))
}

/// A server whose index begins at 300 vectors, alone, because workers serve all tenants; and the name of its model.
async fn start() -> (TestApp, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/v1/embeddings", routing::post(embed));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let model = uuid::Uuid::new_v4().simple().to_string();
    let config = format!(
        "embeddings: {{url: 'http://{address}/v1', model: '{model}', dimensions: {DIMENSIONS}}}\ncache: {{enabled: false}}"
    );
    let scale = Scale {
        above: 300,
        sampled: 1.0,
        look: Duration::from_millis(50),
        // Each look compares ten answers with the exact ones.
        rest: Duration::from_secs(2),
    };
    let app = TestApp::builder()
        .config(&config)
        .scale(scale)
        .alone()
        .start()
        .await;
    (app, format!("{model}@{DIMENSIONS}"))
}

/// Memories with their vectors, written by plain SQL as if they had been there for long.
async fn seed(person: &Person, model: &str, count: usize) -> Vec<Vec<f32>> {
    let mut owner = connect("tanka_owner", 0).await;
    let mut random = StdRng::seed_from_u64(u64::try_from(count).unwrap());
    let texts: Vec<String> = (0..count).map(|_| about(&mut random, 'm')).collect();
    let vectors: Vec<Vec<f32>> = texts.iter().map(|text| vector(text)).collect();
    let written: Vec<String> = vectors.iter().map(|vector| format!("{vector:?}")).collect();
    for (texts, written) in texts.chunks(1_000).zip(written.chunks(1_000)) {
        let mut transaction = sqlx::Connection::begin(&mut owner).await.unwrap();
        let tenant = format!("SET LOCAL tanka.tenant_id = '{}'", person.tenant_id);
        transaction.execute(AssertSqlSafe(tenant)).await.unwrap();
        sqlx::query(
            "WITH given AS (
                 SELECT gen_random_uuid() AS id, content, vector FROM unnest($4::text[], $5::text[]) AS t (content, vector)
             ), made AS (
                 INSERT INTO memories (id, tenant_id, user_id, memory_type, content)
                 SELECT id, $1::text::uuid, $2::text::uuid, 'note', content FROM given RETURNING id)
             INSERT INTO memory_embeddings (memory_id, tenant_id, user_id, model, embedding)
             SELECT id, $1::text::uuid, $2::text::uuid, $3, vector::halfvec FROM given JOIN made USING (id)",
        )
        .bind(&person.tenant_id)
        .bind(&person.user_id)
        .bind(model)
        .bind(texts)
        .bind(written)
        .execute(&mut *transaction)
        .await
        .unwrap();
        transaction.commit().await.unwrap();
    }
    vectors
}

/// Removes what was seeded: servers of other tests would compute the vectors of all memories once more.
pub async fn clear(people: &[&Person]) {
    let people: Vec<String> = people.iter().map(|person| person.user_id.clone()).collect();
    sqlx::query("DELETE FROM memories WHERE user_id = ANY ($1::text[]::uuid[])")
        .bind(people)
        .execute(&mut connect("postgres", 0).await)
        .await
        .unwrap();
}

/// How many vectors of a person are marked for the index.
async fn marked(owner: &mut PgConnection, person: &Person) -> i64 {
    let read = format!(
        "BEGIN; SET LOCAL tanka.tenant_id = '{}';
         SELECT count(*) FROM memory_embeddings WHERE user_id = '{}' AND approximate",
        person.tenant_id, person.user_id
    );
    let row = owner.fetch_one(sqlx::raw_sql(AssertSqlSafe(read))).await.unwrap();
    owner.execute("ROLLBACK").await.unwrap();
    row.get(0)
}

async fn search(app: &TestApp, person: &Person, question: &str, limit: usize) -> Value {
    let path = format!(
        "/api/v1/memories/search?q={}&limit={limit}",
        question.replace(' ', "%20")
    );
    app.get_as(person, &path).await.expect(200).json()
}

/// One more memory, written as people do, whose vector makes the worker look how many there are.
async fn one_more(app: &TestApp, person: &Person) {
    let body = json!({"content": "m1 m2 m3 one more"});
    app.post_as(person, "/api/v1/memories", body).await.expect(201);
}

/// Waits until searches of a person are exact or not, as long as rows are being moved; answers the numbers of marked rows on the way, each
/// with whether a search was exact just then.
async fn follow(app: &TestApp, person: &Person, exact: bool) -> BTreeMap<i64, bool> {
    let mut owner = connect("tanka_owner", 0).await;
    let mut seen = BTreeMap::new();
    loop {
        let before = marked(&mut owner, person).await;
        let found = search(app, person, "q1 q2", 10).await["exact"] == exact;
        // Only what was so during the whole search tells something of it.
        if marked(&mut owner, person).await == before {
            seen.insert(before, found == exact);
        }
        if found {
            return seen;
        }
        until("rows move or searches change", async || {
            marked(&mut connect("tanka_owner", 0).await, person).await != before
                || search(app, person, "q1 q2", 10).await["exact"] == exact
        })
        .await;
    }
}

/// Of vectors of length 1.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Asks 30 questions; answers which share of the truly nearest, by arithmetic in full precision, was found.
async fn recall(app: &TestApp, person: &Person, vectors: &[Vec<f32>]) -> f64 {
    let mut random = StdRng::seed_from_u64(99);
    let (mut hits, mut wanted) = (0_u32, 0_u32);
    for _ in 0..30 {
        let question = about(&mut random, 'q');
        let asked = vector(&question);
        let mut all: Vec<f64> = vectors.iter().map(|vector| cosine(vector, &asked)).collect();
        all.sort_by(|a, b| b.total_cmp(a));
        let found = search(app, person, &question, 50).await;
        assert_eq!(found["exact"], false, "{found}");
        assert!(found["recall"].as_f64().unwrap() >= 0.99, "{}", found["recall"]);
        let near: Vec<f64> = found["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["similarity"].as_f64().unwrap())
            .collect();
        assert_eq!(near.len(), 50, "as many as there are");
        assert!(near.windows(2).all(|pair| pair[0] >= pair[1]), "{near:?}");
        // Half precision costs the fourth digit.
        hits += u32::try_from(near.iter().filter(|near| **near >= all[49] - 5e-4).count()).unwrap();
        wanted += 50;
    }
    f64::from(hits) / f64::from(wanted)
}

/// The number of a metric line that begins so.
async fn number(app: &TestApp, start: &str) -> f64 {
    let text = app.ops("/metrics").await.expect(200).text;
    text.lines()
        .find(|line| line.starts_with(start))
        .map_or(0.0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

/// How many somebody with ten times as many has.
fn most() -> usize {
    std::env::var("TANKA_MANY_MEMORIES").map_or(5_000, |text| text.parse().unwrap())
}

/// T60, F16, F18: who has few is searched exactly; who has many is moved into the index in batches, searched exactly meanwhile and through
/// the index then, with as many rows as wanted and a recall of at least 0.99, also beside somebody with ten times as many; who has few again
/// is moved back. `TANKA_MANY_MEMORIES` says how many the other one has, as `cargo e2e campaign` does.
#[tokio::test]
async fn people_with_very_many_are_searched_through_the_index() {
    let (app, model) = start().await;
    let (few, many, more) = (app.person().await, app.person().await, app.person().await);
    seed(&few, &model, 200).await;
    let of_many = seed(&many, &model, most() / 10).await;
    let of_more = seed(&more, &model, most()).await;
    until("the rows are everywhere", async || {
        search(&app, &more, "q1 q2", 10).await["items"]
            .as_array()
            .unwrap()
            .len()
            == 10
    })
    .await;
    let mut owner = connect("tanka_owner", 0).await;
    for (person, vectors) in [(&many, &of_many), (&more, &of_more)] {
        enter(&app, person, i64::try_from(vectors.len() + 1).unwrap()).await;
    }
    one_more(&app, &few).await;
    for (name, person, vectors) in [("many", &many, &of_many), ("more", &more, &of_more)] {
        let recall = recall(&app, person, vectors).await;
        println!("{name}: {} vectors, recall {recall}", vectors.len());
        assert!(recall >= 0.99, "{recall}");
        assert_eq!(
            search(&app, person, "q1 q2", 100).await["items"]
                .as_array()
                .unwrap()
                .len(),
            100
        );
    }
    let exact = search(&app, &few, "q1 q2", 50).await;
    assert_eq!((&exact["exact"], &exact["recall"]), (&json!(true), &Value::Null));
    assert_eq!(
        marked(&mut owner, &few).await,
        0,
        "nobody else's rows are in the index"
    );
    let count = number(&app, "tanka_memory_search_recall_count").await;
    let sum = number(&app, "tanka_memory_search_recall_sum").await;
    assert!(count >= 60.0 && sum / count >= 0.99, "{sum} of {count}");
    assert!(number(&app, "tanka_memory_search_by_meaning_total{way=\"Approximate\"}").await >= 60.0);
    a_new_memory_is_found(&app, &many).await;
    leave(&app, &many, &mut owner).await;
    clear(&[&few, &many, &more]).await;
}

/// Waits until somebody, of whom nothing is in the index, is searched through it.
async fn enter(app: &TestApp, person: &Person, rows: i64) {
    assert_eq!(
        search(app, person, "q1 q2", 10).await["exact"],
        true,
        "nobody noticed yet"
    );
    one_more(app, person).await;
    let seen = follow(app, person, false).await;
    let on_the_way: Vec<_> = seen
        .iter()
        .filter(|(marked, _)| (1..rows).contains(*marked))
        .collect();
    println!("{} batches of {rows} rows were seen", on_the_way.len());
    // All at once, nothing in between could be seen.
    assert!(rows < 1_000 || !on_the_way.is_empty(), "in batches: {seen:?}");
    assert!(
        on_the_way.iter().all(|(_, exact)| **exact),
        "exact meanwhile: {seen:?}"
    );
}

/// A new vector of somebody in the index is in it at once.
async fn a_new_memory_is_found(app: &TestApp, person: &Person) {
    let content = "m7 m7 m7 m8 unheard of";
    let body = json!({"content": content});
    app.post_as(person, "/api/v1/memories", body).await.expect(201);
    until("the new memory is the nearest", async || {
        let found = search(app, person, "q7 q7 q7 q8", 10).await;
        found["exact"] == false && found["items"][0]["content"] == content
    })
    .await;
}

/// Deletes most memories of a person by plain SQL, and waits until the rest is searched exactly and out of the index.
async fn leave(app: &TestApp, person: &Person, owner: &mut PgConnection) {
    let delete = format!(
        "BEGIN; SET LOCAL tanka.tenant_id = '{}';
         DELETE FROM memories WHERE id IN (SELECT id FROM memories WHERE user_id = '{}' OFFSET 82); COMMIT",
        person.tenant_id, person.user_id
    );
    owner.execute(sqlx::raw_sql(AssertSqlSafe(delete))).await.unwrap();
    follow(app, person, true).await;
    until("nothing is marked any more", async || {
        marked(&mut connect("tanka_owner", 0).await, person).await == 0
    })
    .await;
    until("all that is left is found exactly", async || {
        let left = search(app, person, "q1 q2", 100).await;
        left["exact"] == true && left["items"].as_array().unwrap().len() == 82
    })
    .await;
}

/// T60, T61: an index that gives too few is passed over, and the answer has as many rows as ever; what is missing in the index is seen when
/// the person is measured again, and put in.
#[tokio::test]
async fn too_few_from_the_index_are_made_up_for() {
    let (app, model) = start().await;
    let person = app.person().await;
    seed(&person, &model, 400).await;
    one_more(&app, &person).await;
    follow(&app, &person, false).await;
    let take_out = format!(
        "BEGIN; SET LOCAL tanka.tenant_id = '{}';
         UPDATE memory_embeddings SET approximate = false WHERE memory_id IN (
             SELECT memory_id FROM memory_embeddings WHERE user_id = '{}' OFFSET 20); COMMIT",
        person.tenant_id, person.user_id
    );
    // The repair is quick, so it may take more than one attempt to search before it.
    until("an answer of the index is replaced", async || {
        let mut owner = connect("tanka_owner", 0).await;
        owner
            .execute(sqlx::raw_sql(AssertSqlSafe(take_out.clone())))
            .await
            .unwrap();
        let found = search(&app, &person, "q1 q2 q3", 50).await;
        assert_eq!(
            found["items"].as_array().unwrap().len(),
            50,
            "as many as there are"
        );
        number(&app, "tanka_memory_search_by_meaning_total{way=\"Fallback\"}").await > 0.0
    })
    .await;
    until("all of them are in the index again", async || {
        marked(&mut connect("tanka_owner", 0).await, &person).await == 401
            && search(&app, &person, "q1 q2 q3", 50).await["exact"] == false
    })
    .await;
    clear(&[&person]).await;
}

/// F17: the settings of a search through the index end with it: no statement that comes later on any connection of the pool sees one. A
/// policy of the test hides conversations from whoever has such a setting.
#[tokio::test]
async fn settings_of_the_index_end_with_the_search() {
    let (app, model) = start().await;
    let person = app.person().await;
    app.conversation(&person, "seen without settings").await;
    seed(&person, &model, 400).await;
    one_more(&app, &person).await;
    follow(&app, &person, false).await;
    let mut owner = connect("tanka_owner", 0).await;
    let policy =
        "CREATE POLICY no_setting_leaks ON conversations AS RESTRICTIVE FOR SELECT TO tanka_app USING (
        current_setting('enable_sort') = 'on' AND
        COALESCE(NULLIF(current_setting('hnsw.iterative_scan', true), ''), 'off') = 'off' AND
        COALESCE(NULLIF(current_setting('hnsw.ef_search', true), ''), '40') = '40')";
    owner.execute(policy).await.unwrap();
    let mut hidden = 0;
    for _ in 0..30 {
        assert_eq!(search(&app, &person, "q1 q2 q3", 50).await["exact"], false);
        let list = app.get_as(&person, "/api/v1/conversations").await.expect(200);
        hidden += usize::from(list.json()["items"].as_array().unwrap().is_empty());
    }
    owner
        .execute("DROP POLICY no_setting_leaks ON conversations")
        .await
        .unwrap();
    assert_eq!(hidden, 0);
    clear(&[&person]).await;
}

/// T60: as the role of the application, below row-level security, the statement reads the index and sorts nothing; the ordinary one reads the
/// person's own rows.
#[tokio::test]
async fn the_statement_reads_the_index_below_row_level_security() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let mut session = connect("tanka_app", 0).await;
    for dimensions in [384, 768, 1024, 1536, 3072] {
        let begin = format!(
            "BEGIN READ ONLY; SET LOCAL tanka.tenant_id = '{}'; {SETTINGS}",
            person.tenant_id
        );
        session
            .execute(sqlx::raw_sql(AssertSqlSafe(begin)))
            .await
            .unwrap();
        let text = statement(&[&format!("embedding::halfvec({dimensions})")]);
        let prepare = format!("PREPARE nearest AS {text}");
        session
            .execute(sqlx::raw_sql(AssertSqlSafe(prepare)))
            .await
            .unwrap();
        let vector = format!("{:?}", vec![0.5; dimensions]);
        let explain = format!(
            "EXPLAIN (COSTS OFF) EXECUTE nearest('{}', 'a model', '{vector}', 50, false)",
            person.user_id
        );
        let rows = session
            .fetch_all(sqlx::raw_sql(AssertSqlSafe(explain)))
            .await
            .unwrap();
        let plan: String = rows.iter().map(|row| row.get::<String, _>(0) + "\n").collect();
        let index = format!("Index Scan using idx_memory_embeddings_hnsw_{dimensions}");
        assert!(plan.contains(&index), "{plan}");
        assert!(!plan.contains("Sort"), "{plan}");
        assert!(
            plan.contains("tenant_id"),
            "row-level security is in force: {plan}"
        );
        session
            .execute(sqlx::raw_sql("DEALLOCATE nearest; ROLLBACK"))
            .await
            .unwrap();
    }
}
