//! Files in an S3-compatible store: a real server that speaks S3, on loopback.

use std::path::Path;

use axum::http::Method;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder as Connection;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::{TestApp, until};
use crate::resources::{bytes, content, count, form, upload};

/// A store with the bucket `files`, which checks signatures.
pub struct Store {
    root: TempDir,
    /// The part of a configuration that names it.
    pub config: String,
    stop: CancellationToken,
}

impl Store {
    /// On a port of its own, in a folder of its own.
    pub async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("files")).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        service.set_auth(SimpleAuth::from_single("AKIDTEST", "a-secret"));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let ended = stop.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, ended) = (service.clone(), ended.clone());
                tokio::spawn(async move {
                    let connection = Connection::new(TokioExecutor::new());
                    let serving = connection.serve_connection(TokioIo::new(socket), service);
                    let _ = ended.run_until_cancelled(serving).await;
                });
            }
        }));
        std::fs::write(root.path().join("access"), "AKIDTEST\n").unwrap();
        std::fs::write(root.path().join("secret"), "a-secret\n").unwrap();
        let path = root.path().display();
        let config = format!(
            "resources: {{maxSize: 16Mi, objectStore: {{endpoint: 'http://{address}', bucket: files, prefix: 'tanka/', \
             accessKeyFile: '{path}/access', secretKeyFile: '{path}/secret'}}}}"
        );
        Self { root, config, stop }
    }

    /// Objects of a file.
    fn objects(&self, tenant: &str, id: &str) -> Vec<u64> {
        let folder = self.root.path().join("files/tanka").join(tenant).join(id);
        sizes(&folder)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn sizes(folder: &Path) -> Vec<u64> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    names.iter().map(|path| path.metadata().unwrap().len()).collect()
}

/// C27: with a store, chunks of files are objects in it and none are in PostgreSQL; what comes back is what was sent, whole and in
/// ranges over their borders; nobody else sees it; and what is deleted is gone from the store too.
#[tokio::test]
async fn files_are_objects_where_a_store_is_configured() {
    let store = Store::start().await;
    // What is to be deleted is in the database, and servers of one database have one store.
    let app = TestApp::builder().config(&store.config).alone().start().await;
    let (owner, stranger) = (app.person().await, app.person().await);
    let sent = bytes(9 * 1024 * 1024 + 7);
    let made = upload(
        &app,
        &owner,
        form(None, "big.bin", "application/octet-stream", &sent),
    )
    .await
    .expect(201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        store.objects(&owner.tenant_id, &id),
        [4 << 20, 4 << 20, (1 << 20) + 7]
    );
    let chunks = format!("SELECT count(*) FROM resource_chunks WHERE resource_id = '{id}'");
    assert_eq!(count(chunks).await, 0);
    let (reply, all) = content(&app, &owner, &made, &[]).await;
    assert_eq!((reply.status.as_u16(), all.len()), (200, sent.len()));
    let tag = reply.header("etag").to_owned();
    let (same, nothing) = content(&app, &owner, &made, &[("if-none-match", &tag)]).await;
    assert_eq!((same.status.as_u16(), nothing.len()), (304, 0));
    assert!(all == sent, "what came back is something else");
    for (first, last) in [
        (0, 0),
        (4_194_300, 4_194_310),
        (1_048_570, 9_000_000),
        (9_437_190, 9_437_190),
    ] {
        let range = format!("bytes={first}-{last}");
        let (reply, part) = content(&app, &owner, &made, &[("range", &range)]).await;
        assert_eq!(reply.status, 206, "{range}: {reply:?}");
        assert!(part == sent[first..=last], "{range}");
    }
    let path = made.header("location").to_owned();
    app.get_as(&stranger, &format!("{path}/content"))
        .await
        .expect(404);
    app.as_with(&owner, Method::DELETE, &path, &[], None)
        .await
        .expect(204);
    until("its objects are gone", async || {
        store.objects(&owner.tenant_id, &id).is_empty()
    })
    .await;
}

/// An upload that fails leaves nothing in the store, and a store that is gone refuses with 503; PostgreSQL does not take its place, and
/// what is there is still served.
#[tokio::test]
async fn a_store_that_is_gone_refuses_and_nothing_is_left() {
    let store = Store::start().await;
    // What is to be deleted is in the database, and servers of one database have one store.
    let app = TestApp::builder().config(&store.config).alone().start().await;
    let plain = TestApp::builder().guest().start().await;
    let owner = app.person().await;
    let small = upload(&plain, &owner, form(None, "old.txt", "text/plain", b"old"))
        .await
        .expect(201);
    upload(
        &app,
        &owner,
        form(None, "large.bin", "text/plain", &bytes(17 * 1024 * 1024)),
    )
    .await
    .expect(413);
    let folder = store.root.path().join("files/tanka").join(&owner.tenant_id);
    let due = format!(
        "WITH due AS (UPDATE object_garbage SET due_at = now() WHERE folder LIKE '{}/%' RETURNING 1) SELECT count(*) FROM due",
        owner.tenant_id
    );
    assert_eq!(count(due).await, 1, "it waits for requests that may be under way");
    until("what was uploaded of it is gone", async || {
        std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .all(|entry| sizes(&entry.unwrap().path()).is_empty())
    })
    .await;
    let kept = upload(&app, &owner, form(None, "new.txt", "text/plain", b"new"))
        .await
        .expect(201);
    let (reply, text) = content(&app, &owner, &small, &[]).await;
    assert_eq!(
        (reply.status.as_u16(), &text[..]),
        (200, &b"old"[..]),
        "files in PostgreSQL are still served"
    );
    let (reply, _) = content(&plain, &owner, &kept, &[]).await;
    assert_eq!(reply.status, 503, "a server without the store says so: {reply:?}");
    store.stop.cancel();
    until("the store is gone", async || {
        let reply = upload(&app, &owner, form(None, "lost.txt", "text/plain", b"lost")).await;
        reply.status == 503 && reply.json()["code"] == "unavailable"
    })
    .await;
    let (reply, _) = content(&app, &owner, &kept, &[]).await;
    assert_eq!(reply.status, 503, "before anything of it is sent: {reply:?}");
    let left = format!(
        "SELECT count(*) FROM resources WHERE tenant_id = '{}' AND NOT is_ready",
        owner.tenant_id
    );
    assert_eq!(count(left).await, 0);
}
