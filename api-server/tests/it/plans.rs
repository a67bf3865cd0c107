//! Plans, usage and recommendations.

use axum::http::Method;
use serde_json::{Value, json};

use crate::app::{Person, Reply, TestApp, until, until_some};
use crate::cache_operation::make_operator;

fn plan(name: &str, region: &str, rate: &str) -> Value {
    json!({
        "name": name, "provider": "Ours", "regions": [region], "currency": "EUR", "time_zone": "Europe/Berlin",
        "renewable_percentage": 40, "rate_structure": {"energy": {"type": "flat", "rate": rate}},
    })
}

/// A person who operates the platform, on every instance.
async fn operator(app: &TestApp) -> Person {
    let person = app.person().await;
    make_operator(&person, true).await;
    until("the grant is everywhere", async || {
        let reply = app.get_as(&person, "/api/v1/cache/stats").await;
        reply.status == 200
    })
    .await;
    person
}

/// A region that no other test uses.
fn region() -> String {
    format!("T-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]).to_uppercase()
}

async fn offer(app: &TestApp, operator: &Person, plan: &Value) -> Reply {
    app.post_as(operator, "/api/v1/plans", plan.clone()).await
}

fn names(reply: &Reply) -> Vec<String> {
    let plans = reply.json().as_array().unwrap().clone();
    plans
        .iter()
        .map(|plan| plan["name"].as_str().unwrap().to_owned())
        .collect()
}

/// R42, R09, R33: the catalogue is public, tagged, cached, and current after a change.
#[expect(clippy::too_many_lines, reason = "a story in its order")]
#[tokio::test]
async fn the_catalogue_is_public_and_current() {
    let app = TestApp::start().await;
    let (person, operator) = (app.person().await, operator(&app).await);
    let region = region();
    let path = format!("/api/v1/plans/catalog?region={region}");
    offer(&app, &person, &plan("Cheap", &region, "0.25"))
        .await
        .expect(403);
    let made = offer(&app, &operator, &plan("Cheap", &region, "0.25"))
        .await
        .expect(201);
    let token = [("x-consistency-token", made.header("x-consistency-token"))];
    let first = app
        .send(Method::GET, &app.url(&path), &token, None)
        .await
        .expect(200);
    assert_eq!(names(&first), ["Cheap"]);
    assert!(
        first
            .header("cache-control")
            .starts_with("public, max-age=60, stale-while-revalidate=")
    );
    let tag = first.header("etag").to_owned();
    let known = [("if-none-match", tag.as_str())];
    until("an unchanged catalogue is not sent again", async || {
        app.send(Method::GET, &app.url(&path), &known, None).await.status == 304
    })
    .await;
    assert_eq!(app.get(&path).await.expect(200).header("x-cache"), "hit");
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let one = format!("/api/v1/plans/{id}");
    let mut changed = plan("Cheaper", &region, "0.20");
    let reply = app
        .as_with(&operator, Method::PUT, &one, &[], Some(changed.clone()))
        .await
        .expect(200);
    let token = [("x-consistency-token", reply.header("x-consistency-token"))];
    let after = app
        .send(Method::GET, &app.url(&path), &token, None)
        .await
        .expect(200);
    assert_eq!(names(&after), ["Cheaper"]);
    assert_ne!(after.header("etag"), tag);
    changed["is_active"] = json!(false);
    app.as_with(&operator, Method::PUT, &one, &[], Some(changed))
        .await
        .expect(200);
    until("a plan that is not offered is not in the catalogue", async || {
        names(&app.get(&path).await).is_empty()
    })
    .await;
    assert_eq!(app.get(&one).await.expect(200).json()["is_active"], false);
    app.get("/api/v1/plans/catalog?region=no%20where")
        .await
        .expect(422);
    app.get(&format!("/api/v1/plans/{}", uuid::Uuid::new_v4()))
        .await
        .expect(404);
    let mut wrong = plan("", &region, "-1");
    wrong["time_zone"] = json!("Nowhere/City");
    let refused = offer(&app, &operator, &wrong).await.expect(422).json();
    assert_eq!(refused["errors"].as_array().unwrap().len(), 3, "{refused}");
}

/// A year of usage is written in one request, added up by the database, and ranks plans by what it would have cost; tariffs are exact
/// across the changes of the clock. R29, R43.
#[expect(clippy::too_many_lines, reason = "a story in its order")]
#[tokio::test]
async fn a_year_of_usage_ranks_plans() {
    let app = TestApp::start().await;
    let (person, operator) = (app.person().await, operator(&app).await);
    let region = region();
    app.get_as(&person, "/api/v1/recommendations/me")
        .await
        .expect(404);
    let current = offer(&app, &operator, &plan("Current", &region, "0.40"))
        .await
        .expect(201);
    let current_id = current.json()["id"].clone();
    offer(&app, &operator, &plan("Flat", &region, "0.30"))
        .await
        .expect(201);
    let mut night = plan("Night", &region, "0.35");
    night["rate_structure"]["energy"] = json!({"type": "time_of_use", "rate": "0.50", "periods": [
        {"from_hour": 22, "to_hour": 6, "rate": "0.05"}]});
    let last = offer(&app, &operator, &night).await.expect(201);
    // 4,000 hours before the hour that has just ended, 1.5 kWh each.
    let now = api_server::clock::now();
    let hour = now.as_second() / 3_600 * 3_600;
    let readings: Vec<Value> = (1..=4_000)
        .map(|back| {
            let at = jiff::Timestamp::from_second(hour - back * 3_600).unwrap();
            json!({"at": at, "kwh": "1.5"})
        })
        .collect();
    let body = json!({"region": region.to_lowercase(), "current_plan_id": current_id, "readings": readings});
    let token = [("x-consistency-token", last.header("x-consistency-token"))];
    let saved = app
        .as_with(&person, Method::POST, "/api/v1/usage", &token, Some(body.clone()))
        .await
        .expect(200);
    assert_eq!(saved.json()["saved"], 4_000);
    let again = app.post_as(&person, "/api/v1/usage", body).await.expect(200);
    let analysis = app
        .get_after(
            &person,
            "/api/v1/usage/analysis?months=12&time_zone=Europe/Berlin",
            &again,
        )
        .await
        .expect(200)
        .json();
    assert_eq!(analysis["total_kwh"], "6000", "{analysis}");
    assert_eq!(analysis["hours"], 4_000);
    let months = analysis["months"].as_array().unwrap();
    let counted: i64 = months.iter().map(|month| month["hours"].as_i64().unwrap()).sum();
    assert_eq!(
        (counted, analysis["hours_of_day"].as_array().unwrap().len()),
        (4_000, 24)
    );
    let found = app
        .get_after(&person, "/api/v1/recommendations/me", &again)
        .await
        .expect(200)
        .json();
    let plans = found["plans"].as_array().unwrap();
    let row = |name: &str| plans.iter().find(|plan| plan["name"] == name).unwrap().clone();
    assert_eq!(row("Flat")["yearly_cost"], "1800.00");
    assert_eq!(row("Flat")["yearly_saving"], "600.00");
    assert_eq!(row("Current")["yearly_saving"], "0.00");
    // Two thirds of a day at 0.50, a third at 0.05; days that are cut at the ends make a few hours of difference.
    let nightly: f64 = row("Night")["yearly_cost"].as_str().unwrap().parse().unwrap();
    assert!((nightly - 2_100.0).abs() < 15.0, "{nightly}");
    assert_eq!(plans[0]["name"], "Flat");
    until("the recommendation is cached", async || {
        app.get_as(&person, "/api/v1/recommendations/me")
            .await
            .header("x-cache")
            == "hit"
    })
    .await;
    offer(&app, &operator, &plan("New", &region, "0.10"))
        .await
        .expect(201);
    let renewed = until_some("a new plan is recommended", async || {
        let found = app
            .get_as(&person, "/api/v1/recommendations/me")
            .await
            .expect(200)
            .json();
        (found["plans"][0]["name"] == "New").then_some(found)
    })
    .await;
    assert_eq!(renewed["plans"][0]["yearly_cost"], "600.00");
    let stranger = app.person().await;
    let path = format!("/api/v1/recommendations/{}", person.user_id);
    app.get_as(&stranger, &path).await.expect(404);
}

#[tokio::test]
async fn usage_that_makes_no_sense_is_refused() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let at = "2026-01-01T10:00:00Z";
    for readings in [
        json!([]),
        json!([{"at": "2026-01-01T10:30:00Z", "kwh": "1"}]),
        json!([{"at": at, "kwh": "1"}, {"at": at, "kwh": "2"}]),
        json!([{"at": at, "kwh": "-1"}]),
        json!([{"at": at, "kwh": "0.0001"}]),
    ] {
        app.post_as(&person, "/api/v1/usage", json!({"readings": readings}))
            .await
            .expect(422);
    }
    let unknown = json!({"region": "DE", "current_plan_id": uuid::Uuid::new_v4(), "readings": [{"at": at, "kwh": "1"}]});
    app.post_as(&person, "/api/v1/usage", unknown).await.expect(422);
    for query in ["months=61", "months=x", "time_zone=Berlin"] {
        app.get_as(&person, &format!("/api/v1/usage/analysis?{query}"))
            .await
            .expect(422);
    }
    let empty = app
        .get_as(&person, "/api/v1/usage/analysis")
        .await
        .expect(200)
        .json();
    assert_eq!((&empty["total_kwh"], &empty["hours"]), (&json!("0"), &json!(0)));
}
