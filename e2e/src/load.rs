//! `make load`: people who use the API, played by k6 with arrivals that do not wait for answers, against one server on a real PostgreSQL
//! with replicas and Redis. In the same run it is checked that every acknowledged message is in the database, exactly once, and that nobody
//! misses an own write.

mod behind;
mod catalogue;
mod people;
mod player;
mod shared;
mod summary;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::sleep;

use self::behind::Behind;
use self::catalogue::{Does, Scenario};
use self::player::Player;
use self::summary::Summary;
use crate::benchmark::floor::Floor;
use crate::benchmark::program::Program;
use crate::benchmark::report::Report;
use crate::benchmark::server::Server;
use crate::client::Client;
use crate::dev::Folder;
use crate::paths::Paths;
use crate::services::{Platform, Stack};
use crate::tools::Tools;

/// What syncs read: nothing new.
const FEED: &str = r#"{"version": "https://jsonfeed.org/version/1.1", "title": "Nothing new", "items": []}"#;
const REDIS: [&str; 3] = ["redis-0", "redis-1", "redis-2"];
const OPERATOR: &str = "operator@example.com";

/// Which loads.
#[derive(Debug, Args)]
pub struct LoadCommand {
    #[command(flatten)]
    program: Program,
    /// Scenarios of `e2e/load/scenarios.json`; all of them if none is named.
    names: Vec<String>,
    /// The folder of an earlier run, to compare with.
    #[arg(long)]
    against: Option<PathBuf>,
}

/// Plays the scenarios, prints k6's report of each and a table at the end. Fails if a scenario could not be played, or if an acknowledged
/// message is missing or doubled; goals that are missed are in the table.
pub async fn run(paths: &Paths, command: &LoadCommand) -> Result<()> {
    let scenarios = catalogue::choose(&catalogue::folder(paths), &command.names)?;
    let binary = command.program.binary(paths).await?;
    let machine = format!(
        "{} logical cores, shared by server, generator, PostgreSQL and Redis",
        std::thread::available_parallelism()?,
    );
    let mut report = Report::new(paths, "load", &machine)?;
    let outcome = play(
        paths,
        &binary,
        &scenarios,
        command.against.as_deref(),
        &mut report,
    )
    .await;
    report.finish()?;
    outcome.map(drop)
}

/// The smallest scenario, for every change: it fails if a goal is missed that does not depend on the machine.
pub async fn smoke(paths: &Paths) -> Result<()> {
    let names = ["smoke", "hundred"].map(str::to_owned);
    let scenarios = catalogue::choose(&catalogue::folder(paths), &names)?;
    let mut report = Report::new(paths, "load-smoke", "while everything is tested")?;
    let binary = paths.target.join("debug/tanka-api");
    for summary in play(paths, &binary, &scenarios, None, &mut report).await? {
        // A machine that compiles beside may be too busy for one in a hundred, and then says so.
        let few = summary.refused * 100.0 <= summary.all.count;
        ensure!(summary.error_rate == 0.0 && few, "{}", summary.line());
        ensure!(summary.stale == 0.0, "{} own writes were not seen", summary.stale);
    }
    Ok(())
}

async fn play(
    paths: &Paths,
    binary: &Path,
    scenarios: &[(String, Scenario)],
    against: Option<&Path>,
    report: &mut Report,
) -> Result<Vec<Summary>> {
    let tools = Tools::build(paths).await?;
    let mut platform = Platform::start(paths).await?;
    let work = async {
        let results = report.folder().to_owned();
        let mut stage = Stage::set(paths, &mut platform, &tools, binary, scenarios, &results).await?;
        let mut summaries = Vec::new();
        for (name, scenario) in scenarios {
            let summary = stage.play(name, scenario, report).await?;
            if let Some(earlier) = against {
                let before = Summary::read(&earlier.join(name))?;
                println!(
                    "{name}, beside {}:\n{}",
                    earlier.display(),
                    summary.beside(&before)
                );
            }
            summaries.push(summary);
        }
        Ok(summaries)
    };
    let outcome = work.await;
    platform.stack.tear_down().await?;
    outcome
}

/// Everything that a scenario needs.
struct Stage<'a> {
    platform: &'a mut Platform,
    player: Player<'a>,
    server: Server,
    _feed: Floor,
}

