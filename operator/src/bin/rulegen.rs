//! Prints rule files that are committed: `platform` those of a platform called acme with all defaults, `operator` those of the
//! operator, `manifests` the latter for prometheus-operator.

use anyhow::{Context, bail};
use crds::{TankaPlatform, TankaPlatformSpec};
use operator::alerts::{self, RUNBOOKS};
use operator::platform::validate::{Release, validate};

fn main() -> anyhow::Result<()> {
    let what = std::env::args().nth(1).unwrap_or_default();
    let text = match what.as_str() {
        "platform" => platform()?,
        "operator" => alerts::file(&alerts::operator::groups(RUNBOOKS))?,
        "manifests" => {
            let [rules, monitor] = alerts::operator::manifests(RUNBOOKS);
            format!(
                "{}---\n{}",
                serde_saphyr::to_string(&rules)?,
                serde_saphyr::to_string(&monitor)?
            )
        }
        _ => bail!("say what to print: platform, operator or manifests"),
    };
    print!("{text}");
    Ok(())
}

fn platform() -> anyhow::Result<String> {
    let mut acme = TankaPlatform::new("acme", TankaPlatformSpec::default());
    acme.metadata.namespace = Some("acme".to_owned());
    acme.metadata.uid = Some(String::new());
    acme.metadata.generation = Some(1);
    let release = Release {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api_server: String::new(),
        postgres: String::new(),
        redis: String::new(),
        runbooks: RUNBOOKS.to_owned(),
    };
    let platform = validate(&acme, &release).context("the defaults make sense")?;
    Ok(alerts::file(&alerts::platform::groups(&platform))?)
}
