//! Rows of a tenant, of every kind that there is.

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor, Row};
use uuid::Uuid;

use crate::app::{Person, Reply, TestApp, until};
use crate::cache_operation::make_operator;
use crate::resources::{form, upload};
use crate::services::connect;

/// What a server needs to take the sources of these syncs, where nothing answers.
pub const CONFIG: &str = "outbound: {allowedNetworks: [127.0.0.0/8]}";

/// Rows of one tenant, of every kind that can be listed.
pub struct Ground<'a> {
    pub app: &'a TestApp,
    pub owner: Person,
    /// In every text that the owner writes, and nowhere else.
    pub mark: String,
    pub region: String,
    pub conversation: String,
    pub memory: String,
    pub workroom: String,
    pub resource: String,
    pub webhook: String,
    pub task: String,
    pub schedule: String,
    pub plan: String,
    /// Tokens and secrets that the owner was shown.
    shown: Vec<String>,
}

fn id(reply: &Reply) -> String {
    text(reply, "id")
}

/// A text of an answer.
fn text(reply: &Reply, name: &str) -> String {
    reply.json()[name].as_str().unwrap().to_owned()
}

impl<'a> Ground<'a> {
    /// One row of each kind, and a plan: the owner operates the platform too.
    pub async fn of(app: &'a TestApp) -> Self {
        let owner = app.person().await;
        make_operator(&owner, true).await;
        until("the grant is everywhere", async || {
            app.get_as(&owner, "/api/v1/cache/stats").await.status == 200
        })
        .await;
        let mut ground = Self::begin(app, owner).await;
        ground.plan = ground.offer(0).await;
        ground
    }

    /// One row of each kind that an owner may make.
    async fn begin(app: &'a TestApp, owner: Person) -> Self {
        let mut ground = Self {
            app,
            mark: format!("canary{}", Uuid::new_v4().simple()),
            region: format!("N-{}", &owner.user_id[24..]).to_uppercase(),
            shown: vec![owner.token.clone(), owner.refresh_token.clone()],
            owner,
            conversation: String::new(),
            memory: String::new(),
            workroom: String::new(),
            resource: String::new(),
            webhook: String::new(),
            task: String::new(),
            schedule: String::new(),
            plan: String::new(),
        };
        let hook = ground.hook().await;
        ground.webhook = id(&hook);
        ground.shown.push(text(&hook, "secret"));
        let title = format!("{} 0", ground.mark);
        ground.conversation = app.conversation(&ground.owner, &title).await;
        ground.workroom = ground.make("workrooms", json!({"name": title})).await;
        ground.row(0).await;
        ground
    }

    /// Makes something; answers its id.
    pub async fn make(&self, collection: &str, body: Value) -> String {
        let path = format!("/api/v1/{collection}");
        id(&self.app.post_as(&self.owner, &path, body).await.expect(201))
    }

    /// One more endpoint for events.
    pub async fn hook(&self) -> Reply {
        let body = json!({
            "url": format!("https://example.com/{}", self.mark), "description": self.mark,
            "event_types": ["conversation.created"],
        });
        self.app
            .post_as(&self.owner, "/api/v1/webhooks", body)
            .await
            .expect(201)
    }

    /// One more plan; answers its id.
    pub async fn offer(&self, number: i64) -> String {
        let plan = json!({
            "name": number.to_string(), "provider": "Ours", "regions": [self.region], "currency": "EUR",
            "time_zone": "Europe/Berlin", "renewable_percentage": 40,
            "rate_structure": {"energy": {"type": "flat", "rate": "0.25"}},
        });
        self.make("plans", plan).await
    }

    /// One more of everything that hangs from the first ones, and of what stands alone.
    pub async fn row(&mut self, number: i64) {
        let (app, owner, mark) = (self.app, &self.owner, &self.mark);
        let said = json!({"content": format!("{mark} hello {number}")});
        for collection in ["conversations", "workrooms"] {
            let parent = if collection == "conversations" {
                &self.conversation
            } else {
                &self.workroom
            };
            self.make(&format!("{collection}/{parent}/messages"), said.clone())
                .await;
        }
        let note = json!({"content": format!("{mark} tea number {number}")});
        let memory = self.make("memories", note).await;
        let file = form(None, &format!("{mark}.txt"), "text/plain", mark.as_bytes());
        let resource = id(&upload(app, owner, file).await.expect(201));
        let url = format!("http://127.0.0.1:1/{mark}/{number}.json");
        let sync = json!({"connector": "http", "url": url});
        let started = app
            .post_as(owner, "/api/v1/syncs", sync.clone())
            .await
            .expect(202);
        let task = text(&started, "task_id");
        let schedule = json!({"cron": "0 0 1 1 *", "sync": sync});
        let schedule = self.make("schedules", schedule).await;
        let hour = api_server::clock::now().as_second() / 3_600 * 3_600;
        let at = jiff::Timestamp::from_second(hour - (number + 1) * 3_600).unwrap();
        let usage = json!({"region": self.region, "readings": [{"at": at, "kwh": "1.5"}]});
        app.post_as(owner, "/api/v1/usage", usage).await.expect(200);
        if number == 0 {
            (self.memory, self.resource, self.task, self.schedule) = (memory, resource, task, schedule);
        }
    }
}

