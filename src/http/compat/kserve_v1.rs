//! KServe's protocol v1, which is the REST API of TensorFlow Serving: status, metadata, and `:predict` with rows
//! (`instances` in, `predictions` out) or columns (`inputs` in, `outputs` out). A request is answered whole or not at all.
//!
//! Shapes: TensorFlow Serving's RESTful API, KServe's v1 inference protocol; where both put something at one path, one
//! object holds both. A photo's prediction has `classes`, the index of the best, as in the SavedModel of the official ResNet.

use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};

use super::document::{Document, Key, Parameters, SIGNATURE};
use super::{Named, named, wrong_method};
use crate::http::App;
use crate::http::asking::{self, Item, Outcome, TOP_K_DEFAULT, parse_top_k};
use crate::http::error::{Problem, ProblemKind};
use crate::http::upload::{self, Whole};
use crate::models::{Handle, Row, State as ModelState};
use crate::oip::{Datatype, TensorMetadata};
use crate::pipeline::{Ask, Engine, Prediction};

/// The routes. A model's verb stands behind a colon in the last part of the path, which the router cannot tell apart.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/models", get(models).fallback(only_get))
        .route("/v1/models/{model}", any(model))
        .route("/v1/models/{model}/metadata", get(metadata).fallback(only_get))
        .route("/v1/models/{model}/versions/{version}", any(version))
        .route("/v1/models/{model}/versions/{version}/metadata", get(version_metadata).fallback(only_get))
}

/// A model, a version of it, and what is to be done with it.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    model: String,
    version: Option<String>,
    verb: Option<String>,
}

impl Target {
    /// `NAME` or `NAME:VERB`.
    fn of_model(last: &str) -> Self {
        let (model, verb) = split_verb(last);
        Self { model: model.to_owned(), version: None, verb }
    }

    /// `VERSION` or `VERSION:VERB`.
    fn of_version(model: String, last: &str) -> Self {
        let (version, verb) = split_verb(last);
        Self { model, version: Some(version.to_owned()), verb }
    }

    /// Version 0 is what clients say that always name one and mean none, unless there is such a version.
    fn settled(self, app: &App) -> Self {
        let is_there = || app.models.rows().iter().any(|row| row.version.as_str() == "0");
        match self.version.as_deref() {
            Some("0") if !is_there() => Self { version: None, ..self },
            Some(_) | None => self,
        }
    }

    /// The model, by the name of one of its faces as in the Open Inference Protocol: both take photos and tensors here.
    fn find(&self, app: &App) -> Result<Handle, Problem> {
        Ok(app.oip.face(&self.model, self.version.as_deref())?.engine().clone())
    }
}

fn split_verb(last: &str) -> (&str, Option<String>) {
    last.rsplit_once(':').map_or((last, None), |(name, verb)| (name, Some(verb.to_owned())))
}

async fn only_get(request: Request) -> Response {
    wrong_method(request, "GET, HEAD", Problem::into_v2)
}

/// `GET /v1/models`.
async fn models(State(app): State<App>) -> Response {
    if let Err(problem) = asking::admit(&app) {
        return problem.into_v2();
    }
    let mut names: Vec<String> = app.models.rows().into_iter().map(|row| row.name).collect();
    names.dedup();
    Json(json!({ "models": names })).into_response()
}

/// `GET /v1/models/{model}`, `POST /v1/models/{model}:predict`.
async fn model(State(app): State<App>, path: Named<String>, request: Request) -> Response {
    target(&app, Target::of_model(&named(path)), request).await
}

/// `GET /v1/models/{model}/versions/{version}`, `POST /v1/models/{model}/versions/{version}:predict`.
async fn version(State(app): State<App>, path: Named<(String, String)>, request: Request) -> Response {
    let (model, last) = path.map_or_else(|_| ("\u{fffd}".to_owned(), String::new()), |path| path.0);
    target(&app, Target::of_version(model, &last), request).await
}

async fn target(app: &App, target: Target, request: Request) -> Response {
    let target = target.settled(app);
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    match target.verb.as_deref() {
        None if is_read => status(app, &target).unwrap_or_else(Problem::into_v2),
        None => wrong_method(request, "GET, HEAD", Problem::into_v2),
        Some(_) if request.method() != Method::POST => wrong_method(request, "POST", Problem::into_v2),
        Some("predict") => {
            let find = |app: &App| target.find(app);
            let answer = |engine, request| predict(app, engine, request);
            asking::ask(app, request, find, Problem::into_v2, answer).await
        }
        Some(verb) => {
            let (kind, detail) = match verb {
                "explain" | "classify" | "regress" => {
                    (ProblemKind::NotOffered, format!(":{verb} is not offered; :predict gives the classes of a photo"))
                }
                _ => (ProblemKind::NotFound, format!("there is no :{verb}; there is :predict")),
            };
            upload::refuse(request);
            Problem::new(kind, detail).into_v2()
        }
    }
}

