//! One WebSocket on a stream of bytes. Nothing is allocated while nothing is under way: bytes are read into the stack and frames are
//! written from where they were made, many with one call.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep, timeout};

use super::Frame;
use super::decoder::{Decoder, Incoming, Violation};

/// Bytes that are read with one call.
const READ: usize = 2 << 10;
/// Frames that are written with one call.
pub const MOST_AT_ONCE: usize = 64;

/// A socket.
#[derive(Debug)]
pub struct Transport<S> {
    stream: S,
    decoder: Decoder,
    incoming: VecDeque<Incoming>,
    broken: Option<Violation>,
    /// What is left of a frame that could not be written as a whole; nothing else may be written before it.
    rest: Bytes,
}

/// How far writing has come.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    frame: usize,
    byte: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    /// A socket on a stream of which some bytes were read already, for messages of so many bytes at most.
    pub fn new(stream: S, read: &[u8], limit: usize) -> Self {
        let mut transport = Self {
            stream,
            decoder: Decoder::new(limit),
            incoming: VecDeque::new(),
            broken: None,
            rest: Bytes::new(),
        };
        transport.take(read);
        transport
    }

    fn take(&mut self, bytes: &[u8]) {
        self.broken = self.decoder.feed(bytes, &mut self.incoming).err();
    }

    /// What the client sent next; none when it has left without a word.
    pub fn poll_hear(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Incoming>, Violation>> {
        loop {
            if let Some(next) = self.incoming.pop_front() {
                if self.incoming.is_empty() {
                    self.incoming = VecDeque::new();
                }
                return Poll::Ready(Ok(Some(next)));
            }
            if let Some(violation) = self.broken {
                return Poll::Ready(Err(violation));
            }
            let mut space = [const { MaybeUninit::uninit() }; READ];
            let mut buffer = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(None));
            }
            self.take(buffer.filled());
        }
    }

    /// The same, waited for.
    pub async fn hear(&mut self) -> Result<Option<Incoming>, Violation> {
        poll_fn(|context| self.poll_hear(context)).await
    }

    /// Writes frames; if they cannot leave at once, until something happens, and answers what it was. A client that is gone is noticed
    /// by reading.
    pub async fn send<E, F: Future<Output = E>>(
        &mut self,
        frames: &[Frame],
        until: impl FnOnce() -> F,
    ) -> Result<(), E> {
        let mut cursor = Cursor::default();
        let at_once = poll_fn(|context| self.poll_send(context, frames, &mut cursor)).now_or_never();
        if at_once.is_some() {
            return Ok(());
        }
        let patient = poll_fn(|context| self.poll_send(context, frames, &mut cursor));
        // In a box, because this is rare and an idle socket is to stay small.
        let sent = Box::pin(async {
            tokio::select! {
                biased;
                () = patient => Ok(()),
                ended = until() => Err(ended),
            }
        });
        let sent = sent.await;
        if sent.is_err() && cursor.byte > 0 {
            self.rest = frames[cursor.frame].bytes().slice(cursor.byte..);
        }
        sent
    }

    fn poll_send(&mut self, context: &mut Context<'_>, frames: &[Frame], cursor: &mut Cursor) -> Poll<()> {
        while !self.rest.is_empty() {
            let Ok(written) = ready!(Pin::new(&mut self.stream).poll_write(context, &self.rest)) else {
                return Poll::Ready(());
            };
            self.rest = self.rest.slice(written..);
        }
        while cursor.frame < frames.len() {
            let mut slices = [IoSlice::new(&[]); MOST_AT_ONCE];
            let waiting = frames[cursor.frame..].iter().take(MOST_AT_ONCE);
            let count = waiting.len();
            for (at, (slice, frame)) in slices.iter_mut().zip(waiting).enumerate() {
                let from = if at == 0 { cursor.byte } else { 0 };
                *slice = IoSlice::new(&frame.bytes()[from..]);
            }
            let polled = Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..count]);
            let Ok(mut written @ 1..) = ready!(polled) else {
                return Poll::Ready(());
            };
            while let Some(frame) = frames.get(cursor.frame) {
                let left = frame.len() - cursor.byte;
                if written < left {
                    cursor.byte += written;
                    break;
                }
                written -= left;
                *cursor = Cursor {
                    frame: cursor.frame + 1,
                    byte: 0,
                };
            }
        }
        Poll::Ready(())
    }

    /// Says last words, and waits a moment for the client to hang up: what a server that hangs up first has said may be lost.
    pub async fn close(&mut self, last: &[Frame], limit: Duration) {
        let farewell = async {
            if self.send(last, || sleep(limit)).await.is_ok() {
                let _ = poll_fn(|context| Pin::new(&mut self.stream).poll_shutdown(context)).await;
                let mut sink = [0; 256];
                loop {
                    let mut buffer = ReadBuf::new(&mut sink);
                    let read =
                        poll_fn(|context| Pin::new(&mut self.stream).poll_read(context, &mut buffer)).await;
                    if read.is_err() || buffer.filled().is_empty() {
                        return;
                    }
                }
            }
        };
        let _ = timeout(limit, farewell).await;
    }
}

#[cfg(test)]
mod tests;
