//! Google Vertex AI's container contract: predictions and health at the routes that the platform names. `instances` in,
//! `predictions` of the same number out; a request is answered whole or not at all.
//!
//! Shapes: Vertex AI's requirements for custom containers; a photo's prediction is that of its own image classifiers (`ids`,
//! `displayNames`, `confidences`, with the parameters `maxPredictions` and `confidenceThreshold`), which its client
//! libraries read.

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router, middleware};
use schemars::JsonSchema;
use serde::Serialize;
use tower::ServiceExt as _;

use super::document::{Document, Key, Parameters};
use super::ping::ping;
use super::{ASK_ERRORS, schema};
use crate::apis::Api;
use crate::guard::Access;
use crate::http::asking::{self, Outcome, TOP_K_DEFAULT};
use crate::http::error::{Ping, Problem, ProblemKind, V2Error};
use crate::http::gate::{self, Gate};
use crate::http::openapi::Operation;
use crate::http::routes::Routes;
use crate::http::upload::{self, Whole};
use crate::http::{App, cors};
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
    let gate = app.guard.is_on().then(|| {
        let gate = Gate::of_one(&app.guard, &routes.health, Access::Probe);
        middleware::from_fn_with_state(gate, gate::pass)
    });
    let cors = cors::layer(&app.origins);
    let around = |methods: MethodRouter<App>| -> MethodRouter {
        // The router would take the path that was matched here for a prefix of its own.
        let unmatched = inner.clone().map_request(|mut request: Request| {
            request.extensions_mut().remove::<MatchedPath>();
            request
        });
        let methods = match &gate {
            Some(gate) => methods.layer(gate.clone()),
            None => methods,
        };
        let methods = match &cors {
            Some(cors) => methods.layer(cors.clone()),
            None => methods,
        };
        methods.layer(observe.clone()).fallback_service(unmatched).with_state(app.clone())
    };
    let router = if routes.predict == routes.health {
        Router::new().route(&routes.predict, around(post(predict).get(ping)))
    } else {
        Router::new().route(&routes.predict, around(post(predict))).route(&routes.health, around(get(ping)))
    };
    router.fallback_service(inner)
}

/// The description of these routes.
pub(super) fn described(app: &App) -> Routes {
    let Some(routes) = &app.vertex else { return Routes::new() };
    let look = |id, summary| Operation::new(id, summary).tag("vertex");
    let health = look("vertexHealth", "Whether models answer")
        .ok::<Ping>("They do")
        .errors::<Ping>(&[503])
        .access(Access::Probe);
    let predict = look("vertexPredict", "Classify images as Vertex AI's clients ask for it")
        .description("One instance that fails fails the request.")
        .body::<schema::Rows>("application/json")
        .ok::<Predictions>("One prediction for each instance")
        .errors::<V2Error>(&ASK_ERRORS)
        .errors::<V2Error>(&[500]);
    Routes::new().elsewhere(Method::GET, routes.health.as_str(), health).elsewhere(
        Method::POST,
        routes.predict.as_str(),
        predict,
    )
}

/// The predict route.
async fn predict(State(app): State<App>, request: Request) -> Response {
    let find = |app: &App| Ok(app.models.get(None, None)?);
    let answer = |engine, request| answer(&app, engine, request);
    asking::ask(&app, request, find, Problem::into_plain, answer).await
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
    threshold: f32,
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

/// The answer.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VertexAnswer")]
struct Predictions<'a> {
    predictions: Vec<Answer<'a>>,
}

/// The prediction of one instance.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "VertexPrediction")]
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
    fn of(outcome: &'a Outcome, threshold: f32) -> Self {
        match outcome {
            Outcome::Output(row) => Self::Tensor(&row.values),
            Outcome::Classes(scored) => {
                let sure = |class: &&Prediction| class.score >= threshold;
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
