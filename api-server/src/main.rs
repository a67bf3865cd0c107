//! The API server's binary.

use std::process::ExitCode;

use api_server::args::Arguments;
use clap::Parser;

/// Memory that is not used any more goes back to the system.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // Two providers are in reach of the dependencies; without a choice the first TLS connection would panic.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    api_server::run::run(Arguments::parse()).await
}
