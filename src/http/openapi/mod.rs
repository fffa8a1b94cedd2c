//! The description of all routes, OpenAPI 3.1: what each takes and answers, with schemas made of the types that the code
//! reads and writes.

mod document;
mod operation;
mod schemas;

pub(super) use document::Document;
pub(super) use operation::Operation;

use std::sync::Arc;

use axum::extract::Extension;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;

use super::routes::Routes;

/// The routes that show the description.
pub(super) fn routes() -> Routes {
    let openapi = Operation::new("openapi", "This description, OpenAPI 3.1")
        .tag("description")
        .ok::<serde_json::Map<String, serde_json::Value>>("The document");
    Routes::new().get("/openapi.json", show, openapi)
}

/// `GET /openapi.json`.
async fn show(Extension(document): Extension<Arc<Document>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], document.json())
}
