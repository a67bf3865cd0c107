//! Accounts and sessions.

use axum::extract::State;
use axum::http::StatusCode;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::domain::account::{Email, Name, NewPassword};
use crate::domain::token::{Kind, Token};
use crate::entropy;
use crate::hashing::Verdict;
use crate::http::answer::Answer;
use crate::http::error::{ApiError, Fields, Problem};
use crate::http::extract::{Body, Caller, Unscoped};
use crate::routing::{Scope, StoreError, Written};
use crate::store::accounts::{FindCredentials, FindUser, SignUp, User};
use crate::store::sessions::{
    FindRefresh, LogIn, LogOut, MakeTicket, NewSession, Refresh, Refreshed, TokenPair,
};

/// How long a ticket for a WebSocket is good.
const TICKET_TTL: std::time::Duration = std::time::Duration::from_secs(30);

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(signup))
        .routes(routes!(login))
        .routes(routes!(me))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(ws_ticket))
}

/// A new tenant and its owner.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SignupRequest {
    /// Address; one account has it.
    pub email: String,
    /// At least eight characters.
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
    /// Name of the person.
    pub name: String,
    /// Name of the tenant; that of the person if absent.
    pub tenant_name: Option<String>,
}

/// An address and its password.
#[derive(Debug, Deserialize, ToSchema)]
pub struct LoginRequest {
    /// Address.
    pub email: String,
    /// Password.
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
}

/// A refresh token.
#[derive(Debug, Deserialize, ToSchema)]
pub struct RefreshRequest {
    /// The token; it works once.
    #[schema(value_type = String)]
    pub refresh_token: SecretString,
}

/// A session's tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct Tokens {
    /// Proves who calls, in `Authorization: Bearer`.
    pub access_token: String,
    /// The same as `access_token`.
    pub token: String,
    /// Exchanged once for new tokens.
    pub refresh_token: String,
    /// Seconds until the access token ends.
    pub expires_in: u64,
    /// Always `Bearer`.
    pub token_type: &'static str,
}

/// A new account, logged in.
#[derive(Debug, Serialize, ToSchema)]
pub struct SignupAnswer {
    /// The person.
    pub user: User,
    /// The first session's tokens.
    #[serde(flatten)]
    pub tokens: Tokens,
}

/// A ticket that opens one WebSocket.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ticket {
    /// The ticket, for the first frame.
    pub ticket: String,
    /// Seconds until it ends.
    pub expires_in: u64,
}

/// Tokens before they are stored: the texts for the client, the hashes for the table.
struct Minted {
    access: Token,
    refresh: Token,
    pair: TokenPair,
}

impl Minted {
    fn new(app: &App) -> Self {
        let access = Token::new(Kind::Access, entropy::bytes());
        let refresh = Token::new(Kind::Refresh, entropy::bytes());
        let auth = &app.config().auth;
        let pair = TokenPair {
            access: access.hash(app.keys()),
            access_ttl: auth.access_token_ttl.get(),
            refresh: refresh.hash(app.keys()),
            refresh_ttl: auth.refresh_token_ttl.get(),
        };
        Self {
            access,
            refresh,
            pair,
        }
    }

    fn answer(&self) -> Tokens {
        Tokens {
            access_token: self.access.reveal().to_owned(),
            token: self.access.reveal().to_owned(),
            refresh_token: self.refresh.reveal().to_owned(),
            expires_in: self.pair.access_ttl.as_secs(),
            token_type: "Bearer",
        }
    }
}

