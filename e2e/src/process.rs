//! Other programs, run to their end with a deadline, and file locks with one.
//! Long-running ones (services) are not started here.

use std::{
    ffi::OsStr,
    fmt,
    fs::{File, TryLockError},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::AsyncWriteExt,
    process::Command,
    time::{Instant, sleep, timeout},
};

/// The machine lacks something; the message says what, and what to do.
#[derive(Debug)]
pub struct BadEnvironment(String);

impl BadEnvironment {
    /// One sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for BadEnvironment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for BadEnvironment {}

/// A program to run to its end. It is killed when the deadline passes or the future is dropped.
#[derive(Debug)]
pub struct Call {
    command: Command,
    shown: String,
    input: Vec<u8>,
    deadline: Duration,
}

impl Call {
    /// `deadline` bounds the whole run.
    pub fn new(program: impl AsRef<OsStr>, deadline: Duration) -> Self {
        let shown = program.as_ref().to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.kill_on_drop(true);
        Self {
            command,
            shown,
            input: Vec::new(),
            deadline,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes an environment variable.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, path: &Path) -> Self {
        self.command.current_dir(path);
        self
    }

    /// What the program reads on standard input; nothing unless given.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Runs it and returns what it wrote to standard output; fails when it fails, with the end of what it complained about.
    pub async fn output(self) -> Result<String> {
        let shown = self.shown.clone();
        let (success, stdout, stderr) = self.finish().await?;
        if !success {
            let text = format!("{stdout}{stderr}");
            let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
            bail!(
                "{shown} failed:\n{}",
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
        Ok(stdout)
    }

    /// Runs it; fails when it fails.
    pub async fn run(self) -> Result<()> {
        self.output().await.map(drop)
    }

    /// Whether it can be started and succeeds.
    pub async fn succeeds(self) -> bool {
        self.finish().await.is_ok_and(|(success, ..)| success)
    }

    async fn finish(mut self) -> Result<(bool, String, String)> {
        let shown = &self.shown;
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    BadEnvironment::new(format!("{shown} is not installed; run `make deps`")).into()
                }
                _ => anyhow::Error::new(error).context(format!("failed to start {shown}")),
            })?;
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A program that ends without reading is judged by its exit code.
                let _ = stdin.write_all(&self.input).await;
            }
        };
        let work = async { tokio::join!(feed, child.wait_with_output()).1 };
        let output = timeout(self.deadline, work)
            .await
            .with_context(|| format!("{shown} did not end within {} s", self.deadline.as_secs_f32()))?
            .with_context(|| format!("failed to wait for {shown}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        ))
    }
}

/// Opens `path` and waits for its exclusive lock, which is held until the file is dropped.
pub async fn lock(path: &Path, deadline: Duration) -> Result<File> {
    let file = File::create(path).with_context(|| format!("failed to open {}", path.display()))?;
    let end = Instant::now() + deadline;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                if !told {
                    eprintln!("waiting for another run that holds {}", path.display());
                    told = true;
                }
                sleep(Duration::from_millis(100)).await;
            }
            Err(TryLockError::WouldBlock) => {
                bail!("{} stayed locked for {} s", path.display(), deadline.as_secs())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("failed to lock {}", path.display()));
            }
        }
    }
}
