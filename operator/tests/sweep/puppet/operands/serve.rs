//! The protocols in which the pods are asked: HTTP, and that of Redis.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::{Mood, Operands};

/// Serves Patroni's and the API's HTTP.
pub async fn http(listener: TcpListener, pod: String, operands: Arc<Mutex<Operands>>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (pod, operands) = (pod.clone(), operands.clone());
        tokio::spawn(async move {
            let Some(mood) = listen(&operands).await else {
                return;
            };
            let service = service_fn(|request: Request<Incoming>| {
                let (pod, operands) = (pod.clone(), operands.clone());
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body
                        .collect()
                        .await
                        .map(http_body_util::Collected::to_bytes)
                        .unwrap_or_default();
                    let body = serde_json::from_slice(&body).unwrap_or_default();
                    let (code, answer) =
                        operands
                            .lock()
                            .unwrap()
                            .answer(&pod, &parts.method, parts.uri.path(), &body);
                    let text = if mood == Mood::Garbage {
                        "{\"members\": [7".to_owned()
                    } else {
                        answer.to_string()
                    };
                    let response = Response::builder()
                        .status(code)
                        .body(Full::new(Bytes::from(text)));
                    Ok::<_, Infallible>(response.unwrap())
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

/// Serves what Redis or its Sentinel answers in a pod.
pub async fn redis(listener: TcpListener, pod: String, operands: Arc<Mutex<Operands>>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (pod, operands) = (pod.clone(), operands.clone());
        tokio::spawn(async move {
            let Some(mood) = listen(&operands).await else {
                return;
            };
            let mut socket = BufReader::new(socket);
            while let Some(command) = command(&mut socket).await {
                let answer = if mood == Mood::Garbage {
                    "?\r\n".to_owned()
                } else {
                    operands.lock().unwrap().redis(&pod, &command)
                };
                if socket.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Waits out a silence; nobody listens where connections are closed.
async fn listen(operands: &Mutex<Operands>) -> Option<Mood> {
    loop {
        let mood = operands.lock().unwrap().mood;
        match mood {
            Mood::Closed => return None,
            Mood::Silent => sleep(Duration::from_millis(50)).await,
            mood => return Some(mood),
        }
    }
}

/// One command: an array of strings with their lengths.
async fn command(socket: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let count = header(socket, '*').await?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let mut word = vec![0; header(socket, '$').await? + 2];
        socket.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(words)
}

async fn header(socket: &mut BufReader<TcpStream>, mark: char) -> Option<usize> {
    let mut line = String::new();
    socket.read_line(&mut line).await.ok()?;
    line.trim_end().strip_prefix(mark)?.parse().ok()
}