impl<'a> Stage<'a> {
    async fn set(
        paths: &Paths,
        platform: &'a mut Platform,
        tools: &'a Tools,
        binary: &Path,
        scenarios: &[(String, Scenario)],
        results: &'a Path,
    ) -> Result<Self> {
        let folder = Folder::new(paths, platform.environment()?)?;
        folder.migrate(binary).await?;
        let feed = Floor::start(FEED)?;
        // A run takes longer than a token lasts. Everybody signs up from one address.
        let sections = json!({
            "auth": {"accessTokenTtl": "12h"},
            "outbound": {"allowedNetworks": ["127.0.0.0/8"]},
            "rateLimit": {"requestsPerMinute": 600, "burst": 100, "loginPerMinute": 10_000, "signupPerMinute": 10_000},
        });
        let server = Server::start_with(&folder, binary, sections).await?;
        let client = Client::new(&server.address);
        people::plans(&operator(platform, &client).await?).await?;
        let known = scenarios
            .iter()
            .filter(|(_, scenario)| scenario.does != Does::Accounts);
        let count = known
            .map(|(_, scenario)| scenario.users())
            .max()
            .unwrap_or_default();
        println!("{count} people sign up");
        let feed_url = format!("http://{}/feed.json", feed.address);
        let people = people::make(&client, count, &feed_url, now(), results).await?;
        // As autovacuum would have done by the time that so many people are there.
        platform.postgres.query(0, "ANALYZE").await?;
        let player = Player {
            tools,
            scripts: catalogue::folder(paths),
            results,
            people,
            api: format!("http://{}", server.address),
        };
        Ok(Self {
            platform,
            player,
            server,
            _feed: feed,
        })
    }

    async fn play(&mut self, name: &str, scenario: &Scenario, report: &mut Report) -> Result<Summary> {
        let before = messages(self.platform).await?;
        let stack = &mut self.platform.stack;
        let work = async {
            let (summary, broken) = tokio::join!(self.player.play(name, scenario), breaks(stack, scenario));
            broken?;
            summary
        };
        let (summary, behind) = Behind::watch(&self.server, &self.platform.postgres, work).await?;
        let added = messages(self.platform).await? - before;
        let goal = match (scenario.p95, scenario.p99) {
            (Some(p95), Some(p99)) => format!("p95 {p95} ms, p99 {p99} ms, no errors"),
            _ => "those of the script".to_owned(),
        };
        let what = format!("{name}: {} users, {}", scenario.users(), scenario.does.words());
        report.row(&what, &summary.line(), &goal, Some(summary.missed.is_empty()));
        behind.report(report, name, scenario);
        shared::report(report, name, self.platform).await?;
        report.raw(json!({"scenario": name, "behind": behind.raw(), "k6": summary, "messages_added": added}));
        ensure!(
            summary.all.count >= summary.iterations,
            "{name}: a script has failed {} times",
            summary.iterations - summary.all.count
        );
        ensure!(
            doubled(self.platform).await? == 0,
            "{name}: messages are there twice"
        );
        #[expect(clippy::cast_possible_truncation, reason = "counts")]
        let (least, most) = (
            summary.acknowledged as i64,
            (summary.acknowledged + summary.unknown) as i64,
        );
        ensure!(
            (least..=most).contains(&added),
            "{name}: {least} messages were acknowledged and {} had no answer, but there are {added} more",
            summary.unknown
        );
        Ok(summary)
    }
}

async fn messages(platform: &Platform) -> Result<i64> {
    let count = "SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM workroom_messages)";
    let text = platform.postgres.query(0, count).await?;
    text.parse().with_context(|| format!("{text:?} is no count"))
}

/// Messages of scripts, each of which has a text of its own, that are there more than once.
async fn doubled(platform: &Platform) -> Result<i64> {
    let count = "SELECT count(*) - count(DISTINCT content) FROM (SELECT content FROM messages UNION ALL SELECT content FROM workroom_messages) m
                  WHERE content LIKE 'about the project, said %'";
    let text = platform.postgres.query(0, count).await?;
    text.parse().with_context(|| format!("{text:?} is no count"))
}

/// What a scenario breaks, at its time.
async fn breaks(stack: &mut Stack, scenario: &Scenario) -> Result<()> {
    let Some(away) = scenario.redis_away else {
        return Ok(());
    };
    sleep(Duration::from_secs(away.from)).await;
    for name in REDIS {
        stack.service(name)?.kill().await?;
    }
    sleep(Duration::from_secs(away.until - away.from)).await;
    for name in REDIS {
        stack.service(name)?.start()?;
    }
    Ok(())
}

/// Somebody who operates the platform. A session that begins after the grant knows of it.
async fn operator(platform: &Platform, client: &Client) -> Result<Client> {
    let mut account = json!({"email": OPERATOR, "password": "correct horse battery"});
    let login = account.clone();
    account["name"] = json!("Operator");
    client
        .post("/api/v1/auth/signup", &account, &[])
        .await?
        .success()?;
    let grant = format!("UPDATE users SET is_operator = true WHERE email = '{OPERATOR}'");
    platform.postgres.query(0, &grant).await?;
    let session = client.post("/api/v1/auth/login", &login, &[]).await?.success()?;
    Ok(client.with_token(&session.text("/access_token")?))
}

#[expect(clippy::disallowed_methods, reason = "the rim: readings are of the last days")]
fn now() -> Timestamp {
    Timestamp::now()
}
