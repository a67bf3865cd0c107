//! Every route, whoever wrote it: taken from the description that is enforced.

use std::collections::BTreeSet;

use api_server::domain::principal::{PERMISSIONS, Permission};
use api_server::http::openapi;
use api_server::http::permission::{Access, Permissions};
use axum::http::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::app::{Person, Reply, TestApp};
use crate::ground::{CONFIG, Tenant, snapshot};
use crate::resources::{form, upload};

/// Long enough for an answer; what takes longer is a stream, which was let in.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(10);

/// Routes that end the session of whoever may call them.
const ENDING: [&str; 2] = ["/api/v1/auth/logout", "/api/v1/auth/logout-all"];

struct Route {
    method: Method,
    path: String,
    access: Access,
}

fn routes() -> Vec<Route> {
    let permissions = Permissions::of(&openapi::parts().1).unwrap();
    let mut routes: Vec<Route> = permissions
        .all()
        .filter(|(path, ..)| path.starts_with("/api"))
        .map(|(path, method, access)| Route {
            method: method.clone(),
            path: path.to_owned(),
            access,
        })
        .collect();
    routes.sort_by_key(|route| (route.path.clone(), route.method.to_string()));
    routes
}

/// The address of a route with the same id in all places.
fn filled(path: &str, id: &str) -> String {
    let parts = path
        .split('/')
        .map(|part| if part.starts_with('{') { id } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// None if the answer is a stream.
async fn call(app: &TestApp, person: Option<&Person>, route: &Route, path: &str) -> Option<Reply> {
    let body = (route.method != Method::GET && route.method != Method::DELETE).then(|| json!({}));
    let sent = async {
        match person {
            Some(person) => app.as_with(person, route.method.clone(), path, &[], body).await,
            None => app.send(route.method.clone(), &app.url(path), &[], body).await,
        }
    };
    timeout(ANSWER, sent).await.ok()
}

/// API5: role x route x method. What a role may not call is refused before anything else is looked at.
#[tokio::test]
async fn every_route_admits_exactly_the_roles_that_its_permission_names() {
    let app = TestApp::start().await;
    let owner = app.person().await;
    let mut people = vec![("owner", owner.clone())];
    for role in ["admin", "member", "viewer"] {
        people.push((role, app.colleague(&owner, role).await));
    }
    let mut cells = 0;
    for route in routes() {
        let path = filled(&route.path, &Uuid::new_v4().to_string());
        let Access::Needs(permission) = route.access else {
            continue;
        };
        let anonymous = call(&app, None, &route, &path).await.unwrap();
        assert_eq!(anonymous.status, 401, "{} {path} without a token", route.method);
        for (role, person) in &people {
            let may = role
                .parse::<api_server::domain::principal::Role>()
                .unwrap()
                .may(permission);
            if may && ENDING.contains(&route.path.as_str()) {
                continue;
            }
            let reply = call(&app, Some(person), &route, &path).await;
            let refused = reply.is_some_and(|reply| reply.status == 401 || reply.status == 403);
            assert_eq!(refused, !may, "{role}: {} {path}", route.method);
            cells += 1;
        }
    }
    assert!(cells > 80, "{cells}");
    assert!(PERMISSIONS.contains(&Permission::Operate));
}

/// What is sent to a route.
enum Sent {
    Json(Option<Value>),
    Form(Vec<u8>),
}

/// A request that is valid but for one place, where it names an id of another tenant.
struct Attempt {
    /// Method and template.
    route: &'static str,
    /// A part of the address, a field of the body or a parameter.
    place: &'static str,
    id: String,
    path: String,
    sent: Sent,
}

impl Attempt {
    /// In the address, where there is no other place.
    fn at(route: &'static str, id: &str, body: Option<Value>) -> Self {
        let (_, template) = route.split_once(' ').unwrap();
        let (_, rest) = template.split_once('{').unwrap();
        let (place, _) = rest.split_once('}').unwrap();
        Self::of(route, place, id, filled(template, id), body)
    }

    /// In any place.
    fn of(route: &'static str, place: &'static str, id: &str, path: String, body: Option<Value>) -> Self {
        Self {
            route,
            place,
            id: id.to_owned(),
            path,
            sent: Sent::Json(body),
        }
    }

    fn method(&self) -> Method {
        let (method, _) = self.route.split_once(' ').unwrap();
        method.parse().unwrap()
    }

    /// Sends it to an instance that has everything up to a write: a replica that is behind has nothing to hide.
    async fn send(&self, app: &TestApp, person: &Person, written: &str) -> Reply {
        let token = [("x-consistency-token", written)];
        match &self.sent {
            Sent::Json(body) => {
                app.as_with(person, self.method(), &self.path, &token, body.clone())
                    .await
            }
            Sent::Form(form) => upload(app, person, form.clone()).await,
        }
    }
}

/// Each id in an address.
fn by_address(other: &Tenant<'_>) -> Vec<Attempt> {
    let rows = &other.ground;
    let (user, member) = (&rows.owner.user_id, &other.member.user_id);
    let (talk, room, file, hook) = (&rows.conversation, &rows.workroom, &rows.resource, &rows.webhook);
    let content = || Some(json!({"content": "x"}));
    let title = Some(json!({"title": "x"}));
    let role = Some(json!({"role": "admin"}));
    let disabled = Some(json!({"enabled": false}));
    let name = Some(json!({"name": "x"}));
    [
        ("DELETE /api/v1/auth/sessions/{id}", &other.session, None),
        ("GET /api/v1/conversations/{id}", talk, None),
        ("PATCH /api/v1/conversations/{id}", talk, title),
        ("DELETE /api/v1/conversations/{id}", talk, None),
        ("GET /api/v1/conversations/{id}/messages", talk, None),
        ("POST /api/v1/conversations/{id}/messages", talk, content()),
        ("POST /api/v1/deliveries/{id}/redeliver", &other.delivery, None),
        ("GET /api/v1/memories/{id}", &rows.memory, None),
        ("DELETE /api/v1/memories/{id}", &rows.memory, None),
        ("GET /api/v1/recommendations/{user}", user, None),
        ("GET /api/v1/resources/{id}", file, None),
        ("DELETE /api/v1/resources/{id}", file, None),
        ("GET /api/v1/resources/{id}/content", file, None),
        ("DELETE /api/v1/schedules/{id}", &rows.schedule, None),
        ("GET /api/v1/tasks/{id}", &rows.task, None),
        ("POST /api/v1/tasks/{id}/cancel", &rows.task, None),
        ("POST /api/v1/tasks/{id}/retry", &rows.task, None),
        ("PATCH /api/v1/tenant/users/{id}", member, role),
        ("PATCH /api/v1/webhooks/{id}", hook, disabled),
        ("DELETE /api/v1/webhooks/{id}", hook, None),
        ("GET /api/v1/webhooks/{id}/deliveries", hook, None),
        ("GET /api/v1/workrooms/{id}", room, None),
        ("PATCH /api/v1/workrooms/{id}", room, name),
        ("DELETE /api/v1/workrooms/{id}", room, None),
        ("GET /api/v1/workrooms/{id}/members", room, None),
        ("GET /api/v1/workrooms/{id}/messages", room, None),
        ("POST /api/v1/workrooms/{id}/messages", room, content()),
        ("GET /api/v1/workrooms/{id}/presence", room, None),
    ]
    .into_iter()
    .map(|(route, id, body)| Attempt::at(route, id, body))
    .collect()
}

/// Each id in a body, and in addresses with two places.
fn by_body(own: &Tenant<'_>, other: &Tenant<'_>) -> Vec<Attempt> {
    const MEMBERS: &str = "POST /api/v1/workrooms/{id}/members";
    const MEMBER: &str = "DELETE /api/v1/workrooms/{id}/members/{user_id}";
    let (room, member) = (&other.ground.workroom, &other.member.user_id);
    let members = |room: &str| format!("/api/v1/workrooms/{room}/members");
    let (theirs, ours) = (members(room), members(&own.ground.workroom));
    let sync = json!({
        "connector": "http", "url": "http://127.0.0.1:1/x.json", "target": "workroom", "workroom_id": room,
    });
    let mut attempts = vec![
        Attempt::of(
            MEMBERS,
            "id",
            room,
            theirs.clone(),
            Some(json!({"user_id": own.member.user_id})),
        ),
        Attempt::of(
            MEMBERS,
            "user_id",
            member,
            ours.clone(),
            Some(json!({"user_id": member})),
        ),
        Attempt::of(MEMBER, "id", room, format!("{theirs}/{member}"), None),
        Attempt::of(MEMBER, "user_id", member, format!("{ours}/{member}"), None),
        Attempt {
            route: "POST /api/v1/resources",
            place: "workroom_id",
            id: room.clone(),
            path: "/api/v1/resources".to_owned(),
            sent: Sent::Form(form(Some(room), "x.txt", "text/plain", b"x")),
        },
    ];
    for (route, body) in [
        ("POST /api/sync", sync.clone()),
        ("POST /api/v1/syncs", sync.clone()),
        (
            "POST /api/v1/schedules",
            json!({"cron": "0 0 1 1 *", "sync": sync}),
        ),
    ] {
        let (_, path) = route.split_once(' ').unwrap();
        attempts.push(Attempt::of(
            route,
            "workroom_id",
            room,
            path.to_owned(),
            Some(body),
        ));
    }
    attempts
}

/// What is answered otherwise, with the status and the reason.
fn exceptions(other: &Tenant<'_>) -> Vec<(Attempt, u16, &'static str)> {
    const OPERATORS: &str = "only operators of the platform may, which is looked at before anything else";
    let rows = &other.ground;
    let user = &rows.owner.user_id;
    let simple = |id: &str| id.replace('-', "");
    let key = format!("memories:v1:{}:{}", simple(&rows.owner.tenant_id), simple(user));
    let usage = json!({
        "region": "DE", "current_plan_id": rows.memory, "readings": [{"at": "2026-01-01T00:00:00Z", "kwh": "1"}],
    });
    let saved = Attempt::of(
        "POST /api/v1/usage",
        "current_plan_id",
        &rows.memory,
        "/api/v1/usage".to_owned(),
        Some(usage),
    );
    let logged = Attempt::of(
        "GET /api/v1/audit-logs",
        "user_id",
        user,
        format!("/api/v1/audit-logs?user_id={user}"),
        None,
    );
    let dropped = "DELETE /api/v1/cache/prefix/{prefix}";
    vec![
        (
            Attempt::at("DELETE /api/v1/cache/key/{key}", &key, None),
            403,
            OPERATORS,
        ),
        (Attempt::at(dropped, "memories", None), 403, OPERATORS),
        (
            Attempt::at("DELETE /api/v1/cache/user/{id}", user, None),
            403,
            OPERATORS,
        ),
        (
            Attempt::at("PUT /api/v1/plans/{id}", &rows.memory, Some(json!({}))),
            403,
            OPERATORS,
        ),
        (
            Attempt::at("GET /api/v1/plans/{id}", &rows.memory, None),
            404,
            "plans are the platform's and for everybody; no tenant has one",
        ),
        (
            saved,
            422,
            "what is no plan is named as a wrong field, whosever id it is",
        ),
        (logged, 200, "it narrows the own log down, here to nothing"),
    ]
}

/// Places where no id of another tenant can be tried so, each with the reason.
const UNTRIED: [(&str, &str, &str); 1] = [(
    "GET /api/v1/events",
    "last_event_id",
    "a place in channels that the caller may hear; `channels.rs` is about those of others",
)];

/// Whether a parameter or field of this name and schema holds ids.
fn is_id(name: &str, schema: &Value) -> bool {
    let named = name == "id" || name.ends_with("_id") || name.ends_with("_ids");
    named || schema["format"] == "uuid" || schema["items"]["format"] == "uuid"
}

/// Fields of a schema, however deep, that hold ids.
fn id_fields(document: &Value, schema: &Value, seen: &mut BTreeSet<String>, names: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str()
        && seen.insert(reference.to_owned())
    {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap();
        id_fields(document, target, seen, names);
    }
    for kind in ["allOf", "anyOf", "oneOf"] {
        for part in schema[kind].as_array().into_iter().flatten() {
            id_fields(document, part, seen, names);
        }
    }
    for part in [&schema["items"], &schema["additionalProperties"]] {
        if part.is_object() {
            id_fields(document, part, seen, names);
        }
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if is_id(name, field) {
            names.push(name.clone());
        }
        id_fields(document, field, seen, names);
    }
}

/// All places of all routes where an id can be named, from the description: whatever is in an address, and what looks like an id
/// elsewhere.
fn places() -> BTreeSet<(String, String)> {
    let document = serde_json::to_value(openapi::parts().1).unwrap();
    let mut places = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["responses"].is_null() {
                continue;
            }
            let parts = path.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
            let mut names: Vec<String> = parts.map(|(name, _)| name.to_owned()).collect();
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap();
                if is_id(name, &parameter["schema"]) {
                    names.push(name.to_owned());
                }
            }
            let contents = &operation["requestBody"]["content"];
            for (_, content) in contents.as_object().into_iter().flatten() {
                id_fields(&document, &content["schema"], &mut BTreeSet::new(), &mut names);
            }
            let route = format!("{} {path}", method.to_uppercase());
            places.extend(names.into_iter().map(|name| (route.clone(), name)));
        }
    }
    places
}

