//! Log lines, and traces over OTLP where an address for them is given. Without one nothing of it is set up. With one that cannot be
//! reached spans are dropped: they wait in a bounded queue of the exporter's own thread, and nothing here waits for it but the end of
//! the process, for a bounded time.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::args::{Arguments, LogFormat};

/// Name of the service in traces.
const SERVICE: &str = "tanka-operator";
/// Spans that wait for the exporter; further ones are dropped. A look has about five.
const QUEUE: usize = 2_048;
/// Spans in one request.
const BATCH: usize = 512;
/// How often they are sent.
const DELAY: Duration = Duration::from_secs(2);
/// Time for one request to the collector.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for what is left when the process ends.
const LAST_TIMEOUT: Duration = Duration::from_secs(4);

/// What must be brought to an end with the process.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts to log, and to trace where `--otlp-endpoint` says so.
    ///
    /// # Errors
    /// When the filter or the address cannot be understood.
    pub fn start(arguments: &Arguments) -> anyhow::Result<Self> {
        let filter = EnvFilter::try_new(&arguments.log).context("TANKA_LOG is not a tracing filter")?;
        let traces = arguments
            .otlp_endpoint
            .as_deref()
            .filter(|endpoint| !endpoint.is_empty())
            .map(|endpoint| exporter(endpoint, &arguments.identity))
            .transpose()?;
        let log = tracing_subscriber::fmt::layer();
        let log = match arguments.log_format {
            LogFormat::Json => log.json().flatten_event(true).with_filter(filter).boxed(),
            LogFormat::Text => log.with_filter(filter).boxed(),
        };
        tracing_subscriber::registry()
            .with(log)
            .with(traces.as_ref().map(layer))
            .init();
        Ok(Self { traces })
    }

    /// Sends what is left. Blocks for a bounded time, so it comes after everything else has ended.
    pub fn end(self) {
        let Some(traces) = self.traces else { return };
        if let Err(error) = traces.shutdown_with_timeout(LAST_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

fn exporter(endpoint: &str, identity: &str) -> anyhow::Result<SdkTracerProvider> {
    ensure!(
        endpoint.starts_with("http://"),
        "the OTLP endpoint {endpoint:?} must be http://HOST:PORT: spans go to a collector inside the cluster, over http/protobuf"
    );
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .with_context(|| format!("no spans can be sent to {endpoint}"))?;
    let batch = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(DELAY)
        .build();
    let processor = BatchSpanProcessor::builder(exporter)
        .with_batch_config(batch)
        .build();
    let resource = Resource::builder()
        .with_service_name(SERVICE)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", identity.to_owned()))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(processor)
        .with_resource(resource)
        .build())
}

/// Our own spans alone: the exporter's must not be exported.
fn layer<S>(traces: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_opentelemetry::layer()
        .with_tracer(traces.tracer(SERVICE))
        .with_filter(Targets::new().with_target("operator", LevelFilter::INFO))
}
