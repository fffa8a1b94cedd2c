//! What is served, and exactly how.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::json;

use super::classify::check_model;
use crate::http::App;
use crate::http::error::Problem;
use crate::http::health;
use crate::pipeline::Engine;
use crate::pipeline::engine::Execution;
use crate::pipeline::infer::Contract;
use crate::pipeline::preprocess::Recipe;

/// One line of the list.
#[derive(Serialize)]
struct Summary<'a> {
    name: &'a str,
    version: &'a str,
    classes: usize,
    default: bool,
}

/// Everything about one model.
#[derive(Serialize)]
struct Details<'a> {
    name: &'a str,
    version: &'a str,
    origin: &'a str,
    sha256: &'a str,
    contract: &'a Contract,
    recipe: &'a Recipe,
    recipe_source: &'a str,
    classes: Vec<Class<'a>>,
    execution: Execution,
}

#[derive(Serialize)]
struct Class<'a> {
    index: usize,
    label: &'a str,
}

/// `GET /`: where to go from here.
pub(in crate::http) async fn index() -> impl IntoResponse {
    Json(json!({
        "name": "residual",
        "version": env!("CARGO_PKG_VERSION"),
        "routes": {
            "POST /api/v1/classify": "classify an image: curl --data-binary @cat.jpg http://HOST/api/v1/classify",
            "GET /api/v1/models": "the models that are served",
            "GET /api/v1/models/{name}": "one model: input, recipe, classes, provider, threads",
            "GET /health/live": "the process answers",
            "GET /health/ready": "the models are warm",
            "GET /metrics": "Prometheus metrics",
        },
    }))
}

/// `GET /api/v1/models`.
pub(in crate::http) async fn models(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    let spec = engine(&app)?.spec();
    let summary = Summary { name: &spec.name, version: &spec.version, classes: spec.labels.len(), default: true };
    Ok(Json(json!({ "models": [summary] })))
}

/// `GET /api/v1/models/{name}`.
pub(in crate::http) async fn model(
    State(app): State<App>,
    name: Result<Path<String>, PathRejection>,
) -> Result<impl IntoResponse, Problem> {
    let engine = engine(&app)?;
    // A name that is no UTF-8 is no model's name either.
    check_model(name.as_ref().map_or("\u{fffd}", |Path(name)| name), engine)?;
    let spec = engine.spec();
    let classes = spec.labels.iter().enumerate().map(|(index, label)| Class { index, label }).collect();
    let details = Details {
        name: &spec.name,
        version: &spec.version,
        origin: &spec.origin,
        sha256: &spec.sha256,
        contract: engine.contract(),
        recipe: &spec.recipe,
        recipe_source: &spec.recipe_source,
        classes,
        execution: engine.execution(),
    };
    Ok(Json(details).into_response())
}

/// The engine, as soon as there is one: metadata is served while the server drains, too.
fn engine(app: &App) -> Result<&Engine, Problem> {
    app.engine.get().ok_or_else(health::not_ready)
}
