//! A hundred tenants over four connections to each instance, with clients that leave at any moment: nobody ever sees a foreign row.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::Method;
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use sqlx::Row;
use tokio::time::{Instant, timeout};

use crate::app::{Person, Reply, TestApp};
use crate::services::connect;

const TENANTS: usize = 100;
/// Requests at the same time: many more than there are connections.
const AT_ONCE: usize = 48;

/// A person of a tenant, and what only this tenant has.
struct Tenant {
    person: Person,
    mark: String,
    conversation: String,
}

async fn settle(app: &TestApp, number: usize) -> Tenant {
    let person = app.person().await;
    let mark = format!("mark-{number:03}-");
    let conversation = app.conversation(&person, &mark).await;
    let body = json!({"content": mark});
    app.post_as(&person, "/api/v1/memories", body.clone())
        .await
        .expect(201);
    let messages = format!("/api/v1/conversations/{conversation}/messages");
    app.post_as(&person, &messages, body).await.expect(201);
    app.post_as(&person, "/api/v1/workrooms", json!({"name": mark}))
        .await
        .expect(201);
    Tenant {
        person,
        mark,
        conversation,
    }
}

/// Marks in an answer that are not the tenant's own.
fn foreign(reply: &Reply, tenant: &Tenant) -> usize {
    let marks = reply.text.matches("mark-").count();
    marks - reply.text.matches(&tenant.mark).count()
}

/// One request of a tenant; some write, most read.
async fn request(app: &TestApp, tenant: &Tenant, choice: u32) -> Reply {
    let conversation = format!("/api/v1/conversations/{}", tenant.conversation);
    let messages = format!("{conversation}/messages");
    let (method, path, body) = match choice {
        0 => (Method::POST, messages, Some(json!({"content": tenant.mark}))),
        1 => (Method::PATCH, conversation, Some(json!({"title": tenant.mark}))),
        2 => (
            Method::POST,
            "/api/v1/memories".to_owned(),
            Some(json!({"content": tenant.mark})),
        ),
        3 => (Method::GET, conversation, None),
        4 => (Method::GET, "/api/v1/memories".to_owned(), None),
        5 => (Method::GET, "/api/v1/memories/search?q=mark".to_owned(), None),
        6 => (Method::GET, "/api/v1/workrooms".to_owned(), None),
        7 => (Method::GET, messages, None),
        8 => (Method::GET, "/api/v1/tenant/users".to_owned(), None),
        _ => (Method::GET, "/api/v1/conversations".to_owned(), None),
    };
    app.as_with(&tenant.person, method, &path, &[], body).await
}

/// C07: what one tenant has never shows in an answer to another, on connections that all use in turn and that clients give up in the middle.
/// `TANKA_ISOLATION_REQUESTS` says how many requests, 4,000 if absent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tenant_sees_a_foreign_row_whoever_leaves_in_the_middle() {
    let requests: usize =
        std::env::var("TANKA_ISOLATION_REQUESTS").map_or(4_000, |text| text.parse().unwrap());
    // Twelve connections, four to each of the three instances.
    let app = TestApp::builder().database_key("poolSize", 12).start().await;
    let tenants: Vec<Tenant> = futures::stream::iter(0..TENANTS)
        .map(|number| settle(&app, number))
        .buffered(8)
        .collect()
        .await;
    let (wrong, left, rows) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let started = Instant::now();
    let answers = futures::stream::iter(0..requests)
        .map(async |number| {
            // The same choices in every run.
            let mut random = StdRng::seed_from_u64(number as u64);
            let tenant = &tenants[random.random_range(0..TENANTS)];
            let patience = if random.random_ratio(1, 4) {
                Duration::from_micros(random.random_range(0..20_000))
            } else {
                Duration::from_mins(1)
            };
            let Ok(reply) = timeout(patience, request(&app, tenant, random.random_range(0..16))).await else {
                left.fetch_add(1, Ordering::Relaxed);
                return None;
            };
            wrong.fetch_add(foreign(&reply, tenant), Ordering::Relaxed);
            rows.fetch_add(reply.text.matches(&tenant.mark).count(), Ordering::Relaxed);
            Some(reply.status.as_u16())
        })
        .buffer_unordered(AT_ONCE)
        .fold(BTreeMap::<_, usize>::new(), async |mut counts, status| {
            *counts.entry(status).or_default() += 1;
            counts
        })
        .await;
    let (wrong, left, rows) = (wrong.into_inner(), left.into_inner(), rows.into_inner());
    println!(
        "{requests} requests of {TENANTS} tenants in {:?}: {answers:?}, {left} left early, {rows} own marks, {wrong} foreign ones",
        started.elapsed()
    );
    assert_eq!(wrong, 0);
    assert!(left > requests / 50, "only {left} clients left");
    assert!(rows > requests / 2, "only {rows} rows were seen");
    let unexpected: Vec<_> = answers
        .iter()
        .filter(|(status, _)| !matches!(status, None | Some(200 | 201)))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    let mixed = sqlx::query(
        "SELECT (SELECT count(*) FROM messages m JOIN conversations c ON c.id = m.conversation_id WHERE c.tenant_id <> m.tenant_id)
              + (SELECT count(*) FROM memories m JOIN users u ON u.id = m.user_id WHERE u.tenant_id <> m.tenant_id)",
    )
    .fetch_one(&mut connect("postgres", 0).await)
    .await
    .unwrap();
    assert_eq!(
        mixed.get::<i64, _>(0),
        0,
        "rows of one tenant below those of another"
    );
}
