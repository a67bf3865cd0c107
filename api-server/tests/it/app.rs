//! A server in this process, on ports of its own, and a client for it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api_server::config::load::load;
use api_server::keys::Keys;
use api_server::launch::{Launch, Running};
use api_server::migrate;
use api_server::search::approximate::Scale;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::services::{Access, instances, options, variable};

/// Long enough for a busy machine; what is waited for usually takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

static MIGRATED: OnceCell<()> = OnceCell::const_new();

/// A running server.
pub struct TestApp {
    pub running: Running,
    pub directory: TempDir,
    client: Client<HttpConnector, Full<Bytes>>,
    _access: Option<Access>,
}

/// How a server is to be started.
#[derive(Default)]
pub struct Builder {
    extra: String,
    alone: bool,
    guest: bool,
    database: Option<Value>,
    redis: Option<Value>,
    database_keys: Vec<(&'static str, Value)>,
    scale: Scale,
}

impl Builder {
    /// Another section `database` than the services' own.
    pub fn database(mut self, database: Value) -> Self {
        self.database = Some(database);
        self
    }

    /// Another section `redis` than the services' own.
    pub fn redis(mut self, redis: Value) -> Self {
        self.redis = Some(redis);
        self
    }

    /// The services' own section `database` with another value for a key.
    pub fn database_key(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.database_keys.push((key, value.into()));
        self
    }

    /// Who is searched through an index.
    pub fn scale(mut self, scale: Scale) -> Self {
        self.scale = scale;
        self
    }

    /// Adds sections to `tanka.yaml`.
    pub fn config(mut self, extra: &str) -> Self {
        extra.clone_into(&mut self.extra);
        self
    }

