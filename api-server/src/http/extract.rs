//! What handlers take from a request. Every refusal is a problem that says what to change.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, header};
use http_body_util::LengthLimitError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};
use utoipa::IntoParams;
use uuid::Uuid;

use super::answer::CONSISTENCY_TOKEN;
use super::error::ApiError;
use super::observe::Deadline;
use crate::access::cache::Entry;
use crate::app::App;
use crate::clock;
use crate::domain::page::PageRequest;
use crate::domain::principal::{Permission, Principal};
use crate::domain::token::Token;
use crate::routing::choose::Role;
use crate::routing::{Idempotency, Position, Scope};
use crate::store::sessions::FindSession;

/// A JSON body, not longer than the configuration allows, and the digest of its bytes.
#[derive(Debug)]
pub struct Body<T> {
    /// What it says.
    pub value: T,
    /// Identifies the exact request, for idempotency keys.
    pub digest: [u8; 32],
}

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::MediaType);
        }
        let (bytes, digest) = read(request, app).await?;
        Ok(Self {
            value: parse(&bytes)?,
            digest,
        })
    }
}

/// A body that may be absent, which means its default.
#[derive(Debug)]
pub struct MaybeBody<T>(pub Body<T>);

impl<T: DeserializeOwned + Default> FromRequest<App> for MaybeBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let json = is_json(request.headers());
        let (bytes, digest) = read(request, app).await?;
        let value = match (bytes.is_empty(), json) {
            (true, _) => T::default(),
            (false, true) => parse(&bytes)?,
            (false, false) => return Err(ApiError::MediaType),
        };
        Ok(Self(Body { value, digest }))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Reads a body within its limits of length and time.
async fn read(request: Request, app: &App) -> Result<(bytes::Bytes, [u8; 32]), ApiError> {
    let mut digest = Sha256::new_with_prefix(request.method().as_str());
    digest.update(request.uri().path());
    let limit = usize::try_from(app.config().http.body_limit.bytes()).unwrap_or(usize::MAX);
    let patience = app.config().http.body_timeout.get();
    let bytes = timeout(patience, axum::body::to_bytes(request.into_body(), limit))
        .await
        .map_err(|_| ApiError::SlowBody)?
        .map_err(|error| broken(&error))?;
    digest.update(&bytes);
    Ok((bytes, digest.finalize().into()))
}

/// A body that could not be read to its end.
fn broken(error: &axum::Error) -> ApiError {
    let too_long =
        std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>);
    if too_long {
        ApiError::TooLarge
    } else {
        ApiError::Malformed("The body broke off.".into())
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner();
        if cause.is_data() {
            ApiError::field(if path == "." { "body" } else { &path }, cause)
        } else {
            ApiError::Malformed(format!("The body is not JSON: {cause}"))
        }
    })?;
    reader
        .end()
        .map_err(|error| ApiError::Malformed(format!("The body is not JSON: {error}")))?;
    Ok(value)
}

/// An id in the address. One that is none belongs to nothing.
#[derive(Debug, Clone, Copy)]
pub struct Id(pub Uuid);

impl FromRequestParts<App> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Path(id) = Path::<Uuid>::from_request_parts(parts, app)
            .await
            .map_err(|_| ApiError::NotFound)?;
        Ok(Self(id))
    }
}

/// Which part of a list is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `next_cursor` of the page before; the first page without it.
    pub cursor: Option<String>,
    /// Rows of the page, 1 to 100; 20 if absent.
    pub limit: Option<String>,
}

/// A checked [`PageQuery`].
#[derive(Debug, Clone, Copy)]
pub struct Paging(pub PageRequest);

impl FromRequestParts<App> for Paging {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let query = Query::<PageQuery>::from_request_parts(parts, app).await;
        let Query(query) = query.map_err(|error| ApiError::Malformed(error.body_text()))?;
        let limit = query.limit.map(|text| text.parse::<u16>()).transpose();
        let limit = limit.map_err(|_| ApiError::field("limit", "must be a whole number"))?;
        PageRequest::parse(query.cursor.as_deref(), limit)
            .map(Self)
            .map_err(|(field, problem)| ApiError::field(field, problem))
    }
}

/// The time limit of a request and the writes that its caller wants to see, before anybody is known.
#[derive(Debug, Clone, Copy)]
pub struct Unscoped(pub Scope);

impl FromRequestParts<App> for Unscoped {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        unscoped(app, &parts.headers, &parts.extensions).map(Self)
    }
}

/// The scope of a request whose caller is not known.
pub(super) fn unscoped(app: &App, headers: &HeaderMap, extensions: &Extensions) -> Result<Scope, ApiError> {
    let deadline = extensions.get::<Deadline>().map_or_else(
        || Instant::now() + app.config().http.request_timeout.get(),
        |deadline| deadline.0,
    );
    let at_least = match headers.get(CONSISTENCY_TOKEN) {
        None => None,
        Some(token) => {
            let position = token
                .to_str()
                .ok()
                .and_then(|token| Position::from_token(token, app.keys()));
            Some(position.ok_or_else(|| {
                ApiError::Malformed("X-Consistency-Token is not one that this API gave out.".to_owned())
            })?)
        }
    };
    Ok(Scope {
        tenant: None,
        deadline,
        at_least,
        primary_only: false,
    })
}

