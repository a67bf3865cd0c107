//! Files: stored and sent in chunks, whole or in ranges, and seen only by those who may.

use axum::http::{Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::app::{Person, Reply, TestApp};
use crate::services::connect;

/// Bytes of which each place is another, over chunks of 256 KiB.
pub fn bytes(length: u32) -> Vec<u8> {
    (0..length)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
        .collect()
}

/// A form with a file, and before it a workroom.
pub fn form(workroom: Option<&str>, name: &str, kind: &str, content: &[u8]) -> Vec<u8> {
    let mut form = Vec::new();
    if let Some(id) = workroom {
        let part = format!("--cut\r\ncontent-disposition: form-data; name=\"workroom_id\"\r\n\r\n{id}\r\n");
        form.extend_from_slice(part.as_bytes());
    }
    let head = format!(
        "--cut\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\ncontent-type: {kind}\r\n\r\n"
    );
    form.extend_from_slice(head.as_bytes());
    form.extend_from_slice(content);
    form.extend_from_slice(b"\r\n--cut--\r\n");
    form
}

/// A request whose body and answer may be any bytes.
pub async fn ask(
    url: String,
    person: &Person,
    method: Method,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> (Reply, Bytes) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = Request::builder()
        .method(method)
        .uri(url)
        .header("authorization", format!("Bearer {}", person.token));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client
        .request(request.body(Full::from(body)).unwrap())
        .await
        .unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let reply = Reply {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8_lossy(&body).into_owned(),
    };
    (reply, body)
}

pub async fn upload(app: &TestApp, person: &Person, form: Vec<u8>) -> Reply {
    let kind = [("content-type", "multipart/form-data; boundary=cut")];
    ask(app.url("/api/v1/resources"), person, Method::POST, &kind, form)
        .await
        .0
}

/// Content of a file, as of a write.
pub async fn content(
    app: &TestApp,
    person: &Person,
    made: &Reply,
    headers: &[(&str, &str)],
) -> (Reply, Bytes) {
    let path = format!("{}/content", made.header("location"));
    let mut all = vec![("x-consistency-token", made.header("x-consistency-token"))];
    all.extend_from_slice(headers);
    ask(app.url(&path), person, Method::GET, &all, Vec::new()).await
}

pub async fn count(statement: String) -> i64 {
    let row = connect("postgres", 0)
        .await
        .fetch_one(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
    row.get(0)
}

/// C27: what comes back is what was sent, whole and in every kind of range, and a tag saves sending it again.
#[expect(clippy::too_many_lines, reason = "a story in its order")]
#[tokio::test]
async fn a_file_comes_back_as_it_was_whole_and_in_ranges() {
    let app = TestApp::start().await;
    let owner = app.person().await;
    let sent = bytes(700_001);
    let made = upload(
        &app,
        &owner,
        form(None, "../pläne.txt", "text/plain; charset=utf-8", &sent),
    )
    .await
    .expect(201);
    let file = made.json();
    assert_eq!(
        (&file["name"], &file["content_type"], &file["size"]),
        (&json!("pläne.txt"), &json!("text/plain"), &json!(700_001))
    );
    let digest = Sha256::digest(&sent)
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    assert_eq!(file["sha256"], digest);
    assert_eq!(
        count(format!(
            "SELECT count(*) FROM resource_chunks WHERE resource_id = '{}'",
            file["id"].as_str().unwrap()
        ))
        .await,
        3
    );

    let (reply, got) = content(&app, &owner, &made, &[("accept-encoding", "gzip, br")]).await;
    assert_eq!((reply.status, got.len()), (StatusCode::OK, sent.len()));
    assert!(got == sent, "the same bytes");
    assert_eq!(reply.header("content-length"), "700001");
    assert!(
        reply.header("content-disposition").starts_with("attachment"),
        "{reply:?}"
    );
    assert_eq!(reply.header("cache-control"), "no-store");
    let tag = reply.header("etag").to_owned();
    let (same, nothing) = content(&app, &owner, &made, &[("if-none-match", &tag)]).await;
    assert_eq!((same.status, nothing.len()), (StatusCode::NOT_MODIFIED, 0));
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=262143-262144", 262_143, 262_145),
        ("bytes=100-600000", 100, 600_001),
        ("bytes=-1", 700_000, 700_001),
        ("bytes=700000-", 700_000, 700_001),
    ] {
        let (reply, got) = content(&app, &owner, &made, &[("range", range), ("if-range", &tag)]).await;
        assert_eq!(reply.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert!(got == sent[from..to], "{range}");
        assert_eq!(
            reply.header("content-range"),
            format!("bytes {from}-{}/700001", to - 1)
        );
    }
    let (reply, _) = content(&app, &owner, &made, &[("range", "bytes=700001-")]).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("content-range")),
        (416, "bytes */700001")
    );
    let (reply, got) = content(
        &app,
        &owner,
        &made,
        &[("range", "bytes=0-1"), ("if-range", "\"old\"")],
    )
    .await;
    assert_eq!(
        (reply.status, got.len()),
        (StatusCode::OK, sent.len()),
        "it is another file now, so all of it"
    );

    let empty = upload(&app, &owner, form(None, "empty", "application/octet-stream", b""))
        .await
        .expect(201);
    let (reply, got) = content(&app, &owner, &empty, &[]).await;
    assert_eq!((reply.status, got.len()), (StatusCode::OK, 0));
}

