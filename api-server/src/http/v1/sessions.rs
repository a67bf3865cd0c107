//! The caller's own sessions and password.

use axum::extract::State;
use axum::http::StatusCode;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::domain::account::{Email, NewPassword};
use crate::domain::token::{Kind, Token};
use crate::entropy;
use crate::hashing::Verdict;
use crate::http::answer::{Answer, List};
use crate::http::client::Client;
use crate::http::error::{ApiError, Problem};
use crate::http::extract::{Body, Caller, Id, PageQuery, Paging};
use crate::store::accounts::{FindCredentials, FindUser};
use crate::store::sessions::{ChangePassword, ListSessions, LogOut, LogOutEverywhere, MakeTicket, Session};

/// How long a ticket for a WebSocket is good.
const TICKET_TTL: std::time::Duration = std::time::Duration::from_secs(30);

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(logout))
        .routes(routes!(logout_all))
        .routes(routes!(ws_ticket))
        .routes(routes!(list))
        .routes(routes!(end))
        .routes(routes!(password))
}

/// A ticket that opens one WebSocket.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ticket {
    /// The ticket, for the first frame.
    pub ticket: String,
    /// Seconds until it ends.
    pub expires_in: u64,
}

/// The present password and the next one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordRequest {
    /// The present password.
    #[schema(value_type = String, format = Password)]
    pub current_password: SecretString,
    /// The next one, of at least eight characters.
    #[schema(value_type = String, format = Password)]
    pub new_password: SecretString,
}

/// Ends the session; its sockets close.
#[utoipa::path(post, path = "/auth/logout", tag = "auth", security(("bearer" = ["read"])), responses(
    (status = 204, description = "The session has ended"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
async fn logout(
    State(app): State<App>,
    caller: Caller,
    Client(origin): Client,
) -> Result<Answer<()>, ApiError> {
    let person = &caller.person;
    let end = LogOut {
        session_id: person.session_id,
        user_id: person.user_id,
        origin,
    };
    let written = app.database().write(caller.scope, end).await?;
    Ok(Answer::written(&app, StatusCode::NO_CONTENT, written).empty())
}

/// Ends all sessions of the caller, on all devices.
#[utoipa::path(post, path = "/auth/logout-all", tag = "auth", security(("bearer" = ["read"])), responses(
    (status = 204, description = "All sessions have ended"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
async fn logout_all(
    State(app): State<App>,
    caller: Caller,
    Client(origin): Client,
) -> Result<Answer<()>, ApiError> {
    let end = LogOutEverywhere {
        user_id: caller.person.user_id,
        origin,
    };
    let written = app.database().write(caller.scope, end).await?;
    let answer = Answer::written(&app, StatusCode::NO_CONTENT, written);
    Ok(answer.map(|_| ()).empty())
}

/// A ticket that opens one WebSocket within 30 seconds.
#[utoipa::path(post, path = "/auth/ws-ticket", tag = "auth", security(("bearer" = ["read"])), responses(
    (status = 201, body = Ticket),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
async fn ws_ticket(State(app): State<App>, caller: Caller) -> Result<Answer<Ticket>, ApiError> {
    let ticket = Token::new(Kind::Ticket, entropy::bytes());
    let make = MakeTicket {
        session_id: caller.person.session_id,
        hash: ticket.hash(app.keys()),
        ttl: TICKET_TTL,
    };
    let written = app.database().write(caller.scope, make).await?;
    let answer = Answer::written(&app, StatusCode::CREATED, written);
    Ok(answer.map(|()| Ticket {
        ticket: ticket.reveal().to_owned(),
        expires_in: TICKET_TTL.as_secs(),
    }))
}

/// The caller's sessions that can still be used, the newest first.
#[utoipa::path(get, path = "/auth/sessions", tag = "auth", security(("bearer" = ["read"])), params(PageQuery), responses(
    (status = 200, body = List<Session>),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Paging(page): Paging,
) -> Result<Answer<List<Session>>, ApiError> {
    let list = ListSessions {
        user_id: caller.person.user_id,
        current: caller.person.session_id,
        page,
    };
    Ok(Answer::read(app.database().read(&caller.scope, &list).await?).map(List::from))
}

/// Ends one of the caller's sessions.
#[utoipa::path(delete, path = "/auth/sessions/{id}", tag = "auth", security(("bearer" = ["read"])),
    params(("id" = uuid::Uuid, Path)), responses(
    (status = 204, description = "It has ended"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn end(
    State(app): State<App>,
    caller: Caller,
    Client(origin): Client,
    Id(session_id): Id,
) -> Result<Answer<()>, ApiError> {
    let end = LogOut {
        session_id,
        user_id: caller.person.user_id,
        origin,
    };
    let written = app.database().write(caller.scope, end).await?;
    Ok(Answer::written(&app, StatusCode::NO_CONTENT, written).empty())
}

/// Changes the password. All other sessions end.
#[utoipa::path(post, path = "/auth/password", tag = "auth", security(("bearer" = ["read"])), request_body = PasswordRequest,
    responses(
    (status = 204, description = "It is changed; all other sessions have ended"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
    (status = 429, body = Problem, content_type = "application/problem+json"),
))]
async fn password(
    State(app): State<App>,
    caller: Caller,
    Client(origin): Client,
    body: Body<PasswordRequest>,
) -> Result<Answer<()>, ApiError> {
    let person = &caller.person;
    let (user, _) = app
        .database()
        .read(&caller.scope, &FindUser(person.user_id))
        .await?;
    let email = Email::parse(&user.email).map_err(|problem| ApiError::Internal(problem.to_string()))?;
    let new = NewPassword::parse(&body.value.new_password, Some(&email))
        .map_err(|problem| ApiError::field("new_password", problem))?;
    let attempt = super::auth::begin_attempt(&app, &email, &origin).await?;
    let (found, _) = app
        .database()
        .read(&caller.scope, &FindCredentials(email))
        .await?;
    let stored = found.map(|account| account.password_hash);
    let verdict = app.hashing().verify(body.value.current_password, stored).await?;
    if verdict == Verdict::Wrong {
        return Err(ApiError::field("current_password", "is not the password"));
    }
    attempt.succeeded().await;
    let change = ChangePassword {
        user_id: person.user_id,
        session_id: person.session_id,
        password_hash: app.hashing().hash(new.secret().clone()).await?,
        origin,
    };
    let written = app.database().write(caller.scope, change).await?;
    Ok(Answer::written(&app, StatusCode::NO_CONTENT, written).empty())
}
