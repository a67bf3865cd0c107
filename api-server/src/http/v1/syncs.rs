//! Syncs: started here, done in the background.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::tasks::viewer;
use crate::app::App;
use crate::domain::page::{Cursor, MAX_LIMIT, PageRequest};
use crate::domain::principal::Permission;
use crate::domain::sync::{Connector, GITHUB, Target, repository, token};
use crate::entropy;
use crate::http::answer::Answer;
use crate::http::error::{ApiError, Fields, Problem};
use crate::http::extract::{Caller, Key, MaybeBody, Writer, query};
use crate::outbound::address;
use crate::store::deliveries::Queued;
use crate::store::sync_records::{CountedSyncs, ListSyncs, SyncRecord};
use crate::store::syncs::{Described, StartSync, Token};

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, start))
}

/// What to copy from where. Without anything it is the caller's default sync, or else the tenant's.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SyncRequest {
    /// `github`: issues and comments of a repository. `http`: a JSON feed.
    pub connector: Option<String>,
    /// For `github`: `owner/name`.
    pub repository: Option<String>,
    /// For `github`: where its API is, if it is not GitHub's own.
    pub base_url: Option<String>,
    /// For `http`: address of the feed.
    pub url: Option<String>,
    /// Token for the source. It is stored sealed and is kept until another one is given.
    pub token: Option<String>,
    /// `memories`, which is so if it is absent, or `workroom`.
    pub target: Option<String>,
    /// The workroom.
    pub workroom_id: Option<String>,
    /// Makes it the caller's default sync.
    pub default: bool,
    /// Makes it the default of everybody in the tenant who has none; managers only, and the target is a workroom.
    pub tenant_default: bool,
}

impl SyncRequest {
    fn is_empty(&self) -> bool {
        let absent = [
            &self.connector,
            &self.repository,
            &self.base_url,
            &self.url,
            &self.token,
            &self.target,
        ];
        let chosen = self.default || self.tenant_default;
        absent.iter().all(|field| field.is_none()) && self.workroom_id.is_none() && !chosen
    }

    /// Checks it; nothing means the default.
    pub fn parse(&self, app: &App, caller: &Caller) -> Result<Option<Described>, ApiError> {
        if self.is_empty() {
            return Ok(None);
        }
        if self.tenant_default && !caller.person.may(Permission::Manage) {
            return Err(ApiError::Forbidden(
                "Only managers choose the tenant's default sync.",
            ));
        }
        let mut fields = Fields::default();
        let connector = self.connector(app, &mut fields);
        let target = self.target(&mut fields);
        let token = self.token.as_deref().map(token).transpose();
        let token = fields.check("token", token);
        let (Some(connector), Some(target), Some(token)) = (connector, target, token) else {
            return Err(fields.into_error());
        };
        Ok(Some(Described {
            id: entropy::id(),
            connector,
            target,
            token: token.map(|text| Token {
                text,
                key: app.keys().sources(),
            }),
            default: self.default,
            tenant_default: self.tenant_default,
        }))
    }

    fn connector(&self, app: &App, fields: &mut Fields) -> Option<Connector> {
        let config = app.config();
        let allowed = &config.outbound.allowed_networks;
        match self.connector.as_deref() {
            Some("github") => {
                let repository = fields.check(
                    "repository",
                    repository(self.repository.as_deref().unwrap_or_default()),
                );
                let base_url = match self.base_url.as_deref().map(|text| text.trim_end_matches('/')) {
                    None => Some(GITHUB.to_owned()),
                    Some(text) if text.contains('?') => fields.check("base_url", Err("must have no query")),
                    Some(text) => fields
                        .check("base_url", address::parse(text, allowed))
                        .map(|_| text.to_owned()),
                };
                Some(Connector::Github {
                    repository: repository?,
                    base_url: base_url?,
                })
            }
            Some("http") => {
                let url = self.url.as_deref().unwrap_or_default();
                fields.check("url", address::parse(url, allowed))?;
                Some(Connector::Http { url: url.to_owned() })
            }
            _ => fields.check("connector", Err("must be github or http")),
        }
    }

    fn target(&self, fields: &mut Fields) -> Option<Target> {
        match self.target.as_deref() {
            None | Some("memories") if self.tenant_default => fields.check(
                "target",
                Err("must be workroom for the tenant's default: memories are a person's own"),
            ),
            None | Some("memories") if self.workroom_id.is_none() => Some(Target::Memories),
            None | Some("memories") => fields.check("workroom_id", Err("belongs to the target workroom")),
            Some("workroom") => {
                let id = self.workroom_id.as_deref().unwrap_or_default().parse::<Uuid>();
                fields
                    .check("workroom_id", id.map_err(|_| "must be the id of a workroom"))
                    .map(Target::Workroom)
            }
            Some(_) => fields.check("target", Err("must be memories or workroom")),
        }
    }
}

