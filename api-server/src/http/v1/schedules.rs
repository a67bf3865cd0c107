//! Schedules of syncs.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::syncs::SyncRequest;
use super::tasks::viewer;
use crate::app::App;
use crate::clock;
use crate::domain::schedule::Schedule as Cron;
use crate::domain::tariff::zone;
use crate::entropy;
use crate::http::answer::{Answer, List};
use crate::http::error::{ApiError, Fields, Problem};
use crate::http::extract::{Body, Caller, Id, Key, PageQuery, Paging, Writer};
use crate::store::schedules::{CreateSchedule, DeleteSchedule, ListSchedules, Schedule};

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(delete))
}

/// A schedule to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRequest {
    /// Minute, hour, day of the month, month, day of the week: `*/5 * * * *`.
    pub cron: String,
    /// Time zone, as the IANA database names it; `UTC` if absent.
    pub timezone: Option<String>,
    /// What to copy from where; the caller's default sync if absent.
    #[serde(default)]
    pub sync: SyncRequest,
}

/// The caller's schedules, newest first; managers see those of the tenant.
#[utoipa::path(get, path = "/schedules", tag = "syncs", security(("bearer" = ["read"])), params(PageQuery), responses(
    (status = 200, body = List<Schedule>),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Paging(page): Paging,
) -> Result<Answer<List<Schedule>>, ApiError> {
    let list = ListSchedules {
        viewer: viewer(&caller),
        page,
    };
    Ok(Answer::read(app.database().read(&caller.scope, &list).await?))
}

/// Runs a sync by a schedule. What is missed while nothing runs is not made up for.
#[utoipa::path(post, path = "/schedules", tag = "syncs", security(("bearer" = ["write"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for a day")),
    request_body = ScheduleRequest, responses(
    (status = 201, body = Schedule),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "The workroom is not there", body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn create(
    State(app): State<App>,
    Writer(caller): Writer,
    key: Key,
    body: Body<ScheduleRequest>,
) -> Result<Answer<Schedule>, ApiError> {
    let mut fields = Fields::default();
    let timezone = body.value.timezone.clone().unwrap_or_else(|| "UTC".to_owned());
    let parsed = fields.check("timezone", zone::parse(&timezone));
    let cron = parsed.and_then(|zone| fields.check("cron", Cron::parse(&body.value.cron, zone)));
    let Some(cron) = cron else {
        return Err(fields.into_error());
    };
    let described = body.value.sync.parse(&app, &caller)?;
    let key = key.of(&caller, &body);
    let create = CreateSchedule {
        id: entropy::id(),
        user_id: caller.person.user_id,
        cron: body.value.cron,
        timezone,
        next_at: cron.next(clock::now()),
        described,
    };
    let written = app.database().write_once(caller.scope, create, key).await?;
    Ok(Answer::written(&app, StatusCode::CREATED, written))
}

/// Deletes a schedule. What it has started goes on.
#[utoipa::path(delete, path = "/schedules/{id}", tag = "syncs", security(("bearer" = ["write"])), params(("id" = uuid::Uuid, Path)),
    responses(
    (status = 204, description = "It is gone"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn delete(State(app): State<App>, Writer(caller): Writer, Id(id): Id) -> Result<Answer<()>, ApiError> {
    let delete = DeleteSchedule {
        viewer: viewer(&caller),
        id,
    };
    let written = app.database().write(caller.scope, delete).await?;
    Ok(Answer::written(&app, StatusCode::NO_CONTENT, written).empty())
}
