//! The HTTP edge: uploads, routes, errors. It decides nothing about images or models.

mod asking;
mod compat;
mod cors;
mod error;
mod fallback;
mod forms;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gate;
mod health;
mod limits;
mod middleware;
mod native;
mod oip;
mod openapi;
mod routes;
mod template;
mod upload;

use std::sync::Arc;

use axum::Router;

pub use compat::{MultiModel, VertexRoutes};
pub use error::{Problem, ProblemKind};
pub use limits::HttpLimits;

use crate::apis::{Api, Apis};
use crate::edge::{OverloadLog, Shared, UploadMemory};
use crate::guard::{Access, CorsOrigins, Guard};
use crate::models::Models;
use crate::oip::Oip;
use crate::pipeline::PreparePool;
use crate::shutdown::Phases;
use crate::telemetry::{Metrics, RequestLog, Tracer};
use routes::Routes;

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
    tracer: Tracer,
    log: RequestLog,
    overload: Arc<OverloadLog>,
    multi_model: Option<MultiModel>,
    vertex: Option<VertexRoutes>,
    guard: Guard,
    origins: CorsOrigins,
}

/// What a port answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Everything there is.
    Everything,
    /// What clients ask; operators have a port of their own.
    Clients,
    /// What operators ask: health, metrics, loading and unloading.
    Operators,
}

impl App {
    /// An edge for these models. While there are none it answers liveness and metrics, and everything else with
    /// `not_ready`.
    #[must_use]
    pub fn new(apis: Apis, oip: Oip, models: Models, limits: HttpLimits, pool: PreparePool, shared: Shared) -> Self {
        let Shared { uploads, phases, metrics, tracer, log } = shared;
        let (overload, multi_model, vertex) = (Arc::default(), None, None);
        let (guard, origins) = (Guard::default(), CorsOrigins::default());
        Self {
            apis,
            oip,
            models,
            pool,
            phases,
            limits,
            uploads,
            metrics,
            tracer,
            log,
            overload,
            multi_model,
            vertex,
            guard,
            origins,
        }
    }

    /// The same, with somebody at the door, and for these web pages.
    #[must_use]
    pub fn guarded(self, guard: Guard, origins: CorsOrigins) -> Self {
        Self { guard, origins, ..self }
    }

    /// The same, for the port of the operators, where `oip` says what they may. Nobody holds them to a rate, and no web page
    /// asks in their name.
    #[must_use]
    pub fn for_operators(&self, oip: Oip) -> Self {
        Self { oip, guard: self.guard.without_limit(), origins: CorsOrigins::default(), ..self.clone() }
    }

    /// The same, as a platform wants it: models that come and go over SageMaker's API, Vertex AI's routes.
    #[must_use]
    pub fn on_platform(self, multi_model: Option<MultiModel>, vertex: Option<VertexRoutes>) -> Self {
        Self { multi_model, vertex, ..self }
    }

    /// An edge without models.
    #[cfg(test)]
    fn empty() -> Self {
        use std::time::Duration;
        let limits = HttpLimits {
            body_bytes_max: 1 << 20,
            request_images_max: 2,
            body_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(1),
        };
        let memory = Arc::new(crate::pipeline::decode::budget::MemoryBudget::new(1 << 20));
        let pool = PreparePool::new(1, memory, crate::pipeline::decode::DecodeOptions::default());
        let (models, phases) = (Models::default(), crate::shutdown::Lifecycle::new().phases());
        let oip_limits = crate::oip::OipLimits {
            request_images_max: 2,
            request_bytes_max: 1 << 20,
            request_timeout: Duration::from_secs(1),
            model_control: crate::oip::ModelControl::Here,
        };
        let oip = Oip::new(models.clone(), phases.clone(), pool.clone(), oip_limits);
        let (tracer, log) = (Tracer::default(), RequestLog::new(0));
        let shared = Shared { uploads: UploadMemory::new(1 << 20), phases, metrics: Metrics::new(), tracer, log };
        Self::new(Apis::all(), oip, models, limits, pool, shared)
    }
}

/// Every route of a side. Each API lists its own on one screen.
fn routes(app: &App, side: Side) -> Routes {
    let everywhere = Routes::new().merge(health::routes()).merge(openapi::routes());
    if side == Side::Operators {
        // Whoever may connect there may look; to change something takes a key all the same, where there are keys.
        return everywhere
            .merge(health::metrics_route(Access::Probe))
            .merge(oip::probes())
            .merge(oip::administration());
    }
    let mut routes = everywhere.merge(native::routes());
    if app.apis.has(Api::V2) {
        routes = routes.merge(oip::routes());
    }
    if side == Side::Everything {
        routes = routes.merge(health::metrics_route(Access::Collection));
        if app.apis.has(Api::V2) {
            routes = routes.merge(oip::control_routes());
        }
    }
    routes.merge(compat::routes(app))
}

/// The router of all of them.
pub fn router(app: &App, side: Side) -> Router {
    let router = routes(app, side).finish(app.clone());
    if side == Side::Operators { router } else { compat::before(router, app) }
}
