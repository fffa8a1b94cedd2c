//! What probes and collectors ask.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use schemars::JsonSchema;
use serde::Serialize;

use super::App;
use super::error::{Problem, ProblemKind};
use super::openapi::Operation;
use super::routes::Routes;
use crate::guard::Access;
use crate::pipeline::Failure;
use crate::shutdown::Phase;

/// The content type of the metrics.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The routes of probes.
pub(super) fn routes() -> Routes {
    let health = |id, summary| Operation::new(id, summary).tag("health").access(Access::Probe);
    let closed = [ProblemKind::NotReady, ProblemKind::Failed(Failure::ShuttingDown)];
    Routes::new().get("/health/live", live, health("live", "The process answers").ok::<Health>("It does")).get(
        "/health/ready",
        ready,
        health("ready", "The models are warm").ok::<Health>("They are").problems(&closed),
    )
}

/// The route of collectors. Who may ask depends on who else can reach its port.
pub(super) fn metrics_route(access: Access) -> Routes {
    let operation = Operation::new("metrics", "Prometheus metrics").tag("health").access(access);
    Routes::new().get("/metrics", metrics, operation.ok_text("Prometheus text exposition, 0.0.4"))
}

/// How the server is.
#[derive(Serialize, JsonSchema)]
struct Health {
    status: Status,
}

/// `live` or `ready`, as the route asks; whatever else it is comes as a problem.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    Live,
    Ready,
}

/// The process runs and answers.
async fn live() -> Json<Health> {
    Json(Health { status: Status::Live })
}

/// The models are warm and no signal has come.
async fn ready(State(app): State<App>) -> Result<Json<Health>, Problem> {
    is_ready(&app).map(|()| Json(Health { status: Status::Ready }))
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
async fn metrics(State(app): State<App>) -> impl IntoResponse {
    // Read now, not kept up to date at each change: two threads that set a gauge may do so in the wrong order.
    let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    app.metrics.decode_memory_bytes.set(gauge(app.pool.memory_bytes()));
    app.metrics.upload_memory_bytes.set(gauge(app.uploads.held_bytes()));
    for engine in app.models.ready() {
        engine.refresh_metrics();
    }
    ([(header::CONTENT_TYPE, EXPOSITION)], app.metrics.render())
}

pub(super) fn not_ready() -> Problem {
    Problem::new(
        ProblemKind::NotReady,
        "no model is loaded, or the first are still loading; GET /health/ready tells when they are warm",
    )
}
