//! Frames that wait for one socket, bounded in bytes. Who reads too slowly is closed; nobody else waits for it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use axum::extract::ws::Utf8Bytes;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::domain::event::Channel;

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
    /// The person, or the tenant, has too many connections here.
    TooMany,
    /// The client sends more than it may.
    Flood,
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
            Self::TooMany => 4009,
            Self::Flood => 4029,
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
            Self::TooMany => "too_many",
            Self::Flood => "flood",
            Self::HistoryLost => "history_lost",
            Self::Protocol => "protocol",
            Self::Unavailable => "unavailable",
        }
    }
}

/// An event on its way to one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The channel.
    pub channel: Channel,
    /// Its epoch.
    pub epoch: Uuid,
    /// Place of the event.
    pub position: i64,
    /// What the client gets.
    pub frame: Utf8Bytes,
}

/// What the connection does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this.
    Item(Item),
    /// Tell the client that it no longer gets events of this channel.
    Left(Channel),
    /// Find out what the person may still listen to.
    Recheck,
    /// Close.
    Close(Close),
}

#[derive(Debug)]
enum Waiting {
    Item(Item),
    Left(Channel),
}

impl Waiting {
    fn bytes(&self) -> usize {
        match self {
            Self::Item(item) => item.frame.len(),
            Self::Left(_) => 0,
        }
    }

    fn channel(&self) -> Channel {
        match self {
            Self::Item(item) => item.channel,
            Self::Left(channel) => *channel,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    recheck: bool,
    close: Option<Close>,
}

/// The queue of one connection.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    ready: Notify,
    limit: usize,
    gauge: Gauge,
}

impl Queue {
    /// A queue for so many bytes; the gauge is the sum over all queues.
    pub fn new(limit: usize, gauge: Gauge) -> Self {
        Self {
            state: Mutex::default(),
            ready: Notify::new(),
            limit,
            gauge,
        }
    }

    /// Appends an event. Answers whether it was taken; a queue that overflows closes its connection. A single event is always
    /// taken, so that a limit below the size of a message does not cut everybody off.
    pub fn push(&self, item: Item) -> bool {
        let mut state = self.lock();
        if state.close.is_some() {
            return false;
        }
        let bytes = item.frame.len();
        if state.bytes + bytes > self.limit && !state.waiting.is_empty() {
            state.close = Some(Close::Slow);
            state.waiting = VecDeque::new();
            let held = std::mem::take(&mut state.bytes);
            drop(state);
            self.gauge.dec_by(signed(held));
            self.ready.notify_one();
            return false;
        }
        state.bytes += bytes;
        state.waiting.push_back(Waiting::Item(item));
        drop(state);
        self.gauge.inc_by(signed(bytes));
        self.ready.notify_one();
        true
    }

    /// Tells the connection, after what waits, that it no longer gets events of a channel.
    pub fn left(&self, channel: Channel) {
        let mut state = self.lock();
        if state.close.is_none() {
            state.waiting.push_back(Waiting::Left(channel));
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Drops what waits of a channel.
    pub fn forget(&self, channel: Channel) {
        let mut state = self.lock();
        let before = state.bytes;
        state.waiting.retain(|waiting| waiting.channel() != channel);
        state.bytes = state.waiting.iter().map(Waiting::bytes).sum();
        let dropped = before - state.bytes;
        drop(state);
        self.gauge.dec_by(signed(dropped));
    }

    /// Asks the connection, before anything else is sent, to find out what the person may still listen to.
    pub fn recheck(&self) {
        self.lock().recheck = true;
        self.ready.notify_one();
    }

    /// Closes the connection after what waits was sent. The first reason counts.
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
        if std::mem::take(&mut state.recheck) {
            return Some(Next::Recheck);
        }
        match state.waiting.pop_front() {
            Some(Waiting::Item(item)) => {
                state.bytes -= item.frame.len();
                drop(state);
                self.gauge.dec_by(signed(item.frame.len()));
                Some(Next::Item(item))
            }
            Some(Waiting::Left(channel)) => Some(Next::Left(channel)),
            None => {
                // An idle connection keeps no memory for a burst that is over.
                if state.waiting.capacity() > 64 {
                    state.waiting = VecDeque::new();
                }
                state.close.clone().map(Next::Close)
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let held = self.lock().bytes;
        self.gauge.dec_by(signed(held));
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(of: u128, frame: &str) -> Item {
        Item {
            channel: Channel::Workroom(Uuid::from_u128(of)),
            epoch: Uuid::nil(),
            position: 1,
            frame: frame.into(),
        }
    }

    fn queue(limit: usize) -> (Queue, Gauge) {
        let gauge = Gauge::default();
        (Queue::new(limit, gauge.clone()), gauge)
    }

    #[tokio::test]
    async fn events_come_in_their_order_and_then_the_close() {
        let (queue, gauge) = queue(100);
        assert!(queue.push(item(1, "a")));
        assert!(queue.push(item(1, "bb")));
        assert_eq!(gauge.get(), 3);
        queue.close(Close::Idle);
        assert!(!queue.push(item(1, "c")));
        assert_eq!(queue.next().await, Next::Item(item(1, "a")));
        assert_eq!(queue.next().await, Next::Item(item(1, "bb")));
        assert_eq!(queue.next().await, Next::Close(Close::Idle));
        assert_eq!(gauge.get(), 0);
    }

    #[tokio::test]
    async fn an_overflow_closes_the_connection_and_frees_its_memory() {
        let (queue, gauge) = queue(10);
        assert!(queue.push(item(1, "12345678")));
        assert!(!queue.push(item(1, "1234")));
        assert_eq!(gauge.get(), 0);
        assert_eq!(queue.next().await, Next::Close(Close::Slow));
    }

    #[tokio::test]
    async fn one_event_is_always_taken() {
        let (queue, gauge) = queue(2);
        assert!(queue.push(item(1, "12345678")));
        assert_eq!(queue.next().await, Next::Item(item(1, "12345678")));
        assert!(queue.push(item(1, "12345678")));
        drop(queue);
        assert_eq!(gauge.get(), 0, "what nobody will send is not counted any more");
    }

    #[tokio::test]
    async fn what_waits_of_a_channel_can_be_dropped() {
        let (queue, gauge) = queue(100);
        assert!(queue.push(item(1, "one")));
        assert!(queue.push(item(2, "two")));
        queue.forget(Channel::Workroom(Uuid::from_u128(1)));
        queue.left(Channel::Workroom(Uuid::from_u128(1)));
        queue.recheck();
        assert_eq!(gauge.get(), 3);
        assert_eq!(queue.next().await, Next::Recheck, "before anything is sent");
        assert_eq!(queue.next().await, Next::Item(item(2, "two")));
        assert_eq!(
            queue.next().await,
            Next::Left(Channel::Workroom(Uuid::from_u128(1)))
        );
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
