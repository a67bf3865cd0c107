//! Accounts and sessions.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::domain::account::{Email, Name, NewPassword};
use crate::domain::audit::{Origin, SecurityEvent};
use crate::domain::principal::Role;
use crate::domain::token::{Kind, Token};
use crate::entropy;
use crate::hashing::Verdict;
use crate::http::answer::Answer;
use crate::http::client::{self, Client};
use crate::http::error::{ApiError, Fields, Problem};
use crate::http::extract::{Body, Caller, Unscoped};
use crate::limits::guesses::Attempt;
use crate::limits::requests::Quota;
use crate::routing::{Scope, StoreError, Written};
use crate::store::accounts::{Credentials, FindCredentials, FindUser, NewAccount, SignUp, User};
use crate::store::invitations::{FindInvitation, Join, Open};
use crate::store::logs::{Entry, Note};
use crate::store::sessions::{FindRefresh, LogIn, NewSession, Refresh, Refreshed, TokenPair};

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(signup))
        .routes(routes!(login))
        .routes(routes!(me))
        .routes(routes!(refresh))
}

/// A new tenant and its owner, or somebody who joins a tenant by invitation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignupRequest {
    /// Address; one account has it.
    pub email: String,
    /// At least eight characters.
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
    /// Name of the person.
    pub name: String,
    /// Name of the tenant; that of the person if absent. Not with an invitation.
    pub tenant_name: Option<String>,
    /// Token of an invitation to this address.
    #[schema(value_type = Option<String>)]
    pub invitation: Option<SecretString>,
}

/// An address and its password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// Address.
    pub email: String,
    /// Password.
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
}

