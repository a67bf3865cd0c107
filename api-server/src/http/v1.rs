//! Version 1 of the API. One file for each area; a file holds requests, answers, handlers and their description.

pub mod auth;
pub mod cache;
pub mod connections;
pub mod conversations;
pub mod events;
pub mod memories;
pub mod messages;
pub mod people;
pub mod plans;
pub mod resources;
pub mod schedules;
pub mod sessions;
pub mod syncs;
pub mod tasks;
pub mod tenant;
pub mod usage;
pub mod users;
pub mod webhooks;
pub mod workroom_members;
pub mod workrooms;
pub mod ws;

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// All routes below `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(auth::router())
        .merge(cache::router())
        .merge(connections::router())
        .merge(conversations::router())
        .merge(events::router())
        .merge(memories::router())
        .merge(messages::router())
        .merge(people::router())
        .merge(resources::router())
        .merge(schedules::router())
        .merge(sessions::router())
        .merge(syncs::router())
        .merge(tasks::router())
        .merge(tenant::router())
        .merge(users::router())
        .merge(plans::router())
        .merge(usage::router())
        .merge(workrooms::router())
        .merge(workroom_members::router())
        .merge(webhooks::router())
        .merge(ws::router())
}