/// Makes a tenant and its owner, and logs the owner in.
#[utoipa::path(post, path = "/auth/signup", tag = "auth", security(()), request_body = SignupRequest, responses(
    (status = 201, body = SignupAnswer),
    (status = 409, description = "The address has an account", body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
async fn signup(
    State(app): State<App>,
    Unscoped(scope): Unscoped,
    body: Body<SignupRequest>,
) -> Result<Answer<SignupAnswer>, ApiError> {
    let request = body.value;
    let mut fields = Fields::default();
    let email = fields.check("email", Email::parse(&request.email));
    let password = fields.check("password", NewPassword::parse(&request.password, email.as_ref()));
    let name = fields.check("name", Name::parse(&request.name));
    let tenant = request.tenant_name.as_deref().unwrap_or(&request.name);
    let tenant_name = fields.check("tenant_name", Name::parse(tenant));
    let (Some(email), Some(password), Some(name), Some(tenant_name)) = (email, password, name, tenant_name)
    else {
        return Err(fields.into_error());
    };
    let password_hash = app.hashing().hash(password.secret().clone()).await?;
    let minted = Minted::new(&app);
    let (tenant_id, user_id) = (entropy::id(), entropy::id());
    let session = NewSession {
        id: entropy::id(),
        user_id,
        tokens: minted.pair,
    };
    let signup = SignUp {
        tenant_id,
        tenant_name,
        user_id,
        email,
        name,
        password_hash,
        session,
    };
    let scope = Scope {
        tenant: Some(tenant_id),
        ..scope
    };
    let written = app
        .database()
        .write(scope, signup)
        .await
        .map_err(|error| match error {
            StoreError::Taken(_) => ApiError::Conflict("An account with this address exists already."),
            other => other.into(),
        })?;
    let answer = Answer::written(&app, StatusCode::CREATED, written);
    Ok(answer.map(|user| SignupAnswer {
        user,
        tokens: minted.answer(),
    }))
}

/// Begins a session.
#[utoipa::path(post, path = "/auth/login", tag = "auth", security(()), request_body = LoginRequest, responses(
    (status = 200, body = Tokens),
    (status = 401, description = "Wrong address or password", body = Problem, content_type = "application/problem+json"),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
async fn login(
    State(app): State<App>,
    Unscoped(scope): Unscoped,
    body: Body<LoginRequest>,
) -> Result<Answer<Tokens>, ApiError> {
    const REFUSED: ApiError = ApiError::Unauthorized("The address or the password is wrong.");
    let found = match Email::parse(&body.value.email) {
        Ok(email) => find_credentials(&app, scope, email).await?,
        Err(_) => None,
    };
    let stored = found.as_ref().map(|account| account.password_hash.clone());
    let verdict = app.hashing().verify(body.value.password, stored).await?;
    let (Verdict::Right { rehashed }, Some(account)) = (verdict, found) else {
        return Err(REFUSED);
    };
    if !account.is_active {
        return Err(REFUSED);
    }
    let minted = Minted::new(&app);
    let session = NewSession {
        id: entropy::id(),
        user_id: account.user_id,
        tokens: minted.pair,
    };
    let scope = Scope {
        tenant: Some(account.tenant_id),
        ..scope
    };
    let written = app.database().write(scope, LogIn { session, rehashed }).await?;
    Ok(Answer::written(&app, StatusCode::OK, written).map(|()| minted.answer()))
}

/// A replica may not have an account yet that was just made, so a miss is asked again.
async fn find_credentials(
    app: &App,
    scope: Scope,
    email: Email,
) -> Result<Option<crate::store::accounts::Credentials>, ApiError> {
    let find = FindCredentials(email);
    let (found, _) = app.database().read(&scope, &find).await?;
    if found.is_some() {
        return Ok(found);
    }
    let (found, _) = app
        .database()
        .read(
            &Scope {
                primary_only: true,
                ..scope
            },
            &find,
        )
        .await?;
    Ok(found)
}

/// The person who calls.
#[utoipa::path(get, path = "/auth/me", tag = "auth", security(("bearer" = ["read"])), responses(
    (status = 200, body = User),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
async fn me(State(app): State<App>, caller: Caller) -> Result<Answer<User>, ApiError> {
    Ok(Answer::read(
        app.database()
            .read(&caller.scope, &FindUser(caller.person.user_id))
            .await?,
    ))
}

/// Exchanges a refresh token for new tokens. A token that comes back after it was exchanged ends its session.
#[utoipa::path(post, path = "/auth/refresh", tag = "auth", security(()), request_body = RefreshRequest, responses(
    (status = 200, body = Tokens),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
async fn refresh(
    State(app): State<App>,
    Unscoped(scope): Unscoped,
    body: Body<RefreshRequest>,
) -> Result<Answer<Tokens>, ApiError> {
    use secrecy::ExposeSecret;
    const REFUSED: ApiError = ApiError::Unauthorized("The refresh token is not valid, or ended.");
    let token = Token::parse(Kind::Refresh, body.value.refresh_token.expose_secret()).ok_or(REFUSED)?;
    let presented = token.hash(app.keys());
    // The primary decides: a replica may not know yet that the token was exchanged.
    let primary = Scope {
        primary_only: true,
        ..scope
    };
    let (owner, _) = app.database().read(&primary, &FindRefresh(presented)).await?;
    let owner = owner.ok_or(REFUSED)?;
    let minted = Minted::new(&app);
    let scope = Scope {
        tenant: Some(owner.tenant_id),
        ..scope
    };
    let written: Written<Refreshed> = app
        .database()
        .write(
            scope,
            Refresh {
                owner,
                presented,
                tokens: minted.pair,
            },
        )
        .await?;
    match written.output {
        Refreshed::Exchanged => Ok(Answer::written(&app, StatusCode::OK, written).map(|_| minted.answer())),
        Refreshed::Reused => {
            tracing::warn!(session.id = %owner.session_id, "refresh token came back after its exchange, session was ended");
            Err(REFUSED)
        }
        Refreshed::Raced | Refreshed::Ended => Err(REFUSED),
    }
}

/// Ends the session; its sockets close.
#[utoipa::path(post, path = "/auth/logout", tag = "auth", security(("bearer" = ["read"])), responses(
    (status = 204, description = "The session has ended"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
async fn logout(State(app): State<App>, caller: Caller) -> Result<Answer<()>, ApiError> {
    let person = &caller.person;
    let end = LogOut {
        session_id: person.session_id,
        user_id: person.user_id,
    };
    let written = app.database().write(caller.scope, end).await?;
    Ok(Answer::written(&app, StatusCode::NO_CONTENT, written).empty())
}

/// A ticket that opens one WebSocket within 30 seconds.
#[utoipa::path(post, path = "/auth/ws-ticket", tag = "auth", security(("bearer" = ["read"])), responses(
    (status = 201, body = Ticket),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
async fn ws_ticket(State(app): State<App>, caller: Caller) -> Result<Answer<Ticket>, ApiError> {
    let ticket = Token::new(Kind::Ticket, entropy::bytes());
    let session_id: Uuid = caller.person.session_id;
    let make = MakeTicket {
        session_id,
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
