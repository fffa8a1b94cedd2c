//! What probes and collectors ask.

use std::time::Duration;

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
use crate::shutdown::{Ailing, Phase};

/// The content type of the metrics.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The routes of probes.
pub(super) fn routes() -> Routes {
    let health = |id, summary| Operation::new(id, summary).tag("health").access(Access::Probe);
    let ill = [ProblemKind::Unhealthy];
    let closed = [ProblemKind::NotReady, ProblemKind::Unhealthy, ProblemKind::Failed(Failure::ShuttingDown)];
    Routes::new()
        .get("/health/live", live, health("live", "The process answers").ok::<Health>("It does").problems(&ill))
        .get("/health/ready", ready, health("ready", "The models are warm").ok::<Health>("They are").problems(&closed))
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

/// The process answers, and what ails it may still pass.
async fn live(State(app): State<App>) -> Result<Json<Health>, Problem> {
    match app.phases.ailing() {
        Some(ailing) if ailing.restart_helps && ailing.since.elapsed() > AILING_TIME_MAX => Err(unhealthy(&ailing)),
        _ => Ok(Json(Health { status: Status::Live })),
    }
}

/// After so long a restart helps more than waiting does. Readiness has been off all the time.
const AILING_TIME_MAX: Duration = Duration::from_secs(60);

/// The models are warm and no signal has come.
async fn ready(State(app): State<App>) -> Result<Json<Health>, Problem> {
    is_ready(&app).map(|()| Json(Health { status: Status::Ready }))
}

/// The models are warm and no signal has come.
pub(super) fn is_ready(app: &App) -> Result<(), Problem> {
    match app.phases.now() {
        Phase::Starting => Err(not_ready()),
        Phase::Ready => app.phases.ailing().map_or(Ok(()), |ailing| Err(unhealthy(&ailing))),
        Phase::Leaving | Phase::Draining => Err(Problem::shutting_down()),
    }
}

/// Prometheus text exposition.
async fn metrics(State(app): State<App>) -> impl IntoResponse {
    // Read now, not kept up to date at each change: two threads that set a gauge may do so in the wrong order.
    let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    app.metrics.decode_memory_bytes.set(gauge(app.pool.memory_bytes()));
    app.metrics.upload_memory_bytes.set(gauge(app.uploads.held_bytes()));
    app.metrics.ready.set(i64::from(is_ready(&app).is_ok()));
    let engines = app.models.ready();
    engines.iter().for_each(|engine| engine.refresh_metrics());
    let page = app.metrics.render(engines.iter().map(|engine| engine.work_done()));
    ([(header::CONTENT_TYPE, EXPOSITION)], page)
}

fn unhealthy(ailing: &Ailing) -> Problem {
    Problem::new(ProblemKind::Unhealthy, format!("{}; requests are still tried", ailing.what))
}

pub(super) fn not_ready() -> Problem {
    Problem::new(
        ProblemKind::NotReady,
        "no model is loaded, or the first are still loading; GET /health/ready tells when they are warm",
    )
}