/// A route with an id needs an entry above, and an entry a route.
fn assert_every_place_is_tried(own: &Tenant<'_>, other: &Tenant<'_>) {
    let attempts: Vec<Attempt> = by_address(other)
        .into_iter()
        .chain(by_body(own, other))
        .chain(exceptions(other).into_iter().map(|(attempt, ..)| attempt))
        .collect();
    let tried: BTreeSet<(String, String)> = attempts
        .iter()
        .map(|attempt| (attempt.route, attempt.place))
        .chain(UNTRIED.map(|(route, place, _)| (route, place)))
        .map(|(route, place)| (route.to_owned(), place.to_owned()))
        .collect();
    let named = places();
    let missing: Vec<_> = named.difference(&tried).collect();
    assert!(missing.is_empty(), "nobody tries these places: {missing:?}");
    let gone: Vec<_> = tried.difference(&named).collect();
    assert!(gone.is_empty(), "these places are no more: {gone:?}");
}

/// What is tried is there, and holds what nobody else may see: its owner finds it.
async fn assert_found_by_its_owner(app: &TestApp, other: &Tenant<'_>) {
    let owner = &other.ground.owner;
    let again = other.keyed(owner).await.expect(201);
    assert_eq!(again.header("idempotency-replayed"), "true");
    let written = owner.written.token().unwrap();
    let mut marked = 0;
    for attempt in by_address(other) {
        if attempt.method() == Method::GET {
            let reply = attempt.send(app, owner, &written).await;
            assert_eq!(reply.status, 200, "{} as its owner: {reply:?}", attempt.route);
            marked += usize::from(reply.text.contains(&other.ground.mark));
        }
    }
    assert!(marked > 5, "only {marked} answers hold a secret");
}

