//! `e2e images`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::{
    images::{self, Name},
    paths::Paths,
};

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub enum ImagesCommand {
    /// Builds what changed since it was last built.
    Build {
        /// Only these, separated by commas.
        #[arg(long, value_delimiter = ',', value_name = "NAME")]
        only: Vec<Name>,
    },
    /// Builds what changed, then prints name, reference, archive and size as JSON.
    List {
        /// Only these, separated by commas.
        #[arg(long, value_delimiter = ',', value_name = "NAME")]
        only: Vec<Name>,
    },
}

/// Runs it.
pub async fn run(paths: &Paths, command: ImagesCommand) -> Result<ExitCode> {
    let (only, list) = match command {
        ImagesCommand::Build { only } => (only, false),
        ImagesCommand::List { only } => (only, true),
    };
    let names = if only.is_empty() { Name::ALL.to_vec() } else { only };
    let built = images::build(paths, &names).await?;
    if list {
        println!("{}", serde_json::to_string_pretty(&built)?);
    } else {
        for image in built.values() {
            println!(
                "{}  {} MiB compressed",
                image.reference,
                image.compressed_bytes.div_ceil(1 << 20)
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
