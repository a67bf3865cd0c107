//! The program that is measured.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::paths::Paths;
use crate::process::Call;

/// Long enough to compile everything with optimisation.
const COMPILE: Duration = Duration::from_hours(1);

/// Which program is measured.
#[derive(Debug, Args)]
pub struct Program {
    /// A binary of the API that is measured instead of one that is built for it.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// The profile in which the API is built.
    #[arg(long, default_value = "optimised")]
    profile: String,
}

impl Program {
    /// The binary, built if none is named.
    pub async fn binary(&self, paths: &Paths) -> Result<PathBuf> {
        if let Some(binary) = &self.binary {
            return Ok(binary.clone());
        }
        let build = Call::new("cargo", COMPILE).args(["build", "--profile", &self.profile]);
        let build = build.args(["-p", "api-server", "--bins"]);
        build.dir(&paths.repo).run().await?;
        Ok(paths.target.join(&self.profile).join("tanka-api"))
    }
}