/// Readiness for KServe and the state of the versions for TensorFlow Serving, in one object.
fn status(app: &App, target: &Target) -> Result<Response, Problem> {
    asking::admit(app)?;
    let name = match target.find(app) {
        Ok(engine) => engine.spec().name.clone(),
        // It is there and not ready, which is an answer here.
        Err(problem) if problem.kind().code() == "model_unavailable" => target.model.clone(),
        Err(problem) => return Err(problem),
    };
    let wanted =
        |row: &Row| row.name == name && target.version.as_ref().is_none_or(|version| row.version.as_str() == version);
    let rows: Vec<Row> = app.models.rows().into_iter().filter(wanted).collect();
    let ready = app.oip.is_model_ready(&name, target.version.as_deref());
    let versions: Vec<Value> = rows.iter().rev().map(version_status).collect();
    Ok(Json(json!({ "name": target.model, "ready": ready, "model_version_status": versions })).into_response())
}

fn version_status(row: &Row) -> Value {
    let (state, code, message) = match row.state {
        ModelState::Ready => ("AVAILABLE", "OK", ""),
        ModelState::Loading => ("LOADING", "OK", ""),
        ModelState::Unavailable => ("END", "INTERNAL", "it could not be loaded; the server's log says why"),
    };
    json!({
        "version": row.version.as_str(),
        "state": state,
        "status": { "error_code": code, "error_message": message },
    })
}

/// `GET /v1/models/{model}/metadata`.
async fn metadata(State(app): State<App>, path: Named<String>) -> Response {
    let target = Target { model: named(path), version: None, verb: None };
    describe(&app, &target).unwrap_or_else(Problem::into_v2)
}

/// `GET /v1/models/{model}/versions/{version}/metadata`.
async fn version_metadata(State(app): State<App>, path: Named<(String, String)>) -> Response {
    let (model, version) = path.map_or_else(|_| ("\u{fffd}".to_owned(), String::new()), |path| path.0);
    describe(&app, &Target::of_version(model, &version).settled(&app)).unwrap_or_else(Problem::into_v2)
}

/// The signature of a model. TensorFlow Serving writes names in snake case and OpenVINO Model Server in camel case; clients of
/// either find theirs.
fn describe(app: &App, target: &Target) -> Result<Response, Problem> {
    let metadata = app.oip.metadata(&target.model, target.version.as_deref())?;
    let engine = target.find(app)?;
    let spec = json!({ "name": metadata.name, "signature_name": "", "version": engine.spec().version });
    let tensors = |tensors: &[TensorMetadata]| -> Value {
        tensors
            .iter()
            .map(|tensor| (tensor.name.clone(), tensor_info(tensor)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let signatures = json!({
        SIGNATURE: {
            "inputs": tensors(&metadata.inputs),
            "outputs": tensors(&metadata.outputs),
            "method_name": "tensorflow/serving/predict",
        },
    });
    Ok(Json(json!({
        "model_spec": spec,
        "modelSpec": spec,
        "metadata": { "signature_def": { "signature_def": signatures, "signatureDef": signatures } },
    }))
    .into_response())
}

fn tensor_info(tensor: &TensorMetadata) -> Value {
    let dim: Vec<Value> = tensor.shape.iter().map(|size| json!({ "size": size.to_string(), "name": "" })).collect();
    let shape = json!({ "dim": dim, "unknown_rank": false });
    json!({ "dtype": dtype(tensor.datatype), "name": tensor.name, "tensor_shape": shape, "tensorShape": shape })
}

/// TensorFlow's name of a type.
fn dtype(datatype: Datatype) -> &'static str {
    match datatype {
        Datatype::Bool => "DT_BOOL",
        Datatype::Uint8 => "DT_UINT8",
        Datatype::Uint16 => "DT_UINT16",
        Datatype::Uint32 => "DT_UINT32",
        Datatype::Uint64 => "DT_UINT64",
        Datatype::Int8 => "DT_INT8",
        Datatype::Int16 => "DT_INT16",
        Datatype::Int32 => "DT_INT32",
        Datatype::Int64 => "DT_INT64",
        Datatype::Fp16 => "DT_HALF",
        Datatype::Bf16 => "DT_BFLOAT16",
        Datatype::Fp32 => "DT_FLOAT",
        Datatype::Fp64 => "DT_DOUBLE",
        Datatype::Bytes => "DT_STRING",
    }
}

async fn predict(app: &App, engine: Handle, request: Request) -> Result<Response, Problem> {
    let query = query_top_k(request.uri())?;
    let Whole { bytes, share, deadline } = upload::plain(request, &app.limits, &app.uploads).await?;
    // The share is held to the end: the items live as long.
    let (document, _share) =
        Document::read(app, &engine, bytes, &[Key::Instances, Key::Inputs], share, deadline).await?;
    let ask = Ask::new(top_k(&engine, query.as_deref(), &document.parameters)?, deadline);
    respond(&engine, document, ask).await
}

/// `top_k` of the query, which is an addition of ours as that in `parameters` is.
fn query_top_k(uri: &axum::http::Uri) -> Result<Option<String>, Problem> {
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| {
        Problem::new(ProblemKind::BadQuery, format!("the query string is broken: {}", error.body_text()))
    })?;
    Ok(pairs.0.into_iter().find(|(name, _)| name == "top_k").map(|(_, text)| text))
}

fn top_k(engine: &Engine, query: Option<&str>, parameters: &Parameters) -> Result<usize, Problem> {
    let classes = engine.spec().labels.len();
    match (query.map(str::to_owned), parameters.top_k.map(|top_k| top_k.to_string())) {
        (Some(text), _) | (None, Some(text)) => parse_top_k(&text, classes),
        (None, None) => Ok(TOP_K_DEFAULT.min(classes)),
    }
}

/// Asks about the items and answers in the form in which they came.
pub(super) async fn respond(engine: &Engine, document: Document, ask: Ask) -> Result<Response, Problem> {
    let Document { key, one, items, .. } = document;
    if key == Key::Inputs {
        return columns(engine, items, one, ask).await;
    }
    let outcomes = asking::all(engine, items, ask).await?;
    let predictions: Vec<RowAnswer> = outcomes.iter().map(RowAnswer::of).collect();
    Ok(asking::answered(Json(Predictions { predictions }), asking::times(&outcomes)))
}

/// The answer to rows.
#[derive(Debug, Serialize)]
struct Predictions<'a> {
    /// One an instance.
    predictions: Vec<RowAnswer<'a>>,
}

