//! Hugging Face's image classification: a photo in, `[{"label", "score"}]` out, best first; errors are `{"error"}`.
//!
//! Shapes: the image-classification task of the Inference API, as `huggingface_hub.InferenceClient` sends and reads it. A
//! client that is given an address posts to exactly that one, so the routes are those of addresses people have.

use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::document::{Document, Key, Looks, Parameters};
use super::schema::Inputs;
use super::{ASK_ERRORS, Named, named};
use crate::http::App;
use crate::http::asking::{self, Item, Outcome, TOP_K_DEFAULT};
use crate::http::error::{Problem, ProblemKind, V2Error};
use crate::http::openapi::Operation;
use crate::http::routes::{Routes, Under};
use crate::http::template::Captured;
use crate::http::upload::{self, Whole};
use crate::models::{Handle, NotServed};
use crate::pipeline::infer::{Activation, Reading};
use crate::pipeline::{Ask, Engine, Prediction};

/// What comes back: of one photo its classes, of several a list of such lists.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "HuggingFaceAnswer")]
pub(super) enum Answer<'a> {
    /// Of one photo.
    One(Vec<Class<'a>>),
    /// Of several.
    Many(Vec<Vec<Class<'a>>>),
}

/// One class of an answer.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HuggingFaceClass")]
pub(super) struct Class<'a> {
    /// Its name.
    label: &'a str,
    /// Its probability, or the value of the output where the client wants it so.
    score: f32,
}

/// `POST /` has its place beside the index of the native API.
pub(super) fn routes() -> Routes {
    Routes::new()
        .post("/", default_model, operation("huggingfaceDefault"))
        .post("/pipeline/image-classification/{*name}", model, operation("huggingfacePipeline"))
        .post("/hf-inference/models/{*name}", model, operation("huggingfaceRouted"))
}

/// `/models/{name}`, whatever slashes are in the name.
pub(super) fn below(under: Under) -> Under {
    under.post("/models/{*name}", captured, operation("huggingfaceModel"))
}

/// The same beside SageMaker's, which has other methods for names without slashes.
pub(super) fn beside(under: Under) -> Under {
    under.post("/models/{name}", captured, operation("huggingfaceModel"))
}

fn operation(id: &'static str) -> Operation {
    Operation::new(id, "Classify an image as Hugging Face's clients ask for it")
        .description(
            "A model is named as it is served, or with its owner before it: microsoft/resnet-50 means the model resnet-50. The \
             body is the photo, whatever its content type says, or JSON.",
        )
        .tag("huggingface")
        .path("name", "Name of a model, with or without its owner.")
        .body_bytes("application/octet-stream")
        .body_bytes("image/*")
        .body::<Inputs>("application/json")
        .ok::<Answer>("The best classes, best first; of a list of photos a list of lists")
        .errors::<V2Error>(&ASK_ERRORS)
        .errors::<V2Error>(&[415, 422, 500])
}

/// `POST /`: the default model.
async fn default_model(State(app): State<App>, request: Request) -> Response {
    let find = |app: &App| Ok(app.models.get(None, None)?);
    let answer = |engine, request| answer(&app, engine, request);
    asking::ask(&app, request, find, Problem::into_v2, answer).await
}

/// A model by the name it has on the hub, `microsoft/resnet-50`, or here, `resnet-50`.
async fn model(State(app): State<App>, path: Named<String>, request: Request) -> Response {
    by_name(&app, &named(path), request).await
}

async fn captured(State(app): State<App>, captured: Captured, request: Request) -> Response {
    by_name(&app, captured.get("name"), request).await
}

async fn by_name(app: &App, name: &str, request: Request) -> Response {
    let find = |app: &App| Ok(by_id(name, |name| app.models.get(Some(name), None))?);
    let answer = |engine, request| answer(app, engine, request);
    asking::ask(app, request, find, Problem::into_v2, answer).await
}

/// The model of exactly this name, or of its last part: a hub's `owner/name` is served as `name`.
fn by_id<T>(id: &str, get: impl Fn(&str) -> Result<T, NotServed>) -> Result<T, NotServed> {
    match (get(id), id.rsplit_once('/')) {
        (Err(unknown @ NotServed::UnknownModel { .. }), Some((_, last))) => match get(last) {
            Err(NotServed::UnknownModel { .. }) => Err(unknown),
            other => other,
        },
        (other, _) => other,
    }
}

