//! Container images: what they are made of, and an archive for each that a container runtime can load.
//! An image's tag is the hash of its inputs, so a name always means one content and nothing is built twice.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{paths::Paths, process::lock};

pub mod args;
mod base;
mod binaries;
mod engine;
mod key;

/// Archives of one name that are kept, the newest first: switching between two branches builds nothing.
const KEPT: usize = 3;
/// Another run may be building everything on a slow machine.
const LOCK_DEADLINE: Duration = Duration::from_mins(30);

/// The images of the platform, which are also the targets of the Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// The controller.
    Operator,
    /// The API, its migrations and its tools.
    ApiServer,
    /// PostgreSQL with Patroni.
    Postgres,
    /// Redis and Sentinel.
    Redis,
}

impl Name {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Operator, Self::ApiServer, Self::Postgres, Self::Redis];

    /// As the Dockerfile calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::ApiServer => "api-server",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }

    /// The binary of ours that it holds.
    fn binary(self) -> Option<&'static str> {
        match self {
            Self::Operator => Some("tanka-operator"),
            Self::ApiServer => Some("tanka-api"),
            Self::Postgres | Self::Redis => None,
        }
    }
}

/// A built image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// `localhost/tanka/<name>:<tag>`.
    #[serde(rename = "ref")]
    pub reference: String,
    /// A docker-archive with plain layers, which a container runtime unpacks quickest.
    pub archive: PathBuf,
    /// What a registry would store, measured with zstd.
    pub compressed_bytes: u64,
}

impl Image {
    /// The first twelve digits of the hash of its inputs.
    pub fn tag(&self) -> &str {
        self.reference.rsplit(':').next().unwrap_or_default()
    }
}

/// Builds what is not built yet.
pub async fn build(paths: &Paths, names: &[Name]) -> Result<BTreeMap<Name, Image>> {
    let folder = paths.cache.join("images");
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    // Before the lock: cargo has one of its own, and another run may well package while this one compiles.
    if names.iter().any(|name| name.binary().is_some()) {
        binaries::build(paths).await?;
    }
    let _lock = lock(&folder.join("lock"), LOCK_DEADLINE).await?;
    let mut built = BTreeMap::new();
    for &name in names {
        let key = key::of(paths, name)?;
        let image = match existing(&folder, name, &key)? {
            Some(image) => image,
            None => engine::build(paths, &folder, name, &key).await?,
        };
        prune(&folder, name)?;
        built.insert(name, image);
    }
    Ok(built)
}

fn archive_of(folder: &Path, name: Name, key: &str) -> PathBuf {
    folder.join(format!("{}-{key}.tar", name.as_str()))
}

/// The image of that key, when it is there; using it makes it the newest.
fn existing(folder: &Path, name: Name, key: &str) -> Result<Option<Image>> {
    let archive = archive_of(folder, name, key);
    let Ok(text) = fs::read_to_string(archive.with_extension("json")) else {
        return Ok(None);
    };
    let Ok(file) = fs::File::open(&archive) else {
        return Ok(None);
    };
    file.set_modified(now())
        .with_context(|| format!("failed to touch {}", archive.display()))?;
    let image = serde_json::from_str(&text)
        .with_context(|| format!("failed to read what is known of {}", archive.display()))?;
    Ok(Some(image))
}

#[expect(
    clippy::disallowed_methods,
    reason = "file times are compared with each other only"
)]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// Deletes the archives of that name beyond the newest few.
fn prune(folder: &Path, name: Name) -> Result<()> {
    let prefix = format!("{}-", name.as_str());
    let mut archives = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if file.starts_with(&prefix) && path.extension().is_some_and(|extension| extension == "tar") {
            archives.push((path.metadata()?.modified()?, path));
        }
    }
    archives.sort_by_key(|(modified, _)| std::cmp::Reverse(*modified));
    for (_, path) in archives.into_iter().skip(KEPT) {
        for old in [path.with_extension("json"), path] {
            fs::remove_file(&old).with_context(|| format!("failed to delete {}", old.display()))?;
        }
    }
    Ok(())
}
