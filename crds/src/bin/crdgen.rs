//! Prints the CustomResourceDefinition as YAML.

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let yaml = serde_saphyr::to_string(&crds::platform::crd())?;
    std::io::stdout().write_all(yaml.as_bytes())?;
    Ok(())
}
