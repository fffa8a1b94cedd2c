//! What probes and collectors ask.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::json;

use super::App;
use super::error::{Problem, ProblemKind};
use crate::shutdown::Phase;

/// The process runs and answers.
pub(super) async fn live() -> impl IntoResponse {
    Json(json!({ "status": "live" }))
}

/// The models are warm and no signal has come.
pub(super) async fn ready(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    is_ready(&app).map(|()| Json(json!({ "status": "ready" })))
}

/// The models are warm and no signal has come.
pub(super) fn is_ready(app: &App) -> Result<(), Problem> {
    match app.phases.now() {
        Phase::Starting => Err(not_ready()),
        Phase::Ready => Ok(()),
        Phase::Leaving | Phase::Draining => Err(Problem::shutting_down()),
    }
}

/// Prometheus text exposition.
pub(super) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    // Read now, not kept up to date at each change: two threads that set a gauge may do so in the wrong order.
    let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    app.metrics.decode_memory_bytes.set(gauge(app.pool.memory_bytes()));
    app.metrics.upload_memory_bytes.set(gauge(app.uploads.held_bytes()));
    for engine in app.models.ready() {
        engine.refresh_metrics();
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render())
}

pub(super) fn not_ready() -> Problem {
    Problem::new(
        ProblemKind::NotReady,
        "no model is loaded, or the first are still loading; GET /health/ready tells when they are warm",
    )
}
