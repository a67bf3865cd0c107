//! The WebSocket protocol on the real endpoint, byte by byte: what clients may do, and how those are closed that do something else. The
//! cases of Autobahn's suite run beside this (`e2e/autobahn/run`).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::app::{PATIENCE, Person, TestApp};

const MASK: [u8; 4] = [1, 2, 3, 4];
const LAST: u8 = 0x80;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// A connection on which every byte is the test's own.
struct Wire(TcpStream);

impl Wire {
    async fn open(app: &TestApp) -> Self {
        let address = app.running.address.to_string();
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request = format!(
            "GET /api/v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
        }
        let answer = String::from_utf8(answer).unwrap().to_lowercase();
        assert!(answer.starts_with("http/1.1 101"), "{answer}");
        // The example of the RFC.
        assert!(
            answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{answer}"
        );
        Self(stream)
    }

    /// The same, with a person who is known.
    async fn connected(app: &TestApp, person: &Person) -> Self {
        let mut wire = Self::open(app).await;
        wire.frame(LAST | TEXT, &hello(person)).await;
        assert_eq!(wire.text().await["type"], "connected");
        wire
    }

    async fn frame(&mut self, first: u8, payload: &[u8]) {
        let mut bytes = vec![first];
        if payload.len() <= 125 {
            bytes.push(0x80 | u8::try_from(payload.len()).unwrap());
        } else {
            // The length follows in two bytes.
            bytes.push(0xFE);
            bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
        bytes.extend(MASK);
        bytes.extend(
            payload
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        self.0.write_all(&bytes).await.unwrap();
    }

    async fn next(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let first = self.0.read_u8().await.unwrap();
            let length = match self.0.read_u8().await.unwrap() {
                126 => usize::from(self.0.read_u16().await.unwrap()),
                127 => usize::try_from(self.0.read_u64().await.unwrap()).unwrap(),
                length => usize::from(length),
            };
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await.unwrap();
            (first, payload)
        };
        timeout(PATIENCE * 4, read).await.expect("a frame in time")
    }

    async fn text(&mut self) -> Value {
        let (first, payload) = self.next().await;
        assert_eq!(first, LAST | TEXT);
        serde_json::from_slice(&payload).unwrap()
    }

    /// The code of the close, which comes after at most one error; nothing follows it.
    async fn closed(&mut self) -> u16 {
        loop {
            let (first, payload) = self.next().await;
            if first == LAST | CLOSE {
                let mut rest = Vec::new();
                timeout(PATIENCE, self.0.read_to_end(&mut rest))
                    .await
                    .unwrap()
                    .unwrap();
                assert_eq!(rest, b"");
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
            let frame: Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!(frame["fatal"], true, "{frame}");
        }
    }
}

fn hello(person: &Person) -> Vec<u8> {
    json!({"type": "connect", "token": person.token})
        .to_string()
        .into_bytes()
}

#[tokio::test]
async fn a_message_may_come_in_pieces_with_pings_between_them() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let mut wire = Wire::open(&app).await;
    let hello = hello(&person);
    let (begin, end) = hello.split_at(20);
    wire.frame(TEXT, begin).await;
    wire.frame(LAST | PING, b"still here").await;
    wire.frame(0, b"").await;
    wire.frame(LAST, end).await;
    assert_eq!(wire.next().await, (LAST | PONG, b"still here".to_vec()));
    assert_eq!(wire.text().await["type"], "connected");
    wire.frame(LAST | PING, &[7; 125]).await;
    assert_eq!(wire.next().await, (LAST | PONG, vec![7; 125]));
    wire.frame(LAST | CLOSE, &[0x03, 0xE8]).await;
    assert_eq!(wire.closed().await, 1000);
}

/// W-10: whatever is not of the protocol closes the connection with the code that says why, before or after it is known who sends it.
#[tokio::test]
async fn who_breaks_the_rules_is_told_which() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let large = vec![b'x'; (16 << 10) + 1];
    let cases: [(&str, u8, &[u8], u16); 9] = [
        ("a reserved bit", LAST | 0x40 | TEXT, b"{}", 1002),
        ("a reserved opcode", LAST | 0x3, b"", 1002),
        ("a reserved control opcode", LAST | 0xB, b"", 1002),
        ("a ping in pieces", PING, b"", 1002),
        ("the rest of nothing", LAST, b"", 1002),
        ("a text that is not UTF-8", TEXT, b"\xED\xA0\x80", 1007),
        ("a message that is too long", LAST | TEXT, &large, 1009),
        ("bytes", LAST | BINARY, b"\x00", 4400),
        ("a close with a code of nobody", LAST | CLOSE, &[0x03, 0xED], 1002),
    ];
    for (what, first, payload, code) in cases {
        let mut stranger = Wire::open(&app).await;
        stranger.frame(first, payload).await;
        assert_eq!(stranger.closed().await, code, "{what}, first of all");
        let mut known = Wire::connected(&app, &person).await;
        known.frame(first, payload).await;
        assert_eq!(known.closed().await, code, "{what}");
    }
    let mut unmasked = Wire::open(&app).await;
    unmasked.0.write_all(&[LAST | TEXT, 2, b'{', b'}']).await.unwrap();
    assert_eq!(unmasked.closed().await, 1002);
}

/// W-2: a client whose network is gone answers nothing; it is closed when nothing was heard of it for 40 s. One that answers the pings stays.
#[tokio::test]
async fn a_half_open_connection_is_cut_and_an_idle_one_is_not() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let (mut dead, mut idle) = (
        Wire::connected(&app, &person).await,
        Wire::connected(&app, &person).await,
    );
    let started = Instant::now();
    let answering = async {
        // Longer than the dead one lives.
        let mut pings = 0;
        while started.elapsed() < Duration::from_secs(45) {
            let Ok((first, carried)) = timeout(Duration::from_secs(1), idle.next()).await else {
                continue;
            };
            assert_eq!(first, LAST | PING);
            pings += 1;
            idle.frame(LAST | PONG, &carried).await;
        }
        pings
    };
    let dying = async {
        loop {
            let (first, payload) = dead.next().await;
            match first & 0x0F {
                PING => {}
                CLOSE => return (u16::from_be_bytes([payload[0], payload[1]]), started.elapsed()),
                _ => assert!(String::from_utf8_lossy(&payload).contains("fatal")),
            }
        }
    };
    let (pings, (code, took)) = tokio::join!(answering, dying);
    assert_eq!(code, 4002);
    assert!((39..44).contains(&took.as_secs()), "{took:?}");
    assert!((2..=3).contains(&pings), "{pings}");
    idle.frame(LAST | TEXT, br#"{"type":"ping"}"#).await;
    assert_eq!(idle.text().await["type"], "pong");
}
