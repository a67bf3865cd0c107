//! What the machine allows: a server that answers the same bytes to whatever is asked, with the same library and nothing behind it.

use std::convert::Infallible;

use anyhow::Result;
use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// A bare server; it ends with the value.
#[derive(Debug)]
pub struct Floor {
    /// `HOST:PORT`.
    pub address: String,
    runtime: Option<Runtime>,
}

impl Floor {
    /// Starts one with a thread for each core, as the API has.
    pub fn start(body: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        let body = Bytes::from(body.to_owned());
        runtime.spawn(async move {
            let Ok(listener) = TcpListener::from_std(listener) else {
                return;
            };
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let body = body.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |_| {
                        let response = Response::builder()
                            .header("content-type", "application/json")
                            .body(Full::new(body.clone()));
                        async move { Ok::<_, Infallible>(response.unwrap_or_default()) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Ok(Self {
            address,
            runtime: Some(runtime),
        })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // A runtime cannot be dropped where others run.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
