//! What `services run` promises to a test of the API server.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result};
use e2e::{paths::Paths, services::Platform};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::Command,
    time::{sleep, timeout},
};

/// Images may have to be built first.
const START_DEADLINE: Duration = Duration::from_mins(5);
const END_DEADLINE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

#[tokio::test]
async fn replicas_have_what_the_primary_wrote_and_refuse_writes() -> Result<()> {
    let platform = Platform::start(&Paths::from_environment()?).await?;
    platform
        .postgres
        .query(0, "CREATE TABLE seen AS SELECT 1 AS one")
        .await?;
    let written = platform.postgres.query(0, "SELECT pg_current_wal_lsn()").await?;
    for replica in 1..=2 {
        while platform
            .postgres
            .query(
                replica,
                &format!("SELECT pg_last_wal_replay_lsn() >= '{written}'"),
            )
            .await?
            != "t"
        {}
        assert_eq!(
            platform.postgres.query(replica, "SELECT one FROM seen").await?,
            "1"
        );
        assert!(
            platform
                .postgres
                .query(replica, "CREATE TABLE other()")
                .await
                .is_err()
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_application_role_neither_owns_nor_bypasses() -> Result<()> {
    let platform = Platform::start(&Paths::from_environment()?).await?;
    let roles = "SELECT string_agg(rolname, ',' ORDER BY rolname) FROM pg_roles
                  WHERE rolname LIKE 'tanka%' AND NOT (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)";
    assert_eq!(
        platform.postgres.query(0, roles).await?,
        "tanka_app,tanka_monitor,tanka_owner"
    );
    let rights = "SET ROLE tanka_owner; CREATE TABLE made (id bigserial); RESET ROLE;
                  SELECT has_table_privilege('tanka_app', 'made', 'INSERT'), has_table_privilege('tanka_app', 'made', 'TRUNCATE'),
                         has_sequence_privilege('tanka_app', 'made_id_seq', 'USAGE'),
                         has_schema_privilege('tanka_app', 'public', 'CREATE'), has_database_privilege('tanka_app', 'tanka', 'TEMP')";
    assert_eq!(
        platform.postgres.query(0, rights).await?.lines().last(),
        Some("t|f|t|f|f")
    );
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_when_the_supervisor_is_killed() -> Result<()> {
    let mut supervisor = Command::new(env!("CARGO_BIN_EXE_e2e"))
        .args([
            "services",
            "run",
            "--",
            "sh",
            "-c",
            "echo $TANKA_TEST_PG_PRIMARY; exec sleep 600",
        ])
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = supervisor.stdout.take().context("its output is a pipe")?;
    let mut address = String::new();
    timeout(START_DEADLINE, BufReader::new(stdout).read_line(&mut address)).await??;
    TcpStream::connect(address.trim())
        .await
        .context("PostgreSQL listens while the supervisor lives")?;
    supervisor.kill().await?;
    let gone = async {
        while TcpStream::connect(address.trim()).await.is_ok() {
            sleep(POLL).await;
        }
    };
    timeout(END_DEADLINE, gone)
        .await
        .context("PostgreSQL survived its supervisor")
}

#[tokio::test]
async fn the_exit_code_is_that_of_the_command_and_it_can_control_services() -> Result<()> {
    let e2e = env!("CARGO_BIN_EXE_e2e");
    let script = r#"set -e
        "$1" services ctl kill redis-2
        "$1" services ctl list | grep -qx 'redis-2 stopped'
        "$1" services ctl start redis-2
        "$1" services ctl list | grep -qx 'redis-2 running'
        ! "$1" services ctl wipe pg-primary 2>/dev/null
        exit 7"#;
    let mut supervisor = Command::new(e2e)
        .args(["services", "run", "--", "sh", "-c", script, "sh", e2e])
        .spawn()?;
    assert_eq!(timeout(START_DEADLINE, supervisor.wait()).await??.code(), Some(7));
    Ok(())
}
