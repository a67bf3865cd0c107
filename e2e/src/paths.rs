//! Where things are: the repository, the cache that outlives it, and the state of this checkout.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::process::BadEnvironment;

/// The folders that everything else is found from.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Root of the repository.
    pub repo: PathBuf,
    /// What is slow to make and may be shared by checkouts. `TANKA_CACHE`, else the user's cache folder.
    pub cache: PathBuf,
    /// What belongs to this checkout and may be deleted any time. `TANKA_STATE`, else `.tanka` in the repository.
    pub state: PathBuf,
    /// Where cargo compiles to. `CARGO_TARGET_DIR`, else `target` in the repository.
    pub target: PathBuf,
}

impl Paths {
    /// Finds the folders, and creates those that are ours.
    pub fn from_environment() -> Result<Self> {
        let repo = find_repository()?;
        let cache = match folder("TANKA_CACHE").or_else(|| folder("XDG_CACHE_HOME").map(|p| p.join("tanka")))
        {
            Some(path) => path,
            None => folder("HOME")
                .ok_or_else(|| {
                    BadEnvironment::new("set TANKA_CACHE or HOME: no folder for the cache is known")
                })?
                .join(".cache/tanka"),
        };
        let state = folder("TANKA_STATE").unwrap_or_else(|| repo.join(".tanka"));
        for path in [&cache, &state] {
            fs::create_dir_all(path).with_context(|| format!("failed to create {}", path.display()))?;
        }
        let target = folder("CARGO_TARGET_DIR").unwrap_or_else(|| repo.join("target"));
        Ok(Self {
            target,
            repo,
            cache: cache.canonicalize()?,
            state: state.canonicalize()?,
        })
    }
}

fn folder(variable: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Upwards from the crate (under cargo) or from the working directory.
fn find_repository() -> Result<PathBuf> {
    let start = match folder("CARGO_MANIFEST_DIR") {
        Some(path) => path,
        None => env::current_dir().context("failed to read the working directory")?,
    };
    start
        .ancestors()
        .find(|path| path.join("Dockerfile").is_file() && path.join("Cargo.toml").is_file())
        .map(Path::to_path_buf)
        .ok_or_else(|| {
            BadEnvironment::new("run this inside the repository: no Dockerfile and Cargo.toml above").into()
        })
}
