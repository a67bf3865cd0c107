//! Reads the file once.

use std::path::{Path, PathBuf};

use crds::config::Config;
use sha2::{Digest, Sha256};

/// Identifies a file's content, whatever symbolic links and times of modification do.
pub type Fingerprint = [u8; 32];

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a valid configuration.
    #[error("{} is not valid: {problem}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Line, column and what is expected there.
        problem: String,
        /// Of the content that was refused, so that it is reported once.
        fingerprint: Fingerprint,
    },
}

/// Reads and validates a file.
pub fn load(path: &Path) -> Result<(Config, Fingerprint), LoadError> {
    let content = std::fs::read(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })?;
    let fingerprint = Sha256::digest(&content).into();
    String::from_utf8(content)
        .map_err(|error| error.to_string())
        .and_then(|text| crds::config::parse(&text))
        .map(|config| (config, fingerprint))
        .map_err(|problem| LoadError::Invalid {
            path: path.to_owned(),
            problem,
            fingerprint,
        })
}
