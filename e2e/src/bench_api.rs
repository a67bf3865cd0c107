//! `make bench-api`: how many requests the API answers and how soon, beside a plain FastAPI server that does the same on the same PostgreSQL
//! and Redis, and beside a bare server that does nothing. Real services, real processes; the generator shares the machine with them.
//! Every answer is counted: a figure with a refusal or a broken connection fails, but for logins that are told to come again.

mod load;
mod peer;
mod rows;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use tokio::time::sleep;

use self::load::Load;
use self::peer::Peer;
use self::rows::Goals;
use crate::benchmark::floor::Floor;
use crate::benchmark::program::Program;
use crate::benchmark::report::Report;
use crate::benchmark::server::Server;
use crate::client::Client;
use crate::dev::Folder;
use crate::paths::Paths;
use crate::services::Platform;

/// Times that a start is measured.
const STARTS: usize = 5;
/// Until a server that nobody asks is at rest.
const REST: Duration = Duration::from_secs(3);
/// As long as a page of either list.
const ROWS: usize = 20;
const MEMORIES: &str = "/api/v1/memories";
const CONVERSATIONS: &str = "/api/v1/conversations";
const LOGIN: &str = "/api/v1/auth/login";
/// What one person may ask in a minute is limited, and so are attempts to log in to one account at a time: there are several.
const PEOPLE: usize = 40;
const PASSWORD: &str = "correct horse battery";

/// What is measured.
#[derive(Debug, Args)]
pub struct BenchApiCommand {
    #[command(flatten)]
    program: Program,
    /// Only these rows, separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "rest,cached,list,login,connections,rls,storm"
    )]
    rows: Vec<String>,
    /// Times that each side is measured, in turns; figures are medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

impl BenchApiCommand {
    fn wants(&self, row: &str) -> bool {
        self.rows.iter().any(|wanted| wanted == row)
    }
}

/// How long is measured.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// Times, in turns.
    pub rounds: usize,
    /// Seconds of each.
    pub seconds: u64,
}

/// Who is measured.
#[derive(Debug)]
pub struct Sides<'a> {
    /// Ours.
    pub api: &'a Server,
    /// FastAPI.
    pub peer: &'a Peer,
    /// What the machine allows.
    pub floor: &'a Floor,
    /// Of people, at ours.
    pub tokens: Vec<String>,
    /// Of the same people, at the peer.
    pub peer_tokens: Vec<String>,
    /// How long.
    pub length: Length,
}

/// Measures, prints one line a figure and a table at the end.
pub async fn run(paths: &Paths, command: &BenchApiCommand) -> Result<()> {
    let binary = command.program.binary(paths).await?;
    let machine = format!(
        "{} logical cores, shared by servers, generator, PostgreSQL and Redis",
        std::thread::available_parallelism()?,
    );
    println!("{machine}; {}", binary.display());
    let mut report = Report::new(paths, "bench-api", &machine)?;
    let platform = Platform::start(paths).await?;
    let outcome = async {
        let folder = Folder::new(paths, platform.environment()?)?;
        folder.migrate(&binary).await?;
        let api = Server::start(&folder, &binary).await?;
        fill(&api.address).await?;
        let peer = Peer::start(paths, &platform).await?;
        let outcome = measure(
            paths,
            &folder,
            &platform,
            (&binary, api, &peer),
            command,
            &mut report,
        )
        .await;
        peer.end().await?;
        outcome
    };
    let outcome = outcome.await;
    platform.stack.tear_down().await?;
    report.finish()?;
    outcome
}

/// People with a page of conversations and of memories each.
async fn fill(address: &str) -> Result<()> {
    for number in 0..PEOPLE {
        person(address, number).await?;
    }
    Ok(())
}

async fn person(address: &str, number: usize) -> Result<()> {
    let client = Client::new(address);
    let mut account = credentials(number);
    account["name"] = json!("Bench");
    let made = client.post("/api/v1/auth/signup", &account, &[]).await?;
    let made = made.success()?;
    let person = client.with_token(&made.text("/access_token")?);
    for number in 0..ROWS {
        let title = json!({"title": format!("Conversation {number}")});
        let id = person
            .post(CONVERSATIONS, &title, &[])
            .await?
            .success()?
            .text("/id")?;
        let path = format!("{CONVERSATIONS}/{id}/messages");
        for line in 0..3 {
            let message = json!({"content": format!("Message {line} of conversation {number}")});
            person.post(&path, &message, &[]).await?.success()?;
        }
        let memory = json!({"content": format!("Something to remember, number {number}")});
        person.post(MEMORIES, &memory, &[]).await?.success()?;
    }
    Ok(())
}

