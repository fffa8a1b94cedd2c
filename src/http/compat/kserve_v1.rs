//! KServe's protocol v1, which is the REST API of TensorFlow Serving: status, metadata, and `:predict` with rows
//! (`instances` in, `predictions` out) or columns (`inputs` in, `outputs` out). A request is answered whole or not at all.
//!
//! Shapes: TensorFlow Serving's RESTful API, KServe's v1 inference protocol; where both put something at one path, one
//! object holds both. A photo's prediction has `classes`, the index of the best, as in the SavedModel of the official ResNet.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::document::{Document, Key, Parameters, SIGNATURE};
use super::{ASK_ERRORS, schema};
use crate::http::App;
use crate::http::asking::{self, Item, Outcome, TOP_K_DEFAULT, parse_top_k};
use crate::http::error::{Problem, ProblemKind, V2Error};
use crate::http::openapi::Operation;
use crate::http::routes::Routes;
use crate::http::template::Captured;
use crate::http::upload::{self, Whole};
use crate::models::{Handle, Row, State as ModelState};
use crate::oip::image_name;
use crate::oip::{Datatype, TensorMetadata};
use crate::pipeline::{Ask, Engine, Prediction};
use crate::telemetry::StageTimes;

/// The routes. A model's verb stands behind a colon in the last part of the path, which the router cannot tell apart.
pub(super) fn routes() -> Routes {
    let look = |id, summary| Operation::new(id, summary).tag("kserve");
    let predict_of = |id| {
        look(id, "Classify images, or run the graph on tensors")
            .description(
                "Rows (`instances`) are answered with `predictions`, columns (`inputs`) with `outputs`. A photo is base64 in any of \
                 the usual wrappings, a tensor nested lists of numbers. One that fails fails the request.",
            )
            .query::<u32>("top_k", "Classes in the prediction of a photo; without it, 5")
            .body::<schema::Predict>("application/json")
            .ok::<Answer>("One prediction for each instance")
            .errors::<V2Error>(&ASK_ERRORS)
            .errors::<V2Error>(&[500])
    };
    let status_of = |id| {
        look(id, "Whether a model is ready, and the state of its versions")
            .ok::<Status>("Its state")
            .errors::<V2Error>(&[404, 503])
    };
    let metadata_of =
        |id| look(id, "The signature of a model").ok::<Metadata>("Inputs and outputs").errors::<V2Error>(&[404, 503]);
    let names = look("kserveModels", "The models").ok::<Names>("Their names").errors::<V2Error>(&[503]);
    let refused = |id| look(id, "Not offered: predict gives the classes of a photo").errors::<V2Error>(&[501]);
    Routes::new().get("/v1/models", models, names).under("/v1/models/{*path}", |under| {
        under
            .post("/v1/models/{name}:predict", predict, predict_of("kservePredict"))
            .post("/v1/models/{name}/versions/{version}:explain", not_offered, refused("kserveExplainVersion"))
            .post("/v1/models/{name}/versions/{version}:classify", not_offered, refused("kserveClassifyVersion"))
            .post("/v1/models/{name}/versions/{version}:regress", not_offered, refused("kserveRegressVersion"))
            .post("/v1/models/{name}:explain", not_offered, refused("kserveExplain"))
            .post("/v1/models/{name}:classify", not_offered, refused("kserveClassify"))
            .post("/v1/models/{name}:regress", not_offered, refused("kserveRegress"))
            .get("/v1/models/{name}/metadata", metadata, metadata_of("kserveMetadata"))
            .get("/v1/models/{name}/versions/{version}/metadata", metadata, metadata_of("kserveMetadataVersion"))
            .post("/v1/models/{name}/versions/{version}:predict", predict, predict_of("kservePredictVersion"))
            .get("/v1/models/{name}/versions/{version}", status, status_of("kserveStatusVersion"))
            .get("/v1/models/{name}", status, status_of("kserveStatus"))
    })
}

/// A model and a version of it.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    name: String,
    version: Option<String>,
}

impl Target {
    /// What a path says. Version 0 is what clients say that always name one and mean none, unless there is such a version.
    fn of(app: &App, captured: &Captured) -> Self {
        let name = captured.get("name");
        let has_zero = || app.models.rows().iter().any(|row| row.version.as_str() == "0" && is_of(row, name));
        let version = match captured.get("version") {
            "" => None,
            "0" if !has_zero() => None,
            version => Some(version.to_owned()),
        };
        Self { name: name.to_owned(), version }
    }

    /// The model, by the name of one of its faces as in the Open Inference Protocol: both take photos and tensors here.
    fn find(&self, app: &App) -> Result<Handle, Problem> {
        Ok(app.oip.face(&self.name, self.version.as_deref())?.engine().clone())
    }
}

