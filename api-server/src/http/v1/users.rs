//! The caller's own profile and settings.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::domain::account::Name;
use crate::domain::settings::{Settings, locale, timezone};
use crate::http::answer::{Answer, Kept};
use crate::http::error::{ApiError, Fields, Problem};
use crate::http::extract::{Body, Caller};
use crate::store::accounts::{FindUser, User};
use crate::store::people::{FindSettings, PutSettings, RenameSelf};

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(profile, change))
        .routes(routes!(settings, put_settings))
}

/// The caller's new name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileRequest {
    /// One line of at most 200 characters.
    pub name: String,
}

/// The caller's profile.
#[utoipa::path(get, path = "/users/profile", tag = "users", security(("bearer" = ["read"])), responses(
    (status = 200, body = User),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
async fn profile(State(app): State<App>, caller: Caller) -> Result<Kept, ApiError> {
    let find = FindUser(caller.person.user_id);
    Ok(Kept(app.cache().read(&caller.scope, &find).await?))
}

/// Changes the caller's name.
#[utoipa::path(patch, path = "/users/profile", tag = "users", security(("bearer" = ["write"])), request_body = ProfileRequest,
    responses(
    (status = 200, body = User),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    body: Body<ProfileRequest>,
) -> Result<Answer<User>, ApiError> {
    let name = Name::parse(&body.value.name).map_err(|problem| ApiError::field("name", problem))?;
    let rename = RenameSelf {
        user_id: caller.person.user_id,
        name,
    };
    let written = app.database().write(caller.scope, rename).await?;
    Ok(Answer::written(&app, StatusCode::OK, written))
}

/// The caller's settings.
#[utoipa::path(get, path = "/users/settings", tag = "users", security(("bearer" = ["read"])), responses(
    (status = 200, body = Settings),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
async fn settings(State(app): State<App>, caller: Caller) -> Result<Answer<Settings>, ApiError> {
    let find = FindSettings(caller.person.user_id);
    Ok(Answer::read(app.database().read(&caller.scope, &find).await?))
}

/// Replaces the caller's settings. These are not data of the tenant, so a viewer may too.
#[utoipa::path(put, path = "/users/settings", tag = "users", security(("bearer" = ["read"])), request_body = Settings, responses(
    (status = 200, body = Settings),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn put_settings(
    State(app): State<App>,
    caller: Caller,
    body: Body<Settings>,
) -> Result<Answer<Settings>, ApiError> {
    let wanted = body.value;
    let mut fields = Fields::default();
    let locale = fields.check("locale", locale(&wanted.locale));
    let timezone = fields.check("timezone", timezone(&wanted.timezone));
    let (Some(locale), Some(timezone)) = (locale, timezone) else {
        return Err(fields.into_error());
    };
    let put = PutSettings {
        user_id: caller.person.user_id,
        settings: Settings {
            locale,
            timezone,
            ..wanted
        },
    };
    let written = app.database().write(caller.scope, put).await?;
    Ok(Answer::written(&app, StatusCode::OK, written))
}
