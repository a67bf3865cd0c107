//! `make demo`: from nothing to a platform that answers, then what a person would type, typed for real.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;

use crate::client::{Client, Events};
use crate::cluster::{Cluster, Endpoint};
use crate::images::{self, Image, Name};
use crate::install;
use crate::journey::{self, Person};
use crate::paths::Paths;
use crate::platform::Platform;
use crate::stage::Steps;
use crate::transcript::Transcript;
use crate::writer::Writer;

/// Name of the cluster that the demo leaves running.
pub const CLUSTER: &str = "tanka";
/// How long the platform may take on a small machine that has just built everything.
const READY_WITHIN: Duration = Duration::from_mins(5);
/// How much of the writing is recorded after the new primary has shown itself.
const AFTERMATH: Duration = Duration::from_secs(2);

/// What every request with a body carries.
const JSON: &str = "-H 'content-type: application/json'";

/// Runs the demo. Running it again is quick and harms nothing.
pub async fn run(paths: &Paths) -> Result<()> {
    let mut steps = Steps::default();
    let cluster = prepare(paths, &mut steps, CLUSTER).await?;
    let mut terminal = Transcript::start(&cluster, &paths.state).await?;
    apply(&cluster, &terminal).await?;
    let door = cluster.expose("acme", "acme-api", 8000).await?;
    let person = talk(&mut terminal, &door).await?;
    fail_over(&cluster, &terminal, &person).await?;
    println!("\nAll steps, {} logical cores:\n{}", cores(), steps.table());
    farewell(&door);
    Ok(())
}

/// Removes every trace of the demo's cluster.
pub async fn down(paths: &Paths) -> Result<()> {
    Cluster::build(paths, CLUSTER).await?.down().await
}

/// Prints the path of its kubeconfig.
pub async fn kubeconfig(paths: &Paths) -> Result<()> {
    println!(
        "{}",
        Cluster::build(paths, CLUSTER)
            .await?
            .kubeconfig()
            .await?
            .display()
    );
    Ok(())
}

/// Everything up to an operator that stands on a running cluster of one node.
pub async fn prepare(paths: &Paths, steps: &mut Steps, name: &str) -> Result<Cluster> {
    prepare_nodes(paths, steps, name, 1)
        .await
        .map(|(cluster, _)| cluster)
}

/// The same with a number of nodes; answers with the images too.
pub async fn prepare_nodes(
    paths: &Paths,
    steps: &mut Steps,
    name: &str,
    nodes: u8,
) -> Result<(Cluster, BTreeMap<Name, Image>)> {
    let cluster = steps
        .run("build the cluster's programs", Cluster::build(paths, name))
        .await?;
    let (images, ()) = steps
        .run("build the images and start the cluster", async {
            tokio::try_join!(images::build(paths, &Name::ALL), cluster.up_with_nodes(nodes))
        })
        .await?;
    steps
        .run(
            "load the images",
            cluster.load_images(images.values().map(|image| image.archive.as_path())),
        )
        .await?;
    steps
        .run(
            "install the operator",
            install::install_with_kustomize(&cluster, &images),
        )
        .await?;
    Ok((cluster, images))
}

async fn apply(cluster: &Cluster, terminal: &Transcript) -> Result<()> {
    terminal.say("A platform is five lines of YAML.");
    terminal.run("cat config/samples/minimal.yaml").await?;
    terminal
        .run("kubectl get namespace acme >/dev/null 2>&1 || kubectl create namespace acme")
        .await?;
    terminal
        .run("kubectl apply -f config/samples/minimal.yaml")
        .await?;
    let took = Platform::new(cluster, "acme").ready(READY_WITHIN).await?;
    println!("# Ready {:.1} s after it was applied.", took.as_secs_f64());
    terminal.run("kubectl -n acme get tankaplatform").await?;
    terminal.run("kubectl -n acme get pods").await?;
    Ok(())
}

