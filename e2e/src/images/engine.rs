//! The two programs that turn the Dockerfile into an image: docker where an engine answers, else buildah.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    images::{Image, Name, archive_of, base, binaries},
    paths::Paths,
    process::Call,
};

const BUILD_DEADLINE: Duration = Duration::from_mins(20);
const STEP_DEADLINE: Duration = Duration::from_mins(3);
const QUERY_DEADLINE: Duration = Duration::from_secs(10);

enum Engine {
    Docker,
    /// With a storage of its own, so that the machine's is left alone.
    Buildah {
        storage: PathBuf,
    },
}

/// Builds one image and writes its archive.
pub async fn build(paths: &Paths, folder: &Path, name: Name, key: &str) -> Result<Image> {
    let start = Instant::now();
    let reference = format!("localhost/tanka/{}:{key}", name.as_str());
    eprintln!("building {reference}");
    let engine = Engine::detect(paths).await;
    engine.ensure_base(folder).await?;
    let context = context(paths, folder, name).await?;
    engine.build(&context, name, &reference).await?;
    let archive = archive_of(folder, name, key);
    let partial = archive.with_extension("partial");
    let _ = fs::remove_file(&partial);
    engine.save(&reference, &partial).await?;
    let image = Image {
        reference,
        compressed_bytes: compressed_size(&partial).await?,
        archive,
    };
    fs::rename(&partial, &image.archive)?;
    // Written last: an archive counts as built only with it.
    fs::write(
        image.archive.with_extension("json"),
        serde_json::to_string(&image)?,
    )?;
    engine.forget_all_but(&image.reference, name).await;
    eprintln!(
        "built {} in {:.1} s",
        image.reference,
        start.elapsed().as_secs_f32()
    );
    Ok(image)
}

/// A build context that holds only what the image is made of.
async fn context(paths: &Paths, folder: &Path, name: Name) -> Result<PathBuf> {
    let context = folder.join("context");
    if context.exists() {
        fs::remove_dir_all(&context).with_context(|| format!("failed to empty {}", context.display()))?;
    }
    let bin = context.join("bin");
    fs::create_dir_all(&bin)?;
    Call::new("cp", STEP_DEADLINE)
        .arg("--archive")
        .args(["Dockerfile", "images"].map(|entry| paths.repo.join(entry)))
        .arg(&context)
        .run()
        .await?;
    if let Some(binary) = name.binary() {
        binaries::strip_into(paths, binary, &bin).await?;
    }
    Ok(context)
}

async fn compressed_size(archive: &Path) -> Result<u64> {
    let script = r#"zstd --quiet --threads=0 -3 --stdout "$1" | wc --bytes"#;
    let text = Call::new("sh", STEP_DEADLINE)
        .args(["-c", script, "sh"])
        .arg(archive)
        .output()
        .await?;
    text.trim()
        .parse()
        .with_context(|| format!("failed to measure {}", archive.display()))
}

impl Engine {
    async fn detect(paths: &Paths) -> Self {
        // The client alone is no engine, and some of its versions report a missing one with success.
        let version = Call::new("docker", QUERY_DEADLINE)
            .args(["info", "--format", "{{.ServerVersion}}"])
            .output()
            .await;
        match version {
            Ok(version) if !version.trim().is_empty() => Self::Docker,
            _ => Self::Buildah {
                storage: paths.cache.join("buildah"),
            },
        }
    }

    fn call(&self, deadline: Duration) -> Call {
        match self {
            Self::Docker => Call::new("docker", deadline),
            Self::Buildah { storage } => Call::new("buildah", deadline)
                .arg("--root")
                .arg(storage.join("storage"))
                .arg("--runroot")
                .arg(storage.join("run"))
                .args(["--storage-driver", "overlay"]),
        }
    }

    /// Sees to it that the name of the base image means something here.
    async fn ensure_base(&self, folder: &Path) -> Result<()> {
        let present = match self {
            Self::Docker => {
                self.call(QUERY_DEADLINE)
                    .args(["image", "inspect", base::REFERENCE])
                    .succeeds()
                    .await
                    || self
                        .call(STEP_DEADLINE)
                        .args(["pull", "--quiet", base::REFERENCE])
                        .succeeds()
                        .await
            }
            Self::Buildah { .. } => {
                let args = ["inspect", "--type", "image", base::REFERENCE];
                self.call(QUERY_DEADLINE).args(args).succeeds().await
            }
        };
        if present {
            return Ok(());
        }
        let start = Instant::now();
        let scratch = folder.join("base");
        fs::create_dir_all(&scratch)?;
        let tar = base::make(&scratch).await?;
        match self {
            Self::Docker => {
                let change = r#"CMD ["bash"]"#;
                self.call(STEP_DEADLINE)
                    .args(["import", "--change", change])
                    .arg(tar)
                    .arg(base::REFERENCE)
                    .run()
                    .await?;
            }
            Self::Buildah { .. } => {
                fs::write(
                    scratch.join("Dockerfile"),
                    "FROM scratch\nADD rootfs.tar /\nCMD [\"bash\"]\n",
                )?;
                self.call(STEP_DEADLINE)
                    .args(["bud", "--isolation", "chroot", "--tag", base::REFERENCE])
                    .arg(&scratch)
                    .run()
                    .await?;
            }
        }
        fs::remove_dir_all(&scratch)?;
        eprintln!(
            "made {} in {:.1} s",
            base::REFERENCE,
            start.elapsed().as_secs_f32()
        );
        Ok(())
    }

    async fn build(&self, context: &Path, name: Name, reference: &str) -> Result<()> {
        let call = self.call(BUILD_DEADLINE);
        match self {
            Self::Docker => call.arg("build"),
            Self::Buildah { .. } => call.args(["bud", "--isolation", "chroot", "--layers", "--pull-never"]),
        }
        .args(["--target", name.as_str(), "--tag", reference])
        .arg(context)
        .run()
        .await
        .with_context(|| format!("failed to build the image {}", name.as_str()))
    }

    async fn save(&self, reference: &str, archive: &Path) -> Result<()> {
        let call = self.call(STEP_DEADLINE);
        match self {
            Self::Docker => call.args(["save", "--output"]).arg(archive).arg(reference),
            Self::Buildah { .. } => {
                let target = format!("docker-archive:{}:{reference}", archive.display());
                call.args(["push", "--quiet", reference]).arg(target)
            }
        }
        .run()
        .await
        .with_context(|| format!("failed to save the image {reference}"))
    }

    /// The archive is the product; of the builder's own copies only the newest is kept, for its layers. A copy that stays behind
    /// costs space and nothing else, so a failure is not reported.
    async fn forget_all_but(&self, reference: &str, name: Name) {
        let repository = format!("localhost/tanka/{}", name.as_str());
        let format = match self {
            Self::Docker => "{{.Repository}}:{{.Tag}}",
            Self::Buildah { .. } => "{{.Name}}:{{.Tag}}",
        };
        let Ok(text) = self
            .call(QUERY_DEADLINE)
            .args(["images", "--format", format])
            .output()
            .await
        else {
            return;
        };
        for old in text
            .lines()
            .filter(|line| line.starts_with(&format!("{repository}:")) && *line != reference)
        {
            let _ = self.call(STEP_DEADLINE).args(["rmi", old]).output().await;
        }
    }
}
