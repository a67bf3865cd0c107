//! Logging: JSON lines by default, whose level follows the configuration. Traces over OTLP where the configuration says so.

mod traces;

use std::sync::OnceLock;

use clap::ValueEnum;
use crds::config::{Config, LogLevel};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

pub use self::traces::adopt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object for each line.
    Json,
    /// For people.
    Text,
}

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging to standard error. Only the first call in a process counts.
pub fn start(format: LogFormat, level: LogLevel) {
    let (filter, handle) = reload::Layer::new(filter(level));
    let log = match format {
        LogFormat::Json => {
            let json = fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false);
            json.with_writer(std::io::stderr).with_filter(filter).boxed()
        }
        LogFormat::Text => fmt::layer()
            .with_writer(std::io::stderr)
            .with_filter(filter)
            .boxed(),
    };
    if tracing_subscriber::registry()
        .with(vec![log, traces::layer()])
        .try_init()
        .is_ok()
    {
        let _ = FILTER.set(handle);
    }
}

/// Takes over what a configuration says of logs and traces. Blocks for a moment when the collector changes.
pub fn apply(config: &Config) {
    if let Some(handle) = FILTER.get() {
        let _ = handle.reload(filter(config.log_level));
    }
    traces::apply(&config.traces);
}

/// Sends what is left of traces. Blocks for a bounded time.
pub fn end() {
    traces::end();
}

/// Libraries stay at `warn`: what they log in detail is about themselves, and can hold addresses and statements.
fn filter(level: LogLevel) -> EnvFilter {
    let level = level.as_str();
    EnvFilter::new(format!("warn,api_server={level},tanka_api={level}"))
}
