//! The base image, made from the machine's own Debian mirror where no registry can be asked for it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::process::{BadEnvironment, Call};

/// As the Dockerfile names it.
pub const REFERENCE: &str = "debian:trixie-slim";
const SUITE: &str = "trixie";
const MAKE_DEADLINE: Duration = Duration::from_mins(10);
const QUERY_DEADLINE: Duration = Duration::from_secs(30);

/// What makes an image slim: as in the official one, only the licences stay.
const LEFT_OUT: [&str; 6] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/i18n/*",
];

/// Writes the file system of the base image to `folder/rootfs.tar`.
pub async fn make(folder: &Path) -> Result<PathBuf> {
    let tar = folder.join("rootfs.tar");
    let keyring = keyring(folder).await?;
    let sources = sources(&keyring).await?;
    Call::new("mmdebstrap", MAKE_DEADLINE)
        .args(["--variant=minbase", "--format=tar", "--quiet"])
        .arg(format!("--keyring={}", keyring.display()))
        .args(LEFT_OUT.map(|option| format!("--dpkgopt={option}")))
        .arg(SUITE)
        .arg(&tar)
        .args(sources)
        .run()
        .await
        .with_context(|| format!("failed to make {REFERENCE}"))?;
    Ok(tar)
}

/// The machine's own mirrors, with the suite exchanged.
async fn sources(keyring: &Path) -> Result<Vec<String>> {
    let text = Call::new("apt-get", QUERY_DEADLINE)
        .args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)",
            "Identifier: Packages",
        ])
        .output()
        .await?;
    let sources = sources_from(&text, keyring);
    if sources.is_empty() {
        let message = "no Debian mirror is configured for apt and no registry has debian:trixie-slim: add a mirror, or start docker";
        return Err(BadEnvironment::new(message).into());
    }
    Ok(sources)
}

/// `text`: a line `uri suite component origin` for each configured index. The mirror is the one that has some release's main
/// archive (a suite of one word); security and updates are taken where the machine takes them.
fn sources_from(text: &str, keyring: &Path) -> Vec<String> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(uri), Some(suite), Some("main")) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if words.next() != Some("Debian") {
            continue;
        }
        let suffix = match suite.rsplit_once('-') {
            None => "",
            Some((_, "security")) => "-security",
            Some((_, "updates")) => "-updates",
            Some(_) => continue,
        };
        let source = format!("deb [signed-by={}] {uri} {SUITE}{suffix} main", keyring.display());
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    sources
}

/// A keyring that knows the suite. An old machine's does not; the newer one is fetched as a package, which apt verifies with the
/// keys that the machine trusts already.
async fn keyring(folder: &Path) -> Result<PathBuf> {
    let keyrings = Path::new("/usr/share/keyrings");
    let installed = keyrings.join("debian-archive-keyring.gpg");
    let knows_suite = |root: &Path| {
        ["gpg", "pgp"].iter().any(|ending| {
            root.join(format!("debian-archive-{SUITE}-stable.{ending}"))
                .exists()
        })
    };
    if installed.exists() && knows_suite(keyrings) {
        return Ok(installed);
    }
    let unpacked = folder.join("keyring");
    fs::create_dir_all(&unpacked)?;
    Call::new("apt-get", MAKE_DEADLINE)
        .args([
            "download",
            "-o",
            "APT::Sandbox::User=root",
            "debian-archive-keyring",
        ])
        .dir(&unpacked)
        .run()
        .await?;
    let package = fs::read_dir(&unpacked)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package of debian-archive-keyring")?;
    Call::new("dpkg", QUERY_DEADLINE)
        .arg("-x")
        .arg(package)
        .arg(&unpacked)
        .run()
        .await?;
    let keyrings = unpacked.join("usr/share/keyrings");
    if !knows_suite(&keyrings) {
        let message = format!(
            "the Debian keyring of this machine does not know {SUITE}: upgrade debian-archive-keyring"
        );
        return Err(BadEnvironment::new(message).into());
    }
    Ok(keyrings.join("debian-archive-keyring.gpg"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_exchanged_in_every_debian_source_of_the_machine() {
        let text = "http://mirror.test/debian/ bookworm main Debian\n\
                    http://mirror.test/debian/ bookworm main Debian\n\
                    http://mirror.test/debian/ bookworm contrib Debian\n\
                    http://mirror.test/debian/ bookworm-updates main Debian\n\
                    http://mirror.test/debian/ bookworm-backports main Debian\n\
                    http://mirror.test/debian-security/ bookworm-security main Debian\n\
                    https://node.test/node_20.x/ nodistro main node\n";
        assert_eq!(
            sources_from(text, Path::new("/k.gpg")),
            [
                "deb [signed-by=/k.gpg] http://mirror.test/debian/ trixie main",
                "deb [signed-by=/k.gpg] http://mirror.test/debian/ trixie-updates main",
                "deb [signed-by=/k.gpg] http://mirror.test/debian-security/ trixie-security main",
            ]
        );
    }

    #[test]
    fn a_machine_without_debian_sources_has_none() {
        assert!(
            sources_from(
                "http://mirror.test/ubuntu/ noble main Ubuntu\n",
                Path::new("/k.gpg")
            )
            .is_empty()
        );
    }
}