    /// Keeps all other tests away, because this one disturbs services.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// A second server beside one that holds the access already.
    pub fn guest(mut self) -> Self {
        self.guest = true;
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> TestApp {
        let access = match (self.guest, self.alone) {
            (true, _) => None,
            (false, true) => Some(Access::alone().await),
            (false, false) => Some(Access::shared().await),
        };
        MIGRATED
            .get_or_init(async || {
                let target = migrate::Target {
                    options: options("tanka_owner", 0),
                    timeout: PATIENCE,
                    external: false,
                };
                migrate::run(&target).await.unwrap();
            })
            .await;
        let directory = tempfile::tempdir().unwrap();
        let path = write_config(&directory, &self.extra);
        if self.database.is_some() || !self.database_keys.is_empty() {
            let text = std::fs::read_to_string(&path).unwrap();
            let (first, rest) = text.split_once('\n').unwrap();
            let own = || serde_json::from_str(first.strip_prefix("database: ").unwrap()).unwrap();
            let mut database: Value = self.database.clone().unwrap_or_else(own);
            for (key, value) in &self.database_keys {
                database[*key] = value.clone();
            }
            std::fs::write(&path, format!("database: {database}\n{rest}")).unwrap();
        }
        if let Some(redis) = &self.redis {
            replace_redis(&path, redis);
        }
        let (config, fingerprint) = load(&path).unwrap();
        let launch = Launch {
            config,
            file: Some((path, fingerprint)),
            keys: Keys::from_pepper(&[42; 32]).unwrap(),
            listen: "127.0.0.1:0".parse().unwrap(),
            ops_listen: "127.0.0.1:0".parse().unwrap(),
            scale: self.scale,
        };
        let running = launch.start().await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let app = TestApp {
            running,
            directory,
            client,
            _access: access,
        };
        until(
            "the server is ready and everything it depends on works",
            async || {
                app.get("/ready").await.status == StatusCode::OK && app.deep().await.status == StatusCode::OK
            },
        )
        .await;
        app
    }
}

fn replace_redis(path: &Path, redis: &Value) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    let line = format!("redis: {redis}");
    *lines.iter_mut().find(|line| line.starts_with("redis: ")).unwrap() = &line;
    std::fs::write(path, lines.join("\n")).unwrap();
}

/// Writes `tanka.yaml` with the addresses of the services and more sections.
pub fn write_config(directory: &TempDir, extra: &str) -> PathBuf {
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let password = file("postgres-password", &variable("TANKA_TEST_PG_APP_PASSWORD"));
    let redis_password = file("redis-password", &variable("TANKA_TEST_REDIS_PASSWORD"));
    let instances: Vec<Value> = instances()
        .iter()
        .enumerate()
        .map(|(index, (host, port))| json!({"name": format!("pg-{index}"), "host": host, "port": port}))
        .collect();
    let sentinels: Vec<String> = variable("TANKA_TEST_REDIS_SENTINELS")
        .split(',')
        .map(ToOwned::to_owned)
        .collect();
    let database =
        json!({"instances": instances, "passwordFile": password, "poolSize": 12, "acquireTimeout": "10s"});
    let master = variable("TANKA_TEST_REDIS_MASTER_NAME");
    let redis = json!({"sentinels": sentinels, "masterName": master, "passwordFile": redis_password});
    // Tests hurry; the ones about limits set their own.
    let limits = if extra.contains("rateLimit") {
        ""
    } else {
        "rateLimit: {requestsPerMinute: 1000000, burst: 100000, loginPerMinute: 10000, signupPerMinute: 10000}"
    };
    // Workers serve all tenants, so those of other tests would do the jobs of the tests about jobs.
    let jobs = if extra.contains("jobs:") {
        ""
    } else {
        "jobs: {concurrency: 0}"
    };
    let text = format!("database: {database}\nredis: {redis}\n{limits}\n{jobs}\n{extra}\n");
    file("tanka.yaml", &text)
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// A header, empty if absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The answer, if it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }
}

/// A person with an account.
#[derive(Debug, Clone)]
pub struct Person {
    pub email: String,
    pub password: String,
    pub token: String,
    pub refresh_token: String,
    pub tenant_id: String,
    pub user_id: String,
    pub written: Written,
}

/// The consistency token of a person's last write, which a client sends with what has to see that write.
#[derive(Debug, Clone, Default)]
pub struct Written(Arc<Mutex<Option<String>>>);

impl Written {
    pub fn token(&self) -> Option<String> {
        self.0.lock().unwrap().clone()
    }

    fn note(&self, reply: &Reply) {
        let token = reply.header("x-consistency-token");
        if !token.is_empty() {
            *self.0.lock().unwrap() = Some(token.to_owned());
        }
    }
}

impl TestApp {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A server with defaults.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Sends a request.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Reply {
        self.try_send(method, url, headers, body).await.unwrap()
    }