/// Signs up, logs in, talks and listens; answers with who did that.
async fn talk(terminal: &mut Transcript, door: &Endpoint) -> Result<Person> {
    let (email, password) = journey::newcomer(moment());
    terminal.set("API", format!("http://{}", door.address));
    terminal.set("EMAIL", &email);
    terminal.set("PASSWORD", &password);
    terminal.say("Somebody signs up, logs in, opens a conversation and posts a message.");
    terminal.run(&format!(r#"curl -sS --fail-with-body $API/api/v1/auth/signup {JSON} -d "{{\"email\":\"$EMAIL\",\"password\":\"$PASSWORD\",\"name\":\"Ada\"}}""#)).await?;
    let person = journey::log_in(&Client::new(&door.address), &email, &password).await?;
    let login = format!(
        r#"curl -sS --fail-with-body $API/api/v1/auth/login {JSON} -d "{{\"email\":\"$EMAIL\",\"password\":\"$PASSWORD\"}}""#
    );
    let token = field(&terminal.run(&login).await?, "access_token")?;
    terminal.set("TOKEN", token);
    terminal
        .run(r#"curl -sS --fail-with-body $API/api/v1/auth/me -H "authorization: Bearer $TOKEN""#)
        .await?;
    let line = format!(
        r#"curl -sS --fail-with-body $API/api/v1/conversations {JSON} -H "authorization: Bearer $TOKEN" -d '{{"title":"Hello"}}'"#
    );
    let conversation = field(&terminal.run(&line).await?, "id")?;
    terminal.set("CONVERSATION", &conversation);
    let mut events = person.client.events().await?;
    let line = format!(
        r#"curl -sS --fail-with-body -D "$HEADERS" $API/api/v1/conversations/$CONVERSATION/messages {JSON} -H "authorization: Bearer $TOKEN" -d '{{"content":"Is anybody there?"}}'; echo; grep -i x-consistency-token "$HEADERS""#
    );
    terminal.set(
        "HEADERS",
        std::env::temp_dir()
            .join(format!("tanka-demo-{}", moment()))
            .display()
            .to_string(),
    );
    let printed = terminal.run(&line).await?;
    listen(terminal, &mut events).await?;
    read_back(terminal, &printed).await?;
    Ok(person)
}

/// The message has arrived on the WebSocket that was open when it was posted.
async fn listen(terminal: &Transcript, events: &mut Events) -> Result<()> {
    terminal.say("The WebSocket that was open at $API/ws has received it:");
    let event = events.next_of("event", Duration::from_secs(10)).await?;
    println!("{event}");
    Ok(())
}

/// Reads the message back with the consistency token of the write, and shows who answered.
async fn read_back(terminal: &mut Transcript, printed: &str) -> Result<()> {
    let header = printed
        .lines()
        .find(|line| line.to_lowercase().starts_with("x-consistency-token"))
        .context("no consistency token")?;
    let token = header
        .split_once(':')
        .map(|(_, value)| value.trim().to_owned())
        .context("no consistency token")?;
    terminal.set("SEEN", token);
    terminal.say("Read it back: a replica answers, and never with less than what was just written.");
    let line = r#"curl -sS --fail-with-body -D "$HEADERS" $API/api/v1/conversations/$CONVERSATION/messages -H "authorization: Bearer $TOKEN" -H "x-consistency-token: $SEEN"; echo; grep -i x-served "$HEADERS"; rm -f "$HEADERS""#;
    let answer = terminal.run(line).await?;
    ensure!(
        answer.contains("Is anybody there?"),
        "the message was not read back"
    );
    Ok(())
}

async fn fail_over(cluster: &Cluster, terminal: &Transcript, person: &Person) -> Result<()> {
    let acme = Platform::new(cluster, "acme");
    let conversation = person.open_conversation("failover").await?;
    terminal
        .say("Now the pod of the PostgreSQL primary is deleted while somebody posts a message every 20 ms.");
    let before = acme.primary().await?;
    let writer = Writer::start(&person.client, &conversation, "steady");
    terminal
        .run(&format!("kubectl -n acme delete pod {before}"))
        .await?;
    Cluster::wait("another primary", Duration::from_mins(1), || async {
        Ok(acme.primary().await.is_ok_and(|now| now != before))
    })
    .await?;
    tokio::time::sleep(AFTERMATH).await;
    let record = writer.finish().await?;
    println!(
        "# {} messages were acknowledged, none is lost; {} requests failed; writes paused for {} ms at the longest.",
        record.acknowledged.len(),
        record.failures,
        record.longest_gap.as_millis()
    );
    acme.ready(READY_WITHIN).await?;
    terminal.run("kubectl -n acme get tankaplatform -o wide").await?;
    terminal
        .run("kubectl -n acme get tankaplatform acme -o jsonpath='{.status.postgres.lastFailover}'; echo")
        .await?;
    Ok(())
}

fn farewell(door: &Endpoint) {
    println!(
        "\nThe platform goes on at http://{}. What to try next:\n\
         \x20 export KUBECONFIG=$(make -s kubeconfig) PATH=$PWD/.tanka/bin:$PATH\n\
         \x20 kubectl explain tankaplatform.spec\n\
         \x20 kubectl -n acme describe tankaplatform acme\n\
         \x20 kubectl -n acme edit tankaplatform acme       # set images.apiServer to one that does not exist\n\
         \x20 make down                                     # remove every trace of it",
        door.address
    );
}

/// A string field of a JSON text.
fn field(text: &str, name: &str) -> Result<String> {
    let value: serde_json::Value =
        serde_json::from_str(text.trim()).context("the API answered with something else than JSON")?;
    Ok(value[name]
        .as_str()
        .with_context(|| format!("the answer has no {name}"))?
        .to_owned())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the rim: a new name for each run comes from the time"
)]
fn moment() -> i64 {
    Timestamp::now().as_millisecond()
}