/// A refresh token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
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

    fn session(&self, user_id: uuid::Uuid, origin: Origin) -> NewSession {
        NewSession {
            id: entropy::id(),
            user_id,
            tokens: self.pair,
            origin,
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

/// Makes a tenant and its owner, or with an invitation an account in its tenant, and logs the person in.
#[utoipa::path(post, path = "/auth/signup", tag = "auth", security(()), request_body = SignupRequest, responses(
    (status = 201, body = SignupAnswer),
    (status = 409, description = "The address has an account", body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "Too many accounts from one address", body = Problem, content_type = "application/problem+json"),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
async fn signup(
    State(app): State<App>,
    Unscoped(scope): Unscoped,
    Client(origin): Client,
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
    let invited = match &request.invitation {
        Some(_) if request.tenant_name.is_some() => {
            return Err(ApiError::field(
                "tenant_name",
                "must be absent with an invitation",
            ));
        }
        Some(token) => Some(find_invitation(&app, scope, token, &email).await?),
        None => None,
    };
    count_signup(&app, &origin).await?;
    let password_hash = app.hashing().hash(password.secret().clone()).await?;
    let minted = Minted::new(&app);
    let user_id = entropy::id();
    let session = minted.session(user_id, origin);
    let account = NewAccount {
        user_id,
        email,
        name,
        password_hash,
        session,
    };
    let written = create(&app, scope, account, tenant_name, invited).await;
    let written = written.map_err(|error| match error {
        StoreError::Taken(_) => ApiError::Conflict("An account with this address exists already."),
        StoreError::Missing => ApiError::field("invitation", NO_INVITATION),
        other => other.into(),
    })?;
    let answer = Answer::written(&app, StatusCode::CREATED, written);
    Ok(answer.map(|user| SignupAnswer {
        user,
        tokens: minted.answer(),
    }))
}

/// Counts an account that somebody asks for from an address.
async fn count_signup(app: &App, origin: &Origin) -> Result<(), ApiError> {
    let per_minute = app.config().rate_limit.signup_per_minute;
    let quota = Quota {
        per_minute,
        burst: per_minute,
    };
    let verdict = app
        .limiter()
        .take(&format!("signup:{}", bucket(origin)), quota)
        .await;
    if verdict.allowed {
        return Ok(());
    }
    Err(ApiError::TooMany {
        why: "Too many accounts were asked for from your address.",
        retry_after: verdict.retry_after,
    })
}

/// What counts as one address.
fn bucket(origin: &Origin) -> String {
    let address = origin.address.as_deref().and_then(|text| text.parse().ok());
    address.map_or_else(|| "unknown".to_owned(), client::bucket)
}

/// Makes the account: in the tenant that invited the person, else in a new one.
async fn create(
    app: &App,
    scope: Scope,
    account: NewAccount,
    tenant_name: Name,
    invited: Option<(Open, Role)>,
) -> Result<Written<User>, StoreError> {
    if let Some((open, role)) = invited {
        let join = Join {
            invitation: open.id,
            role,
            account,
        };
        return app.database().write(of(open.tenant_id, scope), join).await;
    }
    let tenant_id = entropy::id();
    let signup = SignUp {
        tenant_id,
        tenant_name,
        account,
    };
    app.database().write(of(tenant_id, scope), signup).await
}

const NO_INVITATION: &str = "is not one that is open for this address; ask for another one";

/// The same scope in a tenant.
fn of(tenant: uuid::Uuid, scope: Scope) -> Scope {
    Scope {
        tenant: Some(tenant),
        ..scope
    }
}

/// The open invitation of an address. The primary is asked: it may have been made a moment ago.
async fn find_invitation(
    app: &App,
    scope: Scope,
    token: &SecretString,
    email: &Email,
) -> Result<(Open, Role), ApiError> {
    let refused = || ApiError::field("invitation", NO_INVITATION);
    let token = Token::parse(Kind::Invitation, token.expose_secret()).ok_or_else(refused)?;
    let primary = Scope {
        primary_only: true,
        ..scope
    };
    let find = FindInvitation(token.hash(app.keys()));
    let (found, _) = app.database().read(&primary, &find).await?;
    let found = found
        .filter(|open| open.email == email.as_str())
        .ok_or_else(refused)?;
    let role = found.role.parse().map_err(|_| refused())?;
    Ok((found, role))
}

/// Begins a guess of a password; refuses with the time to wait when there were too many wrong ones for this account from this address.
pub(super) async fn begin_attempt(app: &App, email: &Email, origin: &Origin) -> Result<Attempt, ApiError> {
    let digest = app.keys().token_hash(email.as_str());
    let account = BASE64_URL_SAFE_NO_PAD.encode(&digest[..16]);
    let per_minute = app.config().rate_limit.login_per_minute;
    app.guesses()
        .begin(&account, &bucket(origin), per_minute)
        .await
        .map_err(|retry_after| ApiError::TooMany {
            why: "Too many wrong passwords for this account from your address. Wait before the next one.",
            retry_after,
        })
}

/// Begins a session.
#[utoipa::path(post, path = "/auth/login", tag = "auth", security(()), request_body = LoginRequest, responses(
    (status = 200, body = Tokens),
    (status = 401, description = "Wrong address or password", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "Too many wrong passwords", body = Problem, content_type = "application/problem+json"),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
async fn login(
    State(app): State<App>,
    Unscoped(scope): Unscoped,
    Client(origin): Client,
    body: Body<LoginRequest>,
) -> Result<Answer<Tokens>, ApiError> {
    const REFUSED: ApiError = ApiError::Unauthorized("The address or the password is wrong.");
    // What is no address has no account; it is not even counted.
    let email = Email::parse(&body.value.email).map_err(|_| REFUSED)?;
    let attempt = begin_attempt(&app, &email, &origin).await?;
    let found = find_credentials(&app, scope, email).await?;
    let stored = found.as_ref().map(|account| account.password_hash.clone());
    let verdict = app.hashing().verify(body.value.password, stored).await?;
    let (Verdict::Right { rehashed }, Some(account)) = (verdict, &found) else {
        attempt.failed().await;
        if let Some(account) = found {
            note_failure(&app, &account, &origin);
        }
        return Err(REFUSED);
    };
    if !account.is_active {
        return Err(REFUSED);
    }
    attempt.succeeded().await;
    let minted = Minted::new(&app);
    let session = minted.session(account.user_id, origin);
    let scope = of(account.tenant_id, scope);
    let written = app.database().write(scope, LogIn { session, rehashed }).await?;
    Ok(Answer::written(&app, StatusCode::OK, written).map(|()| minted.answer()))
}

/// Writes a wrong guess into the audit log of the account's tenant. Nobody waits for it: the time of the answer must not tell whether
/// there is such an account.
fn note_failure(app: &App, account: &Credentials, origin: &Origin) {
    let entry = Entry {
        event: SecurityEvent::LoginFailed,
        user_id: Some(account.user_id),
        actor_id: None,
        address: origin.address.clone(),
        detail: None,
    };
    let scope = Scope {
        tenant: Some(account.tenant_id),
        deadline: Instant::now() + NOTING,
        at_least: None,
        primary_only: true,
    };
    let database = app.database().clone();
    app.lifecycle().tasks.spawn(async move {
        if let Err(error) = database.write(scope, Note(entry)).await {
            tracing::warn!(error = ?error, "failed login could not be written into the audit log");
        }
    });
}

/// Limit of writing an entry that nobody waits for.
const NOTING: Duration = Duration::from_secs(5);

/// A replica may not have an account yet that was just made, so a miss is asked again.
async fn find_credentials(app: &App, scope: Scope, email: Email) -> Result<Option<Credentials>, ApiError> {
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
    Client(origin): Client,
    body: Body<RefreshRequest>,
) -> Result<Answer<Tokens>, ApiError> {
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
    let exchange = Refresh {
        owner,
        presented,
        tokens: minted.pair,
        max_age: app.config().auth.session_max_age.get(),
        origin,
    };
    let written = app.database().write(of(owner.tenant_id, scope), exchange).await?;
    match written.output {
        Refreshed::Exchanged => Ok(Answer::written(&app, StatusCode::OK, written).map(|_| minted.answer())),
        Refreshed::Reused => {
            tracing::warn!(session.id = %owner.session_id, "refresh token came back after its exchange, session was ended");
            Err(REFUSED)
        }
        Refreshed::Raced | Refreshed::Ended => Err(REFUSED),
    }
}
