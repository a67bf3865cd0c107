//! Packages of Python that a peer needs, at the versions and with the digests of its `requirements.txt`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::process::Call;

const INSTALL: Duration = Duration::from_mins(10);

/// Installs what `requirements.txt` in `source` pins into a virtual environment, where it is not there yet; answers where that is.
pub async fn install(venv: &Path, source: &Path) -> Result<PathBuf> {
    let wanted = std::fs::read_to_string(source.join("requirements.txt"))?;
    let installed = venv.join("installed.txt");
    if std::fs::read_to_string(&installed).unwrap_or_default() != wanted {
        let make = Call::new("python3", INSTALL).args(["-m", "venv", "--clear"]);
        make.arg(venv).run().await?;
        let pip = Call::new(venv.join("bin/pip"), INSTALL);
        let install = pip.args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
        ]);
        install.arg(source.join("requirements.txt")).run().await?;
        std::fs::write(&installed, &wanted)?;
    }
    Ok(venv.to_owned())
}