/// The names of the models.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "KserveModels")]
struct Names {
    models: Vec<String>,
}

/// `GET /v1/models`.
async fn models(State(app): State<App>) -> Response {
    if let Err(problem) = asking::admit(&app) {
        return problem.into_plain();
    }
    let mut models: Vec<String> = app.models.rows().into_iter().map(|row| row.name).collect();
    models.dedup();
    Json(Names { models }).into_response()
}

/// `POST :explain` and its like.
async fn not_offered(request: Request) -> Response {
    let path = request.uri().path().to_owned();
    upload::refuse(request);
    let detail = format!("{path} is not offered; :predict gives the classes of a photo");
    Problem::new(ProblemKind::NotOffered, detail).into_plain()
}

/// `POST :predict`.
async fn predict(State(app): State<App>, captured: Captured, request: Request) -> Response {
    let target = Target::of(&app, &captured);
    let find = |app: &App| target.find(app);
    let answer = |engine, request| answer(&app, engine, request);
    asking::ask(&app, request, find, Problem::into_plain, answer).await
}

/// Readiness for KServe and the state of the versions for TensorFlow Serving, in one object.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "KserveStatus")]
struct Status {
    /// The name that was asked for.
    name: String,
    /// It answers.
    ready: bool,
    /// The newest first.
    model_version_status: Vec<VersionStatus>,
}

/// One version.
#[derive(Debug, Serialize, JsonSchema)]
struct VersionStatus {
    version: String,
    /// `AVAILABLE`, `LOADING` or `END`.
    state: &'static str,
    status: VersionError,
}

/// Why it is not available.
#[derive(Debug, Serialize, JsonSchema)]
struct VersionError {
    /// By gRPC's names.
    error_code: &'static str,
    error_message: &'static str,
}

/// `GET` of a model or a version.
async fn status(State(app): State<App>, captured: Captured) -> Response {
    let target = Target::of(&app, &captured);
    state_of(&app, &target).map_or_else(Problem::into_plain, |status| Json(status).into_response())
}

fn state_of(app: &App, target: &Target) -> Result<Status, Problem> {
    asking::admit(app)?;
    let name = match target.find(app) {
        Ok(engine) => engine.spec().name.clone(),
        // It is there and not ready, which is an answer here.
        Err(problem) if problem.kind().code() == "model_unavailable" => {
            let rows = app.models.rows();
            rows.into_iter().find(|row| is_of(row, &target.name)).map_or_else(|| target.name.clone(), |row| row.name)
        }
        Err(problem) => return Err(problem),
    };
    let wanted =
        |row: &Row| row.name == name && target.version.as_ref().is_none_or(|version| row.version.as_str() == version);
    let rows: Vec<Row> = app.models.rows().into_iter().filter(wanted).collect();
    Ok(Status {
        name: target.name.clone(),
        ready: app.oip.is_model_ready(&name, target.version.as_deref()),
        model_version_status: rows.iter().rev().map(version_status).collect(),
    })
}

/// The model goes by this name, or its photo side does.
fn is_of(row: &Row, name: &str) -> bool {
    row.name == name || image_name(&row.name) == name
}

fn version_status(row: &Row) -> VersionStatus {
    let (state, error_code, error_message) = match row.state {
        ModelState::Ready => ("AVAILABLE", "OK", ""),
        ModelState::Loading => ("LOADING", "OK", ""),
        ModelState::Unavailable => ("END", "INTERNAL", "it could not be loaded; the server's log says why"),
    };
    let version = row.version.as_str().to_owned();
    VersionStatus { version, state, status: VersionError { error_code, error_message } }
}

/// The signature of a model. TensorFlow Serving writes names in snake case and OpenVINO Model Server in camel case; clients of
/// either find theirs.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "KserveMetadata")]
struct Metadata {
    model_spec: ModelSpec,
    #[serde(rename = "modelSpec")]
    model_spec_camel: ModelSpec,
    metadata: SignatureDefs,
}

/// Which model.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "KserveModelSpec")]
struct ModelSpec {
    name: String,
    signature_name: &'static str,
    version: String,
}

/// The signatures, in a message inside a message.
#[derive(Debug, Serialize, JsonSchema)]
struct SignatureDefs {
    signature_def: SignatureMap,
}

/// Signatures by name.
#[derive(Debug, Serialize, JsonSchema)]
struct SignatureMap {
    signature_def: BTreeMap<&'static str, SignatureDef>,
    #[serde(rename = "signatureDef")]
    signature_def_camel: BTreeMap<&'static str, SignatureDef>,
}

/// One signature.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct SignatureDef {
    inputs: BTreeMap<String, TensorInfo>,
    outputs: BTreeMap<String, TensorInfo>,
    method_name: &'static str,
}

