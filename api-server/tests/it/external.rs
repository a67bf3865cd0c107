//! A PostgreSQL that somebody else runs: one login that owns the database, one URL for each instance, and the wall between tenants
//! all the same.

use std::path::PathBuf;

use api_server::check::Services;
use api_server::migrate::{self, APP_ROLE, Target};
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, Row};
use tempfile::TempDir;
use uuid::Uuid;

use crate::app::{PATIENCE, TestApp, until_some};
use crate::services::{Access, connect, instances, options, variable};

/// A database of its own, and the login that owns it.
struct Shop {
    name: String,
    directory: TempDir,
}

async fn execute(connection: &mut PgConnection, statement: String) {
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
}

impl Shop {
    /// As the administrator of the server would make it for us.
    async fn open() -> Self {
        let name = format!("shop_{}", Uuid::new_v4().simple());
        let mut admin = connect("postgres", 0).await;
        execute(&mut admin, format!("CREATE ROLE {name} LOGIN PASSWORD 'sesame'")).await;
        execute(&mut admin, format!("CREATE DATABASE {name} OWNER {name}")).await;
        Self {
            name,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Only an administrator may make an extension that its packagers did not mark as trusted.
    async fn extend(&self) {
        let mut admin = options("postgres", 0)
            .database(&self.name)
            .connect()
            .await
            .unwrap();
        execute(&mut admin, "CREATE EXTENSION vector".to_owned()).await;
    }

    /// The role of the requests is on this server already: somebody has to let the login act as it.
    async fn admit(&self) {
        let mut admin = connect("postgres", 0).await;
        execute(&mut admin, format!("GRANT {APP_ROLE} TO {}", self.name)).await;
    }

    fn url(&self, instance: usize) -> String {
        let (host, port) = &instances()[instance];
        format!("postgres://{0}:sesame@{host}:{port}/{0}", self.name)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn services(&self) -> Services {
        Services {
            primary: Some(self.file("primary", &self.url(0))),
            replicas: vec![self.file("replica-0", &self.url(1))],
            ..Services::default()
        }
    }

    fn options(&self) -> PgConnectOptions {
        self.url(0).parse().unwrap()
    }

    async fn migrate(&self) {
        let target = Target {
            options: self.options(),
            timeout: PATIENCE,
            external: true,
        };
        migrate::run(&target).await.unwrap();
        assert_eq!(migrate::run(&target).await.unwrap(), 0, "it can be repeated");
    }
}

async fn count(connection: &mut PgConnection, table: &str) -> i64 {
    let statement = format!("SELECT count(*) FROM {table}");
    let row = connection
        .fetch_one(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
    row.get(0)
}

#[tokio::test]
async fn one_login_owns_and_serves_and_still_sees_nothing_without_a_tenant() {
    let access = Access::shared().await;
    let shop = Shop::open().await;
    shop.admit().await;
    shop.extend().await;
    shop.migrate().await;
    drop(access);
    let services = shop.services();
    let list: Vec<_> = std::iter::once(services.primary.unwrap())
        .chain(services.replicas)
        .enumerate()
        .map(|(index, file)| json!({"name": format!("pg-{index}"), "urlFile": file}))
        .collect();
    let app = TestApp::builder()
        .database(json!({"instances": list, "poolSize": 8}))
        .start()
        .await;
    // Signing up, logging in and refreshing go through the functions that see all tenants.
    let person = app.person().await;
    let other = app.person().await;
    let conversation = app.conversation(&person, "Secret").await;
    let path = format!("/api/v1/conversations/{conversation}");
    app.get_as(&person, &path).await.expect(200);
    app.get_as(&other, &path).await.expect(404);
    let refresh = json!({"refresh_token": person.refresh_token});
    app.post("/api/v1/auth/refresh", refresh).await.expect(200);
    // Neither the role of the requests nor the owner itself sees a row without a tenant.
    let as_app = shop.options().options([("role", APP_ROLE)]);
    for options in [as_app, shop.options()] {
        let mut connection = options.connect().await.unwrap();
        for table in [
            "tenants",
            "users",
            "sessions",
            "conversations",
            "messages",
            "events",
        ] {
            assert_eq!(count(&mut connection, table).await, 0, "{table}");
        }
    }
    let admin = options("postgres", 0).database(&shop.name);
    assert_eq!(count(&mut admin.connect().await.unwrap(), "users").await, 2);
}

#[tokio::test]
async fn what_an_external_postgresql_lacks_is_said_by_name() {
    let _access = Access::shared().await;
    let shop = Shop::open().await;
    let finding = async |services: Services| services.look().await.postgres.unwrap_or_default();
    let lacks = finding(shop.services()).await;
    assert!(lacks.contains("CREATE EXTENSION vector"), "{lacks}");
    shop.extend().await;
    let refused = finding(shop.services()).await;
    assert!(
        refused.contains(&format!("GRANT {APP_ROLE} TO {}", shop.name)),
        "{refused}"
    );
    shop.admit().await;
    let replica = until_some("the replica knows the database", async || {
        let found = finding(shop.services()).await;
        (!found.contains("does not exist")).then_some(found)
    })
    .await;
    assert_eq!(replica, "", "nothing is missing any more");
    let swapped = Services {
        primary: Some(shop.file("swapped", &shop.url(1))),
        ..shop.services()
    };
    assert!(finding(swapped).await.contains("it is in recovery"));
    let twice = Services {
        replicas: vec![shop.file("twice", &shop.url(0))],
        ..shop.services()
    };
    let words = finding(twice).await;
    assert!(
        words.contains("replica-0") && words.contains("it takes writes"),
        "{words}"
    );
    let wrong = shop.url(0).replace("sesame", "open");
    let words = finding(Services {
        primary: Some(shop.file("wrong", &wrong)),
        ..shop.services()
    })
    .await;
    assert!(
        words.contains("password authentication failed") && !words.contains("open@"),
        "{words}"
    );
    let nowhere = "postgres://a:secret@127.0.0.1:1/b";
    let words = finding(Services {
        primary: Some(shop.file("nowhere", nowhere)),
        ..shop.services()
    })
    .await;
    assert!(
        words.contains("127.0.0.1:1") && !words.contains("secret"),
        "{words}"
    );
    let words = finding(Services {
        primary: Some(shop.file("text", "not a url")),
        ..shop.services()
    })
    .await;
    assert!(words.contains("write postgres://"), "{words}");
}

#[tokio::test]
async fn an_external_redis_must_be_a_primary_that_answers() {
    let shop_directory = tempfile::tempdir().unwrap();
    let file = shop_directory.path().join("redis");
    let finding = async |url: &str| {
        std::fs::write(&file, url).unwrap();
        let services = Services {
            redis: Some(file.clone()),
            ..Services::default()
        };
        services.look().await.redis.unwrap_or_default()
    };
    assert!(finding("redis://127.0.0.1:1/0").await.contains("127.0.0.1:1"));
    assert!(finding("nothing").await.contains("write redis://"));
    let password = variable("TANKA_TEST_REDIS_PASSWORD");
    let mut findings = Vec::new();
    for address in variable("TANKA_TEST_REDIS_ADDRESSES").split(',') {
        findings.push(finding(&format!("redis://:{password}@{address}/0")).await);
    }
    assert_eq!(
        findings.iter().filter(|words| words.is_empty()).count(),
        1,
        "{findings:?}"
    );
    assert_eq!(
        findings
            .iter()
            .filter(|words| words.contains("it is a replica"))
            .count(),
        2,
        "{findings:?}"
    );
    // Any server of a Redis Cluster will do.
    for server in [0, 3] {
        assert_eq!(finding(&crate::redis_cluster::url(server)).await, "");
    }
}

#[tokio::test]
async fn the_role_of_the_requests_is_made_where_it_does_not_exist() {
    let _access = Access::shared().await;
    let shop = Shop::open().await;
    let mut admin = connect("postgres", 0).await;
    execute(&mut admin, format!("ALTER ROLE {} CREATEROLE", shop.name)).await;
    shop.extend().await;
    let role = format!("{}_app", shop.name);
    let mut owner = shop.options().connect().await.unwrap();
    for _ in 0..2 {
        migrate::prepare_external(&mut owner, &role).await.unwrap();
    }
    execute(&mut owner, "CREATE TABLE things (id int)".to_owned()).await;
    let mut served = shop
        .options()
        .options([("role", role.as_str())])
        .connect()
        .await
        .unwrap();
    assert_eq!(count(&mut served, "things").await, 0);
    let denied = served.execute("CREATE TABLE more (id int)").await.unwrap_err();
    assert!(denied.to_string().contains("permission denied"), "{denied}");
}
