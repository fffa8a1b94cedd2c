//! `GET /ping`, which SageMaker and TorchServe ask: 200 with TorchServe's `{"status": "Healthy"}` when models answer, 503
//! before and after. SageMaker reads the status alone.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::wrong_method;
use crate::apis::Api;
use crate::http::error::{Ping, Problem};
use crate::http::{App, health};

pub(super) fn routes(app: &App) -> Router<App> {
    if app.apis.has(Api::Sagemaker) || app.apis.has(Api::Torchserve) {
        Router::new().route("/ping", get(ping).fallback(only_get))
    } else {
        Router::new()
    }
}

async fn ping(State(app): State<App>) -> Response {
    match health::is_ready(&app) {
        Ok(()) => Json(Ping { status: "Healthy" }).into_response(),
        Err(problem) => problem.into_unhealthy(),
    }
}

async fn only_get(request: Request) -> Response {
    wrong_method(request, "GET, HEAD", Problem::into_torchserve)
}
