//! The control socket: a test stops, kills, freezes and starts single services through it, one line for each request.
//!
//! Request: `ACTION [SERVICE]`. Answer: `ok`, or `error: ` and a sentence; `list` answers `SERVICE running|stopped` lines first.

use std::{
    env,
    fmt::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use crate::{process::BadEnvironment, services::Stack};

/// Longer than the slowest action, which is a `stop` that has to kill in the end.
const DEADLINE: Duration = Duration::from_secs(30);

/// What can be done to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// Prints all services.
    List,
    /// Starts it; returns before it is ready.
    Start,
    /// Ends it in good order.
    Stop,
    /// Ends it like a crash.
    Kill,
    /// Kills it, and starts it again.
    Restart,
    /// Freezes it: connections stay open, and nobody answers.
    Pause,
    /// Ends a pause.
    Resume,
    /// Deletes the data of one that does not run.
    Wipe,
}

/// Where the socket of a stack is.
pub fn socket(stack: &Stack) -> PathBuf {
    stack.folder().join("control")
}

/// Opens the socket.
pub fn listen(stack: &Stack) -> Result<UnixListener> {
    UnixListener::bind(socket(stack)).context("failed to open the control socket")
}

/// Serves one connection. A client that misbehaves hurts only itself.
pub async fn serve(stack: &mut Stack, stream: UnixStream) {
    let _ = timeout(DEADLINE, async {
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        BufReader::new(read.take(256)).read_line(&mut line).await?;
        let answer = match act(stack, &line).await {
            Ok(text) => format!("{text}ok\n"),
            Err(error) => format!("error: {error:#}\n"),
        };
        write.write_all(answer.as_bytes()).await
    })
    .await;
}

async fn act(stack: &mut Stack, line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let action = words.next().unwrap_or_default();
    let Ok(action) = Action::from_str(action, false) else {
        bail!("{action:?} is not an action")
    };
    if action == Action::List {
        let mut text = String::new();
        for service in stack.services() {
            let state = if service.runs()? { "running" } else { "stopped" };
            writeln!(text, "{} {state}", service.name())?;
        }
        return Ok(text);
    }
    let service = stack.service(words.next().unwrap_or_default())?;
    match action {
        Action::List => {}
        Action::Start => service.start()?,
        Action::Stop => service.stop().await?,
        Action::Kill => service.kill().await?,
        Action::Restart => {
            service.kill().await?;
            service.start()?;
        }
        Action::Pause => service.pause().await?,
        Action::Resume => service.resume().await?,
        Action::Wipe => service.wipe()?,
    }
    Ok(String::new())
}

/// Sends one request to the stack that this command runs in.
pub async fn request(action: Action, service: Option<&str>) -> Result<String> {
    let path = env::var_os("TANKA_TEST_CONTROL").ok_or_else(|| {
        BadEnvironment::new("TANKA_TEST_CONTROL is not set: run this below `e2e services run`")
    })?;
    let action = action
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default();
    let answer = timeout(
        DEADLINE,
        exchange(
            Path::new(&path),
            &format!("{action} {}\n", service.unwrap_or_default()),
        ),
    )
    .await
    .context("the services did not answer in time")??;
    match answer.strip_suffix("ok\n") {
        Some(text) => Ok(text.to_owned()),
        None => bail!("{}", answer.trim().trim_start_matches("error: ")),
    }
}

async fn exchange(path: &Path, line: &str) -> Result<String> {
    let mut stream = UnixStream::connect(path)
        .await
        .with_context(|| format!("failed to reach {}", path.display()))?;
    stream.write_all(line.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
