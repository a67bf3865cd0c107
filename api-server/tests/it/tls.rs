//! PostgreSQL and Redis that somebody else runs, over TLS: the real servers with certificates that this test makes.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use api_server::check::Services;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use redis::aio::MultiplexedConnection;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, Row};
use tempfile::TempDir;

use crate::app::{TestApp, until, until_some};
use crate::services::{Access, connect, instances, variable};

/// Who PostgreSQL and Redis run as, which must be able to read their keys.
const POSTGRES: (u32, u32) = (101, 103);
const REDIS: (u32, u32) = (999, 999);

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority_named(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Lays a certificate for 127.0.0.1 and its key into the volume of a service.
fn furnish(volume: &Path, authority: &Authority, (user, group): (u32, u32)) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    for (name, content) in [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem())] {
        let path = volume.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(user), Some(group)).unwrap();
    }
}

async fn administer(instance: usize, statements: &[&str]) {
    let mut admin = connect("postgres", instance).await;
    for statement in statements {
        admin
            .execute(sqlx::raw_sql(AssertSqlSafe((*statement).to_owned())))
            .await
            .unwrap();
    }
}

/// The member that is the primary, and a connection to it.
async fn primary() -> (usize, MultiplexedConnection) {
    let password = variable("TANKA_TEST_REDIS_PASSWORD");
    for (index, address) in variable("TANKA_TEST_REDIS_ADDRESSES").split(',').enumerate() {
        let client = redis::Client::open(format!("redis://:{password}@{address}/0")).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let information: String = redis::cmd("INFO")
            .arg("replication")
            .query_async(&mut connection)
            .await
            .unwrap();
        if information.contains("role:master") {
            return (index, connection);
        }
    }
    panic!("no member is the primary");
}

async fn set(connection: &mut MultiplexedConnection, pairs: &[&str]) {
    let mut command = redis::cmd("CONFIG");
    command.arg("SET").arg(pairs);
    let () = command.query_async(connection).await.unwrap();
}

/// Services with TLS switched on, files with their URLs, and the authority that signed for them.
struct Secured {
    directory: TempDir,
    redis: MultiplexedConnection,
    redis_port: u16,
    _access: Access,
}

