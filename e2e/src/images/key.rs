//! The key of an image: one hash of everything that it is made of.

use std::{
    fmt::Write,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{
    images::{Name, binaries},
    paths::Paths,
};

/// Digits of the hash that name an image: enough that two contents never meet.
const DIGITS: usize = 12;

/// Hashes the Dockerfile, the image's own files and, where it holds one, its binary.
pub fn of(paths: &Paths, name: Name) -> Result<String> {
    let mut inputs = vec![paths.repo.join("Dockerfile")];
    collect(&paths.repo.join("images").join(name.as_str()), &mut inputs)?;
    if let Some(binary) = name.binary() {
        inputs.push(binaries::built(paths, binary));
    }
    let mut hash = Sha256::new();
    for path in inputs {
        let content = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let mode = path.metadata()?.permissions().mode() & 0o111;
        // Lengths keep one file's end from being read as the next one's beginning.
        let shown = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        hash.update(format!("{shown} {mode:o} {}\n", content.len()));
        hash.update(&content);
    }
    let mut key = String::new();
    for byte in hash.finalize() {
        write!(key, "{byte:02x}")?;
    }
    key.truncate(DIGITS);
    Ok(key)
}

/// Every file under a folder, in a fixed order; a folder that is not there has none.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let mut entries = fs::read_dir(folder)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