/// Nothing of an answer is another tenant's.
fn assert_silent(reply: &Reply, other: &Tenant<'_>, what: &str) {
    let shown = format!("{reply:?}");
    for secret in other.secrets() {
        assert!(!shown.contains(secret), "{what} holds {secret}");
    }
}

/// Names ids of the other tenant in all places.
async fn attack(app: &TestApp, own: &Tenant<'_>, other: &Tenant<'_>, written: &str) {
    let stranger = &own.ground.owner;
    let attempts = by_address(other).into_iter().chain(by_body(own, other));
    let missing = attempts.map(|attempt| (attempt, 404, "it is another tenant's"));
    for (attempt, status, why) in missing.chain(exceptions(other)) {
        let reply = attempt.send(app, stranger, written).await;
        let what = format!(
            "{} with another tenant's {}: {reply:?}",
            attempt.route, attempt.place
        );
        assert_eq!(reply.status, status, "{why}; {what}");
        assert_silent(&reply, other, &what);
        if status == 200 {
            assert_eq!(reply.json()["items"], json!([]), "{what}");
        }
    }
    // A kept answer is for its sender alone, even if the very same request comes with the same key.
    let reply = other.keyed(stranger).await.expect(404);
    assert_silent(&reply, other, "a kept answer");
}

/// Calls all routes without an id in their address; lists show what is the caller's own.
async fn browse(app: &TestApp, own: &Tenant<'_>, other: &Tenant<'_>, written: &str) {
    let token = [("x-consistency-token", written)];
    for route in routes() {
        let named = route.path.contains('{') || ENDING.contains(&route.path.as_str());
        if named || route.access == Access::Public {
            continue;
        }
        let path = if route.path.ends_with("/search") {
            format!("{}?q={}", route.path, other.ground.mark)
        } else {
            route.path.clone()
        };
        let body = (route.method != Method::GET).then(|| json!({}));
        let reply = app
            .as_with(&own.ground.owner, route.method.clone(), &path, &token, body)
            .await;
        let what = format!("{} {path}: {reply:?}", route.method);
        if route.method == Method::GET {
            let operators = route.access == Access::Needs(Permission::Operate);
            assert_eq!(reply.status, if operators { 403 } else { 200 }, "{what}");
        } else {
            assert!(!reply.status.is_server_error(), "{what}");
        }
        assert_silent(&reply, other, &what);
    }
}

