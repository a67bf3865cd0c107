//! Every route, whoever wrote it: taken from the description that is enforced.

use api_server::domain::principal::{PERMISSIONS, Permission};
use api_server::http::openapi;
use api_server::http::permission::{Access, Permissions};
use axum::http::Method;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, Row};
use tokio::time::timeout;
use uuid::Uuid;

use crate::app::{Person, Reply, TestApp};
use crate::services::connect;

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

/// API1, F46: every id of one tenant, in every place of every address, is not found for another tenant, and its answer holds nothing of
/// the first one's.
#[tokio::test]
async fn no_id_of_another_tenant_is_found_on_any_route() {
    let app = TestApp::start().await;
    let (owner, stranger) = (app.person().await, app.person().await);
    let canary = format!("canary-{}", Uuid::new_v4().simple());
    let conversation = app.conversation(&owner, &canary).await;
    app.post_as(
        &owner,
        &format!("/api/v1/conversations/{conversation}/messages"),
        json!({"content": canary}),
    )
    .await
    .expect(201);
    let invited = json!({"email": format!("{canary}@example.com")});
    app.post_as(&owner, "/api/v1/tenant/invitations", invited)
        .await
        .expect(201);
    let ids = ids_of(&owner.tenant_id).await;
    assert!(
        ids.contains(&conversation) && ids.contains(&owner.user_id),
        "{ids:?}"
    );
    let mut tried = 0;
    for route in routes() {
        if route.access == Access::Public || ENDING.contains(&route.path.as_str()) {
            continue;
        }
        let addresses: Vec<String> = if route.path.contains('{') {
            ids.iter().map(|id| filled(&route.path, id)).collect()
        } else {
            vec![route.path.clone()]
        };
        for address in addresses {
            let Some(reply) = call(&app, Some(&stranger), &route, &address).await else {
                continue;
            };
            let what = format!("{} {address}: {reply:?}", route.method);
            if route.path.contains('{') {
                tried += 1;
                // A body without the needed fields may be refused first; nothing may succeed, and nothing may be told apart.
                assert!(matches!(reply.status.as_u16(), 403 | 404 | 422), "{what}");
            }
            for secret in [&canary, &owner.tenant_id, &owner.email] {
                assert!(!reply.text.contains(secret.as_str()), "{what}");
            }
        }
    }
    assert!(tried > 20, "{tried}");
    // The owner still finds everything.
    let path = format!("/api/v1/conversations/{conversation}");
    assert_eq!(
        app.get_as(&owner, &path).await.expect(200).json()["title"],
        canary
    );
}

/// Ids of all rows of a tenant, in all tables.
async fn ids_of(tenant: &str) -> Vec<String> {
    let mut connection = connect("postgres", 0).await;
    let tables = connection
        .fetch_all(
            "SELECT t.relname::text FROM pg_class t
              WHERE t.relkind IN ('r', 'p') AND t.relnamespace = 'public'::regnamespace
                AND 2 = (SELECT count(*) FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
                          WHERE a.attrelid = t.oid AND a.attname IN ('id', 'tenant_id') AND y.typname = 'uuid')",
        )
        .await
        .unwrap();
    let mut ids = vec![tenant.to_owned()];
    for table in tables.iter().map(|row| row.get::<String, _>(0)) {
        let statement = format!("SELECT id::text FROM {table} WHERE tenant_id = '{tenant}' LIMIT 3");
        let rows = connection
            .fetch_all(sqlx::raw_sql(AssertSqlSafe(statement)))
            .await
            .unwrap();
        ids.extend(rows.iter().map(|row| row.get::<String, _>(0)));
    }
    ids
}
