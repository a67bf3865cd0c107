//! From a `TankaPlatform` as stored to one in which nothing is missing and nothing contradicts itself. The API server has checked
//! the same rules already; an object that was stored under an older definition is caught here.

use crds::platform::postgres::{ExternalPostgres, ManagedPostgres, parameters};
use crds::platform::redis::{ExternalRedis, ManagedRedis};
use crds::{TankaPlatform, TankaPlatformSpec};
use kube::ResourceExt;

/// Images of the release that this operator belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Version of the release.
    pub version: String,
    /// Image of the API server.
    pub api_server: String,
    /// Image of PostgreSQL.
    pub postgres: String,
    /// Image of Redis.
    pub redis: String,
    /// Where the runbooks of alerts are: a URL, to which the name of a page is added.
    pub runbooks: String,
}

/// The images that a platform runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Image of the API server.
    pub api_server: String,
    /// Image of PostgreSQL.
    pub postgres: String,
    /// Image of Redis.
    pub redis: String,
}

/// Who runs the database.
#[derive(Debug, Clone, PartialEq)]
pub enum Database {
    /// The operator.
    Managed(ManagedPostgres),
    /// Somebody else.
    External(ExternalPostgres),
}

/// Who runs the cache.
#[derive(Debug, Clone, PartialEq)]
pub enum Cache {
    /// The operator.
    Managed(ManagedRedis),
    /// Somebody else.
    External(ExternalRedis),
}

/// A platform whose spec makes sense.
#[derive(Debug, Clone, PartialEq)]
pub struct Platform {
    /// Name, a DNS label of at most 40 characters.
    pub name: String,
    /// Namespace of the platform and of everything in it.
    pub namespace: String,
    /// Identity across deletion and re-creation.
    pub uid: String,
    /// Generation of the spec.
    pub generation: i64,
    /// Release to run.
    pub version: String,
    /// Images to run.
    pub images: Images,
    /// Where the runbooks of alerts are.
    pub runbooks: String,
    /// Who runs the database.
    pub database: Database,
    /// Who runs the cache.
    pub cache: Cache,
    /// Everything else of the spec.
    pub spec: TankaPlatformSpec,
}

/// Why a spec makes no sense: a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// Checks a platform and fills in what the release decides.
///
/// # Errors
/// The first contradiction, with what to write instead.
pub fn validate(platform: &TankaPlatform, release: &Release) -> Result<Platform, Invalid> {
    let spec = platform.spec.clone();
    let missing = |field: &str| {
        Invalid(format!(
            "metadata.{field} is missing: the object was not read from the API server"
        ))
    };
    let database = database(&spec)?;
    let cache = match (spec.redis.managed.clone(), spec.redis.external.clone()) {
        (Some(managed), None) if [1, 3, 5].contains(&managed.replicas) => Cache::Managed(managed),
        (Some(_), None) => {
            return Err(Invalid(
                "redis.managed.replicas must be 1, 3 or 5, so that a majority of Sentinels exists".to_owned(),
            ));
        }
        (None, Some(external)) => Cache::External(external),
        _ => {
            return Err(Invalid(
                "set exactly one of redis.managed and redis.external".to_owned(),
            ));
        }
    };
    if spec.ingress.enabled && spec.ingress.host.is_empty() {
        return Err(Invalid(
            "ingress.host is missing: write the name that clients use, such as api.example.com".to_owned(),
        ));
    }
    Ok(Platform {
        name: platform.name_any(),
        namespace: platform.namespace().ok_or_else(|| missing("namespace"))?,
        uid: platform.uid().ok_or_else(|| missing("uid"))?,
        generation: platform
            .metadata
            .generation
            .ok_or_else(|| missing("generation"))?,
        version: if spec.version.is_empty() {
            release.version.clone()
        } else {
            spec.version.clone()
        },
        images: images(&spec, release),
        runbooks: release.runbooks.clone(),
        database,
        cache,
        spec,
    })
}

/// Who runs the database.
fn database(spec: &TankaPlatformSpec) -> Result<Database, Invalid> {
    match (spec.postgres.managed.clone(), spec.postgres.external.clone()) {
        (Some(managed), None) if [1, 3, 5].contains(&managed.instances) => {
            match parameters::refusal(&managed.parameters) {
                Some(sentence) => Err(Invalid(sentence.to_owned())),
                None => Ok(Database::Managed(managed)),
            }
        }
        (Some(_), None) => Err(Invalid(
            "postgres.managed.instances must be 1, 3 or 5, so that a majority exists".to_owned(),
        )),
        (None, Some(external)) => Ok(Database::External(external)),
        _ => Err(Invalid(
            "set exactly one of postgres.managed and postgres.external".to_owned(),
        )),
    }
}

/// An image that is named in the spec wins; else that of the release, with another version's tag where one is asked for.
fn images(spec: &TankaPlatformSpec, release: &Release) -> Images {
    let choose = |named: &str, released: &str| match (named, spec.version.as_str()) {
        ("", "") => released.to_owned(),
        ("", version) if version == release.version => released.to_owned(),
        ("", version) => with_tag(released, version),
        (named, _) => named.to_owned(),
    };
    Images {
        api_server: choose(&spec.images.api_server, &release.api_server),
        postgres: choose(&spec.images.postgres, &release.postgres),
        redis: choose(&spec.images.redis, &release.redis),
    }
}

/// Replaces tag and digest of an image name. A colon before the last slash belongs to a registry's port.
fn with_tag(image: &str, tag: &str) -> String {
    let undigested = image.split_once('@').map_or(image, |(name, _)| name);
    let name_start = undigested.rfind('/').map_or(0, |slash| slash + 1);
    let name = undigested[name_start..]
        .find(':')
        .map_or(undigested, |colon| &undigested[..name_start + colon]);
    format!("{name}:{tag}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("tanka/api", "tanka/api:2")]
    #[case("tanka/api:1", "tanka/api:2")]
    #[case("registry:5000/tanka/api", "registry:5000/tanka/api:2")]
    #[case("registry:5000/tanka/api:1@sha256:ab", "registry:5000/tanka/api:2")]
    fn a_version_replaces_the_tag(#[case] image: &str, #[case] expected: &str) {
        assert_eq!(with_tag(image, "2"), expected);
    }
}