async fn answer(app: &App, engine: Handle, request: Request) -> Result<Response, Problem> {
    let Whole { bytes, share, deadline } = upload::plain(request, &app.limits, &app.uploads).await?;
    // The share is held to the end: the images live as long.
    let (items, one, parameters, _share) = match Looks::of(&bytes) {
        Looks::Raw => (vec![Item::Photo(bytes)], true, Parameters::default(), share),
        Looks::Json => {
            let (document, share) = Document::read(app, &engine, bytes, &[Key::Inputs], share, deadline).await?;
            (document.items, document.one, document.parameters, share)
        }
    };
    respond(&engine, items, one, ask(&engine, &parameters, deadline)?).await
}

/// Asks about the photos and answers with a list of classes for one, with a list of such lists for several.
pub(super) async fn respond(engine: &Engine, items: Vec<Item>, one: bool, ask: Ask) -> Result<Response, Problem> {
    if items.iter().any(|item| matches!(item, Item::Tensor(_))) {
        return Err(Problem::new(
            ProblemKind::BadTensor,
            "\"inputs\" holds numbers; this API takes photos in base64, tensors go to /v1 and /v2",
        ));
    }
    let outcomes = asking::all(engine, items, ask).await?;
    let answer = match (&outcomes[..], one) {
        ([outcome], true) => Answer::One(classes(outcome).collect()),
        _ => Answer::Many(outcomes.iter().map(|outcome| classes(outcome).collect()).collect()),
    };
    Ok(asking::answered(Json(answer), asking::times(&outcomes)))
}

/// The classes of one photo.
pub(super) fn classes(outcome: &Outcome) -> impl Iterator<Item = Class<'_>> {
    let predictions: &[Prediction] = match outcome {
        Outcome::Classes(scored) => &scored.classification.predictions,
        Outcome::Output(_) => &[],
    };
    predictions.iter().map(|class| Class { label: &class.label, score: class.score })
}

/// What the parameters ask for. More classes than there are means all, as the pipeline of the transformers library has it.
pub(super) fn ask(engine: &Engine, parameters: &Parameters, deadline: Instant) -> Result<Ask, Problem> {
    let classes = engine.spec().labels.len();
    let top_k = match parameters.top_k {
        None => TOP_K_DEFAULT.min(classes),
        Some(0) => return Err(Problem::new(ProblemKind::BadTopK, "top_k is 0; it is at least 1")),
        Some(top_k) => usize::try_from(top_k).map_or(classes, |top_k| top_k.min(classes)),
    };
    let reading = parameters.function_to_apply.map(|activation| reading(engine, activation)).transpose()?;
    Ok(Ask { reading, ..Ask::new(top_k, deadline) })
}

/// How the output is read with this function applied.
fn reading(engine: &Engine, activation: Activation) -> Result<Reading, Problem> {
    engine.contract().signature.output.reading().with(activation).ok_or_else(|| {
        let name = match activation {
            Activation::Softmax => "softmax",
            Activation::Sigmoid => "sigmoid",
            Activation::None => "none",
        };
        Problem::new(
            ProblemKind::ActivationImpossible,
            format!(
                "function_to_apply is {name:?}, but the graph itself ends in another function, which nothing undoes; leave \
                 it out, or send \"none\" for the values as they are"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hubs_id_means_the_model_of_that_name_or_of_its_last_part() {
        let get = |name: &str| match name {
            "resnet-50" | "a/b" => Ok(name.to_owned()),
            "loading" => Err(NotServed::Unavailable { name: name.to_owned(), reason: "it is loading" }),
            _ => Err(NotServed::UnknownModel { name: name.to_owned(), names: vec!["resnet-50".to_owned()] }),
        };
        assert_eq!(by_id("resnet-50", get).unwrap(), "resnet-50");
        assert_eq!(by_id("microsoft/resnet-50", get).unwrap(), "resnet-50");
        assert_eq!(by_id("a/b", get).unwrap(), "a/b");
        assert!(by_id("me/loading", get).unwrap_err().to_string().contains("it is loading"));
        let unknown = by_id("microsoft/resnet-18", get).unwrap_err().to_string();
        assert_eq!(unknown, "there is no model \"microsoft/resnet-18\"; this server has \"resnet-50\"");
    }
}