/// The prediction of one instance.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum RowAnswer<'a> {
    /// Of a photo.
    Photo {
        /// Index of the best class.
        classes: usize,
        /// Its label.
        label: &'a str,
        /// Its score.
        score: f32,
        /// The best classes, best first.
        predictions: &'a [Prediction],
    },
    /// Of a tensor: the graph's output.
    Tensor(&'a [f32]),
}

impl<'a> RowAnswer<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        match outcome {
            Outcome::Classes(scored) => {
                let predictions = &scored.classification.predictions[..];
                let best = predictions.first().expect("at least one class is asked for");
                Self::Photo { classes: best.index, label: &best.label, score: best.score, predictions }
            }
            Outcome::Output(row) => Self::Tensor(&row.values),
        }
    }
}

/// Photos get the outputs that the photo side of the model has in the Open Inference Protocol, tensors the graph's one output,
/// which by itself goes without its name.
async fn columns(engine: &Engine, items: Vec<Item>, one: bool, ask: Ask) -> Result<Response, Problem> {
    let photos = items.iter().filter(|item| matches!(item, Item::Photo(_))).count();
    if photos != 0 && photos != items.len() {
        return Err(Problem::new(
            ProblemKind::BadTensor,
            "\"inputs\" holds photos and tensors; a column has values of one kind",
        ));
    }
    let rows = asking::rows(engine, items, ask).await?;
    let times = rows.iter().fold(crate::telemetry::StageTimes::default(), |all, row| all.max(row.times));
    let values: Vec<&[f32]> = rows.iter().map(|row| &row.values[..]).collect();
    if photos == 0 {
        return Ok(asking::answered(Json(Outputs { outputs: values }), times));
    }
    let best: Vec<usize> = rows.iter().map(|row| row.best.first().copied().unwrap_or_default()).collect();
    let labels: Vec<&str> = best.iter().map(|&index| &**engine.spec().labels.get(index)).collect();
    Ok(match (&values[..], one) {
        (&[probabilities], true) => {
            let outputs = Columns { probabilities, class_index: best[0], label: labels[0] };
            asking::answered(Json(Outputs { outputs }), times)
        }
        _ => {
            let (class_index, label): (Vec<_>, Vec<_>) =
                best.iter().zip(&labels).map(|(&best, &label)| ([best], [label])).unzip();
            asking::answered(Json(Outputs { outputs: Columns { probabilities: values, class_index, label } }), times)
        }
    })
}

/// The answer to columns.
#[derive(Debug, Serialize)]
struct Outputs<T> {
    /// One output, or all by name.
    outputs: T,
}

/// The outputs of photos: of one, or in lists.
#[derive(Debug, Serialize)]
struct Columns<P, I, L> {
    /// A score for each class.
    probabilities: P,
    /// The best class.
    class_index: I,
    /// Its label.
    label: L,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verb_stands_behind_the_last_colon() {
        let model = Target::of_model("a:b:predict");
        assert_eq!((model.model.as_str(), model.verb.as_deref()), ("a:b", Some("predict")));
        assert_eq!(Target::of_model("a").verb, None);
        let version = Target::of_version("a".to_owned(), "2:predict");
        assert_eq!((version.version.as_deref(), version.verb.as_deref()), (Some("2"), Some("predict")));
    }
}
