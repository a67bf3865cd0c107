//! Entry point of the operator.

use clap::Parser;
use operator::telemetry::Telemetry;

/// Memory that is not used any more goes back to the system.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> anyhow::Result<()> {
    // Two providers in one graph would panic at the first connection; this one is chosen before anything connects.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let arguments = operator::args::Arguments::parse();
    let telemetry = Telemetry::start(&arguments)?;
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(operator::run::run(arguments));
    telemetry.end();
    outcome
}