    /// Sends a request to a server that may end in the middle; none if it did.
    pub async fn try_send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Option<Reply> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let answer = self.client.request(request.body(Full::from(body)).unwrap());
        let (parts, body) = answer.await.ok()?.into_parts();
        let text = String::from_utf8_lossy(&body.collect().await.ok()?.to_bytes()).into_owned();
        Some(Reply {
            status: parts.status,
            headers: parts.headers,
            text,
        })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.address)
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, &self.url(path), &[], None).await
    }

    /// The deep check of the operations port.
    pub async fn deep(&self) -> Reply {
        self.ops("/health/deep").await
    }

    /// Asks the operations port.
    pub async fn ops(&self, path: &str) -> Reply {
        self.send(
            Method::GET,
            &format!("http://{}{path}", self.running.ops_address),
            &[],
            None,
        )
        .await
    }

    /// The value of the first metric line that begins so, 0 if there is none.
    pub async fn metric(&self, start: &str) -> i64 {
        let text = self.ops("/metrics").await.expect(200).text;
        text.lines()
            .find(|line| line.starts_with(start))
            .map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(Method::POST, &self.url(path), &[], Some(body)).await
    }

    /// Sends a request as a person, with more headers.
    pub async fn as_with(
        &self,
        person: &Person,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Reply {
        let bearer = format!("Bearer {}", person.token);
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        let reply = self.send(method, &self.url(path), &all, body).await;
        person.written.note(&reply);
        reply
    }

    /// Reads as a person.
    pub async fn get_as(&self, person: &Person, path: &str) -> Reply {
        self.as_with(person, Method::GET, path, &[], None).await
    }

    /// Reads as a person who wants to see a write.
    pub async fn get_after(&self, person: &Person, path: &str, write: &Reply) -> Reply {
        let token = [("x-consistency-token", write.header("x-consistency-token"))];
        self.as_with(person, Method::GET, path, &token, None).await
    }

    /// Writes as a person.
    pub async fn post_as(&self, person: &Person, path: &str, body: Value) -> Reply {
        self.as_with(person, Method::POST, path, &[], Some(body)).await
    }

    /// Makes an account in a tenant of its own.
    pub async fn person(&self) -> Person {
        let email = format!("{}@example.com", Uuid::new_v4().simple());
        let password = "correct horse battery".to_owned();
        let body = json!({"email": email, "password": password, "name": "Ada"});
        let reply = until_some("an account is made", async || {
            // Tests run side by side on few cores; a refusal for too many hashes is honest and passes.
            let reply = self.post("/api/v1/auth/signup", body.clone()).await;
            (reply.status != StatusCode::SERVICE_UNAVAILABLE).then_some(reply)
        })
        .await
        .expect(201);
        let answer = reply.json();
        let written = Written::default();
        written.note(&reply);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Person {
            email,
            password,
            token: text(&answer["access_token"]),
            refresh_token: text(&answer["refresh_token"]),
            tenant_id: text(&answer["user"]["tenant_id"]),
            user_id: text(&answer["user"]["id"]),
            written,
        }
    }

    /// Makes an account with a role in a person's tenant, and logs in with it.
    pub async fn colleague(&self, owner: &Person, role: &str) -> Person {
        let email = format!("{}@example.com", Uuid::new_v4().simple());
        let password = "correct horse battery".to_owned();
        let body = json!({"email": email, "password": password, "name": "Bob", "role": role});
        let made = until_some("a colleague is made", async || {
            let reply = self.post_as(owner, "/api/v1/tenant/users", body.clone()).await;
            (reply.status != StatusCode::SERVICE_UNAVAILABLE).then_some(reply)
        })
        .await
        .expect(201)
        .json();
        let login = self.login(&email, &password).await.expect(200).json();
        Person {
            email,
            password,
            token: login["access_token"].as_str().unwrap().to_owned(),
            refresh_token: login["refresh_token"].as_str().unwrap().to_owned(),
            tenant_id: owner.tenant_id.clone(),
            user_id: made["id"].as_str().unwrap().to_owned(),
            written: Written::default(),
        }
    }

    /// Logs in; a crowd of tests that is refused for a moment tries again.
    pub async fn login(&self, email: &str, password: &str) -> Reply {
        let body = json!({"email": email, "password": password});
        until_some("a login is answered", async || {
            let reply = self.post("/api/v1/auth/login", body.clone()).await;
            (reply.status != StatusCode::SERVICE_UNAVAILABLE).then_some(reply)
        })
        .await
    }

    /// Begins a conversation; answers its id.
    pub async fn conversation(&self, person: &Person, title: &str) -> String {
        let reply = self
            .post_as(person, "/api/v1/conversations", json!({"title": title}))
            .await
            .expect(201);
        reply.json()["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for TestApp {
    /// Ends everything that the server runs, so that it does not disturb later tests.
    fn drop(&mut self) {
        let lifecycle = self.running.app.lifecycle();
        lifecycle.draining.cancel();
        lifecycle.closing.cancel();
        lifecycle.stop.cancel();
    }
}

/// Waits for a condition.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    until_some(what, async || condition().await.then_some(())).await;
}

/// Waits for a value.
pub async fn until_some<T>(what: &str, attempt: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