fn credentials(number: usize) -> Value {
    json!({"email": format!("bench-{number}@example.com"), "password": PASSWORD})
}

async fn tokens(address: &str) -> Result<Vec<String>> {
    let client = Client::new(address);
    let mut tokens = Vec::new();
    for number in 0..PEOPLE {
        let login = client.post(LOGIN, &credentials(number), &[]).await?;
        tokens.push(login.success()?.text("/access_token")?);
    }
    Ok(tokens)
}

/// Both sides answer as many rows as there are, or the comparison would be of nothing.
async fn check(address: &str, tokens: &[String]) -> Result<Value> {
    let mut last = Value::Null;
    for (token, path) in tokens
        .iter()
        .flat_map(|token| [(token, CONVERSATIONS), (token, MEMORIES)])
    {
        let client = Client::new(address).with_token(token);
        let answer = client.get(path, &[]).await?.success()?;
        let items = answer.body["items"].as_array().context("no items")?;
        anyhow::ensure!(
            items.len() == ROWS,
            "{path} answers {} rows of {ROWS}",
            items.len()
        );
        last = answer.body;
    }
    Ok(last)
}

async fn measure(
    paths: &Paths,
    folder: &Folder,
    platform: &Platform,
    (binary, first, peer): (&Path, Server, &Peer),
    command: &BenchApiCommand,
    report: &mut Report,
) -> Result<()> {
    drop(first);
    let api = rested(report, folder, binary, command.wants("rest")).await?;
    let (own, other) = (tokens(&api.address).await?, tokens(&peer.address).await?);
    let body = check(&api.address, &own).await?;
    check(&peer.address, &other).await?;
    let floor = Floor::start(&body.to_string())?;
    let length = Length {
        rounds: command.rounds,
        seconds: command.seconds,
    };
    rows::note(report, length);
    let sides = Sides {
        api: &api,
        peer,
        floor: &floor,
        tokens: own,
        peer_tokens: other,
        length,
    };
    routes(report, paths, platform, &sides, command).await
}

/// A server, once its memory at rest and its start were measured, if they are to be.
async fn rested(report: &mut Report, folder: &Folder, binary: &Path, wanted: bool) -> Result<Server> {
    let mut ready = Vec::new();
    if wanted {
        for _ in 1..STARTS {
            ready.push(Server::start(folder, binary).await?.started_in);
        }
    }
    let api = Server::start(folder, binary).await?;
    if wanted {
        ready.push(api.started_in);
        sleep(REST).await;
        rows::rest(report, api.resident()?, ready);
    }
    Ok(api)
}

async fn routes(
    report: &mut Report,
    paths: &Paths,
    platform: &Platform,
    sides: &Sides<'_>,
    command: &BenchApiCommand,
) -> Result<()> {
    let goals = |words, ratio| Goals { words, ratio };
    let cached = Load::get(paths, MEMORIES);
    let list = Load::get(paths, CONVERSATIONS);
    let login = Load::post(paths, LOGIN, (0..PEOPLE).map(credentials).collect());
    if command.wants("cached") {
        let goals = goals("at least 15 times the peer's", 15.0);
        rows::route(report, sides, ("cached read", 64), &cached, &goals).await?;
    }
    if command.wants("list") {
        let goals = goals("at least 8 times the peer's", 8.0);
        rows::route(report, sides, ("list of conversations", 64), &list, &goals).await?;
    }
    if command.wants("login") {
        // As many as are hashed and wait, and none that is told to come again.
        let goals = goals("at least 2 times the peer's", 2.0);
        rows::route(report, sides, ("login", 16), &login, &goals).await?;
    }
    if command.wants("connections") {
        rows::connections(report, sides, platform, &list).await?;
    }
    if command.wants("rls") {
        rows::row_level_security(report, sides, platform, &list).await?;
    }
    if command.wants("storm") {
        rows::storm(report, sides, &cached, &login).await?;
    }
    Ok(())
}
