//! `GET /ping`, which SageMaker and TorchServe ask: 200 with TorchServe's `{"status": "Healthy"}` when models answer, 503
//! before and after. SageMaker reads the status alone.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::http::error::Ping;
use crate::http::openapi::Operation;
use crate::http::routes::Routes;
use crate::http::{App, health};

pub(super) fn routes() -> Routes {
    let operation = Operation::new("ping", "Whether models answer, for SageMaker and TorchServe")
        .tag("health")
        .ok::<Ping>("They do")
        .errors::<Ping>(&[503]);
    Routes::new().get("/ping", ping, operation)
}

/// `GET /ping`, and whatever route Vertex AI has for it.
pub(super) async fn ping(State(app): State<App>) -> Response {
    match health::is_ready(&app) {
        Ok(()) => Json(Ping { status: "Healthy" }).into_response(),
        Err(problem) => problem.into_unhealthy(),
    }
}
