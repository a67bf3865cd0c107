//! The plan catalogue: public to read, written by who operates the platform.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::cache::Found;
use crate::domain::plan::{Plan, PlanDraft, PlanRequest};
use crate::domain::tariff::region::Region;
use crate::entropy;
use crate::http::answer::{Answer, Kept};
use crate::http::error::{ApiError, Fields, Problem};
use crate::http::extract::{Body, Id, Key, Operator, Unscoped, query};
use crate::routing::Scope;
use crate::store::plans::{FindPlan, ListPlans, SavePlan};

/// What browsers and proxies may keep. It is shared by everybody, and a change is seen within a minute.
const PUBLIC: HeaderValue =
    HeaderValue::from_static("public, max-age=60, stale-while-revalidate=300, stale-if-error=3600");

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(catalog))
        .routes(routes!(find, change))
        .routes(routes!(offer))
}

/// Which plans are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RegionQuery {
    /// Only plans that are sold here, such as `DE` or `US-CA`.
    pub region: Option<String>,
}

/// Active plans, the greenest first, at most 500. Public, with `ETag`.
#[utoipa::path(get, path = "/plans/catalog", tag = "plans", security(()), params(RegionQuery), responses(
    (status = 200, body = Vec<Plan>),
    (status = 304, description = "It has not changed"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn catalog(
    State(app): State<App>,
    Unscoped(scope): Unscoped,
    headers: HeaderMap,
    uri: axum::http::Uri,
) -> Result<Response, ApiError> {
    let RegionQuery { region } = query(&uri)?;
    let region = region.as_deref().map(Region::parse).transpose();
    let list = ListPlans {
        region: region.map_err(|problem| ApiError::field("region", problem))?,
    };
    Ok(tagged(app.cache().read(&scope, &list).await?, &headers))
}

/// One plan. Public, with `ETag`.
#[utoipa::path(get, path = "/plans/{id}", tag = "plans", security(()), params(("id" = uuid::Uuid, Path)), responses(
    (status = 200, body = Plan),
    (status = 304, description = "It has not changed"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn find(
    State(app): State<App>,
    Unscoped(scope): Unscoped,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    Ok(tagged(app.cache().read(&scope, &FindPlan(id)).await?, &headers))
}

/// Offers a plan.
#[utoipa::path(post, path = "/plans", tag = "plans", security(("bearer" = ["operate"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for a day")),
    request_body = PlanRequest, responses(
    (status = 201, body = Plan),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn offer(
    State(app): State<App>,
    Operator(caller): Operator,
    key: Key,
    body: Body<PlanRequest>,
) -> Result<Answer<Plan>, ApiError> {
    let key = key.of(&caller, &body);
    let save = SavePlan {
        id: entropy::id(),
        draft: parse(body.value)?,
        exists: false,
    };
    let written = app.database().write_once(caller.scope, save, key).await?;
    let address = format!("/api/v1/plans/{}", written.output.id);
    Ok(Answer::written(&app, StatusCode::CREATED, written).located(address))
}

/// Changes a plan; one that is no longer offered is made inactive.
#[utoipa::path(put, path = "/plans/{id}", tag = "plans", security(("bearer" = ["operate"])), params(("id" = uuid::Uuid, Path)),
    request_body = PlanRequest, responses(
    (status = 200, body = Plan),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn change(
    State(app): State<App>,
    Operator(caller): Operator,
    Id(id): Id,
    body: Body<PlanRequest>,
) -> Result<Answer<Plan>, ApiError> {
    let save = SavePlan {
        id,
        draft: parse(body.value)?,
        exists: true,
    };
    let scope = Scope {
        tenant: None,
        ..caller.scope
    };
    let written = app.database().write(scope, save).await?;
    Ok(Answer::written(&app, StatusCode::OK, written))
}

fn parse(request: PlanRequest) -> Result<PlanDraft, ApiError> {
    PlanDraft::parse(request).map_err(|problems| {
        let mut fields = Fields::default();
        for (field, problem) in problems {
            fields.check::<()>(field, Err(problem));
        }
        fields.into_error()
    })
}

/// A public answer, or 304 if the caller has it already.
fn tagged(found: Found, headers: &HeaderMap) -> Response {
    let digest = Sha256::digest(&found.json);
    let tag = digest[..12]
        .iter()
        .fold("\"".to_owned(), |tag, byte| tag + &format!("{byte:02x}"))
        + "\"";
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let same = known.is_some_and(|known| matches(known, &tag));
    let mut response = if same {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Kept(found).into_response()
    };
    response.headers_mut().insert(header::CACHE_CONTROL, PUBLIC);
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Whether a list of `If-None-Match` has this tag, by weak comparison.
fn matches(known: &str, tag: &str) -> bool {
    known
        .split(',')
        .map(str::trim)
        .any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_compare_weakly() {
        assert!(matches("\"a\", W/\"b\"", "\"b\"") && matches("*", "\"b\""));
        assert!(!matches("\"a\"", "\"b\"") && !matches("", "\"b\""));
    }
}
