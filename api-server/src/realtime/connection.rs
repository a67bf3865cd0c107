//! What is said on a WebSocket besides events: the first frame, answers, refusals and last words.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout_at};

use super::listener::Wish;
use super::patience::GRACE;
use super::protocol::{Proof, Reply, Request};
use super::queue::Close;
use super::wire::Frame;
use super::wire::decoder::{Incoming, Violation};
use super::wire::transport::Transport;

/// How long a client may take to say who it is.
const FIRST_FRAME: Duration = Duration::from_secs(5);
/// Time for last words.
const FAREWELL: Duration = Duration::from_secs(1);

/// A stream of bytes to a client.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A client, before and after it is known.
#[derive(Debug)]
pub struct Connection<S>(pub Transport<S>);

/// What the first frame says.
#[derive(Debug)]
pub struct First {
    /// What proves who connects.
    pub proof: Proof,
    /// What it asks for.
    pub wish: Wish,
    /// Of its last write.
    pub consistency_token: Option<String>,
}

impl From<Violation> for Close {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation.code())
    }
}

/// The end of an answer that does not leave.
async fn too_slow() -> Close {
    sleep(GRACE).await;
    Close::Slow
}

impl<S: Stream> Connection<S> {
    /// The first frame; none if the client left.
    pub async fn first(&mut self) -> Result<Option<First>, Close> {
        let end = Instant::now() + FIRST_FRAME;
        let text = loop {
            match timeout_at(end, self.0.hear())
                .await
                .map_err(|_| Close::Unauthorized)??
            {
                Some(Incoming::Text(text)) => break text,
                Some(Incoming::Ping(carried)) => self.send(&[Frame::pong(&carried)]).await?,
                Some(Incoming::Pong) => {}
                Some(Incoming::Binary(_)) => return Err(Close::Protocol),
                Some(Incoming::Close(code)) => return self.part(code).await.map(|()| None),
                None => return Ok(None),
            }
        };
        match serde_json::from_str(&text) {
            Ok(Request::Connect {
                proof,
                channels,
                resume,
                consistency_token,
            }) => Ok(Some(First {
                proof,
                wish: Wish {
                    channels,
                    resume,
                    after: None,
                },
                consistency_token,
            })),
            _ => Err(Close::Protocol),
        }
    }

    /// Answers the client.
    pub async fn reply(&mut self, reply: &Reply) -> Result<(), Close> {
        let text = serde_json::to_string(reply).map_err(|_| Close::Protocol)?;
        self.send(&[Frame::text(&text)]).await
    }

    /// Refuses what was asked of a channel; the connection goes on.
    pub async fn refuse(&mut self, code: &'static str, channel: String) -> Result<(), Close> {
        self.reply(&Reply::Error {
            code,
            channel: Some(channel),
            fatal: false,
        })
        .await
    }

    /// Sends frames that are no events.
    pub async fn send(&mut self, frames: &[Frame]) -> Result<(), Close> {
        self.0.send(frames, too_slow).await
    }

    /// Answers the close of a client.
    pub async fn part(&mut self, code: Option<u16>) -> Result<(), Close> {
        let answer = Frame::close(code.unwrap_or(1000), "");
        self.0.close(&[answer], FAREWELL).await;
        Ok(())
    }

    /// Says why the server closes, and closes.
    pub async fn close(&mut self, close: &Close) {
        let error = Reply::Error {
            code: close.label(),
            channel: None,
            fatal: true,
        };
        let mut last = Vec::with_capacity(2);
        if !matches!(close, Close::Draining { .. } | Close::Violation(_)) {
            last.extend(serde_json::to_string(&error).ok().map(Frame::from));
        }
        last.push(Frame::close(close.code(), &close.text()));
        self.0.close(&last, FAREWELL).await;
    }
}
