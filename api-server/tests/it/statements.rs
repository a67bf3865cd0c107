//! How many statements an answer takes: as many with twenty rows as with one, on every route that reads.

use std::collections::BTreeMap;

use api_server::http::openapi;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};

use crate::app::{Reply, TestApp, until};
use crate::ground::Ground;
use crate::services::connect;

/// Streams, which answer with no rows; `realtime.rs` and `events_stream.rs` are about them.
const STREAMS: [&str; 2] = ["/api/v1/events", "/api/v1/ws"];
/// Answered by Redis, where nobody is connected.
const WHO_IS_THERE: [&str; 2] = ["/api/v1/tenant/connections", "/api/v1/workrooms/{id}/presence"];
/// More than this many statements for one answer need a reason.
const MOST: u32 = 3;

impl Ground<'_> {
    /// From one of each kind to `count` of each.
    async fn grow(&mut self, count: i64) {
        for number in 1..count {
            self.row(number).await;
            self.offer(number).await;
            self.hook().await;
            self.app.conversation(&self.owner, &number.to_string()).await;
            self.make("workrooms", json!({"name": number.to_string()})).await;
            let colleague = self.app.colleague(&self.owner, "member").await;
            let members = format!("/api/v1/workrooms/{}/members", self.workroom);
            let body = json!({"user_id": colleague.user_id});
            self.app.post_as(&self.owner, &members, body).await.expect(201);
            self.app
                .login(&self.owner.email, &self.owner.password)
                .await
                .expect(200);
        }
    }

    /// The address of a route with the ids of the first rows, and what a list needs to show.
    fn address(&self, template: &str) -> String {
        let path = [
            ("conversations/{id}", &self.conversation),
            ("memories/{id}", &self.memory),
            ("workrooms/{id}", &self.workroom),
            ("resources/{id}", &self.resource),
            ("webhooks/{id}", &self.webhook),
            ("tasks/{id}", &self.task),
            ("plans/{id}", &self.plan),
            ("recommendations/{user}", &self.owner.user_id),
        ]
        .iter()
        .fold(template.to_owned(), |path, (pattern, id)| {
            let (collection, _) = pattern.split_once('/').unwrap();
            path.replace(pattern, &format!("{collection}/{id}"))
        });
        match template {
            "/api/v1/memories/search" => format!("{path}?q=tea&limit=50"),
            "/api/v1/plans/catalog" => format!("{path}?region={}", self.region),
            "/api/v1/usage/analysis" => format!("{path}?months=12"),
            _ => path,
        }
    }

    /// Statements and rows of each answer, when every list has at least so many rows.
    async fn measure(&self, routes: &[String], count: usize) -> BTreeMap<String, (u32, Option<usize>)> {
        let mut measured = BTreeMap::new();
        for template in routes {
            let path = self.address(template);
            let ask = async || self.app.get_as(&self.owner, &path).await.expect(200);
            if !WHO_IS_THERE.contains(&template.as_str()) {
                until(&format!("{path} shows {count}"), async || {
                    rows(&ask().await).is_none_or(|rows| rows >= count)
                })
                .await;
            }
            // One that has to look again at who asks takes one more.
            let mut statements = u32::MAX;
            let mut reply = ask().await;
            for _ in 0..4 {
                statements = statements.min(reply.header("x-db-queries").parse().unwrap());
                reply = ask().await;
            }
            measured.insert(template.clone(), (statements, rows(&reply)));
        }
        measured
    }
}

/// Rows of a list.
fn rows(reply: &Reply) -> Option<usize> {
    let body: Value = serde_json::from_str(&reply.text).ok()?;
    let list = body.as_array().or_else(|| body["items"].as_array());
    list.map(Vec::len)
}

/// T28, B12, C07, R29: no answer takes a statement for each of its rows, whatever route gives it.
#[tokio::test]
async fn twenty_rows_take_as_many_statements_as_one() {
    let app = TestApp::builder()
        .config(
            "http: {debugHeaders: true}\ncache: {enabled: false}\noutbound: {allowedNetworks: [127.0.0.0/8]}",
        )
        .start()
        .await;
    let routes: Vec<String> = openapi::parts()
        .1
        .paths
        .paths
        .iter()
        .filter(|(path, item)| item.get.is_some() && !STREAMS.contains(&path.as_str()))
        .map(|(path, _)| path.clone())
        .collect();
    let mut ground = Ground::of(&app).await;
    // Rights that have just changed are looked at again for a moment, which takes one more.
    until(
        "the session and the person are all that is asked for",
        async || {
            let me = app.get_as(&ground.owner, "/api/v1/auth/me").await;
            me.header("x-db-queries") == "2"
        },
    )
    .await;
    let one = ground.measure(&routes, 1).await;
    ground.grow(20).await;
    let twenty = ground.measure(&routes, 20).await;
    // Workers of other tests would try to reach these endpoints.
    let jobs = format!("DELETE FROM jobs WHERE tenant_id = '{}'", ground.owner.tenant_id);
    connect("postgres", 0)
        .await
        .execute(sqlx::raw_sql(AssertSqlSafe(jobs)))
        .await
        .unwrap();
    let (mut wrong, mut lists) = (Vec::new(), 0);
    for (route, (statements, before)) in &one {
        let (now, after) = &twenty[route];
        println!("{route}: {statements} statements for {before:?} rows, {now} for {after:?}");
        lists += usize::from(after.is_some_and(|rows| rows >= 20));
        if statements != now || *now > MOST {
            wrong.push((route, statements, now, before, after));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(lists >= 14, "{lists} lists had twenty rows");
}
