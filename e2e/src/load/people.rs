//! People who exist before a scenario begins, made through the API as anybody would: k6 asks for ids that are there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use crate::client::{Answer, Client};

/// What scripts know of a person.
const FIELDS: [&str; 3] = ["token", "conversation", "workroom"];
/// As many at a time as a password's hash lets through.
const AT_ONCE: usize = 4;
const PASSWORD: &str = "correct horse battery";
/// Region of the plans.
const REGION: &str = "LOAD";
const PLANS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes people with what every scenario asks for, and writes them to a file; answers where it is.
pub async fn make(
    client: &Client,
    count: usize,
    feed: &str,
    now: Timestamp,
    folder: &Path,
) -> Result<PathBuf> {
    let people: Vec<Value> = stream::iter(0..count)
        .map(|number| person(client, number, feed, now))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let file = folder.join("people.json");
    std::fs::write(&file, Value::from(people).to_string())?;
    Ok(file)
}

async fn person(client: &Client, number: usize, feed: &str, now: Timestamp) -> Result<Value> {
    let email = format!("loadtest_{number}@example.com");
    let account = json!({"email": email, "password": PASSWORD, "name": format!("Person {number}")});
    let made = admitted(client, "/api/v1/auth/signup", &account).await?;
    let token = made.text("/access_token")?;
    let client = client.with_token(&token);
    let id = async |path: &str, body: Value| client.post(path, &body, &[]).await?.success()?.text("/id");
    let conversation = id("/api/v1/conversations", json!({"title": "About the project"})).await?;
    let said = json!({"content": "What is the state of the project?"});
    id(&format!("/api/v1/conversations/{conversation}/messages"), said).await?;
    for topic in ["project", "family", "travel"] {
        let memory = json!({"content": format!("Something about the {topic} of person {number}")});
        id("/api/v1/memories", memory).await?;
    }
    let workroom = id("/api/v1/workrooms", json!({"name": "Team"})).await?;
    usage(&client, now).await?;
    let sync = json!({"connector": "http", "url": feed, "default": true});
    client.post("/api/v1/syncs", &sync, &[]).await?.success()?;
    let [has_token, has_conversation, has_workroom] = FIELDS;
    Ok(json!({has_token: token, has_conversation: conversation, has_workroom: workroom}))
}

/// Two days of readings, from which plans are recommended.
async fn usage(client: &Client, now: Timestamp) -> Result<()> {
    let hour = now.as_second() / 3_600 * 3_600;
    let readings: Result<Vec<Value>> = (1..=48)
        .map(|back| Ok(json!({"at": Timestamp::from_second(hour - back * 3_600)?, "kwh": "0.8"})))
        .collect();
    let body = json!({"region": REGION, "readings": readings?});
    client.post("/api/v1/usage", &body, &[]).await?.success()?;
    Ok(())
}

/// Posts until it is admitted: who is told to come again does.
async fn admitted(client: &Client, path: &str, body: &Value) -> Result<Answer> {
    let begin = Instant::now();
    loop {
        let answer = client.post(path, body, &[]).await?;
        if !matches!(answer.status, 429 | 503) {
            return answer.success();
        }
        ensure!(
            begin.elapsed() < PATIENCE,
            "refused for too long: {}",
            answer.body
        );
        let seconds = answer.headers.get("retry-after");
        let seconds = seconds.context("a refusal that does not say when to come again")?;
        sleep(Duration::from_secs(seconds.parse()?)).await;
    }
}

/// Plans of the region, offered by somebody who operates the platform.
pub async fn plans(operator: &Client) -> Result<()> {
    for number in 0..PLANS {
        let plan = json!({
            "name": format!("Plan {number}"), "provider": "Ours", "regions": [REGION], "currency": "EUR",
            "time_zone": "Europe/Berlin", "renewable_percentage": 40,
            "rate_structure": {"energy": {"type": "flat", "rate": format!("0.{}", 20 + number)}},
        });
        operator.post("/api/v1/plans", &plan, &[]).await?.success()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    const USERS: &str = include_str!("../../load/users.js");
    const ARRIVALS: &str = include_str!("../../load/scenario.js");

    /// F20: what a script asks for was made before.
    #[test]
    fn scripts_ask_for_what_people_have() {
        let asked: Vec<&str> = USERS
            .split("person.")
            .skip(1)
            .map(|rest| {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                &rest[..end.unwrap_or(rest.len())]
            })
            .collect();
        assert!(asked.len() > 4, "{asked:?}");
        for field in asked {
            assert!(super::FIELDS.contains(&field), "nobody has {field:?}");
        }
    }

    /// F20, F28: nobody waits for an answer before the next one begins, and logins arrive at a rate.
    #[test]
    fn arrivals_do_not_wait_for_answers() {
        assert_eq!(ARRIVALS.matches("executor:").count(), 1);
        assert!(ARRIVALS.contains("executor: 'ramping-arrival-rate'"));
        assert!(ARRIVALS.contains("dropped_iterations: ['count==0']"));
        assert!(
            !USERS.contains("executor:") && !include_str!("../../load/accounts.js").contains("executor:")
        );
    }
}
