//! The start-up guard of Redis: whatever is killed, wiped and restarted, no member comes up empty in the place of one that has data.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    images::{self, Name},
    paths::Paths,
    rootfs,
    services::{
        Service, Stack, ports,
        redis::{Group, Options, PORTS},
    },
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};

/// Most of a test's time is waiting for a failure to be detected; more at once would make healthy members look dead.
static AT_ONCE: Semaphore = Semaphore::const_new(3);

const MEMBERS: usize = 3;
/// Detection (4 s), election, promotion, a full copy, with room for a busy machine.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(40);
const KEYS: usize = 500;

struct Fixture {
    stack: Stack,
    group: Group,
    _permit: SemaphorePermit<'static>,
}

impl Fixture {
    async fn start(append_only: bool) -> Result<Self> {
        let permit = AT_ONCE.acquire().await?;
        let paths = Paths::from_environment()?;
        let built = images::build(&paths, &[Name::Redis]).await?;
        let root = rootfs::unpack(&paths, Name::Redis, &built[&Name::Redis]).await?;
        let mut stack = Stack::new(paths.state.join("services/logs")).await?;
        let group = Group::start(&mut stack, root, &ports::free(PORTS)?, &Options { append_only })?;
        group.wait_until_ready(&mut stack).await?;
        Ok(Self {
            stack,
            group,
            _permit: permit,
        })
    }

    async fn kill(&mut self, names: &[&str]) -> Result<()> {
        Service::kill_all(
            self.stack
                .services()
                .filter(|service| names.contains(&service.name())),
        )
        .await
    }

    fn start_again(&mut self, names: &[&str]) -> Result<()> {
        names
            .iter()
            .try_for_each(|name| self.stack.service(name)?.start())
    }

    fn logs(&mut self) -> String {
        let ends = self.stack.services().map(|service| {
            format!(
                "{}:
{}",
                service.name(),
                service.log_end()
            )
        });
        ends.collect::<Vec<_>>().join(
            "
",
        )
    }

    /// Writes keys to the primary, and has both replicas confirm them.
    async fn write(&self, prefix: &str) -> Result<()> {
        let primary = self
            .group
            .primary()
            .await?
            .context("the Sentinels do not agree on a primary")?;
        let keys: Vec<String> = (0..KEYS).map(|n| format!("{prefix}:{n}")).collect();
        let mut commands: Vec<Vec<&str>> = keys.iter().map(|key| vec!["SET", key, "value"]).collect();
        commands.push(vec!["WAIT", "2", "4000"]);
        let mut answers = self.group.pipeline(primary, &commands).await?;
        ensure!(
            answers.pop().as_deref() == Some("2"),
            "not every replica confirmed the writes"
        );
        ensure!(
            answers.iter().all(|answer| answer == "OK"),
            "writes failed: {answers:?}"
        );
        Ok(())
    }

    /// Every member holds all keys that were written.
    async fn assert_complete(&self, written: usize) -> Result<()> {
        for index in 0..MEMBERS {
            let size = self.group.server(index, &["DBSIZE"]).await?;
            ensure!(
                size == (written * KEYS).to_string(),
                "redis-{index} holds {size} keys of {}",
                written * KEYS
            );
        }
        Ok(())
    }

