//! People of one tenant, all in one room, and their sockets.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::raw::Raw;
use crate::client::{Answer, Client};

const PATIENCE: Duration = Duration::from_mins(2);
/// Connections of one person, below the limit of one server, so that all of them fit on the one that is left.
pub const EACH: usize = 45;
/// Connections that are opened at a time.
const OPENING: usize = 50;
/// People that are made at a time: each hashes a password twice.
const MAKING: usize = 4;

/// The people.
#[derive(Debug)]
pub struct Team {
    /// Asks as the first of them, who owns the tenant.
    pub owner: Client,
    /// The tenant.
    pub tenant: String,
    /// The room.
    pub room: String,
    /// Their ids.
    pub people: Vec<String>,
    tokens: Vec<String>,
}

impl Team {
    /// Makes so many people.
    pub async fn gather(address: &str, count: usize) -> Result<Self> {
        let anonymous = Client::new(address);
        let made = anonymous
            .post("/api/v1/auth/signup", &account(0), &[])
            .await?
            .success()?;
        let token = made.text("/access_token")?;
        let owner = anonymous.with_token(&token);
        let me = owner.get("/api/v1/auth/me", &[]).await?.success()?;
        let room = owner
            .post("/api/v1/workrooms", &json!({"name": "Bench"}), &[])
            .await?;
        let mut team = Self {
            room: room.success()?.text("/id")?,
            tenant: find(&me.body, "tenant_id").context("no tenant_id")?,
            people: vec![
                find(&me.body, "user_id")
                    .or_else(|| find(&me.body, "id"))
                    .context("no user_id")?,
            ],
            tokens: vec![token],
            owner,
        };
        let numbers: Vec<usize> = (1..count).collect();
        for chunk in numbers.chunks(MAKING) {
            let mut making = JoinSet::new();
            for number in chunk {
                making.spawn(member(
                    team.owner.clone(),
                    anonymous.clone(),
                    team.room.clone(),
                    *number,
                ));
            }
            while let Some(made) = making.join_next().await {
                let (id, token) = made??;
                team.people.push(id);
                team.tokens.push(token);
            }
        }
        Ok(team)
    }

    /// The token of a connection.
    pub fn token(&self, connection: usize) -> &str {
        &self.tokens[(connection / EACH) % self.tokens.len()]
    }

    /// The channel of the room.
    pub fn channel(&self) -> String {
        format!("workroom:{}:updates", self.room)
    }

    /// Opens connections of these numbers, each with channels.
    pub async fn connect(
        &self,
        address: &str,
        numbers: impl Iterator<Item = usize>,
        channels: impl Fn(usize) -> Value,
    ) -> Result<Vec<Raw>> {
        let numbers: Vec<usize> = numbers.collect();
        let mut opened = Vec::with_capacity(numbers.len());
        for chunk in numbers.chunks(OPENING) {
            let mut opening = JoinSet::new();
            for number in chunk {
                let first =
                    json!({"type": "connect", "token": self.token(*number), "channels": channels(*number)});
                let (address, first) = (address.to_owned(), first.to_string());
                opening.spawn(async move {
                    let mut socket = Raw::open(&address, "/api/v1/ws").await?;
                    socket.say(&first).await?;
                    let answer = socket.hear().await?;
                    ensure!(answer.contains(r#""type":"connected""#), "refused: {answer}");
                    anyhow::Ok(socket)
                });
            }
            while let Some(socket) = timeout(PATIENCE, opening.join_next()).await? {
                opened.push(socket??);
            }
        }
        Ok(opened)
    }
}

fn account(number: usize) -> Value {
    let email = format!("bench-{number}@example.com");
    json!({"email": email, "password": "correct horse battery", "name": "Bench"})
}

/// A field of this name, wherever it is.
fn find(value: &Value, name: &str) -> Option<String> {
    let fields = value.as_object()?;
    let own = fields.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    own.or_else(|| fields.values().find_map(|inner| find(inner, name)))
}

/// One more person; answers its id and its token.
async fn member(owner: Client, anonymous: Client, room: String, number: usize) -> Result<(String, String)> {
    let known = account(number);
    let member = patiently(|| owner.post("/api/v1/tenant/users", &known, &[])).await?;
    let id = member.text("/id")?;
    let path = format!("/api/v1/workrooms/{room}/members");
    owner.post(&path, &json!({"user_id": id}), &[]).await?.success()?;
    let credentials = json!({"email": known["email"], "password": known["password"]});
    let login = patiently(|| anonymous.post("/api/v1/auth/login", &credentials, &[])).await?;
    Ok((id, login.text("/access_token")?))
}

/// Tries again while the server says that too many hash passwords.
async fn patiently<F: Future<Output = Result<Answer>>>(ask: impl Fn() -> F) -> Result<Answer> {
    let started = Instant::now();
    loop {
        let answer = ask().await?;
        if answer.status != 503 || started.elapsed() > PATIENCE {
            return answer.success();
        }
        sleep(Duration::from_millis(50)).await;
    }
}
