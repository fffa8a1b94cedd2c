//! What is served, and exactly how.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::http::App;
use crate::http::error::Problem;
use crate::http::health;
use crate::models::{Handle, Row, State as ModelState};
use crate::pipeline::engine::Execution;
use crate::pipeline::infer::Contract;
use crate::pipeline::preprocess::Recipe;
use crate::shutdown::Phase;
use crate::zoo::Version;

/// One version of one model in the list.
#[derive(Serialize)]
struct Summary {
    name: String,
    version: Version,
    state: ModelState,
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<usize>,
    default: bool,
    /// Why the latest load failed; the log has the reason itself, which may name paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
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
    label_source: &'a str,
    warnings: &'a [String],
    execution: &'a Execution,
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
            "GET /api/v1/models": "the models and their versions",
            "GET /api/v1/models/{name}": "the newest version of a model: input, recipe, classes, provider, threads",
            "GET /api/v1/models/{name}/graph": "what network it is: blocks, shortcuts, parameters, MACs",
            "GET /api/v1/models/{name}/versions/{version}": "one version of a model",
            "GET /api/v1/models/{name}/versions/{version}/graph": "what network that version is",
            "GET /health/live": "the process answers",
            "GET /health/ready": "the models are warm",
            "GET /metrics": "Prometheus metrics",
        },
    }))
}

/// `GET /api/v1/models`.
pub(in crate::http) async fn models(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    if app.phases.now() == Phase::Starting {
        return Err(health::not_ready());
    }
    let models: Vec<Summary> = app.models.rows().into_iter().map(Summary::from).collect();
    Ok(Json(json!({ "models": models })))
}

impl From<Row> for Summary {
    fn from(row: Row) -> Self {
        let problem = row.problem.map(|_| match row.state {
            ModelState::Ready => "the files have changed and could not be loaded; this is the model from before",
            ModelState::Loading | ModelState::Unavailable => "it could not be loaded; the server's log says why",
        });
        Self {
            name: row.name,
            version: row.version,
            state: row.state,
            classes: row.handle.map(|engine| engine.spec().labels.len()),
            default: row.default,
            problem,
        }
    }
}

/// Name and version out of a path. What is no UTF-8 is no model's name either.
type Named<T> = Result<Path<T>, PathRejection>;

/// `GET /api/v1/models/{name}`.
pub(in crate::http) async fn model(State(app): State<App>, path: Named<String>) -> Result<Response, Problem> {
    Ok(details(&newest(&app, &path)?))
}

/// `GET /api/v1/models/{name}/versions/{version}`.
pub(in crate::http) async fn model_version(
    State(app): State<App>,
    path: Named<(String, String)>,
) -> Result<Response, Problem> {
    Ok(details(&exactly(&app, &path)?))
}

/// `GET /api/v1/models/{name}/graph`.
pub(in crate::http) async fn graph(State(app): State<App>, path: Named<String>) -> Result<Response, Problem> {
    Ok(Json(&*newest(&app, &path)?.spec().summary).into_response())
}

/// `GET /api/v1/models/{name}/versions/{version}/graph`.
pub(in crate::http) async fn graph_version(
    State(app): State<App>,
    path: Named<(String, String)>,
) -> Result<Response, Problem> {
    Ok(Json(&*exactly(&app, &path)?.spec().summary).into_response())
}

fn newest(app: &App, path: &Named<String>) -> Result<Handle, Problem> {
    let name = path.as_ref().map_or("\u{fffd}", |Path(name)| name);
    Ok(app.models.get(Some(name), None)?)
}

fn exactly(app: &App, path: &Named<(String, String)>) -> Result<Handle, Problem> {
    let (name, version) = path.as_ref().map_or(("\u{fffd}", ""), |Path((name, version))| (name, version));
    Ok(app.models.get(Some(name), Some(version))?)
}

fn details(engine: &Handle) -> Response {
    let spec = engine.spec();
    let classes = spec.labels.iter().enumerate().map(|(index, label)| Class { index, label }).collect();
    let details = Details {
        name: &spec.name,
        version: &spec.version,
        origin: &spec.origin,
        sha256: &spec.sha256,
        contract: engine.contract(),
        recipe: &spec.recipe,
        recipe_source: spec.recipe_source,
        classes,
        label_source: &spec.label_source,
        warnings: &spec.warnings,
        execution: engine.execution(),
    };
    Json(details).into_response()
}
