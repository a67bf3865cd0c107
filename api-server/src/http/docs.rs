//! The explorer at `/docs`: Swagger UI, whose files are compiled in, on the document that this server serves. It is the only page here, so
//! it alone is allowed to load anything, and only from here.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::app::App;

/// The page's own scripts and styles, its pictures within them, and requests to this API.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
/// The files change with a release only, and their names do not tell which.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// `/docs` and what it loads.
pub fn router() -> Router<App> {
    let config = Config::new(["/openapi.json"])
        .try_it_out_enabled(true)
        .validator_url("none");
    Router::from(SwaggerUi::new("/docs").config(config)).layer(axum::middleware::map_response(headers))
}

async fn headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::CACHE_CONTROL, KEPT);
    response
}
