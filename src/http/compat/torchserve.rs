//! TorchServe's inference API: `/predictions/{model}[/{version}]` with POST and PUT, `{"label": probability}` out, best
//! first; errors are `{"code", "type", "message"}` with the names of TorchServe's exceptions.
//!
//! Shapes: TorchServe's inference API and its image classifier, which answers with the five best classes and takes the photo
//! as the body, as a multipart part `data`, or in base64. Several parts are answered with a list.

use std::collections::{HashMap, HashSet};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::response::Response;
use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::document::{Document, Key, Looks};
use super::schema::Data;
use super::{ASK_ERRORS, Named, named};
use crate::edge::UploadShare;
use crate::http::App;
use crate::http::asking::{self, Item, Outcome, TOP_K_DEFAULT};
use crate::http::error::{Problem, TorchServeError};
use crate::http::forms::{self, Form};
use crate::http::openapi::Operation;
use crate::http::routes::Routes;
use crate::http::upload::{self, Whole};
use crate::models::Handle;
use crate::pipeline::postprocess::Labels;
use crate::pipeline::{Ask, Prediction};

/// The part of a form that holds the photo.
const PART: &str = "data";

pub(super) fn routes() -> Routes {
    let operation = |id| {
        Operation::new(id, "Classify an image as TorchServe's clients ask for it")
            .description(
                "The body is the photo, a form with one or several parts named data, JSON, or base64 as text. Labels that several \
                 classes of a model have carry the index of their class.",
            )
            .tag("torchserve")
            .body_bytes("application/octet-stream")
            .body_bytes("image/*")
            .body_files(PART)
            .body::<Data>("application/json")
            .ok::<Answer>("The five best classes, best first; of several photos a list")
            .errors::<TorchServeError>(&ASK_ERRORS)
            .errors::<TorchServeError>(&[500])
    };
    Routes::new()
        .post("/predictions/{name}", newest, operation("torchservePredict"))
        .on(Method::PUT, "/predictions/{name}", newest, operation("torchservePredictPut"))
        .post("/predictions/{name}/{version}", exactly, operation("torchservePredictVersion"))
        .on(Method::PUT, "/predictions/{name}/{version}", exactly, operation("torchservePredictVersionPut"))
}

/// `/predictions/{name}`.
async fn newest(State(app): State<App>, path: Named<String>, request: Request) -> Response {
    predict(&app, &named(path), None, request).await
}

/// `/predictions/{name}/{version}`.
async fn exactly(State(app): State<App>, path: Named<(String, String)>, request: Request) -> Response {
    let (model, version) = path.map_or_else(|_| ("\u{fffd}".to_owned(), String::new()), |path| path.0);
    predict(&app, &model, Some(&version), request).await
}

async fn predict(app: &App, model: &str, version: Option<&str>, request: Request) -> Response {
    let find = |app: &App| Ok(app.models.get(Some(model), version)?);
    let answer = |engine, request| answer(app, engine, request);
    asking::ask(app, request, find, Problem::into_torchserve, answer).await
}

async fn answer(app: &App, engine: Handle, request: Request) -> Result<Response, Problem> {
    let form = Form::of(request.headers());
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let is_text = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/"));
    let Whole { bytes, share, deadline } = upload::plain(request, &app.limits, &app.uploads).await?;
    // The share is held to the end: the images live as long.
    let (items, one, _share): (Vec<Item>, bool, UploadShare) = match (form, Looks::of(&bytes)) {
        (Form::Multipart(content_type), _) => {
            let images_max = app.limits.request_images_max;
            let mut share = share;
            share.grow(bytes.len() as u64)?;
            let parts = move || forms::parts_named(PART, content_type, bytes, images_max);
            let photos: Vec<Bytes> = app.pool.run(deadline, parts).await??;
            let one = photos.len() == 1;
            (photos.into_iter().map(Item::Photo).collect(), one, share)
        }
        (Form::Json | Form::Raw, Looks::Json) => {
            let keys = &[Key::Data, Key::Instances];
            let (document, share) = Document::read(app, &engine, bytes, keys, share, deadline).await?;
            (document.items, document.one, share)
        }
        // A handler of TorchServe gets such a body as a string, and takes strings for base64.
        (Form::Json | Form::Raw, Looks::Raw) if is_text && !forms::looks_like_an_image(&bytes) => {
            let mut share = share;
            share.grow(bytes.len() as u64)?;
            let decode = move || forms::decode_base64(&String::from_utf8_lossy(&bytes));
            let photo = app.pool.run(deadline, decode).await??;
            (vec![Item::Photo(photo)], true, share)
        }
        (Form::Json | Form::Raw, Looks::Raw) => (vec![Item::Photo(bytes)], true, share),
    };
    let labels = &engine.spec().labels;
    let outcomes = asking::all(&engine, items, Ask::new(TOP_K_DEFAULT.min(labels.len()), deadline)).await?;
    let times = asking::times(&outcomes);
    let repeated = repeated(&outcomes, labels);
    let answers: Vec<Answer> = outcomes.iter().map(|outcome| Answer::of(outcome, &repeated)).collect();
    Ok(match (&answers[..], one) {
        ([answer], true) => asking::answered(Json(answer), times),
        _ => asking::answered(Json(answers), times),
    })
}

