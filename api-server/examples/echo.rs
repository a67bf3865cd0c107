//! Sends back what it is sent, by the part of the server that reads and writes WebSockets: what the test suite of Autobahn tests.
//! `e2e/autobahn/run` starts it.

use std::time::Duration;

use api_server::realtime::wire::Frame;
use api_server::realtime::wire::decoder::Incoming;
use api_server::realtime::wire::transport::Transport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tungstenite::handshake::derive_accept_key;

/// Above the largest message of the suite, which has 16 MiB.
const LIMIT: usize = 32 << 20;
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream));
    }
}

async fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    let end = loop {
        stream.read_buf(&mut request).await?;
        if let Some(end) = request.windows(4).position(|part| part == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&request[..end]).into_owned();
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then(|| value.trim())
    });
    let accept = derive_accept_key(key.unwrap_or_default().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let mut transport = Transport::new(stream, &request[end..], LIMIT);
    let last = loop {
        let answer = match transport.hear().await {
            Ok(Some(Incoming::Text(text))) => Frame::text(&text),
            Ok(Some(Incoming::Binary(bytes))) => Frame::binary(&bytes),
            Ok(Some(Incoming::Ping(carried))) => Frame::pong(&carried),
            Ok(Some(Incoming::Pong)) => continue,
            Ok(Some(Incoming::Close(code))) => break Frame::close(code.unwrap_or(1000), ""),
            Ok(None) => return Ok(()),
            Err(violation) => break Frame::close(violation.code(), ""),
        };
        let _ = transport.send(&[answer], || tokio::time::sleep(PATIENCE)).await;
    };
    transport.close(&[last], PATIENCE).await;
    Ok(())
}
