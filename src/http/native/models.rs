//! What is served, and exactly how.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::http::App;
use crate::http::error::Problem;
use crate::http::health;
use crate::http::openapi::Document;
use crate::models::{Handle, Row, State as ModelState};
use crate::pipeline::engine::Execution;
use crate::pipeline::infer::Contract;
use crate::pipeline::preprocess::Recipe;
use crate::shutdown::Phase;
use crate::zoo::Version;

/// The models that are served.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ModelList")]
pub(super) struct Listed {
    /// Every version of every model.
    models: Vec<ListedModel>,
}

/// One version of one model in the list.
#[derive(Serialize, JsonSchema)]
struct ListedModel {
    name: String,
    version: Version,
    state: ModelState,
    /// How many classes it tells apart, once that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<usize>,
    /// Whether it answers requests that name no model.
    default: bool,
    /// Why the latest load failed; the log has the reason itself, which may name paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
}

/// Everything about one model.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Model")]
pub(super) struct Details<'a> {
    name: &'a str,
    version: &'a str,
    /// `built in`, or a path.
    origin: &'a str,
    /// Of the ONNX file, lower-case hex.
    sha256: &'a str,
    contract: &'a Contract,
    recipe: &'a Recipe,
    /// Where the recipe was read: `preprocessor_config.json`.
    recipe_source: &'a str,
    /// In the order of the model's output.
    classes: Vec<Class<'a>>,
    /// Where the names of the classes were read: `config.json`, `imagenet-1k`, `index`.
    label_source: &'a str,
    /// What had to be assumed, and may cost accuracy.
    warnings: &'a [String],
    execution: &'a Execution,
}

/// A class that a model tells apart.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ModelClass")]
struct Class<'a> {
    index: usize,
    label: &'a str,
}

/// Where to go from here.
#[derive(Serialize, JsonSchema)]
pub(super) struct Index {
    /// `residual`.
    name: &'static str,
    /// Version of the program.
    version: &'static str,
    /// `alive`, which clients of KServe v1 look for here.
    status: &'static str,
    /// Method and path of each route, and a line about it.
    routes: BTreeMap<String, &'static str>,
}

/// `GET /`.
pub(super) async fn index(Extension(document): Extension<Arc<Document>>) -> Json<Index> {
    let routes = document.index().clone();
    Json(Index { name: "residual", version: env!("CARGO_PKG_VERSION"), status: "alive", routes })
}

/// `GET /api/v1/models`.
pub(super) async fn models(State(app): State<App>) -> Result<Json<Listed>, Problem> {
    if app.phases.now() == Phase::Starting {
        return Err(health::not_ready());
    }
    Ok(Json(Listed { models: app.models.rows().into_iter().map(ListedModel::from).collect() }))
}

impl From<Row> for ListedModel {
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
pub(super) async fn model(State(app): State<App>, path: Named<String>) -> Result<Response, Problem> {
    Ok(details(&newest(&app, &path)?))
}

/// `GET /api/v1/models/{name}/versions/{version}`.
pub(super) async fn model_version(State(app): State<App>, path: Named<(String, String)>) -> Result<Response, Problem> {
    Ok(details(&exactly(&app, &path)?))
}

/// `GET /api/v1/models/{name}/graph`.
pub(super) async fn graph(State(app): State<App>, path: Named<String>) -> Result<Response, Problem> {
    Ok(Json(&*newest(&app, &path)?.spec().summary).into_response())
}

/// `GET /api/v1/models/{name}/versions/{version}/graph`.
pub(super) async fn graph_version(State(app): State<App>, path: Named<(String, String)>) -> Result<Response, Problem> {
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