/// One tensor.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct TensorInfo {
    dtype: &'static str,
    name: String,
    tensor_shape: TensorShape,
    #[serde(rename = "tensorShape")]
    tensor_shape_camel: TensorShape,
}

/// Its shape.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct TensorShape {
    dim: Vec<Dim>,
    unknown_rank: bool,
}

/// One dimension.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "TensorDim")]
struct Dim {
    /// As a text; -1 is the batch.
    size: String,
    name: &'static str,
}

/// `GET` of the metadata.
async fn metadata(State(app): State<App>, captured: Captured) -> Response {
    let target = Target::of(&app, &captured);
    describe(&app, &target).map_or_else(Problem::into_plain, |metadata| Json(metadata).into_response())
}

fn describe(app: &App, target: &Target) -> Result<Metadata, Problem> {
    let found = app.oip.metadata(&target.name, target.version.as_deref())?;
    let version = target.find(app)?.spec().version.clone();
    let spec = ModelSpec { name: found.name, signature_name: "", version };
    let tensors = |tensors: &[TensorMetadata]| tensors.iter().map(|one| (one.name.clone(), tensor_info(one))).collect();
    let signature = SignatureDef {
        inputs: tensors(&found.inputs),
        outputs: tensors(&found.outputs),
        method_name: "tensorflow/serving/predict",
    };
    let by_name = BTreeMap::from([(SIGNATURE, signature)]);
    let signature_def = SignatureMap { signature_def: by_name.clone(), signature_def_camel: by_name };
    Ok(Metadata { model_spec: spec.clone(), model_spec_camel: spec, metadata: SignatureDefs { signature_def } })
}

fn tensor_info(tensor: &TensorMetadata) -> TensorInfo {
    let dim = tensor.shape.iter().map(|size| Dim { size: size.to_string(), name: "" }).collect();
    let tensor_shape = TensorShape { dim, unknown_rank: false };
    let (dtype, name, tensor_shape_camel) = (dtype(tensor.datatype), tensor.name.clone(), tensor_shape.clone());
    TensorInfo { dtype, name, tensor_shape, tensor_shape_camel }
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

async fn answer(app: &App, engine: Handle, request: Request) -> Result<Response, Problem> {
    let query = query_top_k(request.uri())?;
    let Whole { bytes, share, deadline } = upload::plain(request, &app.limits, &app.uploads).await?;
    // The share is held to the end: the items live as long.
    let (document, _share) =
        Document::read(app, &engine, bytes, &[Key::Instances, Key::Inputs], share, deadline).await?;
    let ask = Ask::new(top_k(&engine, query.as_deref(), &document.parameters)?, deadline);
    respond(&engine, document, ask).await
}

/// `top_k` of the query, which is an addition of ours as that in `parameters` is.
fn query_top_k(uri: &Uri) -> Result<Option<String>, Problem> {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| {
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
    Ok(asking::answered(Json(Answer::Rows { predictions }), asking::times(&outcomes)))
}

/// The answer to rows or to columns.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "KserveAnswer")]
enum Answer<'a> {
    /// One prediction an instance.
    Rows { predictions: Vec<RowAnswer<'a>> },
    /// One output, or all by name.
    Columns { outputs: Outputs<'a> },
}

/// What columns are answered with.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "KserveOutputs")]
enum Outputs<'a> {
    /// Of tensors: the graph's output.
    Tensors(Vec<&'a [f32]>),
    /// Of a photo by itself: a score for each class, the best class, its label.
    Photo { probabilities: &'a [f32], class_index: usize, label: &'a str },
    /// Of a list of photos.
    Photos { probabilities: Vec<&'a [f32]>, class_index: Vec<[usize; 1]>, label: Vec<[&'a str; 1]> },
}

/// The prediction of one instance.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "KservePrediction")]
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
    let times = rows.iter().fold(StageTimes::default(), |all, row| all.max(row.times));
    let values: Vec<&[f32]> = rows.iter().map(|row| &row.values[..]).collect();
    if photos == 0 {
        return Ok(asking::answered(Json(Answer::Columns { outputs: Outputs::Tensors(values) }), times));
    }
    let best: Vec<usize> = rows.iter().map(|row| row.best.first().copied().unwrap_or_default()).collect();
    let labels: Vec<&str> = best.iter().map(|&index| &**engine.spec().labels.get(index)).collect();
    let outputs = match (&values[..], one) {
        (&[probabilities], true) => Outputs::Photo { probabilities, class_index: best[0], label: labels[0] },
        _ => Outputs::Photos {
            probabilities: values,
            class_index: best.into_iter().map(|best| [best]).collect(),
            label: labels.into_iter().map(|label| [label]).collect(),
        },
    };
    Ok(asking::answered(Json(Answer::Columns { outputs }), times))
}
