//! `GET /ping`, which SageMaker and TorchServe ask: 200 with TorchServe's `{"status": "Healthy"}` when models answer, 503
//! before and after. SageMaker reads the status alone.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::guard::Access;
use crate::http::error::Ping;
use crate::http::openapi::Operation;
use crate::http::routes::Routes;
use crate::http::{App, health};
use crate::models::NotServed;

pub(super) fn routes() -> Routes {
    let operation = Operation::new("ping", "Whether models answer, for SageMaker and TorchServe")
        .tag("health")
        .access(Access::Probe)
        .ok::<Ping>("They do")
        .errors::<Ping>(&[503]);
    Routes::new().get("/ping", ping, operation)
}

/// `GET /ping`, and whatever route Vertex AI has for it.
pub(super) async fn ping(State(app): State<App>) -> Response {
    // A server whose models come and go begins with none and is well.
    let answers = || app.multi_model.is_some() || !app.models.ready().is_empty();
    match health::is_ready(&app).and_then(|()| if answers() { Ok(()) } else { Err(NotServed::Empty.into()) }) {
        Ok(()) => Json(Ping { status: "Healthy" }).into_response(),
        Err(problem) => problem.into_unhealthy(),
    }
}