    /// Waits until the group is whole again, and sees to it that no two members are primaries meanwhile. Returns the primary.
    async fn recover(&mut self) -> Result<usize> {
        let end = Instant::now() + RECOVERY_DEADLINE;
        loop {
            let mut primaries = Vec::new();
            for index in 0..MEMBERS {
                let role = self.group.server(index, &["ROLE"]).await.unwrap_or_default();
                if role.starts_with("master") {
                    primaries.push(index);
                }
            }
            ensure!(
                primaries.len() <= 1,
                "members {primaries:?} are primaries at the same time"
            );
            if let [primary] = primaries[..]
                && self.group.is_ready().await
            {
                return Ok(primary);
            }
            ensure!(
                Instant::now() < end,
                "no recovery within {RECOVERY_DEADLINE:?}\n{}",
                self.logs()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
}

const ALL: [&str; 6] = [
    "redis-0",
    "redis-1",
    "redis-2",
    "sentinel-0",
    "sentinel-1",
    "sentinel-2",
];

#[tokio::test]
async fn the_lowest_member_is_the_primary_of_a_first_start() -> Result<()> {
    let fixture = Fixture::start(true).await?;
    assert_eq!(fixture.group.primary().await?, Some(0));
    Ok(())
}

#[tokio::test]
async fn a_primary_that_restarts_at_once_without_its_data_does_not_empty_its_replicas() -> Result<()> {
    let mut fixture = Fixture::start(false).await?;
    fixture.write("a").await?;
    fixture.kill(&["redis-0"]).await?;
    fixture.start_again(&["redis-0"])?;
    let primary = fixture.recover().await?;
    assert_ne!(primary, 0, "a replica that has the data takes over");
    fixture.assert_complete(1).await
}

#[tokio::test]
async fn a_primary_that_restarts_at_once_with_its_log_loses_nothing_either() -> Result<()> {
    let mut fixture = Fixture::start(true).await?;
    fixture.write("a").await?;
    fixture.kill(&["redis-0"]).await?;
    fixture.start_again(&["redis-0"])?;
    fixture.recover().await?;
    fixture.assert_complete(1).await
}

#[tokio::test]
async fn a_pod_of_the_primary_that_is_replaced_by_an_empty_one_joins_as_a_replica() -> Result<()> {
    let mut fixture = Fixture::start(true).await?;
    fixture.write("a").await?;
    fixture.kill(&["redis-0", "sentinel-0"]).await?;
    fixture.stack.service("redis-0")?.wipe()?;
    fixture.start_again(&["redis-0", "sentinel-0"])?;
    let primary = fixture.recover().await?;
    assert_ne!(primary, 0);
    fixture.assert_complete(1).await?;
    fixture.write("b").await?;
    fixture.assert_complete(2).await
}

#[tokio::test]
async fn a_primary_that_stays_away_is_replaced_and_comes_back_as_a_replica() -> Result<()> {
    let mut fixture = Fixture::start(true).await?;
    fixture.write("a").await?;
    let start = Instant::now();
    fixture.kill(&["redis-0", "sentinel-0"]).await?;
    let is_primary = |role: Result<String>| role.is_ok_and(|role| role.starts_with("master"));
    while !is_primary(fixture.group.server(1, &["ROLE"]).await)
        && !is_primary(fixture.group.server(2, &["ROLE"]).await)
    {
        ensure!(start.elapsed() < RECOVERY_DEADLINE, "nobody took over");
        sleep(Duration::from_millis(50)).await;
    }
    println!("replaced after {:?}", start.elapsed());
    fixture.start_again(&["redis-0", "sentinel-0"])?;
    let primary = fixture.recover().await?;
    assert_ne!(primary, 0);
    fixture.assert_complete(1).await
}

#[tokio::test]
async fn all_members_that_crash_at_once_come_back_with_their_data() -> Result<()> {
    let mut fixture = Fixture::start(true).await?;
    fixture.write("a").await?;
    // The log is written to disk once a second; what a crash of everything takes with it is allowed to be newer than that.
    sleep(Duration::from_millis(1_200)).await;
    fixture.kill(&ALL).await?;
    fixture.start_again(&ALL)?;
    fixture.recover().await?;
    fixture.assert_complete(1).await
}

#[tokio::test]
async fn members_that_keep_no_log_come_back_empty_when_all_crash_at_once() -> Result<()> {
    let mut fixture = Fixture::start(false).await?;
    fixture.write("a").await?;
    fixture.kill(&ALL).await?;
    fixture.start_again(&ALL)?;
    fixture.recover().await?;
    fixture.assert_complete(0).await?;
    fixture.write("b").await
}

#[tokio::test]
async fn all_members_that_lose_everything_start_as_for_the_first_time() -> Result<()> {
    let mut fixture = Fixture::start(true).await?;
    fixture.write("a").await?;
    fixture.kill(&ALL).await?;
    for index in 0..MEMBERS {
        fixture.stack.service(&format!("redis-{index}"))?.wipe()?;
    }
    fixture.start_again(&ALL)?;
    fixture.recover().await?;
    fixture.assert_complete(0).await
}

#[tokio::test]
async fn a_primary_whose_volume_is_lost_in_a_crash_of_all_gets_the_data_back_from_a_replica() -> Result<()> {
    let mut fixture = Fixture::start(true).await?;
    fixture.write("a").await?;
    sleep(Duration::from_millis(1_200)).await;
    fixture.kill(&ALL).await?;
    fixture.stack.service("redis-0")?.wipe()?;
    fixture.start_again(&ALL)?;
    let primary = fixture.recover().await?;
    assert_ne!(primary, 0);
    fixture.assert_complete(1).await
}

#[tokio::test]
async fn a_sentinel_that_forgot_everything_is_the_same_sentinel_again() -> Result<()> {
    let mut fixture = Fixture::start(true).await?;
    for _ in 0..2 {
        fixture.kill(&["redis-2", "sentinel-2"]).await?;
        fixture.stack.service("sentinel-2")?.wipe()?;
        fixture.start_again(&["redis-2", "sentinel-2"])?;
        fixture.recover().await?;
    }
    for index in 0..MEMBERS {
        let known = fixture
            .group
            .sentinel(index, &["SENTINEL", "SENTINELS", "tanka"])
            .await?;
        assert_eq!(
            known.lines().filter(|line| *line == "runid").count(),
            MEMBERS - 1,
            "no ghosts count as voters"
        );
    }
    fixture.write("a").await
}

#[tokio::test]
async fn a_primary_that_hangs_is_replaced_and_comes_back_as_a_replica() -> Result<()> {
    let mut fixture = Fixture::start(true).await?;
    fixture.write("a").await?;
    fixture.stack.service("redis-0")?.pause().await?;
    let start = Instant::now();
    while !matches!(fixture.group.sentinel(1, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "tanka"]).await,
        Ok(address) if !address.ends_with(&fixture.group.port(0)?.to_string()))
    {
        ensure!(start.elapsed() < RECOVERY_DEADLINE, "nobody took over");
        sleep(Duration::from_millis(50)).await;
    }
    println!("replaced after {:?}", start.elapsed());
    fixture.stack.service("redis-0")?.resume().await?;
    // In the moment after it wakes up, before it has looked at its replicas, it may accept a write that is lost when it becomes a
    // replica. What replicas have confirmed stays.
    let end = Instant::now() + RECOVERY_DEADLINE;
    while !fixture.group.is_ready().await {
        ensure!(Instant::now() < end, "the old primary did not become a replica");
        sleep(Duration::from_millis(50)).await;
    }
    fixture.assert_complete(1).await
}

#[tokio::test]
async fn a_primary_that_is_stopped_in_good_order_hands_over_without_losing_a_write() -> Result<()> {
    let mut fixture = Fixture::start(true).await?;
    fixture.write("a").await?;
    let group = &fixture.group;
    let mut accepted = Vec::new();
    let writer = async {
        // The old primary is written to until it refuses; a write that it answered with OK must be on the new one.
        for n in 0.. {
            let key = format!("late:{n}");
            match group.server(0, &["SET", &key, "1"]).await {
                Ok(answer) if answer == "OK" => accepted.push(key),
                _ => break,
            }
        }
        Instant::now()
    };
    let start = Instant::now();
    let (refused, handed_over) = tokio::join!(writer, group.hand_over(&fixture.stack, 0));
    handed_over?;
    println!(
        "handed over after {:?}, {} writes, refused after {:?}",
        start.elapsed(),
        accepted.len(),
        refused - start
    );
    fixture.stack.service("redis-0")?.stop().await?;
    fixture.start_again(&["redis-0"])?;
    let primary = fixture.recover().await?;
    assert_ne!(primary, 0);
    for key in accepted {
        let held = fixture.group.server(primary, &["EXISTS", &key]).await?;
        ensure!(held == "1", "{key} was acknowledged and is lost");
    }
    Ok(())
}
