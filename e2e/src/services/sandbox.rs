//! One process tree that runs inside an unpacked image: own mount, process and IPC namespaces, read-only root, a user of its own,
//! the host's loopback. It ends when this process ends, however that happens.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::process::Call;

/// A killed process that is still there after that hangs in the kernel.
const END_DEADLINE: Duration = Duration::from_secs(10);
const SIGNAL_DEADLINE: Duration = Duration::from_secs(5);

/// Runs in the new namespaces: builds the view of the file system, then becomes the program. The death signal is set last, because
/// the kernel forgets it when the user changes.
const ENTER: &str = r#"set -eu
root=$1 user=$2 group=$3
shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
while [ "$1" != -- ]; do
    case $1 in
    disk:*)
        mkdir -p "$root$2"
        mount -t tmpfs -o "size=${1#disk:}m,mode=0700,uid=$user,gid=$group" tmpfs "$root$2"
        ;;
    *) mount --bind "$1" "$root$2" ;;
    esac
    shift 2
done
shift
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid "$user" --regid "$group" --clear-groups --pdeathsig KILL -- "$@"
"#;

/// What a program of an image runs in.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The unpacked image.
    pub root: PathBuf,
    /// User and group.
    pub user: (u32, u32),
    /// Folders of the host, and where they appear. They are created, owned by the user.
    pub binds: Vec<(PathBuf, &'static str)>,
    /// Disks that can be filled: MiB, and where they appear, below `/tmp`. They are as new whenever the program starts.
    pub disks: Vec<(u32, &'static str)>,
    /// The whole environment.
    pub environment: Vec<(&'static str, String)>,
}

impl Sandbox {
    /// The program and arguments that enter it and run `argv`.
    fn arguments(&self, argv: &[&str]) -> Vec<OsString> {
        let (user, group) = self.user;
        let mut arguments: Vec<OsString> = [
            "--pdeathsig",
            "KILL",
            "--",
            "unshare",
            "--mount",
            "--ipc",
            "--pid",
            "--fork",
        ]
        .into_iter()
        .chain([
            "--kill-child=KILL",
            "--propagation",
            "private",
            "--",
            "sh",
            "-c",
            ENTER,
            "sh",
        ])
        .map(OsString::from)
        .collect();
        arguments.extend([
            self.root.clone().into(),
            user.to_string().into(),
            group.to_string().into(),
        ]);
        for (outside, inside) in &self.binds {
            arguments.extend([outside.clone().into(), OsString::from(inside)]);
        }
        for (size, inside) in &self.disks {
            arguments.extend([OsString::from(format!("disk:{size}")), OsString::from(inside)]);
        }
        arguments.push("--".into());
        arguments.extend(argv.iter().map(OsString::from));
        arguments
    }

    fn create_folders(&self) -> Result<()> {
        for (outside, _) in &self.binds {
            if !outside.exists() {
                fs::create_dir_all(outside)
                    .with_context(|| format!("failed to create {}", outside.display()))?;
                std::os::unix::fs::chown(outside, Some(self.user.0), Some(self.user.1))?;
            }
        }
        Ok(())
    }

    /// A program that runs to its end.
    pub fn call(&self, argv: &[&str], deadline: Duration) -> Result<Call> {
        self.create_folders()?;
        let mut call = Call::new("setpriv", deadline).args(self.arguments(argv));
        for (name, value) in &self.environment {
            call = call.env(name, value);
        }
        Ok(call)
    }
}

/// A program that goes on until it is ended.
#[derive(Debug)]
pub struct Service {
    name: String,
    sandbox: Sandbox,
    argv: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Service {
    /// Does not start it yet. Its output is appended to `log`.
    pub fn new(name: &str, sandbox: Sandbox, argv: Vec<String>, log: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            sandbox,
            argv,
            log,
            child: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it; it may already run.
    pub fn start(&mut self) -> Result<()> {
        if self.child.is_some() && self.ended()?.is_none() {
            return Ok(());
        }
        self.sandbox.create_folders()?;
        let log = File::options().create(true).append(true).open(&self.log)?;
        let argv: Vec<&str> = self.argv.iter().map(String::as_str).collect();
        let child = Command::new("setpriv")
            .args(self.sandbox.arguments(&argv))
            .env_clear()
            .env(
                "PATH",
                "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
            )
            .envs(self.sandbox.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // An interrupt at the terminal is for the command that uses the services.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// The exit status, once it has ended by itself.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        child
            .try_wait()
            .with_context(|| format!("failed to look at {}", self.name))
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.is_some() && self.ended()?.is_none())
    }

    /// Ends it as a crash would: every process at once.
    pub async fn kill(&mut self) -> Result<()> {
        Self::kill_all([self]).await
    }

    /// Ends several at the same moment.
    pub async fn kill_all<'a>(services: impl IntoIterator<Item = &'a mut Self>) -> Result<()> {
        let mut services: Vec<&mut Self> = services.into_iter().collect();
        let mut targets = Vec::new();
        for service in &mut services {
            if service.runs()? {
                let outer = service
                    .child
                    .as_ref()
                    .and_then(Child::id)
                    .context("a running process has an id")?;
                // The first process of the namespace takes all others with it, and is gone only when they are.
                targets.push(first_inside(outer).unwrap_or(outer));
            }
        }
        if !targets.is_empty() {
            signal("KILL", &targets).await?;
        }
        for service in services {
            service.wait_for_end().await?;
        }
        Ok(())
    }

    async fn wait_for_end(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child {
            timeout(END_DEADLINE, child.wait())
                .await
                .with_context(|| format!("{} did not die", self.name))??;
        }
        self.child = None;
        Ok(())
    }

    /// Asks it to end, and kills it when it has not after ten seconds.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        if child.try_wait()?.is_none() {
            let outer = child.id().context("a running process has an id")?;
            signal("TERM", &[first_inside(outer).unwrap_or(outer)]).await?;
            let _ = timeout(END_DEADLINE, child.wait()).await;
        }
        self.kill().await
    }

    /// Freezes all its processes: connections stay open, and nobody answers.
    pub async fn pause(&mut self) -> Result<()> {
        signal("STOP", &self.processes()?).await
    }

    /// Ends a pause.
    pub async fn resume(&mut self) -> Result<()> {
        signal("CONT", &self.processes()?).await
    }

    /// Deletes its data, as the loss of a volume would. It must not run.
    pub fn wipe(&mut self) -> Result<()> {
        if self.runs()? {
            bail!("{} runs: stop or kill it before its data is deleted", self.name);
        }
        for (folder, _) in &self.sandbox.binds {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry?.path();
                if path.is_dir() {
                    fs::remove_dir_all(&path)?;
                } else {
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(())
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn processes(&mut self) -> Result<Vec<u32>> {
        ensure!(self.runs()?, "{} does not run", self.name);
        let outer = self
            .child
            .as_ref()
            .and_then(Child::id)
            .context("a running process has an id")?;
        let first = first_inside(outer).with_context(|| format!("{} is still starting", self.name))?;
        let namespace = fs::read_link(format!("/proc/{first}/ns/pid"))?;
        Ok(all_processes()
            .filter(|id| namespace_of(*id).is_some_and(|other| other == namespace))
            .collect())
    }
}

fn all_processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn namespace_of(process: u32) -> Option<PathBuf> {
    fs::read_link(Path::new("/proc").join(process.to_string()).join("ns/pid")).ok()
}

/// The first process of the namespace that `unshare` made: its only child.
fn first_inside(outer: u32) -> Option<u32> {
    all_processes().find(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // `id (name) state parent ...`, and the name may hold anything.
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1));
        parent.is_some_and(|parent| parent == outer.to_string())
    })
}

/// A process that has ended in the meantime is no failure: whoever wants it dead waits for its end anyway.
async fn signal(signal: &str, processes: &[u32]) -> Result<()> {
    let ids = processes.iter().map(u32::to_string);
    match Call::new("kill", SIGNAL_DEADLINE)
        .args(["-s", signal, "--"])
        .args(ids)
        .run()
        .await
    {
        Err(error) if !error.to_string().contains("No such process") => Err(error),
        _ => Ok(()),
    }
}
