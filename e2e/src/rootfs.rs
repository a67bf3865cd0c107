//! Unpacks an image's archive into a folder, so that its programs can be run without a container runtime.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{
    images::{Image, Name},
    paths::Paths,
    process::{Call, lock},
};

const UNPACK_DEADLINE: Duration = Duration::from_mins(3);

/// The unpacked file system of an image. It is not deleted while this value lives.
#[derive(Debug)]
pub struct Rootfs {
    /// Its root folder. Nobody may write to it.
    pub path: PathBuf,
    _used: File,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    layers: Vec<String>,
}

/// Unpacks the image, unless that was done before, and deletes older ones of the same name that nobody uses.
pub async fn unpack(paths: &Paths, name: Name, image: &Image) -> Result<Rootfs> {
    let parent = paths.cache.join("rootfs");
    fs::create_dir_all(&parent)?;
    let _lock = lock(&parent.join("lock"), UNPACK_DEADLINE).await?;
    let label = format!("{}-{}", name.as_str(), image.tag());
    let path = parent.join(&label);
    let used = File::create(parent.join(format!("{label}.used")))?;
    used.lock_shared()
        .with_context(|| format!("failed to lock {label}"))?;
    if !path.exists() {
        let partial = parent.join("partial");
        remove(&partial)?;
        fs::create_dir(&partial)?;
        unpack_layers(&image.archive, &partial)
            .await
            .with_context(|| format!("failed to unpack {}", image.archive.display()))?;
        fs::rename(&partial, &path)?;
    }
    delete_others(&parent, name, &label)?;
    Ok(Rootfs { path, _used: used })
}

async fn unpack_layers(archive: &Path, root: &Path) -> Result<()> {
    let manifest = Call::new("tar", UNPACK_DEADLINE)
        .arg("-xOf")
        .arg(archive)
        .arg("manifest.json")
        .output()
        .await?;
    let manifests: Vec<Manifest> = serde_json::from_str(&manifest).context("failed to read its manifest")?;
    let manifest = manifests
        .into_iter()
        .next()
        .context("its manifest names no image")?;
    for layer in manifest.layers {
        // From a file, because tar tells how a layer is compressed only where it can seek. A layer says `.wh.NAME` where it deletes
        // NAME of a layer below.
        let script = r#"set -e
            tar -xOf "$1" "$3" > "$2.layer"
            tar -xf "$2.layer" --numeric-owner --same-permissions -C "$2"
            rm "$2.layer"
            find "$2" -xdev -name '.wh.*' | while read -r mark; do
                name=${mark##*/.wh.}; folder=${mark%/*}
                rm -rf "${folder:?}/$name" "$mark"
            done"#;
        Call::new("sh", UNPACK_DEADLINE)
            .args(["-c", script, "sh"])
            .arg(archive)
            .arg(root)
            .arg(layer)
            .run()
            .await?;
    }
    Ok(())
}

fn delete_others(parent: &Path, name: Name, label: &str) -> Result<()> {
    let prefix = format!("{}-", name.as_str());
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !path.is_dir() || !file.starts_with(&prefix) || file == label {
            continue;
        }
        let mark = parent.join(format!("{file}.used"));
        if File::create(&mark)?.try_lock().is_ok() {
            remove(&path)?;
            fs::remove_file(&mark)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to delete {}", path.display()))
        }
        _ => Ok(()),
    }
}