/// The labels of answers that more than one class of the model has.
fn repeated<'a>(outcomes: &'a [Outcome], labels: &Labels) -> HashSet<&'a str> {
    let classes = outcomes.iter().flat_map(|outcome| match outcome {
        Outcome::Classes(scored) => &scored.classification.predictions[..],
        Outcome::Output(_) => &[],
    });
    let mut counts: HashMap<&str, usize> = classes.map(|class| (&*class.label, 0)).collect();
    for label in labels.iter() {
        if let Some(count) = counts.get_mut(&**label) {
            *count += 1;
        }
    }
    counts.into_iter().filter(|(_, count)| *count > 1).map(|(label, _)| label).collect()
}

/// What one item gets.
enum Answer<'a> {
    /// The best classes of a photo.
    Classes(&'a [Prediction], &'a HashSet<&'a str>),
    /// The graph's output for a tensor.
    Output(&'a [f32]),
}

impl<'a> Answer<'a> {
    fn of(outcome: &'a Outcome, repeated: &'a HashSet<&'a str>) -> Self {
        match outcome {
            Outcome::Classes(scored) => Self::Classes(&scored.classification.predictions, repeated),
            Outcome::Output(row) => Self::Output(&row.values),
        }
    }
}

impl JsonSchema for Answer<'_> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TorchServeAnswer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let classes = serde_json::json!({ "type": "object", "additionalProperties": { "type": "number" } });
        let output = serde_json::json!({ "type": "array", "items": { "type": "number" } });
        let several = serde_json::json!({ "type": "array", "items": { "anyOf": [classes, output] } });
        json_schema!({
            "description": "A score under each label, best first; of a tensor the graph's output; of several a list.",
            "anyOf": [classes, output, several],
        })
    }
}

impl Serialize for Answer<'_> {
    /// An object in the order of the scores. A label that several classes of the model have (ImageNet has two cranes) gets its
    /// class's index, whichever of them is in the answer: one would hide the other, and a name must not depend on the photo.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Output(values) => values.serialize(serializer),
            Self::Classes(predictions, repeated) => {
                let mut map = serializer.serialize_map(Some(predictions.len()))?;
                for class in *predictions {
                    if repeated.contains(&*class.label) {
                        map.serialize_entry(&format_args!("{} ({})", class.label, class.index), &class.score)?;
                    } else {
                        map.serialize_entry(&class.label, &class.score)?;
                    }
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_repeat_in_the_model_carry_their_index_and_the_order_is_that_of_the_scores() {
        let labels = Labels::new(["crane", "cat", "crane"]);
        let class = |index: usize, score| Prediction { index, label: labels.get(index).clone(), score };
        let of = |predictions: &[Prediction]| {
            let image = crate::pipeline::ImageInfo { width: 1, height: 1, format: crate::pipeline::ImageFormat::Png };
            let classification = crate::pipeline::Classification { predictions: predictions.to_vec() };
            let times = crate::telemetry::StageTimes::default();
            let outcomes = [Outcome::Classes(crate::pipeline::batch::Scored { classification, image, times })];
            let repeated = repeated(&outcomes, &labels);
            serde_json::to_string(&Answer::of(&outcomes[0], &repeated)).unwrap()
        };
        let both = [class(2, 0.5), class(1, 0.25), class(0, 0.25)];
        assert_eq!(of(&both), r#"{"crane (2)":0.5,"cat":0.25,"crane (0)":0.25}"#);
        assert_eq!(of(&both[..1]), r#"{"crane (2)":0.5}"#);
    }
}
