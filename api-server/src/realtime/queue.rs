//! Frames that wait for one socket, bounded in bytes. Who reads too slowly is closed; nobody else waits for it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use axum::extract::ws::Utf8Bytes;
use tokio::sync::Notify;

/// Why the server closes a socket. Codes from 4000 on are this API's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Close {
    /// The process ends; the client may come back after so many milliseconds.
    Draining {
        /// Spreads the clients out.
        reconnect_after_ms: u64,
    },
    /// The token or ticket is not good, or ended.
    Unauthorized,
    /// Nothing was heard for too long.
    Idle,
    /// The session was ended.
    Revoked,
    /// Frames piled up.
    Slow,
    /// Events cannot be continued without a gap.
    HistoryLost,
    /// The client sent something that is not of this protocol.
    Protocol,
    /// Too many connections, or the database cannot be reached.
    Unavailable,
}

impl Close {
    /// Close code.
    pub const fn code(&self) -> u16 {
        match self {
            Self::Draining { .. } => 1001,
            Self::Unauthorized => 4001,
            Self::Idle => 4002,
            Self::Revoked => 4003,
            Self::Slow => 4008,
            Self::HistoryLost => 4010,
            Self::Protocol => 4400,
            Self::Unavailable => 1013,
        }
    }

    /// Text of the close frame.
    pub fn text(&self) -> String {
        match self {
            Self::Draining { reconnect_after_ms } => {
                format!(r#"{{"reason":"draining","reconnect_after_ms":{reconnect_after_ms}}}"#)
            }
            other => format!(r#"{{"reason":"{}"}}"#, other.label()),
        }
    }

    /// For metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Draining { .. } => "draining",
            Self::Unauthorized => "unauthorized",
            Self::Idle => "idle",
            Self::Revoked => "revoked",
            Self::Slow => "slow",
            Self::HistoryLost => "history_lost",
            Self::Protocol => "protocol",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What the socket does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this.
    Frame(Utf8Bytes),
    /// Close.
    Close(Close),
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Utf8Bytes>,
    bytes: usize,
    close: Option<Close>,
}

/// The queue of one socket.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    ready: Notify,
    limit: usize,
}

impl Queue {
    /// A queue for so many bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            state: Mutex::default(),
            ready: Notify::new(),
            limit,
        }
    }

    /// Appends a frame. Answers whether it was taken; a queue that overflows closes its socket. A single frame is always
    /// taken, so that a limit below the size of a message does not cut everybody off.
    pub fn push(&self, frame: Utf8Bytes) -> bool {
        let mut state = self.lock();
        if state.close.is_some() {
            return false;
        }
        let bytes = state.bytes + frame.len();
        if bytes > self.limit && !state.frames.is_empty() {
            state.close = Some(Close::Slow);
            state.frames = VecDeque::new();
            drop(state);
            self.ready.notify_one();
            return false;
        }
        state.bytes = bytes;
        state.frames.push_back(frame);
        drop(state);
        self.ready.notify_one();
        true
    }

    /// Closes the socket after what waits was sent. The first reason counts.
    pub fn close(&self, reason: Close) {
        self.lock().close.get_or_insert(reason);
        self.ready.notify_one();
    }

    /// Waits for what to do next.
    pub async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.ready.notified().await;
        }
    }

    fn take(&self) -> Option<Next> {
        let mut state = self.lock();
        if let Some(frame) = state.frames.pop_front() {
            state.bytes -= frame.len();
            return Some(Next::Frame(frame));
        }
        state.close.clone().map(Next::Close)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_in_their_order_and_then_the_close() {
        let queue = Queue::new(100);
        assert!(queue.push("a".into()));
        assert!(queue.push("b".into()));
        queue.close(Close::Idle);
        assert!(!queue.push("c".into()));
        assert_eq!(queue.next().await, Next::Frame("a".into()));
        assert_eq!(queue.next().await, Next::Frame("b".into()));
        assert_eq!(queue.next().await, Next::Close(Close::Idle));
    }

    #[tokio::test]
    async fn an_overflow_closes_the_socket_and_frees_its_memory() {
        let queue = Queue::new(10);
        assert!(queue.push("12345678".into()));
        assert!(!queue.push("1234".into()));
        assert_eq!(queue.next().await, Next::Close(Close::Slow));
    }

    #[tokio::test]
    async fn one_frame_is_always_taken() {
        let queue = Queue::new(2);
        assert!(queue.push("12345678".into()));
        assert_eq!(queue.next().await, Next::Frame("12345678".into()));
        assert!(queue.push("12345678".into()));
    }

    #[test]
    fn close_frames_fit_the_protocol() {
        let close = Close::Draining {
            reconnect_after_ms: u64::MAX,
        };
        assert!(close.text().len() <= 123);
        assert_eq!(close.code(), 1001);
    }
}
