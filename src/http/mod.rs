//! The HTTP edge: connections, uploads, routes, errors. It decides nothing about images or models.

mod asking;
mod compat;
mod error;
mod fallback;
mod forms;
mod health;
mod limits;
mod listener;
mod middleware;
mod native;
mod upload;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

pub use compat::{MultiModel, VertexRoutes};
pub use error::{Problem, ProblemKind};
pub use limits::HttpLimits;
pub use listener::{Drained, serve};

use crate::apis::Apis;
use crate::models::Models;
use crate::oip::Oip;
use crate::pipeline::PreparePool;
use crate::shutdown::Phases;
use crate::telemetry::Metrics;
use middleware::OverloadLog;
use upload::UploadMemory;

/// What every handler can reach. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    apis: Apis,
    oip: Oip,
    models: Models,
    pool: PreparePool,
    phases: Phases,
    limits: HttpLimits,
    uploads: UploadMemory,
    metrics: Metrics,
    overload: Arc<OverloadLog>,
    multi_model: Option<MultiModel>,
    vertex: Option<VertexRoutes>,
}

impl App {
    /// An edge for these models. While there are none it answers liveness and metrics, and everything else with
    /// `not_ready`.
    #[must_use]
    pub fn new(
        apis: Apis,
        oip: Oip,
        models: Models,
        limits: HttpLimits,
        pool: PreparePool,
        phases: Phases,
        metrics: Metrics,
    ) -> Self {
        let uploads = UploadMemory::new(limits.upload_memory_max);
        let (overload, multi_model, vertex) = (Arc::default(), None, None);
        Self { apis, oip, models, pool, phases, limits, uploads, metrics, overload, multi_model, vertex }
    }

    /// The same, as a platform wants it: models that come and go over SageMaker's API, Vertex AI's routes.
    #[must_use]
    pub fn on_platform(self, multi_model: Option<MultiModel>, vertex: Option<VertexRoutes>) -> Self {
        Self { multi_model, vertex, ..self }
    }
}

/// Every route, on one screen.
pub fn router(app: App) -> Router {
    let router = Router::new()
        .route("/", get(native::index))
        .route("/api/v1/classify", post(native::classify))
        .route("/api/v1/models", get(native::models))
        .route("/api/v1/models/{name}", get(native::model))
        .route("/api/v1/models/{name}/graph", get(native::graph))
        .route("/api/v1/models/{name}/versions/{version}", get(native::model_version))
        .route("/api/v1/models/{name}/versions/{version}/graph", get(native::graph_version))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .merge(compat::routes(&app))
        .fallback(fallback::not_found)
        .method_not_allowed_fallback(fallback::method_not_allowed)
        .layer(axum::middleware::from_fn_with_state(app.clone(), middleware::observe))
        .with_state(app.clone());
    compat::before(router, &app)
}