/// C27: limits of size and type, and nothing of a refused upload stays.
#[tokio::test]
async fn a_file_that_is_too_large_or_of_another_type_leaves_nothing() {
    let limits = "resources: {maxSize: 300Ki, contentTypes: ['image/*', text/plain]}";
    let app = TestApp::builder().config(limits).start().await;
    let owner = app.person().await;
    upload(&app, &owner, form(None, "a", "text/plain", &bytes(300 << 10)))
        .await
        .expect(201);
    upload(
        &app,
        &owner,
        form(None, "a", "image/png", &bytes((300 << 10) + 1)),
    )
    .await
    .expect(413);
    let problem = upload(&app, &owner, form(None, "a", "text/html", b"x"))
        .await
        .expect(422)
        .json();
    assert_eq!(problem["errors"][0]["field"], "file");
    let half = form(None, "a", "text/plain", &bytes(280_000));
    upload(&app, &owner, half[..half.len() - 20].to_vec())
        .await
        .expect(400);
    upload(&app, &owner, b"--cut--\r\n".to_vec()).await.expect(422);
    upload(&app, &owner, form(Some("nonsense"), "a", "text/plain", b"x"))
        .await
        .expect(422);
    let path = "/api/v1/resources";
    let problem = app.post_as(&owner, path, json!({})).await.expect(422).json();
    assert_eq!(problem["errors"][0]["field"], "file");
    assert_eq!(
        count(format!(
            "SELECT count(*) FROM resources WHERE tenant_id = '{}'",
            owner.tenant_id
        ))
        .await,
        1
    );
    assert_eq!(
        count(format!(
            "SELECT count(*) FROM resource_chunks WHERE tenant_id = '{}'",
            owner.tenant_id
        ))
        .await,
        2
    );
}

/// API1: a file is its owner's, or of the members of its workroom; nobody else finds it.
#[expect(clippy::too_many_lines, reason = "a story in its order")]
#[tokio::test]
async fn a_file_is_seen_by_its_workroom_and_by_nobody_else() {
    let app = TestApp::start().await;
    let (owner, stranger) = (app.person().await, app.person().await);
    let (member, other) = (
        app.colleague(&owner, "member").await,
        app.colleague(&owner, "member").await,
    );
    let room = crate::workrooms::workroom(&app, &owner, "files").await;
    crate::workrooms::admit(&app, &owner, &room, &member).await;
    let room = room.rsplit('/').next().unwrap();
    let shared = upload(
        &app,
        &owner,
        form(Some(room), "shared", "text/plain", b"for members"),
    )
    .await
    .expect(201);
    let own = upload(&app, &owner, form(None, "own", "text/plain", b"for me"))
        .await
        .expect(201);
    upload(&app, &other, form(Some(room), "x", "text/plain", b"x"))
        .await
        .expect(404);
    let (reply, got) = content(&app, &member, &shared, &[]).await;
    assert_eq!((reply.status, &got[..]), (StatusCode::OK, &b"for members"[..]));
    for (person, file) in [
        (&member, &own),
        (&other, &shared),
        (&other, &own),
        (&stranger, &shared),
        (&stranger, &own),
    ] {
        let (reply, got) = content(&app, person, file, &[]).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND);
        assert!(!String::from_utf8_lossy(&got).contains("for m"));
        app.get_after(person, file.header("location"), file)
            .await
            .expect(404);
        let delete = app
            .as_with(person, Method::DELETE, file.header("location"), &[], None)
            .await;
        assert_eq!(delete.status, StatusCode::NOT_FOUND);
    }
    let names = async |person: &Person| -> Vec<Value> {
        let list = app
            .get_after(person, "/api/v1/resources", &own)
            .await
            .expect(200)
            .json();
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| file["name"].clone())
            .collect()
    };
    assert_eq!(names(&owner).await, ["own", "shared"]);
    assert_eq!(names(&member).await, ["shared"]);
    assert!(names(&other).await.is_empty() && names(&stranger).await.is_empty());
    let gone = app
        .as_with(&owner, Method::DELETE, own.header("location"), &[], None)
        .await
        .expect(204);
    app.get_after(&owner, own.header("location"), &gone)
        .await
        .expect(404);
    assert_eq!(
        count(format!(
            "SELECT count(*) FROM resource_chunks WHERE tenant_id = '{}'",
            owner.tenant_id
        ))
        .await,
        1
    );
}
