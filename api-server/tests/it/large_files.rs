//! Files that are larger than what the server may take for them: the real program's memory, in either store.

use axum::http::Method;
use rstest::rstest;

use crate::app::{TestApp, write_config};
use crate::objects::Store;
use crate::process::Process;
use crate::resources::{ask, bytes, form};

/// Bytes of the file.
const SIZE: u32 = 24 << 20;
/// Bytes by which the server may grow: some pieces of the file, and connections. A piece of an object store is 4 MiB.
const GROWTH: u64 = 16 << 20;

/// C27: a file goes up and comes down again in pieces; the server never holds a large part of it.
#[rstest]
#[case::in_postgresql(false)]
#[case::in_an_object_store(true)]
#[tokio::test]
async fn a_large_file_takes_little_memory(#[case] in_store: bool) {
    let store = Store::start().await;
    let plain = "resources: {maxSize: 128Mi}".to_owned();
    let config = if in_store {
        store.config.replace("16Mi", "128Mi")
    } else {
        plain
    };
    let app = TestApp::start().await;
    let owner = app.person().await;
    let directory = tempfile::tempdir().unwrap();
    let process = Process::serve(&directory, &write_config(&directory, &config));
    let url = process.url().await;
    let kind = [("content-type", "multipart/form-data; boundary=cut")];
    let up = async |content: &[u8]| {
        let body = form(None, "large.bin", "application/octet-stream", content);
        let path = format!("{url}/api/v1/resources");
        ask(path, &owner, Method::POST, &kind, body).await.0.expect(201)
    };
    // What it takes once and keeps: connections, statements, buffers.
    up(&bytes(1 << 20)).await;
    let before = process.memory("VmRSS");

    let sent = bytes(SIZE);
    let made = up(&sent).await;
    let path = format!("{url}{}/content", made.header("location"));
    let token = [("x-consistency-token", made.header("x-consistency-token"))];
    let (reply, got) = ask(path, &owner, Method::GET, &token, Vec::new()).await;
    assert_eq!(reply.status, 200, "{:?}", reply.headers);
    assert!(got == sent, "what came back is something else");
    let grown = process.memory("VmHWM").saturating_sub(before);
    assert!(grown < GROWTH, "the server grew by {} MiB", grown >> 20);
}
