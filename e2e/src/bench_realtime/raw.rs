//! A WebSocket client that costs little: frames are counted where they were read, without a copy and without JSON, because the clients
//! share the machine with what they measure.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_mins(2);
const MASKED: u8 = 0x80;
/// Says that the length follows in two bytes.
const TWO_BYTES: u8 = 0x7E;
const TEXT: u8 = 0x81;
const PING: u8 = 0x89;
const CLOSE: u8 = 0x88;
/// An empty pong; its mask is zero, which leaves an empty payload as it is.
const PONG: [u8; 6] = [0x8A, MASKED, 0, 0, 0, 0];

thread_local! {
    /// Read into by all sockets of a thread, one after the other.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 128 << 10]);
}

/// A socket.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    /// The beginning of a frame that has not come as a whole.
    kept: Vec<u8>,
}

/// What one read brought besides texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Seen {
    used: usize,
    pinged: bool,
    closed: bool,
}

impl Raw {
    /// Opens a socket.
    pub async fn open(address: &str, path: &str) -> Result<Self> {
        let mut stream = timeout(PATIENCE, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            ensure!(answer.len() < 4_096, "the answer has no end");
            answer.push(timeout(PATIENCE, stream.read_u8()).await??);
        }
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.starts_with("HTTP/1.1 101"), "no WebSocket: {answer}");
        Ok(Self {
            stream,
            kept: Vec::new(),
        })
    }

    /// Sends a text.
    pub async fn say(&mut self, text: &str) -> Result<()> {
        let mut frame = vec![TEXT];
        match text.len() {
            length @ 0..=125 => frame.push(MASKED | u8::try_from(length)?),
            length => {
                frame.push(MASKED | TWO_BYTES);
                frame.extend(u16::try_from(length)?.to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        Ok(self.stream.write_all(&frame).await?)
    }

    /// Reads until a text has come; others that came with it are kept.
    pub async fn hear(&mut self) -> Result<String> {
        let reading = async {
            loop {
                if let Some((first, header, length)) = header(&self.kept)
                    && self.kept.len() >= header + length
                {
                    let frame: Vec<u8> = self.kept.drain(..header + length).collect();
                    if first == TEXT {
                        return anyhow::Ok(String::from_utf8(frame[header..].to_vec())?);
                    }
                    ensure!(
                        first != CLOSE,
                        "closed: {}",
                        String::from_utf8_lossy(&frame[header..])
                    );
                    continue;
                }
                let read = self.stream.read_buf(&mut self.kept).await?;
                ensure!(read > 0, "the server hung up");
            }
        };
        timeout(PATIENCE, reading).await.context("no text in time")?
    }

    /// Reads once and shows each text; answers whether the server is still there.
    pub async fn read(&mut self, mut see: impl FnMut(&[u8])) -> bool {
        loop {
            if !self.kept.is_empty() {
                // What `hear` has left.
                let seen = walk(&self.kept, &mut see);
                self.kept.drain(..seen.used);
                if seen.closed {
                    return false;
                }
            }
            if self.stream.readable().await.is_err() {
                return false;
            }
            let seen = SCRATCH.with_borrow_mut(|scratch| match self.stream.try_read(scratch) {
                Ok(0) => Some(Seen {
                    closed: true,
                    ..Seen::default()
                }),
                Ok(read) if self.kept.is_empty() => {
                    let seen = walk(&scratch[..read], &mut see);
                    self.kept.extend_from_slice(&scratch[seen.used..read]);
                    Some(seen)
                }
                Ok(read) => {
                    self.kept.extend_from_slice(&scratch[..read]);
                    let seen = walk(&self.kept, &mut see);
                    self.kept.drain(..seen.used);
                    Some(seen)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(_) => Some(Seen {
                    closed: true,
                    ..Seen::default()
                }),
            });
            let Some(seen) = seen else { continue };
            if self.kept.is_empty() {
                self.kept = Vec::new();
            }
            if seen.pinged && self.stream.try_write(&PONG).is_err() {
                return false;
            }
            return !seen.closed;
        }
    }

    /// The port of this end.
    pub fn port(&self) -> Result<u16> {
        Ok(self.stream.local_addr()?.port())
    }
}

/// First byte, bytes of the header, and bytes of the payload of a frame of a server.
fn header(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    match second {
        126 => Some((
            first,
            4,
            usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
        )),
        127 => {
            let length = u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
            Some((first, 10, usize::try_from(length).ok()?))
        }
        length => Some((first, 2, usize::from(length))),
    }
}

fn walk(bytes: &[u8], see: &mut impl FnMut(&[u8])) -> Seen {
    let mut seen = Seen::default();
    while let Some((first, header, length)) = header(&bytes[seen.used..]) {
        let begin = seen.used + header;
        let Some(payload) = bytes.get(begin..begin + length) else {
            break;
        };
        match first {
            TEXT => see(payload),
            PING => seen.pinged = true,
            CLOSE => seen.closed = true,
            _ => {}
        }
        seen.used = begin + length;
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_texts_are_shown_and_the_rest_is_left() {
        let bytes = [
            &[TEXT, 2, b'a', b'b'][..],
            &[PING, 0],
            &[TEXT, 126, 0, 3, b'c', b'd', b'e'],
            &[TEXT, 9, b'f'],
        ]
        .concat();
        let mut texts = Vec::new();
        let seen = walk(&bytes, &mut |text: &[u8]| texts.push(text.to_vec()));
        assert_eq!(texts, [b"ab".to_vec(), b"cde".to_vec()]);
        assert_eq!(
            seen,
            Seen {
                used: 13,
                pinged: true,
                closed: false
            }
        );
    }
}
