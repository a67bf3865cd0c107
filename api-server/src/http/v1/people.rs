//! People of the tenant, for those who manage them.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::domain::Unacceptable;
use crate::domain::account::{Email, Name, NewPassword};
use crate::domain::membership::Change;
use crate::domain::principal::Role;
use crate::domain::token::{Kind, Token};
use crate::entropy;
use crate::http::answer::{Answer, List};
use crate::http::client::Client;
use crate::http::error::{ApiError, Fields, Problem};
use crate::http::extract::{Body, Caller, Id, Key, PageQuery, Paging};
use crate::store::invitations::Invite;
use crate::store::people::{ChangeMember, CreateMember, ListMembers, Member};
use crate::store::tenants::Invitation;

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(change))
        .routes(routes!(invite))
}

/// Which people.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MembersQuery {
    /// `true`: also those who may not log in.
    pub include_inactive: Option<String>,
}

/// An account to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberRequest {
    /// Address; one account has it.
    pub email: String,
    /// Name.
    pub name: String,
    /// The first password, of at least eight characters.
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
    /// What the person may do; `member` if absent.
    pub role: Option<Role>,
}

/// What to change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberChange {
    /// The new role.
    pub role: Option<Role>,
    /// Whether the person may log in. Locking ends all sessions at once.
    pub is_active: Option<bool>,
}

/// Whom to invite.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InvitationRequest {
    /// Address; only it can take the invitation.
    pub email: String,
    /// As what; `member` if absent, never as an owner.
    pub role: Option<Role>,
}

/// An invitation and what takes it.
#[derive(Debug, Serialize, ToSchema)]
pub struct InvitationAnswer {
    /// The invitation.
    #[serde(flatten)]
    pub invitation: Invitation,
    /// For `invitation` in `POST /auth/signup`; pass it on to the person. It is shown here and nowhere else.
    pub token: String,
}

/// People of the tenant with their settings, the newest first.
#[utoipa::path(get, path = "/tenant/users", tag = "tenant", security(("bearer" = ["manage"])), params(PageQuery, MembersQuery),
    responses(
    (status = 200, body = List<Member>),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Paging(page): Paging,
    query: Result<Query<MembersQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Answer<List<Member>>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::Malformed(error.body_text()))?;
    let include_inactive = query.include_inactive.map(|text| text.parse()).transpose();
    let list = ListMembers {
        include_inactive: include_inactive
            .map_err(|_| ApiError::field("include_inactive", "must be true or false"))?
            .unwrap_or(false),
        page,
    };
    Ok(Answer::read(app.database().read(&caller.scope, &list).await?).map(List::from))
}

/// Makes an account in the tenant.
#[utoipa::path(post, path = "/tenant/users", tag = "tenant", security(("bearer" = ["manage"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for a day")),
    request_body = MemberRequest, responses(
    (status = 201, body = Member),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "The address has an account", body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Client(origin): Client,
    key: Key,
    body: Body<MemberRequest>,
) -> Result<Answer<Member>, ApiError> {
    let wanted = &body.value;
    let mut fields = Fields::default();
    let email = fields.check("email", Email::parse(&wanted.email));
    let password = NewPassword::parse(&wanted.password, email.as_ref());
    let password = fields.check("password", password);
    let name = fields.check("name", Name::parse(&wanted.name));
    let role = wanted.role.unwrap_or(Role::Member);
    let (Some(email), Some(password), Some(name)) = (email, password, name) else {
        return Err(fields.into_error());
    };
    if role == Role::Owner && caller.person.role != Role::Owner {
        return Err(ApiError::Forbidden("Only an owner may make an owner."));
    }
    let key = key.of(&caller, &body);
    let create = CreateMember {
        actor_id: caller.person.user_id,
        origin,
        id: entropy::id(),
        email,
        name,
        role,
        password_hash: app.hashing().hash(password.secret().clone()).await?,
    };
    let written = app.database().write_once(caller.scope, create, key).await?;
    Ok(Answer::written(&app, StatusCode::CREATED, written))
}

/// Changes what a person may do, or whether the person may log in.
#[utoipa::path(patch, path = "/tenant/users/{id}", tag = "tenant", security(("bearer" = ["manage"])),
    params(("id" = uuid::Uuid, Path)), request_body = MemberChange, responses(
    (status = 200, body = Member),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "The tenant would be without an owner", body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    Client(origin): Client,
    Id(id): Id,
    body: Body<MemberChange>,
) -> Result<Answer<Member>, ApiError> {
    let MemberChange { role, is_active } = body.value;
    if role.is_none() && is_active.is_none() {
        return Err(ApiError::field("role", "or is_active must be given"));
    }
    let change = ChangeMember {
        actor: caller.person,
        origin,
        id,
        change: Change { role, is_active },
    };
    let written = app.database().write(caller.scope, change).await?;
    Ok(Answer::written(&app, StatusCode::OK, written))
}

/// Invites somebody. The answer carries the token; nothing is sent.
#[utoipa::path(post, path = "/tenant/invitations", tag = "tenant", security(("bearer" = ["manage"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for a day")),
    request_body = InvitationRequest, responses(
    (status = 201, body = InvitationAnswer),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn invite(
    State(app): State<App>,
    caller: Caller,
    Client(origin): Client,
    key: Key,
    body: Body<InvitationRequest>,
) -> Result<Answer<InvitationAnswer>, ApiError> {
    let mut fields = Fields::default();
    let email = fields.check("email", Email::parse(&body.value.email));
    let role = match body.value.role.unwrap_or(Role::Member) {
        Role::Owner => Err(Unacceptable(
            "must not be owner; change the role later".to_owned(),
        )),
        role => Ok(role),
    };
    let role = fields.check("role", role);
    let (Some(email), Some(role)) = (email, role) else {
        return Err(fields.into_error());
    };
    let key = key.of(&caller, &body);
    let id = entropy::id();
    let invite = Invite {
        actor_id: caller.person.user_id,
        origin,
        id,
        email,
        role,
        ttl: app.config().auth.invitation_ttl.get(),
        hash: token(&app, id).hash(app.keys()),
    };
    let written = app.database().write_once(caller.scope, invite, key).await?;
    let token = token(&app, written.output.id);
    let answer = Answer::written(&app, StatusCode::CREATED, written);
    Ok(answer.map(|invitation| InvitationAnswer {
        invitation,
        token: token.reveal().to_owned(),
    }))
}

/// The token of an invitation: it follows from the id, so the answer to a repeated request carries the same one.
fn token(app: &App, id: Uuid) -> Token {
    Token::new(Kind::Invitation, app.keys().invitation(id))
}
