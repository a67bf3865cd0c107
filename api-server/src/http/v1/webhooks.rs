//! Endpoints that are told of events of the tenant, for those who manage it.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::domain::webhook::{description, event_types};
use crate::entropy;
use crate::http::answer::{Answer, List};
use crate::http::client::Client;
use crate::http::error::{ApiError, Fields, Problem};
use crate::http::extract::{Body, Caller, Id, Key, PageQuery, Paging};
use crate::outbound::address;
use crate::store::deliveries::{Delivery, ListDeliveries, Queued, Redeliver};
use crate::store::webhooks::{Actor, ChangeWebhook, CreateWebhook, DeleteWebhook, ListWebhooks, Webhook};
use crate::webhooks::sign;

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(change, delete))
        .routes(routes!(deliveries))
        .routes(routes!(redeliver))
}

/// An endpoint to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookRequest {
    /// A public address, best one with `https`.
    pub url: String,
    /// What it is for: one line of at most 200 characters.
    pub description: Option<String>,
    /// Of which events it is told: conversation.created, conversation.updated, conversation.deleted, message.created,
    /// sync.failed, sync.succeeded, tenant.broadcast.
    pub event_types: Vec<String>,
}

/// What to change of an endpoint. What is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookChange {
    /// A public address.
    pub url: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Of which events it is told.
    pub event_types: Option<Vec<String>>,
    /// Whether it is told; enabling forgets earlier failures.
    pub enabled: Option<bool>,
    /// Makes a new secret and shows it. The old one signs too for another day.
    #[serde(default)]
    pub rotate_secret: bool,
}

fn actor(caller: &Caller, origin: crate::domain::audit::Origin) -> Actor {
    Actor {
        user_id: caller.person.user_id,
        origin,
    }
}

fn url(app: &App, text: &str) -> Result<String, crate::domain::Unacceptable> {
    address::parse(text, &app.config().outbound.allowed_networks).map(|_| text.to_owned())
}

/// Shows the secret of an endpoint.
fn reveal(app: &App, mut webhook: Webhook, version: i32) -> Webhook {
    webhook.secret = Some(sign::show(&app.keys().webhook(webhook.id, version)));
    webhook
}

/// The tenant's endpoints, newest first.
#[utoipa::path(get, path = "/webhooks", tag = "webhooks", security(("bearer" = ["manage"])), params(PageQuery), responses(
    (status = 200, body = List<Webhook>),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Paging(page): Paging,
) -> Result<Answer<List<Webhook>>, ApiError> {
    let list = ListWebhooks(page);
    Ok(Answer::read(app.database().read(&caller.scope, &list).await?))
}

/// Makes an endpoint. The answer holds its secret, which is not shown again.
#[utoipa::path(post, path = "/webhooks", tag = "webhooks", security(("bearer" = ["manage"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for a day")),
    request_body = WebhookRequest, responses(
    (status = 201, body = Webhook),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Client(origin): Client,
    key: Key,
    body: Body<WebhookRequest>,
) -> Result<Answer<Webhook>, ApiError> {
    let mut fields = Fields::default();
    let url = fields.check("url", url(&app, &body.value.url));
    let text = body.value.description.as_deref().map(description).transpose();
    let text = fields.check("description", text);
    let types = fields.check("event_types", event_types(&body.value.event_types));
    let (Some(url), Some(description), Some(event_types)) = (url, text, types) else {
        return Err(fields.into_error());
    };
    let key = key.of(&caller, &body);
    let create = CreateWebhook {
        id: entropy::id(),
        actor: actor(&caller, origin),
        url,
        description,
        event_types,
    };
    let written = app.database().write_once(caller.scope, create, key).await?;
    let answer = Answer::written(&app, StatusCode::CREATED, written);
    Ok(answer.map(|webhook| reveal(&app, webhook, 1)))
}

/// Changes an endpoint.
#[utoipa::path(patch, path = "/webhooks/{id}", tag = "webhooks", security(("bearer" = ["manage"])), params(("id" = uuid::Uuid, Path)),
    request_body = WebhookChange, responses(
    (status = 200, body = Webhook),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    Client(origin): Client,
    Id(id): Id,
    body: Body<WebhookChange>,
) -> Result<Answer<Webhook>, ApiError> {
    let mut fields = Fields::default();
    let wanted = &body.value;
    let url = wanted.url.as_deref().map(|text| url(&app, text)).transpose();
    let url = fields.check("url", url);
    let text = wanted.description.as_deref().map(description).transpose();
    let text = fields.check("description", text);
    let types = wanted.event_types.as_deref().map(event_types).transpose();
    let types = fields.check("event_types", types);
    let (Some(url), Some(description), Some(event_types)) = (url, text, types) else {
        return Err(fields.into_error());
    };
    let rotate = wanted.rotate_secret;
    let change = ChangeWebhook {
        id,
        actor: actor(&caller, origin),
        url,
        description,
        event_types,
        enabled: wanted.enabled,
        rotate,
    };
    let written = app.database().write(caller.scope, change).await?;
    let answer = Answer::written(&app, StatusCode::OK, written);
    Ok(answer.map(|(webhook, version)| {
        if rotate {
            reveal(&app, webhook, version)
        } else {
            webhook
        }
    }))
}

/// Deletes an endpoint with the log of its deliveries.
#[utoipa::path(delete, path = "/webhooks/{id}", tag = "webhooks", security(("bearer" = ["manage"])), params(("id" = uuid::Uuid, Path)),
    responses(
    (status = 204, description = "It is gone"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Client(origin): Client,
    Id(id): Id,
) -> Result<Answer<()>, ApiError> {
    let delete = DeleteWebhook {
        id,
        actor: actor(&caller, origin),
    };
    let written = app.database().write(caller.scope, delete).await?;
    Ok(Answer::written(&app, StatusCode::NO_CONTENT, written).empty())
}

/// What was sent to an endpoint in the last 30 days, newest first.
#[utoipa::path(get, path = "/webhooks/{id}/deliveries", tag = "webhooks", security(("bearer" = ["manage"])),
    params(("id" = uuid::Uuid, Path), PageQuery), responses(
    (status = 200, body = List<Delivery>),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn deliveries(
    State(app): State<App>,
    caller: Caller,
    Id(webhook_id): Id,
    Paging(page): Paging,
) -> Result<Answer<List<Delivery>>, ApiError> {
    let list = ListDeliveries { webhook_id, page };
    Ok(Answer::read(app.database().read(&caller.scope, &list).await?))
}

/// Sends an event again, with the id that it had.
#[utoipa::path(post, path = "/deliveries/{id}/redeliver", tag = "webhooks", security(("bearer" = ["manage"])),
    params(("id" = uuid::Uuid, Path)), responses(
    (status = 202, body = Queued),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn redeliver(State(app): State<App>, caller: Caller, Id(id): Id) -> Result<Answer<Queued>, ApiError> {
    let again = Redeliver {
        id,
        new_id: entropy::id(),
        user_id: caller.person.user_id,
    };
    let written = app.database().write(caller.scope, again).await?;
    let address = format!("/api/v1/tasks/{}", written.output.task_id);
    Ok(Answer::written(&app, StatusCode::ACCEPTED, written).located(address))
}