/// The person who calls, and the scope of what is done for that person.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub person: Principal,
    /// In the person's tenant.
    pub scope: Scope,
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    /// The gate has put the caller there; a route for everybody has none.
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| ApiError::Internal("a public route asks for its caller".to_owned()))
    }
}

/// A caller who may change something. The route's permission says so too; this says it in the handler's signature.
#[derive(Debug, Clone)]
pub struct Writer(pub Caller);

impl FromRequestParts<App> for Writer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        if caller.person.may(Permission::Write) {
            Ok(Self(caller))
        } else {
            Err(ApiError::Forbidden("Your role may only read."))
        }
    }
}

/// A caller who operates the whole platform, beside what the caller is in a tenant.
#[derive(Debug, Clone)]
pub struct Operator(pub Caller);

impl FromRequestParts<App> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        if caller.person.may(Permission::Operate) {
            Ok(Self(caller))
        } else {
            Err(ApiError::Forbidden("Only operators of the platform may do this."))
        }
    }
}

/// The parameters of an address.
pub fn query<T: DeserializeOwned>(uri: &axum::http::Uri) -> Result<T, ApiError> {
    let Query(query) =
        Query::<T>::try_from_uri(uri).map_err(|error| ApiError::Malformed(error.body_text()))?;
    Ok(query)
}

/// How long the primary is asked about a token that a replica knows, before the replica is believed.
const PRIMARY: Duration = Duration::from_millis(500);

/// Whose access token this is, and how long it took to learn that.
pub async fn find_session(app: &App, token: &Token, scope: Scope) -> Result<Option<Principal>, ApiError> {
    let started = Instant::now();
    let found = validate(app, token, scope).await;
    let histogram = &app.metrics().access.validation;
    histogram.observe(started.elapsed().as_secs_f64());
    found
}

/// From the cache of this process, else by one query, or two when a replica may not have a session yet that was just made, or may not
/// know of a change that this process has learned of.
async fn validate(app: &App, token: &Token, scope: Scope) -> Result<Option<Principal>, ApiError> {
    let config = app.config();
    let hash = token.hash(app.keys());
    let ttl = config
        .cache
        .ttl
        .tokens
        .get()
        .min(config.cache.ttl.permissions.get());
    if config.cache.enabled
        && let Some(known) = app.tokens().get(&hash, ttl, Instant::now(), clock::now())
    {
        return Ok(known);
    }
    let started = Instant::now();
    let find = FindSession(hash);
    let (found, served) = app.database().read(&scope, &find).await?;
    // A replica shows what was true so long ago, at the most.
    let shown = started.checked_sub(config.database.max_replica_lag.get());
    let (person, as_of) = match (found, shown) {
        (found, _) if served.role == Role::Primary => (found, started),
        (Some(person), Some(shown)) if app.tokens().holds(person.user_id, shown) => (Some(person), shown),
        (found, shown) => {
            let started = Instant::now();
            let mut primary = Scope {
                primary_only: true,
                ..scope
            };
            if found.is_some() {
                primary.deadline = scope.deadline.min(started + PRIMARY);
            }
            match (app.database().read(&primary, &find).await, found, shown) {
                (Ok((found, _)), ..) => (found, started),
                // Nobody can revoke a token while there is no primary.
                (Err(_), Some(person), Some(shown)) if !app.tokens().changed_since(person.user_id, shown) => {
                    return Ok(Some(person));
                }
                (Err(error), ..) => return Err(error.into()),
            }
        }
    };
    if config.cache.enabled {
        let entry = Entry {
            person: person.clone(),
            as_of,
        };
        app.tokens().put(hash, entry);
    }
    Ok(person)
}

/// The header `Idempotency-Key`.
#[derive(Debug, Clone)]
pub struct Key(Option<String>);

impl FromRequestParts<App> for Key {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get("idempotency-key") else {
            return Ok(Self(None));
        };
        let key = value.to_str().unwrap_or_default();
        let sound = (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if sound {
            Ok(Self(Some(key.to_owned())))
        } else {
            Err(ApiError::field(
                "Idempotency-Key",
                "must have 1 to 255 printable ASCII characters",
            ))
        }
    }
}

impl Key {
    /// The key for a request with this body.
    pub fn of<T>(self, caller: &Caller, body: &Body<T>) -> Option<Idempotency> {
        let user_id = caller.person.user_id;
        self.0.map(|key| Idempotency {
            user_id,
            key,
            fingerprint: body.digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sample {
        #[expect(dead_code, reason = "only whether it can be read matters")]
        count: u8,
    }

    #[test]
    fn a_wrong_field_is_named() {
        let Err(ApiError::Invalid(errors)) = parse::<Sample>(br#"{"count":"x"}"#) else {
            panic!("accepted")
        };
        assert_eq!(errors[0].field, "count");
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        for body in ["", "{", r#"{"count":1} x"#] {
            assert!(
                matches!(parse::<Sample>(body.as_bytes()), Err(ApiError::Malformed(_))),
                "{body}"
            );
        }
    }
}
