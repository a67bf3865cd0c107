//! PostgreSQL as the platform runs it, without Patroni: a primary and two replicas that stream from it through slots.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    process::Call,
    rootfs::Rootfs,
    services::{Sandbox, Service, Stack},
};

/// The database and its passwords. They guard nothing: the servers listen on loopback, for the time of a test.
pub const DATABASE: &str = "tanka";
const SUPERUSER_PASSWORD: &str = "superuser-for-tests";
const OWNER_PASSWORD: &str = "owner-for-tests";
const APP_PASSWORD: &str = "app-for-tests";
const MONITOR_PASSWORD: &str = "monitor-for-tests";

/// As the image has them.
const USER: (u32, u32) = (101, 103);
const VOLUME: &str = "/var/lib/postgresql/data";
const DATA: &str = "/var/lib/postgresql/data/pgdata";
const SOCKETS: &str = "/run/postgresql";
/// For a tablespace that is soon full.
const SMALL_DISK: &str = "/tmp/small";
const PATH: &str = "/usr/lib/postgresql/17/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// A primary and two replicas, for which the template has slots.
pub const SERVERS: usize = 3;
/// Time in which another run makes the template.
pub const TEMPLATE_DEADLINE: Duration = Duration::from_mins(1);
const QUERY_DEADLINE: Duration = Duration::from_secs(15);
const COPY_DEADLINE: Duration = Duration::from_secs(30);
const READY_DEADLINE: Duration = Duration::from_mins(1);

/// Nothing here outlives a test, so nothing waits for a disk; what a replica tells its primary, it tells soon.
const CONFIGURATION: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = '/run/postgresql'
wal_level = replica
fsync = off
full_page_writes = off
shared_buffers = 48MB
max_connections = 200
max_wal_senders = 10
max_replication_slots = 10
min_wal_size = 32MB
max_wal_size = 128MB
max_slot_wal_keep_size = 256MB
hot_standby = on
hot_standby_feedback = on
wal_receiver_status_interval = 1s
wal_receiver_timeout = 5s
wal_sender_timeout = 5s
wal_retrieve_retry_interval = 200ms
shared_preload_libraries = 'pg_stat_statements'
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
";

/// Makes a cluster, prepares it twice with the platform's own script (which must bear that), and stops it.
const MAKE_TEMPLATE: &str = r#"set -eu
umask 077
cat >/tmp/password
initdb --pgdata "$PGDATA" --username postgres --auth-local trust --auth-host scram-sha-256 --pwfile /tmp/password \
    --encoding UTF8 --locale-provider builtin --locale C.UTF-8 --data-checksums --no-sync --no-instructions >/tmp/log
pg_ctl --wait --silent --log /tmp/log --options "-c listen_addresses='' -c fsync=off" start
tanka-post-bootstrap 'host=/run/postgresql user=postgres dbname=postgres'
tanka-post-bootstrap 'host=/run/postgresql user=postgres dbname=postgres'
psql --host /run/postgresql --username postgres --quiet --no-psqlrc --set ON_ERROR_STOP=1 --output /dev/null --command "
    SELECT pg_create_physical_replication_slot('pg_replica_' || n, true) FROM generate_series(1, 2) n"
pg_ctl --wait --silent --mode fast stop
"#;

/// The folder of a cluster that is prepared and was stopped cleanly: what a base backup would give, without the wait.
pub async fn template(folder: &Path, root: &Rootfs, tag: &str) -> Result<PathBuf> {
    // The script is a part of what the template is made of, as the image is.
    let path = folder.join(format!("{tag}-{:08x}", checksum(MAKE_TEMPLATE)));
    if path.join("pgdata/PG_VERSION").exists() {
        return Ok(path);
    }
    for entry in fs::read_dir(folder)? {
        let old = entry?.path();
        if old.is_dir() {
            fs::remove_dir_all(&old).with_context(|| format!("failed to delete {}", old.display()))?;
        }
    }
    let partial = folder.join("partial");
    let sockets = folder.join("partial-sockets");
    let mut sandbox = sandbox(root, &partial, &sockets);
    sandbox.environment.extend([
        ("TANKA_OWNER_PASSWORD", OWNER_PASSWORD.to_owned()),
        ("TANKA_APP_PASSWORD", APP_PASSWORD.to_owned()),
        ("TANKA_MONITOR_PASSWORD", MONITOR_PASSWORD.to_owned()),
    ]);
    sandbox
        .call(&["sh", "-c", MAKE_TEMPLATE], TEMPLATE_DEADLINE)?
        .input(format!("{SUPERUSER_PASSWORD}\n"))
        .run()
        .await
        .context("failed to make a PostgreSQL cluster")?;
    fs::remove_dir_all(&sockets)?;
    fs::rename(&partial, &path)?;
    Ok(path)
}

/// FNV-1a: a name, not a proof.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

