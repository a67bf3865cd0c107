//! Our own binaries, built by cargo on this machine in the profile that the tests use, so that the graph is compiled once.

use std::{env, path::PathBuf, time::Duration};

use anyhow::{Context, Result};

use crate::{paths::Paths, process::Call};

/// The whole graph, cold, on a slow machine that builds other things too.
const BUILD_DEADLINE: Duration = Duration::from_mins(40);
const STRIP_DEADLINE: Duration = Duration::from_mins(1);

/// `TANKA_PROFILE=release` builds what is shipped; anything else what is tested.
fn profile() -> &'static str {
    if env::var("TANKA_PROFILE").is_ok_and(|value| value == "release") {
        "release"
    } else {
        "dev"
    }
}

/// Compiles both.
pub async fn build(paths: &Paths) -> Result<()> {
    let call = Call::new("cargo", BUILD_DEADLINE)
        .args([
            "build",
            "--quiet",
            "--workspace",
            "--bins",
            "--profile",
            profile(),
        ])
        .dir(&paths.repo);
    // What `cargo run` set for this process must not look like a change to the build scripts of that one.
    env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| {
            name.to_str()
                .is_some_and(|name| name.starts_with("CARGO_") && !KEPT_VARIABLES.contains(&name))
        })
        .fold(call, Call::env_remove)
        .run()
        .await
        .context("failed to build the binaries of the images")
}

const KEPT_VARIABLES: [&str; 4] = [
    "CARGO_HOME",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_JOBS",
    "CARGO_NET_OFFLINE",
];

/// Where cargo leaves a binary.
pub fn built(paths: &Paths, binary: &str) -> PathBuf {
    paths
        .target
        .join(if profile() == "release" {
            "release"
        } else {
            "debug"
        })
        .join(binary)
}

/// Puts a copy without symbols into a folder.
pub async fn strip_into(paths: &Paths, binary: &str, folder: &std::path::Path) -> Result<()> {
    Call::new("strip", STRIP_DEADLINE)
        .arg("-o")
        .arg(folder.join(binary))
        .arg(built(paths, binary))
        .run()
        .await
        .with_context(|| format!("failed to strip {binary}"))
}
