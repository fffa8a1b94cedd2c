//! What every API does around a question to a model: whether it may come in, its images in one batch, its answer's report.
//! Which model is meant and what an answer looks like is each API's own.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};

use super::App;
use super::error::{Problem, ProblemKind};
use super::health;
use super::middleware::Report;
use super::upload;
use crate::models::Handle;
use crate::pipeline::batch::{Row, RowOf, Scored};
use crate::pipeline::infer::InferError;
use crate::pipeline::{Ask, ClassifyError, Engine, Sample};
use crate::shutdown::Phase;
use crate::telemetry::{Ended, StageTimes};

/// Classes in an answer when the client does not say. Capped by the classes there are.
pub(super) const TOP_K_DEFAULT: usize = 5;

/// One of the things a request asks about.
#[derive(Debug)]
pub(super) enum Item {
    /// An encoded photo.
    Photo(Bytes),
    /// The graph's own tensor.
    Tensor(Sample),
}

/// What became of one of them.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A photo's classes.
    Classes(Scored),
    /// What the graph returned for a tensor.
    Output(Row),
}

impl Outcome {
    fn times(&self) -> StageTimes {
        match self {
            Self::Classes(scored) => scored.times,
            Self::Output(row) => row.times,
        }
    }
}

/// Lets a request in and asks `model`, or refuses it before its body is read. Whatever the outcome, the report names the
/// model that was asked.
pub(super) async fn ask<Fut: Future<Output = Result<Response, Problem>>>(
    app: &App,
    request: Request,
    model: impl FnOnce(&App) -> Result<Handle, Problem>,
    refused: fn(Problem) -> Response,
    answer: impl FnOnce(Handle, Request) -> Fut,
) -> Response {
    let engine = match admit(app).and_then(|()| model(app)) {
        Ok(engine) => engine,
        Err(problem) => {
            upload::refuse(request);
            return refused(problem);
        }
    };
    let response = answer(engine.clone(), request).await.unwrap_or_else(refused);
    about(response, &engine)
}

/// The server takes requests for models now.
pub(super) fn admit(app: &App) -> Result<(), Problem> {
    match app.phases.now() {
        Phase::Draining => Err(Problem::shutting_down()),
        Phase::Starting => Err(health::not_ready()),
        Phase::Ready | Phase::Leaving => Ok(()),
    }
}

/// Names the model in the report of `response`.
pub(super) fn about(mut response: Response, engine: &Engine) -> Response {
    if let Some(report) = response.extensions_mut().get_mut::<Report>() {
        report.model = Some(Arc::clone(engine.served()));
    }
    response
}

/// Asks about all items of a request together. One that fails fails them all, and its problem says which it was.
pub(super) async fn all(engine: &Engine, items: Vec<Item>, ask: Ask) -> Result<Vec<Outcome>, Problem> {
    let count = items.len();
    let ask_one = |(index, (place, item))| async move {
        let outcome = match item {
            Item::Photo(photo) => engine.classify(place, photo, ask).await.map(Outcome::Classes).map_err(Problem::from),
            Item::Tensor(sample) => {
                engine.infer(place, sample, 0, ask.deadline).await.map(Outcome::Output).map_err(of_tensor)
            }
        };
        outcome.map_err(|problem: Problem| problem.of_item(index, count))
    };
    let answers = async {
        let places = engine.reserve(count)?;
        try_join_all(places.into_iter().zip(items).enumerate().map(ask_one)).await
    };
    counted(engine, answers).await
}

/// As [`all`], with a value for every class of each photo and the index of the best.
pub(super) async fn rows(engine: &Engine, items: Vec<Item>, ask: Ask) -> Result<Vec<Row>, Problem> {
    let count = items.len();
    let ask_one = |(index, (place, item))| async move {
        let row = match item {
            Item::Photo(photo) => {
                engine.row(place, photo, RowOf::Probabilities, 1, ask.deadline).await.map_err(Problem::from)
            }
            Item::Tensor(sample) => engine.infer(place, sample, 1, ask.deadline).await.map_err(of_tensor),
        };
        row.map_err(|problem: Problem| problem.of_item(index, count))
    };
    let answers = async {
        let places = engine.reserve(count)?;
        try_join_all(places.into_iter().zip(items).enumerate().map(ask_one)).await
    };
    counted(engine, answers).await
}

/// Asks about each photo for itself: a broken one does not fail its neighbours.
pub(super) async fn each(
    engine: &Engine,
    photos: Vec<Result<Bytes, Problem>>,
    ask: Ask,
) -> Result<Vec<Result<Scored, Problem>>, Problem> {
    let counted = engine.counted();
    let places = match engine.reserve(photos.len()) {
        Ok(places) => places,
        Err(full) => {
            let problem = Problem::from(full);
            counted.ended(ended(&problem));
            return Err(problem);
        }
    };
    let asked = places
        .into_iter()
        .zip(photos)
        .map(|(place, photo)| async move { Ok::<_, Problem>(engine.classify(place, photo?, ask).await?) });
    let outcomes = join_all(asked).await;
    counted.ended(match outcomes.first() {
        Some(Err(first)) if outcomes.iter().all(Result::is_err) => ended(first),
        _ => Ended::Answered,
    });
    Ok(outcomes)
}

/// The classes of one photo.
pub(super) async fn one(engine: &Engine, photo: Result<Bytes, Problem>, ask: Ask) -> Result<Scored, Problem> {
    let answer = async {
        let place = engine.reserve(1)?.pop().expect("one place was reserved");
        Ok(engine.classify(place, photo?, ask).await?)
    };
    counted(engine, answer).await
}

/// Waits for the answer to one request and counts how it ended.
async fn counted<T>(engine: &Engine, answer: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let counted = engine.counted();
    let answer = answer.await;
    counted.ended(answer.as_ref().map_or_else(ended, |_| Ended::Answered));
    answer
}

/// How a request to a model ends that has this problem.
fn ended(problem: &Problem) -> Ended {
    match problem.kind() {
        ProblemKind::Failed(failure) => failure.ended(),
        _ => Ended::Refused,
    }
}

/// Scores that are not finite come of the values that a client sent: no photo has such.
fn of_tensor(error: ClassifyError) -> Problem {
    match error {
        ClassifyError::Infer(not_finite @ InferError::NotFinite { .. }) => Problem::new(
            ProblemKind::BadTensor,
            format!("{not_finite}; the values of the input are too large for this model"),
        ),
        other => other.into(),
    }
}

/// The longest time of an item in each stage.
pub(super) fn times<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> StageTimes {
    outcomes.into_iter().fold(StageTimes::default(), |all, outcome| all.max(outcome.times()))
}

/// An answer with its times.
pub(super) fn answered(answer: impl IntoResponse, times: StageTimes) -> Response {
    with_report(answer, Report { times, ..Report::default() })
}

/// An answer with what the middleware shall know of it.
pub(super) fn with_report(answer: impl IntoResponse, report: Report) -> Response {
    let mut response = answer.into_response();
    response.extensions_mut().insert(report);
    response
}

/// `top_k`, which must be within the classes.
pub(super) fn parse_top_k(text: &str, classes: usize) -> Result<usize, Problem> {
    text.parse().ok().filter(|top_k| (1..=classes).contains(top_k)).ok_or_else(|| {
        Problem::new(
            ProblemKind::BadTopK,
            format!("top_k is {text:?}; it must be a whole number from 1 to {classes}, the classes of this model"),
        )
    })
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
