//! A person's way through the API: sign up, log in, talk, listen.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::client::{Answer, Client, Events};

/// How soon an event of an own message must arrive.
const EVENT_DEADLINE: Duration = Duration::from_secs(10);

/// Someone with an account, logged in.
#[derive(Debug, Clone)]
pub struct Person {
    /// E-mail address.
    pub email: String,
    /// Password.
    pub password: String,
    /// A client with the person's token.
    pub client: Client,
}

/// An address that nobody has yet, and a password for it.
pub fn newcomer(moment_millis: i64) -> (String, String) {
    (
        format!("ada-{moment_millis}@example.com"),
        format!("correct horse {moment_millis}"),
    )
}

/// Signs up and logs in.
pub async fn join(anonymous: &Client, moment_millis: i64) -> Result<Person> {
    let (email, password) = newcomer(moment_millis);
    let account = json!({"email": email, "password": password, "name": "Ada"});
    anonymous
        .post("/api/v1/auth/signup", &account, &[])
        .await?
        .success()
        .context("failed to sign up")?;
    log_in(anonymous, &email, &password).await
}

/// Logs in.
pub async fn log_in(anonymous: &Client, email: &str, password: &str) -> Result<Person> {
    let credentials = json!({"email": email, "password": password});
    let answer = anonymous
        .post("/api/v1/auth/login", &credentials, &[])
        .await?
        .success()
        .context("failed to log in")?;
    let client = anonymous.with_token(&answer.text("/access_token")?);
    Ok(Person {
        email: email.to_owned(),
        password: password.to_owned(),
        client,
    })
}

impl Person {
    /// Opens a conversation; answers with its id.
    pub async fn open_conversation(&self, title: &str) -> Result<String> {
        let answer = self
            .client
            .post("/api/v1/conversations", &json!({"title": title}), &[])
            .await?
            .success()?;
        answer.text("/id")
    }

    /// Posts a message; the answer carries the consistency token.
    pub async fn post(&self, conversation: &str, content: &str) -> Result<Answer> {
        let path = format!("/api/v1/conversations/{conversation}/messages");
        self.client
            .post(&path, &json!({"content": content}), &[])
            .await?
            .success()
    }

    /// Reads the newest messages, at least as new as `written`; answers with them and who served them.
    pub async fn read(&self, conversation: &str, written: &Answer) -> Result<(Vec<String>, String)> {
        let token = written
            .headers
            .get("x-consistency-token")
            .context("the write was answered without a consistency token")?;
        let path = format!("/api/v1/conversations/{conversation}/messages?limit=100");
        let answer = self
            .client
            .get(&path, &[("x-consistency-token", token)])
            .await?
            .success()?;
        let items = answer.body["items"].as_array().cloned().unwrap_or_default();
        let contents = items
            .iter()
            .filter_map(|item| item["content"].as_str().map(str::to_owned))
            .collect();
        let header = |name: &str| answer.headers.get(name).cloned().unwrap_or_default();
        Ok((
            contents,
            format!("{} {}", header("x-served-role"), header("x-served-by")),
        ))
    }

    /// Posts while listening, and waits for the event of that very message.
    pub async fn post_and_hear(
        &self,
        events: &mut Events,
        conversation: &str,
        content: &str,
    ) -> Result<Value> {
        self.post(conversation, content).await?;
        loop {
            let event = events.next_of("event", EVENT_DEADLINE).await?;
            if event.to_string().contains(content) {
                ensure!(
                    event.to_string().contains("message.created"),
                    "an unexpected event: {event}"
                );
                return Ok(event);
            }
        }
    }
}
