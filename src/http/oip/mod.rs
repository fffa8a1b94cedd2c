//! The Open Inference Protocol over HTTP: paths, JSON and the binary tensor extension. What the calls do is `crate::oip`'s.

mod body;
mod bounded;
mod document;
mod encoding;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod infer;
mod render;
mod routes;

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) use body::{HEADER_LENGTH, JsonPart};
pub(super) use infer::rendered;
pub(super) use routes::{administration, control_routes, probes, routes};

use super::error::{Problem, ProblemKind};
use super::limits::HttpLimits;
use super::middleware::Report;
use super::upload::{self, Whole};
use super::{App, cors};
use crate::oip::{
    ErrorKind, IndexEntry, ModelConfig, ModelMetadata, ModelStatistics, Oip, OipError, Parameters, ServerMetadata,
};

/// The process answers.
#[derive(Debug, Serialize, JsonSchema)]
struct Live {
    live: bool,
}

/// The models are warm.
#[derive(Debug, Serialize, JsonSchema)]
struct Ready {
    ready: bool,
}

/// Whether one model answers.
#[derive(Debug, Serialize, JsonSchema)]
struct ModelReady {
    name: String,
    ready: bool,
}

/// The names that clients can ask for.
#[derive(Debug, Serialize, JsonSchema)]
struct ModelNames {
    models: Vec<String>,
}

/// What models have done.
#[derive(Debug, Serialize, JsonSchema)]
struct Statistics {
    model_stats: Vec<ModelStatistics>,
}

/// What a list of models should hold.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct IndexRequest {
    /// Only models that answer.
    ready: bool,
}

/// How a model should be loaded or unloaded.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct ControlRequest {
    /// Of unloading, `unload_dependents` is taken and changes nothing: no model depends on another. Loading takes none.
    #[serde(deserialize_with = "bounded::map")]
    parameters: Parameters,
}

/// A call that changes nothing but what is served has a body of a line.
const CONTROL_BYTES_MAX: u64 = 64 * 1024;

/// Name, or name and version, out of a path. What is no UTF-8 is no model's name either.
pub(super) type Named<T> = Result<Path<T>, PathRejection>;

/// An error in the protocol's shape.
#[derive(Debug)]
pub(super) struct V2Problem(pub(super) Problem);

impl From<OipError> for V2Problem {
    fn from(error: OipError) -> Self {
        Self(error.into())
    }
}