/// A tenant with rows in every table that has tenants.
pub struct Tenant<'a> {
    pub ground: Ground<'a>,
    /// A colleague of the owner, and a member of the workroom.
    pub member: Person,
    /// One of the owner's.
    pub session: String,
    /// Of an event to the webhook.
    pub delivery: String,
}

impl<'a> Tenant<'a> {
    pub async fn of(app: &'a TestApp) -> Self {
        let ground = Ground::begin(app, app.person().await).await;
        let member = app.colleague(&ground.owner, "member").await;
        let mut tenant = Self {
            ground,
            member,
            session: String::new(),
            delivery: String::new(),
        };
        tenant.be_people().await;
        tenant.keep_answers().await;
        tenant.fill_beneath().await;
        tenant.session = tenant.first("sessions").await;
        tenant.delivery = tenant.first("webhook_deliveries").await;
        // The last write: whoever brings its token sees all of them.
        let settings = json!({"locale": "de-CH", "timezone": "Europe/Zurich", "theme": "dark", "email_notifications": false});
        tenant
            .write(Method::PUT, "/api/v1/users/settings", settings)
            .await
            .expect(200);
        tenant
    }

    async fn write(&self, method: Method, path: &str, body: Value) -> Reply {
        let Ground { app, owner, .. } = &self.ground;
        app.as_with(owner, method, path, &[], Some(body)).await
    }

    /// Names, a changed role, a membership, an invitation, a ticket, and a session whose tokens were exchanged.
    async fn be_people(&mut self) {
        let (app, mark) = (self.ground.app, self.ground.mark.clone());
        for path in ["/api/v1/users/profile", "/api/v1/tenant"] {
            self.write(Method::PATCH, path, json!({"name": mark}))
                .await
                .expect(200);
        }
        let colleague = format!("/api/v1/tenant/users/{}", self.member.user_id);
        self.write(Method::PATCH, &colleague, json!({"role": "viewer"}))
            .await
            .expect(200);
        let members = format!("/api/v1/workrooms/{}/members", self.ground.workroom);
        let joining = json!({"user_id": self.member.user_id});
        self.write(Method::POST, &members, joining).await.expect(201);
        let invitation = json!({"email": format!("{mark}@example.com")});
        for (path, body, secret) in [
            ("/api/v1/tenant/invitations", invitation, "token"),
            ("/api/v1/auth/ws-ticket", json!({}), "ticket"),
        ] {
            let made = self.write(Method::POST, path, body).await.expect(201);
            self.ground.shown.push(text(&made, secret));
        }
        let owner = &self.ground.owner;
        let login = app.login(&owner.email, &owner.password).await.expect(200);
        let exchange = json!({"refresh_token": text(&login, "refresh_token")});
        app.post("/api/v1/auth/refresh", exchange).await.expect(200);
    }

    /// The answer to a request with a key, and a recommendation.
    async fn keep_answers(&self) {
        let Ground { app, owner, .. } = &self.ground;
        self.keyed(owner).await.expect(201);
        app.get_as(owner, "/api/v1/recommendations/me").await.expect(200);
    }

    /// The request whose answer is kept, as somebody sends it.
    pub async fn keyed(&self, person: &Person) -> Reply {
        let Ground { app, mark, .. } = &self.ground;
        let path = format!("/api/v1/conversations/{}/messages", self.ground.conversation);
        let key = [("idempotency-key", mark.as_str())];
        app.as_with(person, Method::POST, &path, &key, Some(json!({"content": mark})))
            .await
    }

