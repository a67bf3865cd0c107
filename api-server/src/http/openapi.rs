//! The OpenAPI document. It is derived from the handlers, printed by `tanka-api openapi`, and committed.

use axum::Router;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;

use super::error::Problem;
use super::{older, v1};
use crate::app::App;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tanka API",
        description = "Conversations, messages and real-time events. Errors are RFC 9457 problem details.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Problem)),
    modifiers(&Bearer)
)]
struct Base;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", scheme);
    }
}

/// Documented routes and their document.
pub fn parts() -> (Router<App>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Base::openapi())
        .nest("/api/v1", v1::router())
        .nest("/api", older::router())
        .split_for_parts()
}

/// The document as text.
pub fn document() -> Result<String, serde_json::Error> {
    parts().1.to_pretty_json().map(|text| text + "\n")
}