/// Which part of the list: counted pages, or with `cursor` or `limit` pages that nothing shifts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SyncQuery {
    /// Page, from 1 on.
    pub page: Option<String>,
    /// Rows of a page, 1 to 100; 20 if absent. More are cut to 100.
    pub per_page: Option<String>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Rows of a page with a cursor, 1 to 100; 20 if absent.
    pub limit: Option<String>,
}

/// Runs of syncs.
#[derive(Debug, Serialize, ToSchema)]
pub struct SyncList {
    /// Runs, newest first.
    pub items: Vec<SyncRecord>,
    /// How many there are, on counted pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<i64>,
    /// How many pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages: Option<i64>,
    /// Which one this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_page: Option<i64>,
    /// Start of the next page, for `cursor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Rows that a counted page may lie deep; whoever wants more follows cursors.
const DEEPEST: i64 = 10_000;

/// Runs of the caller's syncs, newest first; managers see those of the tenant.
#[utoipa::path(get, path = "/syncs", tag = "syncs", security(("bearer" = ["read"])), params(SyncQuery), responses(
    (status = 200, body = SyncList),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
pub async fn list(State(app): State<App>, caller: Caller, uri: Uri) -> Result<Answer<SyncList>, ApiError> {
    let asked: SyncQuery = query(&uri)?;
    let viewer = viewer(&caller);
    if asked.cursor.is_some() || asked.limit.is_some() {
        let limit = asked.limit.map(|text| text.parse::<u16>()).transpose();
        let limit = limit.map_err(|_| ApiError::field("limit", "must be a whole number"))?;
        let page = PageRequest::parse(asked.cursor.as_deref(), limit)
            .map_err(|(field, problem)| ApiError::field(field, problem))?;
        let found = app
            .database()
            .read(&caller.scope, &ListSyncs { viewer, page })
            .await?;
        return Ok(Answer::read(found).map(|page| SyncList {
            items: page.items,
            total: None,
            pages: None,
            current_page: None,
            next_cursor: page.next.map(Cursor::encode),
        }));
    }
    let mut fields = Fields::default();
    let page = fields.check("page", whole(asked.page.as_deref(), 1));
    let per_page = fields.check("per_page", whole(asked.per_page.as_deref(), 20));
    let (Some(page), Some(per_page)) = (page, per_page) else {
        return Err(fields.into_error());
    };
    let limit = per_page.min(i64::from(MAX_LIMIT));
    let offset = (page - 1).saturating_mul(limit);
    if offset > DEEPEST {
        return Err(ApiError::field("page", "lies too deep; follow `cursor` instead"));
    }
    let counted = CountedSyncs {
        viewer,
        offset,
        limit,
    };
    let found = app.database().read(&caller.scope, &counted).await?;
    Ok(Answer::read(found).map(|(items, total)| SyncList {
        items,
        total: Some(total),
        pages: Some((total + limit - 1) / limit),
        current_page: Some(page),
        next_cursor: None,
    }))
}

fn whole(text: Option<&str>, absent: i64) -> Result<i64, &'static str> {
    match text.map(str::parse) {
        None => Ok(absent),
        Some(Ok(number)) if number >= 1 => Ok(number),
        Some(_) => Err("must be a whole number from 1 on"),
    }
}

/// Starts a sync and answers at once with its task; one of the same source that waits or runs is not started twice. An empty body means
/// the caller's default sync, or else the tenant's.
#[utoipa::path(post, path = "/syncs", tag = "syncs", security(("bearer" = ["write"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for a day")),
    request_body = Option<SyncRequest>, responses(
    (status = 202, body = Queued),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
pub async fn start(
    State(app): State<App>,
    Writer(caller): Writer,
    key: Key,
    MaybeBody(body): MaybeBody<SyncRequest>,
) -> Result<Answer<Queued>, ApiError> {
    let described = body.value.parse(&app, &caller)?;
    let key = key.of(&caller, &body);
    let start = StartSync {
        id: entropy::id(),
        user_id: caller.person.user_id,
        described,
    };
    let written = app.database().write_once(caller.scope, start, key).await?;
    let address = format!("/api/v1/tasks/{}", written.output.task_id);
    Ok(Answer::written(&app, StatusCode::ACCEPTED, written).located(address))
}
