//! Frames that wait for one socket, bounded in bytes. Who reads too slowly is closed; nobody else waits for it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use uuid::Uuid;

use super::wire::Frame;
use super::wire::transport::MOST_AT_ONCE;
use crate::domain::event::Channel;

/// Bytes that are handed out at a time. With what waits, and what the kernel holds, it is what a client that reads nothing costs.
const MOST_BYTES_AT_ONCE: usize = 32 << 10;

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
    /// The client broke the rules of WebSockets; with the code that they name for it.
    Violation(u16),
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
            Self::Violation(code) => *code,
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
            Self::Violation(_) => "violation",
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
    pub frame: Frame,
}

/// What the connection does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send these, in their order.
    Items(Vec<Item>),
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
    /// Of the connection, while there is nothing for it to do.
    waker: Option<Waker>,
    /// Of the connection, while it writes to a client that takes nothing.
    blocked: Option<Waker>,
}

impl State {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.recheck && self.close.is_none()
    }
}

/// The queue of one connection.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    limit: usize,
    gauge: Gauge,
    discarded: Counter,
}

impl Queue {
    /// A queue for so many bytes. The gauge is the sum over all queues, the counter that of what was never handed out.
    pub fn new(limit: usize, gauge: Gauge, discarded: Counter) -> Self {
        Self {
            state: Mutex::default(),
            limit,
            gauge,
            discarded,
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
        let taken = state.bytes + bytes <= self.limit || state.waiting.is_empty();
        if taken {
            state.bytes += bytes;
            state.waiting.push_back(Waiting::Item(item));
            self.gauge.inc_by(signed(bytes));
        } else {
            state.close = Some(Close::Slow);
            state.waiting = VecDeque::new();
            self.discard(std::mem::take(&mut state.bytes));
        }
        wake(state);
        taken
    }

    /// Tells the connection, after what waits, that it no longer gets events of a channel.
    pub fn left(&self, channel: Channel) {
        let mut state = self.lock();
        if state.close.is_none() {
            state.waiting.push_back(Waiting::Left(channel));
        }
        wake(state);
    }

    /// Drops what waits of a channel.
    pub fn forget(&self, channel: Channel) {
        let mut state = self.lock();
        let before = state.bytes;
        state.waiting.retain(|waiting| waiting.channel() != channel);
        state.bytes = state.waiting.iter().map(Waiting::bytes).sum();
        self.gauge.dec_by(signed(before - state.bytes));
    }

    /// Asks the connection, before anything else is sent, to find out what the person may still listen to.
    pub fn recheck(&self) {
        let mut state = self.lock();
        state.recheck = true;
        wake(state);
    }

    /// Closes the connection after what waits was sent. The first reason counts.
    pub fn close(&self, reason: Close) {
        let mut state = self.lock();
        state.close.get_or_insert(reason);
        wake(state);
    }

    /// Waits until there is something to do.
    pub fn poll_ready(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.is_idle() {
            return Poll::Ready(());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits until the connection is to be closed, whatever waits; for one that is about to write and cannot.
    pub fn poll_closed(&self, context: &Context<'_>) -> Poll<Close> {
        let mut state = self.lock();
        if let Some(close) = &state.close {
            return Poll::Ready(close.clone());
        }
        state.blocked = Some(context.waker().clone());
        Poll::Pending
    }

    /// Waits for what to do next.
    pub async fn next(&self) -> Next {
        loop {
            poll_fn(|context| self.poll_ready(context)).await;
            if let Some(next) = self.take() {
                return next;
            }
        }
    }

    /// What to do next, if there is anything: as many events as one call to the system takes.
    pub fn take(&self) -> Option<Next> {
        let mut state = self.lock();
        if std::mem::take(&mut state.recheck) {
            return Some(Next::Recheck);
        }
        if let Some(Waiting::Left(channel)) = state.waiting.front() {
            let channel = *channel;
            state.waiting.pop_front();
            return Some(Next::Left(channel));
        }
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < MOST_AT_ONCE && bytes < MOST_BYTES_AT_ONCE {
            match state.waiting.pop_front() {
                Some(Waiting::Item(item)) => {
                    bytes += item.frame.len();
                    items.push(item);
                }
                Some(left) => {
                    state.waiting.push_front(left);
                    break;
                }
                None => break,
            }
        }
        if state.waiting.is_empty() {
            // An idle connection keeps no memory for a burst that is over.
            state.waiting = VecDeque::new();
        }
        if items.is_empty() {
            return state.close.clone().map(Next::Close);
        }
        state.bytes -= bytes;
        drop(state);
        self.gauge.dec_by(signed(bytes));
        Some(Next::Items(items))
    }

    fn discard(&self, bytes: usize) {
        self.gauge.dec_by(signed(bytes));
        self.discarded.inc_by(bytes as u64);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let held = self.lock().bytes;
        self.discard(held);
    }
}

/// Wakes the connection, after the lock is given back.
fn wake(mut state: std::sync::MutexGuard<'_, State>) {
    let waker = state.waker.take();
    let closed = state.close.is_some();
    let blocked = state.blocked.take_if(|_| closed);
    drop(state);
    for waker in [waker, blocked].into_iter().flatten() {
        waker.wake();
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

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
        (Queue::new(limit, gauge.clone(), Counter::default()), gauge)
    }

    #[tokio::test]
    async fn events_come_in_their_order_and_then_the_close() {
        let (queue, gauge) = queue(100);
        assert!(queue.push(item(1, "a")));
        assert!(queue.push(item(1, "bb")));
        assert_eq!(gauge.get(), 7, "with two bytes of header each");
        queue.close(Close::Idle);
        assert!(!queue.push(item(1, "c")));
        assert_eq!(queue.next().await, Next::Items(vec![item(1, "a"), item(1, "bb")]));
        assert_eq!(queue.next().await, Next::Close(Close::Idle));
        assert_eq!(gauge.get(), 0);
    }

    #[tokio::test]
    async fn an_overflow_closes_the_connection_and_frees_its_memory() {
        let (queue, gauge) = queue(10);
        assert!(queue.push(item(1, "12345678")));
        assert!(!queue.push(item(1, "1234")));
        assert_eq!((gauge.get(), queue.discarded.get()), (0, 10), "with the header");
        assert_eq!(queue.next().await, Next::Close(Close::Slow));
    }

    #[tokio::test]
    async fn one_event_is_always_taken() {
        let (queue, gauge) = queue(2);
        assert!(queue.push(item(1, "12345678")));
        assert_eq!(queue.next().await, Next::Items(vec![item(1, "12345678")]));
        assert!(queue.push(item(1, "12345678")));
        drop(queue);
        assert_eq!(gauge.get(), 0, "what nobody will send is not counted any more");
    }

    #[tokio::test]
    async fn what_is_handed_out_at_a_time_is_bounded_in_events_and_bytes() {
        let (queue, gauge) = queue(1 << 20);
        for _ in 0..=MOST_AT_ONCE {
            queue.push(item(1, "x"));
        }
        let large = "x".repeat(20 << 10);
        for _ in 0..3 {
            queue.push(item(1, &large));
        }
        let mut counts = Vec::new();
        while let Some(Next::Items(items)) = queue.take() {
            counts.push(items.len());
        }
        assert_eq!(counts, [MOST_AT_ONCE, 3, 1]);
        assert_eq!(gauge.get(), 0);
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_whatever_comes() {
        for what in [
            |queue: &Queue| assert!(queue.push(item(1, "a"))),
            |queue: &Queue| queue.left(Channel::Workroom(Uuid::nil())),
            |queue: &Queue| queue.recheck(),
            |queue: &Queue| queue.close(Close::Idle),
        ] {
            let queue = Arc::new(queue(100).0);
            let waiting = tokio::spawn({
                let queue = queue.clone();
                async move { queue.next().await }
            });
            while queue.lock().waker.is_none() {
                tokio::task::yield_now().await;
            }
            what(&queue);
            waiting.await.unwrap();
        }
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_cannot_write_is_woken_by_an_end_and_by_nothing_else() {
        for (end, close) in [
            (
                (|queue| assert!(!queue.push(item(1, "overflows")))) as fn(&Queue),
                Close::Slow,
            ),
            (|queue| queue.close(Close::Revoked), Close::Revoked),
        ] {
            let queue = queue(10).0;
            let woken = Arc::new(Woken::default());
            let waker = Waker::from(woken.clone());
            let context = Context::from_waker(&waker);
            assert!(queue.poll_closed(&context).is_pending());
            assert!(queue.push(item(1, "fits")));
            queue.recheck();
            assert!(!woken.0.load(Ordering::Relaxed));
            end(&queue);
            assert!(woken.0.load(Ordering::Relaxed));
            assert_eq!(queue.poll_closed(&context), Poll::Ready(close));
        }
    }

    #[tokio::test]
    async fn what_waits_of_a_channel_can_be_dropped() {
        let (queue, gauge) = queue(100);
        assert!(queue.push(item(1, "one")));
        assert!(queue.push(item(2, "two")));
        queue.forget(Channel::Workroom(Uuid::from_u128(1)));
        queue.left(Channel::Workroom(Uuid::from_u128(1)));
        queue.recheck();
        assert_eq!(gauge.get(), 5);
        assert_eq!(queue.next().await, Next::Recheck, "before anything is sent");
        assert_eq!(queue.next().await, Next::Items(vec![item(2, "two")]));
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
