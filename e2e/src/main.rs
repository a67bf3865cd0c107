//! Entry of `e2e`: parses arguments, runs the command, turns errors into exit codes.

use std::process::ExitCode;

use clap::Parser;
use e2e::{args::Cli, process::BadEnvironment};

/// What a machine that lacks something ends with, as opposed to a failure of the thing under test.
const BAD_ENVIRONMENT: u8 = 2;

// One thread: the kernel ties "die with your parent" to the thread that started a process.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match Box::pin(e2e::run(Cli::parse())).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("e2e: {error:#}");
            if error.is::<BadEnvironment>() {
                ExitCode::from(BAD_ENVIRONMENT)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