impl Secured {
    async fn start() -> Self {
        // As in main.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let access = Access::alone().await;
        let volumes = PathBuf::from(variable("TANKA_TEST_CONTROL"))
            .parent()
            .unwrap()
            .to_owned();
        let authority = authority_named("the authority of this test");
        for (index, service) in ["pg-primary", "pg-replica-1", "pg-replica-2"].iter().enumerate() {
            furnish(&volumes.join(service).join("pgdata"), &authority, POSTGRES);
            let switch = [
                "ALTER SYSTEM SET ssl_cert_file = 'tls.crt'",
                "ALTER SYSTEM SET ssl_key_file = 'tls.key'",
                "ALTER SYSTEM SET ssl = on",
                "SELECT pg_reload_conf()",
            ];
            administer(index, &switch).await;
            until("PostgreSQL offers TLS", async || {
                let row = connect("postgres", index)
                    .await
                    .fetch_one("SHOW ssl")
                    .await
                    .unwrap();
                row.get::<String, _>(0) == "on"
            })
            .await;
        }
        let (member, mut redis) = primary().await;
        furnish(&volumes.join(format!("redis-{member}")), &authority, REDIS);
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let redis_port = free.local_addr().unwrap().port();
        drop(free);
        let port = redis_port.to_string();
        let files = ["tls-cert-file", "/data/tls.crt", "tls-key-file", "/data/tls.key"];
        set(
            &mut redis,
            &[&files[..], &["tls-auth-clients", "no", "tls-port", &port]].concat(),
        )
        .await;
        let secured = Self {
            directory: tempfile::tempdir().unwrap(),
            redis,
            redis_port,
            _access: access,
        };
        secured.file("ca", &authority.pem());
        secured.file("other-ca", &authority_named("another authority").pem());
        secured
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn postgres(&self, user: &str, instance: usize, host: &str) -> PathBuf {
        let (_, port) = instances()[instance];
        let password = if user == "postgres" { "SUPERUSER" } else { "APP" };
        let password = variable(&format!("TANKA_TEST_PG_{password}_PASSWORD"));
        let database = variable("TANKA_TEST_PG_DATABASE");
        let url = format!("postgres://{user}:{password}@{host}:{port}/{database}?sslmode=verify-full");
        self.file(&format!("{user}-{instance}-{host}"), &url)
    }

    fn redis(&self, scheme: &str, host: &str) -> PathBuf {
        let password = variable("TANKA_TEST_REDIS_PASSWORD");
        let url = format!("{scheme}://:{password}@{host}:{}/0", self.redis_port);
        self.file(&format!("{scheme}-{host}"), &url)
    }

    /// What keeps the services from being used with the file of an authority.
    async fn look(&self, host: &str, scheme: &str, authority: Option<&str>) -> (String, String) {
        let authority = authority.map(|name| self.directory.path().join(name));
        let services = Services {
            primary: Some(self.postgres("postgres", 0, host)),
            redis: Some(self.redis(scheme, host)),
            postgres_authority: authority.clone(),
            redis_authority: authority,
            ..Services::default()
        };
        let report = services.look().await;
        (
            report.postgres.unwrap_or_default(),
            report.redis.unwrap_or_default(),
        )
    }

    async fn end(mut self) {
        for index in 0..instances().len() {
            administer(index, &["ALTER SYSTEM RESET ssl", "SELECT pg_reload_conf()"]).await;
        }
        set(&mut self.redis, &["tls-port", "0"]).await;
    }
}

/// T55: an API server works over TLS alone where URLs and authorities say so: no session of its own is in the clear.
#[tokio::test]
async fn everything_is_reached_over_tls() {
    let secured = Secured::start().await;
    let ca = secured.directory.path().join("ca");
    let list: Vec<_> = (0..instances().len())
        .map(|index| json!({"name": format!("pg-{index}"), "urlFile": secured.postgres("tanka_app", index, "127.0.0.1")}))
        .collect();
    let app = TestApp::builder()
        .guest()
        .database(json!({"instances": list, "poolSize": 8, "caFile": ca}))
        .redis(json!({"urlFile": secured.redis("rediss", "127.0.0.1"), "caFile": ca}))
        .start()
        .await;
    let person = app.person().await;
    let conversation = app.conversation(&person, "In confidence").await;
    app.get_as(&person, &format!("/api/v1/conversations/{conversation}"))
        .await
        .expect(200);
    for index in 0..instances().len() {
        let sessions = until_some("sessions of servers before this one are gone", async || {
            let statement = "SELECT count(*) FILTER (WHERE s.ssl), count(*) FILTER (WHERE NOT s.ssl)
                               FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid) WHERE a.application_name = 'tanka-api'";
            let row = connect("postgres", index).await.fetch_one(statement).await.unwrap();
            let (secure, clear): (i64, i64) = (row.get(0), row.get(1));
            (clear == 0).then_some(secure)
        })
        .await;
        assert!(sessions > 0, "instance {index} serves nobody");
    }
    let mut redis = secured.redis.clone();
    let clients: String = redis::cmd("CLIENT")
        .arg("LIST")
        .query_async(&mut redis)
        .await
        .unwrap();
    let door = format!("laddr=127.0.0.1:{} ", secured.redis_port);
    assert!(clients.contains(&door), "{clients}");
    drop(app);
    secured.end().await;
}

/// Who is not trusted is refused, in words: another authority, another host, no TLS at all.
#[tokio::test]
async fn a_certificate_of_another_authority_or_host_is_refused() {
    let secured = Secured::start().await;
    let (postgres, redis) = secured.look("127.0.0.1", "rediss", Some("ca")).await;
    assert_eq!((postgres.as_str(), redis.as_str()), ("", ""));
    for authority in [Some("other-ca"), None] {
        let (postgres, redis) = secured.look("127.0.0.1", "rediss", authority).await;
        for words in [&postgres, &redis] {
            assert!(
                words.contains("an authority that is not trusted here"),
                "{authority:?}: {words}"
            );
            assert!(
                words.contains("127.0.0.1:") && !words.contains("for-tests"),
                "{words}"
            );
        }
    }
    let (postgres, redis) = secured.look("localhost", "rediss", Some("ca")).await;
    for words in [&postgres, &redis] {
        assert!(words.contains("for another host"), "{words}");
    }
    let (_, redis) = secured.look("127.0.0.1", "redis", Some("ca")).await;
    assert!(redis.contains("rediss://"), "{redis}");
    secured.end().await;
}