/// API1, F46: an id of another tenant, in whatever place of whatever route, is an id of nothing: each of two tenants, which have a row in
/// every table, names the other's. Answers hold nothing of the other one, and no row of it changes.
#[tokio::test]
async fn no_id_of_another_tenant_is_found_on_any_route() {
    // Workers and sweeps of other servers serve all tenants, and would change rows of these.
    let app = TestApp::builder().config(CONFIG).alone().start().await;
    let (one, two) = (Tenant::of(&app).await, Tenant::of(&app).await);
    for (own, other) in [(&one, &two), (&two, &one)] {
        assert_every_place_is_tried(own, other);
        assert_found_by_its_owner(&app, other).await;
        let before = snapshot(&other.ground.owner.tenant_id).await;
        for Attempt { route, place, id, .. } in by_address(other).iter().chain(&by_body(own, other)) {
            let real = before.values().flatten().any(|row| row.contains(id));
            assert!(real, "{route}: {place} {id} belongs to no row");
        }
        let written = other.ground.owner.written.token().unwrap();
        attack(&app, own, other, &written).await;
        browse(&app, own, other, &written).await;
        let after = snapshot(&other.ground.owner.tenant_id).await;
        assert!(before.keys().eq(after.keys()));
        for (table, rows) in &before {
            assert!(!rows.is_empty(), "no row in {table}");
            assert_eq!(rows, &after[table], "{table} has changed");
        }
    }
    one.clear().await;
    two.clear().await;
}
