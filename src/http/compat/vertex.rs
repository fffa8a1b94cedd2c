//! Google Vertex AI's container contract: predictions and health at the routes that the platform names. `instances` in,
//! `predictions` of the same number out; a request is answered whole or not at all.
//!
//! Shapes: Vertex AI's requirements for custom containers; a photo's prediction is that of its own image classifiers (`ids`,
//! `displayNames`, `confidences`, with the parameters `maxPredictions` and `confidenceThreshold`), which its client
//! libraries read.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::Serialize;

use super::document::{Document, Key, Parameters};
use crate::apis::Api;
use crate::http::asking::{self, Outcome, TOP_K_DEFAULT};
use crate::http::error::{Ping, Problem, ProblemKind};
use crate::http::upload::{self, Whole};
use crate::http::{App, health};
use crate::models::Handle;
use crate::pipeline::{Ask, Engine, Prediction};

/// Where the platform sends requests. Paths begin with a slash and hold no braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VertexRoutes {
    /// Predictions.
    pub predict: String,
    /// Health.
    pub health: String,
}

/// Puts the platform's routes before `inner`, which keeps every other path, and other methods of the same paths: the platform
/// may name paths that are taken.
pub(in crate::http) fn before(inner: Router, app: &App) -> Router {
    let Some(routes) = app.vertex.as_ref().filter(|_| app.apis.has(Api::Vertex)) else { return inner };
    let observe = middleware::from_fn_with_state(app.clone(), crate::http::middleware::observe);
    let (mut predict, mut health) = (post(predict), get(healthy));
    if routes.predict == routes.health {
        predict = predict.merge(health);
        let both = predict.layer(observe).fallback_service(inner.clone()).with_state(app.clone());
        return Router::new().route(&routes.predict, both).fallback_service(inner);
    }
    predict = predict.layer(observe.clone()).fallback_service(inner.clone());
    health = health.layer(observe).fallback_service(inner.clone());
    Router::new()
        .route(&routes.predict, predict.with_state(app.clone()))
        .route(&routes.health, health.with_state(app.clone()))
        .fallback_service(inner)
}

/// The health route.
async fn healthy(State(app): State<App>) -> Response {
    match health::is_ready(&app) {
        Ok(()) => Json(Ping { status: "Healthy" }).into_response(),
        Err(problem) => problem.into_unhealthy(),
    }
}

/// The predict route.
async fn predict(State(app): State<App>, request: Request) -> Response {
    let find = |app: &App| Ok(app.models.get(None, None)?);
    let answer = |engine, request| answer(&app, engine, request);
    asking::ask(&app, request, find, Problem::into_v2, answer).await
}

async fn answer(app: &App, engine: Handle, request: Request) -> Result<Response, Problem> {
    let Whole { bytes, share, deadline } = upload::plain(request, &app.limits, &app.uploads).await?;
    // The share is held to the end: the items live as long.
    let (document, _share) = Document::read(app, &engine, bytes, &[Key::Instances], share, deadline).await?;
    let Wanted { classes, threshold } = Wanted::of(&engine, &document.parameters)?;
    let outcomes = asking::all(&engine, document.items, Ask::new(classes, deadline)).await?;
    let predictions = outcomes.iter().map(|outcome| Answer::of(outcome, threshold)).collect();
    Ok(asking::answered(Json(Predictions { predictions }), asking::times(&outcomes)))
}

/// What the parameters ask for.
struct Wanted {
    /// Classes, at most.
    classes: usize,
    /// Those below it are left out.
    threshold: f64,
}

impl Wanted {
    fn of(engine: &Engine, parameters: &Parameters) -> Result<Self, Problem> {
        let there = engine.spec().labels.len();
        let classes = match parameters.max_predictions.or(parameters.top_k) {
            None => TOP_K_DEFAULT.min(there),
            Some(0) => return Err(Problem::new(ProblemKind::BadTopK, "maxPredictions is 0; it is at least 1")),
            Some(max) => usize::try_from(max).map_or(there, |max| max.min(there)),
        };
        let threshold = parameters.confidence_threshold.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&threshold) {
            let detail = format!("confidenceThreshold is {threshold}; it is a number from 0 to 1");
            return Err(Problem::new(ProblemKind::BadParameter, detail));
        }
        Ok(Self { classes, threshold })
    }
}

#[derive(Debug, Serialize)]
struct Predictions<'a> {
    predictions: Vec<Answer<'a>>,
}

/// The prediction of one instance.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    /// Of a photo: best first.
    #[serde(rename_all = "camelCase")]
    Photo {
        /// The classes' indices, as texts.
        ids: Vec<String>,
        /// Their labels.
        display_names: Vec<&'a str>,
        /// Their scores.
        confidences: Vec<f32>,
    },
    /// Of a tensor: the graph's output.
    Tensor(&'a [f32]),
}

impl<'a> Answer<'a> {
    fn of(outcome: &'a Outcome, threshold: f64) -> Self {
        match outcome {
            Outcome::Output(row) => Self::Tensor(&row.values),
            Outcome::Classes(scored) => {
                let sure = |class: &&Prediction| f64::from(class.score) >= threshold;
                let classes: Vec<&Prediction> = scored.classification.predictions.iter().filter(sure).collect();
                Self::Photo {
                    ids: classes.iter().map(|class| class.index.to_string()).collect(),
                    display_names: classes.iter().map(|class| &*class.label).collect(),
                    confidences: classes.iter().map(|class| class.score).collect(),
                }
            }
        }
    }
}
