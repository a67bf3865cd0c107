//! Who is connected at the moment.

use axum::extract::State;
use axum::http::Uri;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::domain::event::Channel;
use crate::http::answer::Answer;
use crate::http::error::{ApiError, Problem};
use crate::http::extract::{Caller, Id, query};
use crate::store::workrooms::FindWorkroom;

/// Connections that are listed when nobody says how many, and at most.
const LISTED: (usize, usize) = (100, 1_000);
/// People that are listed for one workroom.
const PRESENT: usize = 1_000;

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(connections))
        .routes(routes!(presence))
}

/// How many are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ConnectionsQuery {
    /// Connections one by one, 1 to 1,000; 100 if absent. All are counted.
    pub limit: Option<String>,
}

/// Connections of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct Connections {
    /// All of them.
    pub total: usize,
    /// By process.
    pub nodes: Vec<Node>,
    /// The newest ones.
    pub connections: Vec<Connected>,
    /// Whether all processes are counted; while Redis is away, it is the one that answers.
    pub complete: bool,
}

/// Connections at one process.
#[derive(Debug, Serialize, ToSchema)]
pub struct Node {
    /// The process.
    pub node: String,
    /// How many.
    pub connections: usize,
}

/// One connection.
#[derive(Debug, Serialize, ToSchema)]
pub struct Connected {
    /// Identifies it at its process.
    pub id: u64,
    /// The process.
    pub node: String,
    /// Whose it is.
    pub user_id: Uuid,
    /// Since when.
    pub connected_at: Timestamp,
}

/// Who listens to a workroom.
#[derive(Debug, Serialize, ToSchema)]
pub struct Presence {
    /// People, each once, at most 1,000.
    pub user_ids: Vec<Uuid>,
    /// Their connections.
    pub connections: usize,
    /// Whether all processes are counted; while Redis is away, it is the one that answers.
    pub complete: bool,
}

/// Open connections of the tenant over all processes.
#[utoipa::path(get, path = "/tenant/connections", tag = "tenant", security(("bearer" = ["manage"])), params(ConnectionsQuery),
    responses(
    (status = 200, body = Connections),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn connections(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
) -> Result<axum::Json<Connections>, ApiError> {
    let query: ConnectionsQuery = query(&uri)?;
    let limit = query.limit.map(|text| text.parse::<usize>()).transpose();
    let limit = limit.ok().map(|limit| limit.unwrap_or(LISTED.0));
    let limit = limit
        .filter(|limit| (1..=LISTED.1).contains(limit))
        .ok_or_else(|| ApiError::field("limit", format!("must be between 1 and {}", LISTED.1)))?;
    let channel = Channel::Tenant(caller.person.tenant_id);
    let listing = app.registry().list(channel, limit).await;
    let connections = listing.newest.into_iter().map(|connection| Connected {
        id: connection.id,
        node: connection.node,
        user_id: connection.user_id,
        connected_at: Timestamp::from_millisecond(connection.since).unwrap_or(Timestamp::UNIX_EPOCH),
    });
    Ok(axum::Json(Connections {
        total: listing.nodes.values().sum(),
        connections: connections.collect(),
        nodes: listing
            .nodes
            .into_iter()
            .map(|(node, connections)| Node { node, connections })
            .collect(),
        complete: listing.complete,
    }))
}

/// Who listens to a workroom now: for its members, and for managers of the tenant.
#[utoipa::path(get, path = "/workrooms/{id}/presence", tag = "workrooms", security(("bearer" = ["read"])),
    params(("id" = Uuid, Path)), responses(
    (status = 200, body = Presence),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn presence(State(app): State<App>, caller: Caller, Id(id): Id) -> Result<Answer<Presence>, ApiError> {
    let find = FindWorkroom {
        person: caller.person,
        id,
    };
    let (_, served) = app.database().read(&caller.scope, &find).await?;
    let listing = app.registry().list(Channel::Workroom(id), PRESENT).await;
    let mut user_ids: Vec<Uuid> = listing
        .newest
        .iter()
        .map(|connection| connection.user_id)
        .collect();
    user_ids.sort_unstable();
    user_ids.dedup();
    let presence = Presence {
        user_ids,
        connections: listing.nodes.values().sum(),
        complete: listing.complete,
    };
    Ok(Answer::read((presence, served)))
}
