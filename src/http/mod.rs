//! The HTTP edge: connections, uploads, routes, errors. It decides nothing about images or models.

mod error;
mod fallback;
mod forms;
mod health;
mod limits;
mod listener;
mod middleware;
mod native;
mod oip;
mod upload;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

pub use error::{Problem, ProblemKind};
pub use limits::HttpLimits;
pub use listener::{Drained, serve};

use crate::apis::{Api, Apis};
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
        Self { apis, oip, models, pool, phases, limits, uploads, metrics, overload: Arc::default() }
    }
}

/// Every route, on one screen.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    if app.apis.has(Api::V2) {
        router = router
            .route("/v2", get(oip::server))
            .route("/v2/", get(oip::server))
            .route("/v2/health/live", get(oip::live))
            .route("/v2/health/ready", get(oip::ready))
            .route("/v2/models", get(oip::models))
            .route("/v2/models/stats", get(oip::all_statistics))
            .route("/v2/models/{name}", get(oip::metadata))
            .route("/v2/models/{name}/versions/{version}", get(oip::metadata_version))
            .route("/v2/models/{name}/ready", get(oip::model_ready))
            .route("/v2/models/{name}/versions/{version}/ready", get(oip::model_ready_version))
            .route("/v2/models/{name}/config", get(oip::config))
            .route("/v2/models/{name}/versions/{version}/config", get(oip::config_version))
            .route("/v2/models/{name}/stats", get(oip::statistics))
            .route("/v2/models/{name}/versions/{version}/stats", get(oip::statistics_version))
            .route("/v2/models/{name}/infer", post(oip::infer))
            .route("/v2/models/{name}/versions/{version}/infer", post(oip::infer_version))
            .route("/v2/repository/index", post(oip::index))
            .route("/v2/repository/models/{name}/load", post(oip::load))
            .route("/v2/repository/models/{name}/unload", post(oip::unload));
    }
    router
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
        .fallback(fallback::not_found)
        .method_not_allowed_fallback(fallback::method_not_allowed)
        .layer(axum::middleware::from_fn_with_state(app.clone(), middleware::observe))
        .with_state(app)
}
