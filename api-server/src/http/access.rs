//! The gate in front of every handler: finds what the route asks for, who calls, whether that person may, and whether too often.
//! Handlers find the caller in the request; one that forgets to ask for it is protected all the same.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::extract::{Caller, find_session, unscoped};
use super::observe::ToOperator;
use super::permission::{Access, Permissions};
use crate::app::App;
use crate::domain::token::{Kind, Token};
use crate::limits::requests::{Quota, Verdict, headers};
use crate::routing::Scope;

/// What the gate needs.
#[derive(Debug, Clone)]
pub struct Gate {
    /// The server.
    pub app: App,
    /// Permissions of all routes.
    pub permissions: Arc<Permissions>,
}

/// The layer.
pub async fn admit(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let Some(path) = request.extensions().get::<MatchedPath>() else {
        // No route; the fallback says so.
        return next.run(request).await;
    };
    let Some(access) = gate.permissions.find(path.as_str(), request.method()) else {
        let why = format!("{} is served without a permission", path.as_str());
        return ApiError::Internal(why).into_response();
    };
    if access == Access::Public {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    match authenticate(&gate.app, access, &parts).await {
        Ok(caller) => {
            let (quota, verdict) = count(&gate.app, &caller).await;
            if !verdict.allowed {
                let refused = ApiError::TooMany {
                    why: "You sent too many requests.",
                    retry_after: verdict.retry_after,
                };
                return limited(refused.into_response(), quota, verdict);
            }
            let operator = caller.person.is_operator;
            parts.extensions.insert(caller);
            let response = next.run(Request::from_parts(parts, body)).await;
            let mut response = limited(response, quota, verdict);
            if operator {
                response.extensions_mut().insert(ToOperator);
            }
            response
        }
        Err(refused) => refused.into_response(),
    }
}

/// Takes one of the caller's requests.
async fn count(app: &App, caller: &Caller) -> (Quota, Verdict) {
    let limits = &app.config().rate_limit;
    let quota = Quota {
        per_minute: limits.requests_per_minute,
        burst: limits.burst,
    };
    let key = format!("user:{}", caller.person.user_id);
    (quota, app.limiter().take(&key, quota).await)
}

/// Says how much is left.
fn limited(mut response: Response, quota: Quota, verdict: Verdict) -> Response {
    for (name, value) in headers(quota, verdict) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn authenticate(app: &App, access: Access, parts: &Parts) -> Result<Caller, ApiError> {
    let headers = &parts.headers;
    let scope = unscoped(app, headers, &parts.extensions)?;
    let token = bearer(headers)?;
    let person = find_session(app, &token, scope)
        .await?
        .ok_or(ApiError::Unauthorized("The access token is not valid, or ended."))?;
    if let Some(claimed) = headers.get("x-tenant-id")
        && claimed.to_str().ok().and_then(|text| text.parse().ok()) != Some(person.tenant_id)
    {
        return Err(ApiError::Forbidden(
            "X-Tenant-ID may only repeat the tenant of the access token.",
        ));
    }
    if !access.admits(&person) {
        return Err(ApiError::Forbidden("Your role does not allow this."));
    }
    let scope = Scope {
        tenant: Some(person.tenant_id),
        ..scope
    };
    Ok(Caller { person, scope })
}

fn bearer(headers: &HeaderMap) -> Result<Token, ApiError> {
    let text = headers
        .get(header::AUTHORIZATION)
        .ok_or(ApiError::Unauthorized(
            "Send `Authorization: Bearer` with an access token.",
        ))?
        .to_str()
        .unwrap_or_default();
    let (scheme, token) = text.split_once(' ').unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(ApiError::Unauthorized(
            "Send `Authorization: Bearer` with an access token.",
        ));
    }
    Token::parse(Kind::Access, token.trim())
        .ok_or(ApiError::Unauthorized("The access token is not valid, or ended."))
}
