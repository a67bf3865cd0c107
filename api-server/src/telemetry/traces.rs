//! Traces: a request, its operations on the database, and their statements (never parameters). Without a collector no span of them is
//! made. With one that cannot be reached spans are dropped: they wait in a bounded queue of the exporter's own thread.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::{ArcSwap, ArcSwapOption};
use axum::http::HeaderMap;
use crds::config::Traces;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingResult, SdkTracerProvider, ShouldSample, Span,
    SpanData, SpanProcessor,
};
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Layer, Registry, reload};

/// Name of the service in traces.
const SERVICE: &str = "tanka-api";
/// Spans that wait for the exporter; further ones are dropped.
const QUEUE: usize = 4_096;
/// Spans in one request.
const BATCH: usize = 512;
/// How often they are sent.
const DELAY: Duration = Duration::from_secs(2);
/// Time for one request to the collector.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for what is left when the collector changes or the process ends.
const LAST_TIMEOUT: Duration = Duration::from_secs(4);

static TRACES: OnceLock<Control> = OnceLock::new();

/// What a configuration changes.
struct Control {
    filter: reload::Handle<Targets, Registry>,
    collector: Collector,
    sampler: Ratio,
    current: Mutex<Traces>,
}

/// The layer, which is off until a collector is configured.
pub(super) fn layer() -> Box<dyn Layer<Registry> + Send + Sync> {
    let (filter, handle) = reload::Layer::new(Targets::new());
    let (collector, sampler) = (Collector::default(), Ratio::default());
    let provider = SdkTracerProvider::builder()
        .with_span_processor(collector.clone())
        .with_sampler(sampler.clone())
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(SERVICE))
        .with_filter(filter)
        .boxed();
    let _ = TRACES.set(Control {
        filter: handle,
        collector,
        sampler,
        current: Mutex::new(Traces::default()),
    });
    layer
}

/// Takes over another collector, or none.
pub(super) fn apply(traces: &Traces) {
    let Some(control) = TRACES.get() else { return };
    let mut current = control.current.lock().unwrap_or_else(PoisonError::into_inner);
    control.sampler.set(traces.sample_percent);
    if current.endpoint != traces.endpoint {
        let processor = traces.endpoint.as_deref().and_then(|endpoint| {
            exporter(endpoint)
                .inspect_err(|error| tracing::error!(error = %format!("{error:#}"), "nothing is traced"))
                .ok()
        });
        let targets = match &processor {
            Some(_) => Targets::new().with_target("api_server", LevelFilter::DEBUG),
            None => Targets::new(),
        };
        let old = control.collector.0.swap(processor.map(Arc::new));
        let _ = control.filter.reload(targets);
        if let Some(old) = old {
            let _ = old.shutdown_with_timeout(LAST_TIMEOUT);
        }
    }
    current.clone_from(traces);
}

/// Sends what is left.
pub(super) fn end() {
    apply(&Traces::default());
}

/// Makes a request's span a part of its caller's trace, if the caller has one, and lets log lines of the request name their trace
/// (`trace_id`, which the span must have as an empty field).
pub fn adopt(span: &tracing::Span, headers: &HeaderMap) {
    if headers.contains_key("traceparent") {
        let caller = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
        // It fails where nothing is traced.
        let _ = span.set_parent(caller);
    }
    let context = span.context();
    let trace = context.span().span_context().clone();
    if trace.is_valid() {
        span.record("trace_id", tracing::field::display(trace.trace_id()));
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

fn exporter(endpoint: &str) -> anyhow::Result<BatchSpanProcessor> {
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
    let mut processor = BatchSpanProcessor::builder(exporter)
        .with_batch_config(batch)
        .build();
    let pod = std::env::var("HOSTNAME").unwrap_or_else(|_| "process".to_owned());
    let resource = Resource::builder()
        .with_service_name(SERVICE)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", pod))
        .build();
    processor.set_resource(&resource);
    Ok(processor)
}

/// Whatever sends spans at the moment.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<ArcSwapOption<BatchSpanProcessor>>);

impl SpanProcessor for Collector {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if let Some(processor) = &*self.0.load() {
            processor.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0
            .load()
            .as_ref()
            .map_or(Ok(()), |processor| processor.force_flush())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0
            .swap(None)
            .map_or(Ok(()), |processor| processor.shutdown_with_timeout(timeout))
    }
}

/// A share of requests, unless the caller has decided it.
#[derive(Debug, Clone)]
struct Ratio(Arc<ArcSwap<Sampler>>);

impl Default for Ratio {
    fn default() -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Sampler::AlwaysOn)))
    }
}

impl Ratio {
    fn set(&self, percent: u32) {
        let share = Sampler::TraceIdRatioBased(f64::from(percent) / 100.0);
        self.0.store(Arc::new(Sampler::ParentBased(Box::new(share))));
    }
}

impl ShouldSample for Ratio {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        self.0
            .load()
            .should_sample(parent, trace, name, kind, attributes, links)
    }
}
