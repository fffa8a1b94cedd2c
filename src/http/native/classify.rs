//! `POST /api/v1/classify`: one image or several in, classes out.

use std::time::Instant;

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::join_all;
use serde::Serialize;

use crate::http::App;
use crate::http::error::{Problem, ProblemBody, ProblemKind};
use crate::http::health;
use crate::http::middleware::Report;
use crate::http::upload::{self, Encoded, Upload};
use crate::pipeline::batch::{Place, Scored};
use crate::pipeline::{Ask, Engine, ImageInfo, Prediction};
use crate::shutdown::Phase;
use crate::telemetry::StageTimes;

/// Classes in an answer when the client does not say. Capped by the classes there are.
const TOP_K_DEFAULT: usize = 5;

/// The answer for one image.
#[derive(Serialize)]
struct OneAnswer<'a> {
    model: &'a str,
    model_version: &'a str,
    predictions: Vec<Prediction>,
    image: ImageInfo,
}

/// The answer for several images, in the order they came.
#[derive(Serialize)]
struct ManyAnswers<'a> {
    model: &'a str,
    model_version: &'a str,
    results: Vec<ItemAnswer>,
}

/// One of several: its classes, or what was wrong with it alone.
#[derive(Serialize)]
#[serde(untagged)]
enum ItemAnswer {
    Classified { predictions: Vec<Prediction>, image: ImageInfo },
    Failed { error: ProblemBody },
}

/// Answers the route. Whatever the outcome, the report names the model that was asked.
pub(in crate::http) async fn classify(State(app): State<App>, request: Request) -> Response {
    match admit(&app) {
        Ok(engine) => {
            let mut response = answer(&app, engine, request).await.into_response();
            if let Some(report) = response.extensions_mut().get_mut::<Report>() {
                report.model.clone_from(&engine.spec().name);
            }
            response
        }
        Err(problem) => problem.into_response(),
    }
}

async fn answer(app: &App, engine: &Engine, request: Request) -> Result<Response, Problem> {
    let top_k = parse_query(request.uri(), engine)?;
    let (upload, _share) = upload::receive(request, &app.limits, &app.uploads).await?;
    let ask = Ask { top_k, deadline: Instant::now() + app.limits.request_timeout };
    let spec = engine.spec();
    let (times, mut response) = match upload {
        Upload::One(image) => {
            let place = engine.reserve(1)?.pop().expect("one place was reserved");
            let Scored { classification, image, times } = one(app, engine, place, image, ask).await?;
            let predictions = classification.predictions;
            let answer = OneAnswer { model: &spec.name, model_version: &spec.version, predictions, image };
            (times, Json(answer).into_response())
        }
        Upload::Many(images) => {
            let places = engine.reserve(images.len())?;
            let asked = places.into_iter().zip(images).map(|(place, image)| one(app, engine, place, image, ask));
            let outcomes = join_all(asked).await;
            let times = outcomes.iter().flatten().fold(StageTimes::default(), |all, scored| all.max(scored.times));
            let results = outcomes.into_iter().map(ItemAnswer::from).collect();
            let answer = ManyAnswers { model: &spec.name, model_version: &spec.version, results };
            (times, Json(answer).into_response())
        }
    };
    response.extensions_mut().insert(Report { times, ..Report::default() });
    Ok(response)
}

/// The engine, if the server takes requests now.
fn admit(app: &App) -> Result<&Engine, Problem> {
    match (app.phases.now(), app.engine.get()) {
        (Phase::Draining, _) => Err(Problem::shutting_down()),
        (Phase::Starting, _) | (_, None) => Err(health::not_ready()),
        (Phase::Ready | Phase::Leaving, Some(engine)) => Ok(engine),
    }
}

async fn one(app: &App, engine: &Engine, place: Place, image: Encoded, ask: Ask) -> Result<Scored, Problem> {
    let bytes = if image.is_base64() { decoded(app, image, ask.deadline).await? } else { image.into_bytes()? };
    Ok(engine.classify(place, bytes, ask).await?)
}

/// Base64 of megabytes takes milliseconds: it belongs into the pool that prepares images.
async fn decoded(app: &App, image: Encoded, deadline: Instant) -> Result<Bytes, Problem> {
    let (reply, answer) = tokio::sync::oneshot::channel();
    app.pool.start(deadline, move || drop(reply.send(image.into_bytes()))).await?;
    answer.await.map_err(|_| Problem::from(crate::pipeline::ClassifyError::Lost))?
}

/// Reads `model` and `top_k`, checks both against the engine, and refuses anything else: a misspelt parameter that is
/// silently ignored costs its author an afternoon.
fn parse_query(uri: &Uri, engine: &Engine) -> Result<usize, Problem> {
    let bad_query = |detail: String| Problem::new(ProblemKind::BadQuery, detail);
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| bad_query(format!("the query string is broken: {}", error.body_text())))?;
    let classes = engine.spec().labels.len();
    let mut top_k = TOP_K_DEFAULT.min(classes);
    for (key, value) in pairs {
        match key.as_str() {
            "model" => check_model(&value, engine)?,
            "top_k" => top_k = parse_top_k(&value, classes)?,
            _ => return Err(bad_query(format!("unknown parameter {key:?}; there are model and top_k"))),
        }
    }
    Ok(top_k)
}

pub(super) fn check_model(name: &str, engine: &Engine) -> Result<(), Problem> {
    let served = &engine.spec().name;
    if name == served {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::UnknownModel, format!("there is no model {name:?}; this server has {served:?}")))
}

fn parse_top_k(text: &str, classes: usize) -> Result<usize, Problem> {
    text.parse().ok().filter(|top_k| (1..=classes).contains(top_k)).ok_or_else(|| {
        Problem::new(
            ProblemKind::BadTopK,
            format!("top_k is {text:?}; it must be a whole number from 1 to {classes}, the classes of this model"),
        )
    })
}

impl From<Result<Scored, Problem>> for ItemAnswer {
    fn from(outcome: Result<Scored, Problem>) -> Self {
        match outcome {
            Ok(scored) => Self::Classified { predictions: scored.classification.predictions, image: scored.image },
            Err(problem) => Self::Failed { error: problem.into_body() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_k_is_a_whole_number_within_the_classes() {
        for (text, expected) in [("1", Some(1)), ("10", Some(10)), ("0", None), ("11", None), ("100000", None)] {
            assert_eq!(parse_top_k(text, 10).ok(), expected, "{text}");
        }
        for text in ["", "five", "-1", "1.5", " 3", "99999999999999999999"] {
            let problem = parse_top_k(text, 10).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::BadTopK, "{text:?}");
        }
    }
}
