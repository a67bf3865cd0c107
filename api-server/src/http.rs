//! The HTTP interface: routes, what they extract, and how errors look.

pub mod access;
pub mod answer;
pub mod client;
pub mod docs;
pub mod edge;
pub mod error;
pub mod extract;
pub mod observe;
pub mod older;
pub mod openapi;
pub mod ops;
pub mod patient;
pub mod permission;
pub mod service;
pub mod v1;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;

use self::access::Gate;
use self::permission::{Permissions, Undeclared};
use crate::app::App;

/// Everything on the API's port. Fails if a route does not say who may call it.
pub fn router(app: &App) -> Result<Router, Undeclared> {
    let (documented, document) = openapi::parts();
    let gate = Gate {
        app: app.clone(),
        permissions: Arc::new(Permissions::of(&document)?),
    };
    let router = documented
        .route("/ws", axum::routing::get(v1::ws::connect))
        .merge(service::router())
        .merge(docs::router())
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(from_fn_with_state(gate, access::admit))
        .layer(from_fn_with_state(app.clone(), edge::shed))
        .layer(edge::cors(app))
        .layer(from_fn_with_state(app.clone(), observe::observe))
        .layer(edge::compression())
        .with_state(app.clone());
    Ok(router)
}
