//! Background work: how far it is, and what people may do about it. Everybody sees the own tasks, managers those of the tenant; what was
//! given up stays there with its reason, and can be tried again.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::domain::principal::Permission;
use crate::domain::task::TaskStatus;
use crate::http::answer::{Answer, List};
use crate::http::error::{ApiError, Problem};
use crate::http::extract::{Caller, Id, PageQuery, Paging, Writer, query};
use crate::store::tasks::{CancelTask, FindTask, ListTasks, RetryTask, Task, Viewer};

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(find))
        .routes(routes!(retry))
        .routes(routes!(cancel))
}

/// Which tasks are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StatusQuery {
    /// Only tasks that are so far: queued, running, succeeded, failed or cancelled.
    pub status: Option<String>,
}

/// As what the caller looks at tasks.
pub fn viewer(caller: &Caller) -> Viewer {
    Viewer {
        user_id: caller.person.user_id,
        manages: caller.person.may(Permission::Manage),
    }
}

/// Tasks, newest first. Those with the status `failed` were given up.
#[utoipa::path(get, path = "/tasks", tag = "tasks", security(("bearer" = ["read"])), params(PageQuery, StatusQuery), responses(
    (status = 200, body = List<Task>),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Paging(page): Paging,
    uri: axum::http::Uri,
) -> Result<Answer<List<Task>>, ApiError> {
    let StatusQuery { status } = query(&uri)?;
    let status = status.map(|text| text.parse::<TaskStatus>()).transpose();
    let list = ListTasks {
        viewer: viewer(&caller),
        status: status.map_err(|problem| ApiError::field("status", problem))?,
        page,
    };
    Ok(Answer::read(app.database().read(&caller.scope, &list).await?))
}

/// How far a task is.
#[utoipa::path(get, path = "/tasks/{id}", tag = "tasks", security(("bearer" = ["read"])), params(("id" = uuid::Uuid, Path)), responses(
    (status = 200, body = Task),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn find(State(app): State<App>, caller: Caller, Id(id): Id) -> Result<Answer<Task>, ApiError> {
    let find = FindTask {
        viewer: viewer(&caller),
        id,
        of_default: true,
    };
    Ok(Answer::read(app.database().read(&caller.scope, &find).await?))
}

/// Tries a task again that failed or was cancelled.
#[utoipa::path(post, path = "/tasks/{id}/retry", tag = "tasks", security(("bearer" = ["write"])), params(("id" = uuid::Uuid, Path)),
    responses(
    (status = 202, body = Task),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
))]
async fn retry(State(app): State<App>, Writer(caller): Writer, Id(id): Id) -> Result<Answer<Task>, ApiError> {
    let retry = RetryTask {
        viewer: viewer(&caller),
        id,
    };
    let written = app.database().write(caller.scope, retry).await?;
    Ok(Answer::written(&app, StatusCode::ACCEPTED, written))
}

/// Ends a task: at once if it waits, within seconds if it runs. What it has done stays.
#[utoipa::path(post, path = "/tasks/{id}/cancel", tag = "tasks", security(("bearer" = ["write"])), params(("id" = uuid::Uuid, Path)),
    responses(
    (status = 202, body = Task),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
))]
async fn cancel(
    State(app): State<App>,
    Writer(caller): Writer,
    Id(id): Id,
) -> Result<Answer<Task>, ApiError> {
    let cancel = CancelTask {
        viewer: viewer(&caller),
        id,
    };
    let written = app.database().write(caller.scope, cancel).await?;
    Ok(Answer::written(&app, StatusCode::ACCEPTED, written))
}
