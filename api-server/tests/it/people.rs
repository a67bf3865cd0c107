//! People of a tenant: invitations, roles, sessions, logs.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::{Person, Reply, TestApp, until};

async fn patch(app: &TestApp, actor: &Person, person: &Person, change: Value) -> Reply {
    let path = format!("/api/v1/tenant/users/{}", person.user_id);
    app.as_with(actor, Method::PATCH, &path, &[], Some(change)).await
}

fn events(reply: &Reply) -> Vec<String> {
    let items = reply.json()["items"].as_array().unwrap().clone();
    items
        .iter()
        .map(|item| item["event_type"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn an_invitation_is_good_once_and_for_its_address() {
    let app = TestApp::start().await;
    let owner = app.person().await;
    let email = format!("{}@example.com", Uuid::new_v4().simple());
    let body = json!({"email": email, "role": "viewer"});
    let key = [("idempotency-key", "invite-1")];
    let invite = || {
        app.as_with(
            &owner,
            Method::POST,
            "/api/v1/tenant/invitations",
            &key,
            Some(body.clone()),
        )
    };
    let first = invite().await.expect(201).json();
    // The answer to a repeated request carries the same token, although no token is stored.
    assert_eq!(invite().await.expect(201).json()["token"], first["token"]);
    let signup = |email: &str, token: &Value| {
        let body =
            json!({"email": email, "password": "correct horse battery", "name": "Bob", "invitation": token});
        let app = &app;
        async move { app.post("/api/v1/auth/signup", body).await }
    };
    let stranger = format!("{}@example.com", Uuid::new_v4().simple());
    let refused = signup(&stranger, &first["token"]).await.expect(422);
    assert_eq!(refused.json()["errors"][0]["field"], "invitation");
    let joined = signup(&email, &first["token"]).await.expect(201).json();
    assert_eq!(joined["user"]["tenant_id"], owner.tenant_id.as_str());
    assert_eq!(joined["user"]["role"], "viewer");
    let again = signup(&email, &first["token"]).await;
    assert_eq!(again.status, 422, "{again:?}");
    let owner_role = json!({"email": stranger, "role": "owner"});
    let refused = app
        .post_as(&owner, "/api/v1/tenant/invitations", owner_role)
        .await
        .expect(422);
    assert_eq!(refused.json()["errors"][0]["field"], "role");
}

/// C09: people with their settings, one statement.
#[tokio::test]
async fn people_are_listed_with_their_settings_by_one_statement() {
    let app = TestApp::builder()
        .config("http: {debugHeaders: true}")
        .start()
        .await;
    let owner = app.person().await;
    let member = app.colleague(&owner, "member").await;
    let settings = json!({"locale": "de-CH", "timezone": "Europe/Zurich", "theme": "dark", "email_notifications": false});
    let put = app
        .as_with(
            &member,
            Method::PUT,
            "/api/v1/users/settings",
            &[],
            Some(settings.clone()),
        )
        .await
        .expect(200);
    assert_eq!(
        app.get_after(&member, "/api/v1/users/settings", &put)
            .await
            .json(),
        settings
    );
    app.get_as(&owner, "/api/v1/tenant").await.expect(200);
    let list = app
        .get_after(&owner, "/api/v1/tenant/users", &put)
        .await
        .expect(200);
    assert_eq!(list.header("x-db-queries"), "1");
    let items = list.json()["items"].clone();
    assert_eq!(items[0]["id"], member.user_id.as_str());
    assert_eq!(items[0]["settings"], settings);
    assert_eq!(items[1]["settings"]["theme"], "system");
    assert!(items[0].get("password_hash").is_none());
    let wrong = json!({"locale": "?", "timezone": "", "theme": "dark", "email_notifications": true});
    let refused = app
        .as_with(&member, Method::PUT, "/api/v1/users/settings", &[], Some(wrong))
        .await
        .expect(422);
    let fields: Vec<_> = refused.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["field"].clone())
        .collect();
    assert_eq!(fields, ["locale", "timezone"]);
}

/// F22: rights are looked up by person, not by token: a change holds for tokens that are in use, on every server, within a second.
#[tokio::test]
async fn a_changed_role_holds_for_tokens_in_use_on_every_server() {
    let app = TestApp::start().await;
    let other = TestApp::builder().guest().start().await;
    let owner = app.person().await;
    let member = app.colleague(&owner, "member").await;
    for server in [&app, &other] {
        server.conversation(&member, "Mine").await;
        server.get_as(&member, "/api/v1/conversations").await.expect(200);
    }
    let started = Instant::now();
    patch(&app, &owner, &member, json!({"role": "viewer"}))
        .await
        .expect(200);
    until("the other server refuses to write", async || {
        let body = json!({"title": "Late"});
        other.post_as(&member, "/api/v1/conversations", body).await.status == 403
    })
    .await;
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    let body = json!({"title": "Late"});
    app.post_as(&member, "/api/v1/conversations", body)
        .await
        .expect(403);
    other.get_as(&member, "/api/v1/conversations").await.expect(200);

    let started = Instant::now();
    patch(&app, &owner, &member, json!({"is_active": false}))
        .await
        .expect(200);
    until("the other server refuses the person", async || {
        other.get_as(&member, "/api/v1/conversations").await.status == 401
    })
    .await;
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(app.login(&member.email, &member.password).await.status, 401);
}

/// F26, API5: operators of the platform are made on the command line only; they see what requests cost.
#[tokio::test]
async fn an_operator_is_made_by_the_command_line() {
    use api_server::admin::{NewUser, create_tenant, create_user};
    let app = TestApp::start().await;
    let options = crate::services::options("tanka_owner", 0);
    let tenant = create_tenant(&options, "Operations").await.unwrap();
    let email = format!("{}@example.com", Uuid::new_v4().simple());
    let user = NewUser {
        email: email.clone(),
        name: "Grace".to_owned(),
        password: "correct horse battery".to_owned().into(),
        role: api_server::domain::principal::Role::Owner,
        operator: true,
    };
    create_user(&options, tenant, &user).await.unwrap();
    let again = format!("{:#}", create_user(&options, tenant, &user).await.unwrap_err());
    assert!(again.contains("address may be taken"), "{again}");
    assert!(create_user(&options, Uuid::new_v4(), &user).await.is_err());
    let login = app
        .login(&email, "correct horse battery")
        .await
        .expect(200)
        .json();
    let bearer = format!("Bearer {}", login["token"].as_str().unwrap());
    let headers = [("authorization", bearer.as_str())];
    let url = app.url("/api/v1/auth/me");
    let reply = app.send(Method::GET, &url, &headers, None).await.expect(200);
    assert!(!reply.header("x-db-queries").is_empty(), "{reply:?}");
    let person = app.person().await;
    assert_eq!(
        app.get_as(&person, "/api/v1/auth/me")
            .await
            .header("x-db-queries"),
        ""
    );
}

/// J02, J03: a token that is known costs no statement, one that is not costs one or two.
#[tokio::test]
async fn a_known_token_costs_no_statement() {
    let app = TestApp::builder()
        .config("http: {debugHeaders: true}")
        .start()
        .await;
    let person = app.person().await;
    let cost = async || {
        let reply = app.get_as(&person, "/api/v1/auth/me").await.expect(200);
        reply.header("x-db-queries").parse::<u32>().unwrap() - 1
    };
    let first = cost().await;
    assert!((1..3).contains(&first), "{first}");
    until("the token is known", async || cost().await == 0).await;
}

#[tokio::test]
async fn roles_are_changed_by_those_above_and_an_owner_stays() {
    let app = TestApp::start().await;
    let owner = app.person().await;
    let admin = app.colleague(&owner, "admin").await;
    patch(&app, &admin, &owner, json!({"role": "member"}))
        .await
        .expect(403);
    patch(&app, &admin, &admin, json!({"role": "owner"}))
        .await
        .expect(409);
    patch(&app, &owner, &owner, json!({"is_active": false}))
        .await
        .expect(409);
    let body =
        json!({"email": "x@example.com", "password": "correct horse battery", "name": "X", "role": "owner"});
    app.post_as(&admin, "/api/v1/tenant/users", body)
        .await
        .expect(403);
    patch(&app, &owner, &admin, json!({"role": "owner"}))
        .await
        .expect(200);
    patch(&app, &owner, &admin, json!({})).await.expect(422);
    // API3: fields that are not named cannot be set.
    let sneaky = json!({"role": "member", "tenant_id": Uuid::new_v4(), "is_operator": true});
    patch(&app, &owner, &admin, sneaky).await.expect(422);
    let renamed = app
        .as_with(
            &owner,
            Method::PATCH,
            "/api/v1/tenant",
            &[],
            Some(json!({"name": "Acme"})),
        )
        .await
        .expect(200);
    assert_eq!(
        app.get_after(&admin, "/api/v1/tenant", &renamed).await.json()["name"],
        "Acme"
    );
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let agent = [("user-agent", "phone/1"), ("x-forwarded-for", "203.0.113.7")];
    let body = json!({"email": person.email, "password": person.password});
    let phone = app
        .send(Method::POST, &app.url("/api/v1/auth/login"), &agent, Some(body))
        .await
        .expect(200);
    let phone_person = Person {
        token: phone.json()["token"].as_str().unwrap().to_owned(),
        ..person.clone()
    };
    let list = app
        .get_after(&person, "/api/v1/auth/sessions", &phone)
        .await
        .expect(200)
        .json();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert_eq!(list["items"][0]["user_agent"], "phone/1");
    assert_eq!(list["items"][0]["address"], "203.0.113.7");
    assert_eq!(
        (&list["items"][0]["current"], &list["items"][1]["current"]),
        (&json!(false), &json!(true))
    );
    app.get_as(&phone_person, "/api/v1/auth/me").await.expect(200);
    let path = format!(
        "/api/v1/auth/sessions/{}",
        list["items"][0]["id"].as_str().unwrap()
    );
    let end = || app.as_with(&person, Method::DELETE, &path, &[], None);
    end().await.expect(204);
    end().await.expect(404);
    // This server knows at once.
    app.get_as(&phone_person, "/api/v1/auth/me").await.expect(401);

    let change = json!({"current_password": "wrong horse", "new_password": "better horse battery"});
    let refused = app
        .post_as(&person, "/api/v1/auth/password", change)
        .await
        .expect(422);
    assert_eq!(refused.json()["errors"][0]["field"], "current_password");
    let other = app
        .login(&person.email, &person.password)
        .await
        .expect(200)
        .json();
    let change = json!({"current_password": person.password, "new_password": "better horse battery"});
    app.post_as(&person, "/api/v1/auth/password", change)
        .await
        .expect(204);
    app.get_as(&person, "/api/v1/auth/me").await.expect(200);
    let ended = Person {
        token: other["token"].as_str().unwrap().to_owned(),
        ..person.clone()
    };
    app.get_as(&ended, "/api/v1/auth/me").await.expect(401);
    app.login(&person.email, "better horse battery").await.expect(200);
    app.as_with(&person, Method::POST, "/api/v1/auth/logout-all", &[], None)
        .await
        .expect(204);
    app.get_as(&person, "/api/v1/auth/me").await.expect(401);
}

/// J14, J51: security events and changes are written with what they tell of, and say who, whom and from where.
#[tokio::test]
async fn the_logs_say_what_happened() {
    let app = TestApp::start().await;
    let owner = app.person().await;
    let member = app.colleague(&owner, "member").await;
    app.login(&member.email, "wrong horse").await.expect(401);
    let conversation = app.conversation(&member, "Mine").await;
    patch(&app, &owner, &member, json!({"role": "viewer"}))
        .await
        .expect(200);
    let about = format!("/api/v1/audit-logs?user_id={}", member.user_id);
    until("all entries are there", async || {
        let mut events = events(&app.get_as(&owner, &about).await.expect(200));
        events.sort();
        events
            == [
                "login.failed",
                "login.succeeded",
                "user.created",
                "user.role_changed",
            ]
    })
    .await;
    let failed = app
        .get_as(&owner, "/api/v1/audit-logs?event_type=login.failed")
        .await
        .expect(200)
        .json();
    assert_eq!(failed["items"][0]["user_id"], member.user_id.as_str());
    assert_eq!(failed["items"][0]["actor_id"], Value::Null);
    assert_eq!(failed["items"][0]["address"], "127.0.0.1");
    let page = app
        .get_as(&owner, "/api/v1/audit-logs?limit=1")
        .await
        .expect(200)
        .json();
    assert!(page["next_cursor"].is_string());
    let wrong = app
        .get_as(&owner, "/api/v1/audit-logs?event_type=nonsense")
        .await
        .expect(422);
    assert_eq!(wrong.json()["errors"][0]["field"], "event_type");
    let activity = app.get_as(&owner, "/api/v1/activity").await.expect(200).json();
    let begun = activity["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|line| line["action"] == "conversation.created");
    assert_eq!(begun.unwrap()["subject_id"], conversation.as_str());
    let stranger = app.person().await;
    let theirs = app.get_as(&stranger, &about).await.expect(200).json();
    assert_eq!(theirs["items"], json!([]));
}

#[tokio::test]
async fn an_announcement_is_an_event_of_the_tenant() {
    use sqlx::Row;
    let app = TestApp::start().await;
    let owner = app.person().await;
    let said = app
        .post_as(&owner, "/api/v1/tenant/broadcast", json!({"message": "Lunch"}))
        .await
        .expect(202);
    assert_eq!(said.json()["message"], "Lunch");
    let mut connection = crate::services::connect("postgres", 0).await;
    let row = sqlx::query("SELECT kind, body FROM events WHERE channel = $1")
        .bind(format!("tenant:{}:broadcast", owner.tenant_id))
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(row.get::<String, _>(0), "tenant.broadcast");
    assert!(row.get::<String, _>(1).contains("Lunch"));
}

/// R44, J19, J22: the profile is cached, and what changes it, whoever does it, is seen at once.
#[tokio::test]
async fn a_profile_is_cached_and_current() {
    const PROFILE: &str = "/api/v1/users/profile";
    let app = TestApp::start().await;
    let owner = app.person().await;
    let member = app.colleague(&owner, "member").await;
    let cached = async || {
        until("the profile is cached", async || {
            app.get_as(&member, PROFILE).await.expect(200).header("x-cache") == "hit"
        })
        .await;
    };
    cached().await;
    app.as_with(
        &member,
        Method::PATCH,
        PROFILE,
        &[],
        Some(json!({"name": "Grace"})),
    )
    .await
    .expect(200);
    assert_eq!(
        app.get_as(&member, PROFILE).await.expect(200).json()["name"],
        "Grace"
    );
    cached().await;
    patch(&app, &owner, &member, json!({"role": "viewer"}))
        .await
        .expect(200);
    let now = app.get_as(&member, PROFILE).await.expect(200).json();
    assert_eq!((&now["name"], &now["role"]), (&json!("Grace"), &json!("viewer")));
    assert_eq!(now["email"], member.email);
    // Another person's is another entry.
    assert_eq!(
        app.get_as(&owner, PROFILE).await.expect(200).json()["email"],
        owner.email
    );
}
