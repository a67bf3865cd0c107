//! The HTTP interface: routes, what they extract, and how errors look.

pub mod answer;
pub mod error;
pub mod extract;
pub mod observe;
pub mod openapi;
pub mod ops;
pub mod service;
pub mod v1;

use axum::Router;
use axum::middleware::from_fn_with_state;

use crate::app::App;

/// Everything on the API's port.
pub fn router(app: &App) -> Router {
    let (documented, _) = openapi::parts();
    documented
        .route("/ws", axum::routing::get(v1::ws::connect))
        .merge(service::router())
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(from_fn_with_state(app.clone(), observe::observe))
        .with_state(app.clone())
}