    /// What only workers write, who rest here; and nothing is due or ends soon, because workers and sweeps of other tests serve all
    /// tenants. A memory comes together with its place in the queue, where it was given up: so nobody computes its vector.
    async fn fill_beneath(&self) {
        let Ground { owner, mark, .. } = &self.ground;
        let (tenant, user) = (&owner.tenant_id, &owner.user_id);
        execute(format!(
            "UPDATE ws_tickets SET expires_at = now() + interval '1 hour' WHERE tenant_id = '{tenant}';
             UPDATE jobs SET state = 'queued', lease = NULL, finished_at = NULL, due_at = now() + interval '1 hour'
              WHERE tenant_id = '{tenant}';
             INSERT INTO sync_items (source_id, external_id, tenant_id, written_id, digest)
             SELECT id, '{mark}', tenant_id, gen_random_uuid(), sha256('x'::bytea) FROM sync_sources
              WHERE tenant_id = '{tenant}' LIMIT 1;
             WITH note AS (
                 INSERT INTO memories (id, tenant_id, user_id, memory_type, content)
                 VALUES (gen_random_uuid(), '{tenant}', '{user}', 'note', '{mark} with a vector') RETURNING id, tenant_id, user_id
             ), queued AS (
                 INSERT INTO embedding_queue (memory_id, tenant_id, due_at, last_error)
                 SELECT id, tenant_id, NULL::timestamptz, '{mark}' FROM note
             )
             INSERT INTO memory_embeddings (memory_id, tenant_id, user_id, model, embedding)
             SELECT id, tenant_id, user_id, '{mark}', '[1,0,0]'::halfvec FROM note;
             INSERT INTO approximate_people (user_id, model, tenant_id, due_at)
             VALUES ('{user}', '{mark}', '{tenant}', now() + interval '1 day')"
        ))
        .await;
    }

    /// The id of the first row of a table.
    async fn first(&self, table: &str) -> String {
        let tenant = &self.ground.owner.tenant_id;
        let read = format!("SELECT id::text FROM {table} WHERE tenant_id = '{tenant}' ORDER BY id LIMIT 1");
        let row = connect("postgres", 0)
            .await
            .fetch_one(sqlx::raw_sql(AssertSqlSafe(read)))
            .await
            .unwrap();
        row.get(0)
    }

    /// What nobody else may see: texts, names, addresses, tokens, ids.
    pub fn secrets(&self) -> Vec<&str> {
        let Ground { owner, .. } = &self.ground;
        let known = [
            &self.ground.mark,
            &self.ground.conversation,
            &self.ground.memory,
            &self.ground.workroom,
            &self.ground.resource,
            &self.ground.webhook,
            &self.ground.task,
            &self.ground.schedule,
            &owner.email,
            &owner.tenant_id,
            &owner.user_id,
            &self.member.email,
            &self.member.user_id,
            &self.session,
            &self.delivery,
        ];
        known
            .into_iter()
            .chain(&self.ground.shown)
            .map(String::as_str)
            .collect()
    }

    /// Removes its jobs: workers of other tests would try to reach these addresses one day.
    pub async fn clear(&self) {
        let tenant = &self.ground.owner.tenant_id;
        execute(format!("DELETE FROM jobs WHERE tenant_id = '{tenant}'")).await;
    }
}

async fn execute(statement: String) {
    connect("postgres", 0)
        .await
        .execute(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
}

/// A table whose rows belong to tenants.
pub struct Table {
    pub name: String,
    /// The column that says to which one.
    pub key: String,
}

/// All such tables, as the catalogue has them.
pub async fn tables() -> Vec<Table> {
    let rows = connect("postgres", 0)
        .await
        .fetch_all(
            "SELECT c.relname::text, CASE WHEN c.relname = 'tenants' THEN 'id' ELSE 'tenant_id' END FROM pg_class c
              WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
                AND (c.relname = 'tenants' OR EXISTS (SELECT FROM pg_attribute a
                     WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped))
              ORDER BY 1",
        )
        .await
        .unwrap();
    let table = |row: &sqlx::postgres::PgRow| Table {
        name: row.get(0),
        key: row.get(1),
    };
    rows.iter().map(table).collect()
}

/// All rows of a tenant by table, each as JSON.
pub async fn snapshot(tenant: &str) -> BTreeMap<String, Vec<String>> {
    let mut connection = connect("postgres", 0).await;
    let mut snapshot = BTreeMap::new();
    for Table { name, key } in tables().await {
        let read = format!("SELECT to_jsonb(t)::text FROM {name} t WHERE t.{key} = '{tenant}' ORDER BY 1");
        let rows = connection
            .fetch_all(sqlx::raw_sql(AssertSqlSafe(read)))
            .await
            .unwrap();
        let rows = rows.iter().map(|row| row.get::<String, _>(0));
        snapshot.insert(name, rows.collect::<Vec<_>>());
    }
    snapshot
}