fn sandbox(root: &Rootfs, volume: &Path, sockets: &Path) -> Sandbox {
    Sandbox {
        root: root.path.clone(),
        user: USER,
        binds: vec![(volume.to_path_buf(), VOLUME), (sockets.to_path_buf(), SOCKETS)],
        disks: Vec::new(),
        environment: vec![
            ("PATH", PATH.to_owned()),
            ("PGDATA", DATA.to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
        ],
    }
}

/// A primary and its replicas.
#[derive(Debug)]
pub struct Cluster {
    root: Rootfs,
    /// Of the primary, then of the replicas.
    ports: Vec<u16>,
}

impl Cluster {
    /// Starts the services `pg-primary`, `pg-replica-1` and `pg-replica-2` on these ports.
    pub async fn start(stack: &mut Stack, root: Rootfs, template: &Path, ports: Vec<u16>) -> Result<Self> {
        for (index, port) in ports.iter().enumerate() {
            let name = if index == 0 {
                "pg-primary".to_owned()
            } else {
                format!("pg-replica-{index}")
            };
            let volume = stack.folder().join(&name);
            Call::new("cp", COPY_DEADLINE)
                .args(["--archive", "--reflink=auto"])
                .args([template, &volume])
                .run()
                .await
                .context("failed to copy the prepared cluster")?;
            configure(&volume.join("pgdata"), index, *port, ports[0])?;
            let mut sandbox = sandbox(&root, &volume, &stack.folder().join(format!("{name}-sockets")));
            // Replicas have room for what the primary has none for.
            sandbox.disks.push((if index == 0 { 32 } else { 64 }, SMALL_DISK));
            let log = stack.folder().join("logs").join(format!("{name}.log"));
            stack.add(Service::new(&name, sandbox, vec!["postgres".to_owned()], log))?;
        }
        Ok(Self { root, ports })
    }

    /// Waits until every replica streams and answers.
    pub async fn wait_until_ready(&self, stack: &mut Stack) -> Result<()> {
        let ready = async || {
            let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
            if self.query(0, streaming).await.ok().as_deref() != Some("2") {
                return false;
            }
            for index in 1..self.ports.len() {
                if self
                    .query(index, "SELECT pg_is_in_recovery()")
                    .await
                    .ok()
                    .as_deref()
                    != Some("t")
                {
                    return false;
                }
            }
            true
        };
        stack
            .wait_until("PostgreSQL and its replicas are ready", READY_DEADLINE, ready)
            .await
    }

    /// One query as superuser in the platform's database, on the primary (0) or a replica.
    pub async fn query(&self, index: usize, sql: &str) -> Result<String> {
        let port = self.ports.get(index).context("no such server")?;
        let address = format!("host=127.0.0.1 port={port} user=postgres dbname={DATABASE} connect_timeout=2");
        let text = Call::new("chroot", QUERY_DEADLINE)
            .arg(&self.root.path)
            .args([
                "/usr/lib/postgresql/17/bin/psql",
                "--no-psqlrc",
                "--tuples-only",
                "--no-align",
                "--command",
                sql,
            ])
            .arg(address)
            .env("PGPASSWORD", SUPERUSER_PASSWORD)
            .output()
            .await?;
        Ok(text.trim().to_owned())
    }

    /// What a command that uses them finds in its environment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let address = |port: &u16| format!("127.0.0.1:{port}");
        let primary = address(&self.ports[0]);
        let replicas: Vec<String> = self.ports[1..].iter().map(address).collect();
        vec![
            (
                "DATABASE_URL",
                format!("postgres://tanka_owner:{OWNER_PASSWORD}@{primary}/{DATABASE}"),
            ),
            ("TANKA_TEST_PG_PRIMARY", primary),
            ("TANKA_TEST_PG_REPLICAS", replicas.join(",")),
            ("TANKA_TEST_PG_DATABASE", DATABASE.to_owned()),
            ("TANKA_TEST_PG_SUPERUSER_PASSWORD", SUPERUSER_PASSWORD.to_owned()),
            ("TANKA_TEST_PG_OWNER_PASSWORD", OWNER_PASSWORD.to_owned()),
            ("TANKA_TEST_PG_APP_PASSWORD", APP_PASSWORD.to_owned()),
        ]
    }
}

/// Adds what one member needs to a copy of the template.
fn configure(data: &Path, index: usize, port: u16, primary_port: u16) -> Result<()> {
    ensure!(
        data.join("PG_VERSION").exists(),
        "{} holds no cluster",
        data.display()
    );
    let mut file = fs::File::options()
        .append(true)
        .open(data.join("postgresql.conf"))?;
    writeln!(file, "{CONFIGURATION}\nport = {port}")?;
    if index == 0 {
        return Ok(());
    }
    let slot = format!("pg_replica_{index}");
    writeln!(
        file,
        "primary_slot_name = '{slot}'\nprimary_conninfo = 'host=127.0.0.1 port={primary_port} user=postgres \
         password={SUPERUSER_PASSWORD} application_name={slot}'"
    )?;
    fs::write(data.join("standby.signal"), "")?;
    // Slots belong to the primary; a base backup leaves them out too.
    for entry in fs::read_dir(data.join("pg_replslot"))? {
        fs::remove_dir_all(entry?.path())?;
    }
    Ok(())
}
