//! What a hundred platforms at rest cost: the shipped operator as a process of its own, each platform in a namespace of its own, a real
//! API server, and a puppet that plays controllers and pods. `make bench-operator` runs it and keeps what it prints.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test, though it has no harness"
)]

mod process;
mod world;

// The puppet of the fault sweep, with what it needs.
#[path = "../sweep"]
#[expect(dead_code, unused_imports, reason = "the sweep uses more of it")]
mod sweep {
    pub mod definition;
    pub mod puppet;
    pub mod view;
}

use std::time::{Duration, Instant};

use self::process::Operator;
use self::sweep::view;
use self::world::World;

/// Platforms.
const PLATFORMS: usize = 100;
/// How long they are left alone; `IDLE_SECONDS` says otherwise.
const IDLE: Duration = Duration::from_mins(10);
/// Changes of a spec whose way to the first write is timed.
const CHANGES: usize = 30;

fn idle() -> Duration {
    let seconds = std::env::var("IDLE_SECONDS").ok();
    seconds.map_or(IDLE, |text| Duration::from_secs(text.parse().unwrap()))
}

fn main() {
    let threads = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    threads.block_on(measure());
}

#[expect(clippy::too_many_lines, reason = "a story in its order")]
async fn measure() {
    let world = World::open(PLATFORMS).await;
    let mut rows = Vec::new();
    let mut row = |what: &str, value: String| {
        println!("{what}: {value}");
        rows.push(format!("| {what} | {value} |"));
    };

    let begun = Instant::now();
    let operator = Operator::start(&world.kubeconfig).await;
    world.create().await;
    world.ready().await;
    row(
        &format!("from apply of {PLATFORMS} platforms at once to all Ready"),
        seconds(begun.elapsed()),
    );
    row("resident memory then", mebibytes(operator.resident()));

    world.calm().await;
    let (objects, written, busy) = (world.versions().await, operator.writes().await, operator.cpu());
    tokio::time::sleep(idle()).await;
    let span = idle();
    let changed = world.versions().await.difference(&objects).count();
    row(
        &format!("objects written in {} s of rest", span.as_secs()),
        changed.to_string(),
    );
    row(
        "writes that the operator counts",
        (operator.writes().await - written).to_string(),
    );
    let share = operator.cpu().saturating_sub(busy).as_secs_f64() / span.as_secs_f64();
    row("share of one core", format!("{:.1} %", share * 100.0));
    row("resident memory", mebibytes(operator.resident()));
    row("peak resident memory", mebibytes(operator.peak()));
    assert_eq!(changed, 0, "something was written at rest");

    let mut waits = Vec::new();
    for number in 0..CHANGES {
        waits.push(world.change(number).await);
    }
    waits.sort();
    row(
        "from a change of a spec to the first write, median and longest",
        format!(
            "{} and {}",
            millis(waits[waits.len() / 2]),
            millis(waits[waits.len() - 1])
        ),
    );

    world.calm().await;
    let objects = world.versions().await;
    drop(operator);
    let begun = Instant::now();
    let operator = Operator::start(&world.kubeconfig).await;
    operator.leads().await;
    row(
        "cold start: from the process to the lease",
        seconds(begun.elapsed()),
    );
    operator.has_looked(PLATFORMS).await;
    row(
        "cold start: to a look at every platform",
        seconds(begun.elapsed()),
    );
    world.calm().await;
    let changed = world.versions().await.difference(&objects).count();
    row("objects written by a start", changed.to_string());
    row("resident memory after a start", mebibytes(operator.resident()));
    println!("\n| | |\n|---|---|\n{}", rows.join("\n"));
}

fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}

fn millis(span: Duration) -> String {
    format!("{} ms", span.as_millis())
}

fn mebibytes(kibibytes: u64) -> String {
    format!("{} MiB", kibibytes / 1024)
}
