//! Traces over OTLP: what a collector gets of a request, and that a collector may come, go and hang.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, header};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;
use serde_json::json;
use tokio::time::Instant;

use crate::app::{TestApp, until, until_some, write_config};
use crate::outside::serve;
use crate::process::Process;

/// A collector as small as it gets: it speaks OTLP over http/protobuf and keeps what it got.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ResourceSpans>>>);

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let router = Router::new()
            .route("/v1/traces", post(receive))
            .with_state(collector.clone());
        (collector, format!("http://{}", serve(router).await))
    }

    fn spans(&self) -> Vec<Span> {
        let received = self.0.lock().unwrap();
        let scopes = received.iter().flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }
}

async fn receive(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> &'static [u8] {
    assert_eq!(headers[header::CONTENT_TYPE], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    collector.0.lock().unwrap().extend(request.resource_spans);
    b""
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes
        .iter()
        .filter_map(|attribute| match attribute.value.as_ref()?.value.as_ref()? {
            any_value::Value::StringValue(text) => Some((attribute.key.clone(), text.clone())),
            _ => None,
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// T23: a request is a span of its caller's trace, with its operations on the database and their statements below it; no parameter is
/// told. The collector comes with a reload, and what is left is sent before the process ends.
#[expect(clippy::too_many_lines, reason = "a story in its order")]
#[tokio::test]
async fn a_request_is_a_trace_with_its_statements() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let (collector, endpoint) = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let config = write_config(&directory, "");
    let process = Process::serve(&directory, &config);
    let url = process.url().await;
    let bearer = format!("Bearer {}", person.token);
    let list = format!("{url}/api/v1/memories");
    let ask = async |method: Method, trace: &str, body| {
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        let headers = [("authorization", bearer.as_str()), ("traceparent", &parent)];
        app.send(method, &list, &headers, body).await
    };
    until("the process answers", async || {
        ask(Method::GET, &"1".repeat(32), None).await.status == 200
    })
    .await;
    assert!(collector.spans().is_empty());
    write_config(&directory, &format!("traces: {{endpoint: \"{endpoint}\"}}"));
    until("the collector is known", async || {
        ask(Method::GET, &"2".repeat(32), None).await.expect(200);
        !collector.spans().is_empty()
    })
    .await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    ask(Method::POST, trace, Some(json!({"content": "a canary"})))
        .await
        .expect(201);
    process.terminate();
    let status = until_some("the process has ended", async || process.ended()).await;
    assert!(status.success(), "{status}");
    let spans: Vec<Span> = collector
        .spans()
        .into_iter()
        .filter(|span| hex(&span.trace_id) == trace)
        .collect();
    let of = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let [request] = of("request")[..] else {
        panic!("{spans:?}")
    };
    assert_eq!(hex(&request.parent_span_id), "00f067aa0ba902b7");
    let about = texts(&request.attributes);
    assert_eq!(
        (about["http.method"].as_str(), about["http.route"].as_str()),
        ("POST", "/api/v1/memories")
    );
    let operations = of("operation");
    assert!(
        operations
            .iter()
            .any(|span| texts(&span.attributes)["operation.kind"] == "write"),
        "{operations:?}"
    );
    assert!(
        operations
            .iter()
            .all(|span| span.parent_span_id == request.span_id),
        "{operations:?}"
    );
    let statements = of("statement");
    let insert = statements
        .iter()
        .find(|span| texts(&span.attributes)["db.statement"].contains("INSERT INTO memories"));
    let insert = insert.unwrap_or_else(|| panic!("{statements:?}"));
    assert!(
        operations
            .iter()
            .any(|span| span.span_id == insert.parent_span_id),
        "{insert:?}"
    );
    assert!(!format!("{spans:?}").contains("canary"));
    let line = process
        .lines()
        .into_iter()
        .find(|line| line["message"] == "request_completed" && line.to_string().contains(trace));
    assert!(line.is_some(), "the trace is named in the log");
    let resource = collector.0.lock().unwrap()[0].resource.clone().unwrap();
    assert_eq!(texts(&resource.attributes)["service.name"], "tanka-api");
}

/// A collector that accepts and never answers is the worst there is: requests are answered as if there were none, and the end is in time.
#[tokio::test]
async fn a_collector_that_hangs_holds_nothing_up() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let address = silent.local_addr().unwrap();
    let config = write_config(
        &directory,
        &format!("traces: {{endpoint: \"http://{address}\"}}\ndrain: {{timeout: 2s}}"),
    );
    let process = Process::serve(&directory, &config);
    let url = process.url().await;
    let bearer = format!("Bearer {}", person.token);
    let list = format!("{url}/api/v1/memories");
    let headers = [("authorization", bearer.as_str())];
    until("the process answers", async || {
        app.send(Method::GET, &list, &headers, None).await.status == 200
    })
    .await;
    let mut slowest = Duration::ZERO;
    for _ in 0..500 {
        let began = Instant::now();
        app.send(Method::GET, &list, &headers, None).await.expect(200);
        slowest = slowest.max(began.elapsed());
    }
    let began = Instant::now();
    process.terminate();
    until("the process has ended", async || process.ended().is_some()).await;
    println!(
        "beside a collector that hangs, the slowest of 500 reads took {slowest:?}, the end {:?}",
        began.elapsed()
    );
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}