impl From<Problem> for V2Problem {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for V2Problem {
    fn into_response(self) -> Response {
        self.0.into_v2()
    }
}

/// The name in a path; one that cannot be read is nobody's.
fn one(path: &Named<String>) -> &str {
    path.as_ref().map_or("\u{fffd}", |Path(name)| name)
}

/// Name and version in a path.
fn two(path: &Named<(String, String)>) -> (&str, Option<&str>) {
    path.as_ref().map_or(("\u{fffd}", None), |Path((name, version))| (name, Some(version)))
}

/// `GET /v2/health/live`.
async fn live(State(app): State<App>) -> Json<Live> {
    Json(Live { live: app.oip.is_live() })
}

/// `GET /v2/health/ready`.
async fn ready(State(app): State<App>) -> Response {
    let ready = app.oip.is_ready();
    with_readiness(ready, Json(Ready { ready }))
}

fn with_readiness(ready: bool, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    if !ready {
        let kind = ProblemKind::NotReady;
        *response.status_mut() = kind.status();
        response.extensions_mut().insert(Report { outcome: kind.code(), ..Report::default() });
    }
    response
}

/// `GET /v2`.
async fn server_metadata(State(app): State<App>) -> Json<ServerMetadata> {
    Json(app.oip.server())
}

/// `GET /v2/models`.
async fn models(State(app): State<App>) -> Json<ModelNames> {
    let models: BTreeSet<String> = app.oip.index(true).into_iter().map(|entry| entry.name).collect();
    Json(ModelNames { models: models.into_iter().collect() })
}

/// `GET /v2/models/{name}`.
async fn metadata_newest(State(app): State<App>, path: Named<String>) -> Result<Json<ModelMetadata>, V2Problem> {
    Ok(Json(app.oip.metadata(one(&path), None)?))
}

/// `GET /v2/models/{name}/versions/{version}`.
async fn metadata_version(
    State(app): State<App>,
    path: Named<(String, String)>,
) -> Result<Json<ModelMetadata>, V2Problem> {
    let (name, version) = two(&path);
    Ok(Json(app.oip.metadata(name, version)?))
}

/// `GET /v2/models/{name}/ready`.
async fn model_ready_newest(State(app): State<App>, path: Named<String>) -> Result<Response, V2Problem> {
    readiness(&app.oip, one(&path), None)
}

/// `GET /v2/models/{name}/versions/{version}/ready`.
async fn model_ready_version(State(app): State<App>, path: Named<(String, String)>) -> Result<Response, V2Problem> {
    let (name, version) = two(&path);
    readiness(&app.oip, name, version)
}

/// A model that nobody knows is an error; one that is known and does not answer is not ready.
fn readiness(oip: &Oip, name: &str, version: Option<&str>) -> Result<Response, V2Problem> {
    match oip.face(name, version) {
        Err(error) if error.kind == ErrorKind::NotFound => Err(error.into()),
        _ => {
            let ready = oip.is_model_ready(name, version);
            Ok(with_readiness(ready, Json(ModelReady { name: name.to_owned(), ready })))
        }
    }
}

/// `GET /v2/models/{name}/config`.
async fn config_newest(State(app): State<App>, path: Named<String>) -> Result<Json<ModelConfig>, V2Problem> {
    Ok(Json(app.oip.config(one(&path), None)?))
}

/// `GET /v2/models/{name}/versions/{version}/config`.
async fn config_version(State(app): State<App>, path: Named<(String, String)>) -> Result<Json<ModelConfig>, V2Problem> {
    let (name, version) = two(&path);
    Ok(Json(app.oip.config(name, version)?))
}

/// `GET /v2/models/stats`.
async fn all_statistics(State(app): State<App>) -> Result<Json<Statistics>, V2Problem> {
    Ok(Json(Statistics { model_stats: app.oip.statistics(None, None)? }))
}

/// `GET /v2/models/{name}/stats`.
async fn statistics_newest(State(app): State<App>, path: Named<String>) -> Result<Json<Statistics>, V2Problem> {
    Ok(Json(Statistics { model_stats: app.oip.statistics(Some(one(&path)), None)? }))
}

/// `GET /v2/models/{name}/versions/{version}/stats`.
async fn statistics_version(
    State(app): State<App>,
    path: Named<(String, String)>,
) -> Result<Json<Statistics>, V2Problem> {
    let (name, version) = two(&path);
    Ok(Json(Statistics { model_stats: app.oip.statistics(Some(name), version)? }))
}

/// `POST /v2/repository/index`.
async fn index(State(app): State<App>, request: Request) -> Result<Json<Vec<IndexEntry>>, V2Problem> {
    let IndexRequest { ready } = control_body(&app, request).await?;
    Ok(Json(app.oip.index(ready)))
}

/// `POST /v2/repository/models/{name}/load`.
async fn load(State(app): State<App>, path: Named<String>, request: Request) -> Result<StatusCode, V2Problem> {
    let ControlRequest { parameters } = permitted(&app, request).await?;
    app.oip.load(one(&path), &parameters).await?;
    Ok(StatusCode::OK)
}

/// `POST /v2/repository/models/{name}/unload`.
async fn unload(State(app): State<App>, path: Named<String>, request: Request) -> Result<StatusCode, V2Problem> {
    let ControlRequest { .. } = permitted(&app, request).await?;
    app.oip.unload(one(&path)).await?;
    Ok(StatusCode::OK)
}

/// Whether a request with these headers may change what is served.
pub(in crate::http) fn may_change(app: &App, headers: &HeaderMap) -> Result<(), OipError> {
    app.oip.may_change()?;
    if !cors::is_foreign(headers, &app.origins) {
        return Ok(());
    }
    let message = "a web page of another origin may not load or unload models; name its origin with --cors-origin";
    Err(OipError::new(ErrorKind::Forbidden, "cross_origin", message))
}

/// Whoever may not change what is served need not say how.
async fn permitted(app: &App, request: Request) -> Result<ControlRequest, Problem> {
    if let Err(error) = may_change(app, request.headers()) {
        upload::refuse(request);
        return Err(error.into());
    }
    control_body(app, request).await
}

/// The JSON of a call that may leave it out, whatever its content type: clients send `{}` as bytes.
async fn control_body<T: Default + serde::de::DeserializeOwned>(app: &App, request: Request) -> Result<T, Problem> {
    let body_bytes_max = app.limits.body_bytes_max.min(CONTROL_BYTES_MAX);
    let limits = HttpLimits { body_bytes_max, ..app.limits };
    let Whole { bytes, share: _share, .. } = upload::whole(request, &limits, &app.uploads).await?;
    if bytes.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    parse(&bytes)
}

/// Reads an object. serde would take the same values as a list without names as well.
fn parse<'a, T: Deserialize<'a>>(bytes: &'a Bytes) -> Result<T, Problem> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::new(ProblemKind::BadJson, "the JSON body is not understood: it is no object"));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Problem::new(ProblemKind::BadJson, format!("the JSON body is not understood: {error}")))
}
