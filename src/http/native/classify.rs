//! `POST /api/v1/classify`: one image or several in, classes out.

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::http::App;
use crate::http::asking::{self, TOP_K_DEFAULT, answered, parse_top_k, with_report};
use crate::http::error::{Problem, ProblemBody, ProblemKind};
use crate::http::forms::Upload;
use crate::http::middleware::Report;
use crate::http::upload::{self, Received};
use crate::models::Handle;
use crate::pipeline::batch::Scored;
use crate::pipeline::{Ask, Engine, ImageInfo, Prediction};
use crate::telemetry::StageTimes;

/// What comes back: of one image its classes, of several a list.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "ClassifyAnswer")]
pub(super) enum Answer<'a> {
    /// The answer for one image.
    One {
        /// The model that answered.
        model: &'a str,
        /// Its version.
        model_version: &'a str,
        /// The best classes, highest score first.
        predictions: Vec<Prediction>,
        /// What was uploaded.
        image: ImageInfo,
    },
    /// The answer for several images, in the order they came.
    Many {
        /// The model that answered.
        model: &'a str,
        /// Its version.
        model_version: &'a str,
        /// As many as there were images.
        results: Vec<ItemAnswer>,
    },
}

/// One of several: its classes, or what was wrong with it alone.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "ClassifyItem")]
pub(super) enum ItemAnswer {
    /// Its classes.
    Classified {
        /// The best classes, highest score first.
        predictions: Vec<Prediction>,
        /// What was uploaded.
        image: ImageInfo,
    },
    /// What was wrong with it.
    Failed {
        /// A problem, as it would be answered if this image had come alone.
        error: ProblemBody,
    },
}

/// Images inside JSON.
// Only the schema: `forms.rs` reads the body by itself, to end at the bound of one request.
#[derive(JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum ImagesAsJson {
    /// One image, to be answered by itself.
    One {
        /// Base64; `data:image/...;base64,` may stand before it.
        image: String,
    },
    /// Several images, to be answered as a list.
    Many {
        /// Base64 of each.
        #[schemars(length(min = 1))]
        images: Vec<String>,
    },
}

/// Answers the route. Whatever the outcome, the report names the model that was asked.
pub(super) async fn classify(State(app): State<App>, request: Request) -> Response {
    let admitted = admit(&app, request.uri());
    let (engine, top_k) = match admitted {
        Ok(admitted) => admitted,
        Err(problem) => {
            upload::refuse(request);
            return problem.into_response();
        }
    };
    let response = match top_k {
        Ok(top_k) => answer(&app, &engine, request, top_k).await.into_response(),
        Err(problem) => {
            upload::refuse(request);
            problem.into_response()
        }
    };
    asking::about(response, &engine)
}

async fn answer(app: &App, engine: &Engine, request: Request, top_k: usize) -> Result<Response, Problem> {
    // The share is held to the end: the images live as long.
    let Received { upload, share: _share, deadline } =
        upload::receive(request, &app.limits, &app.uploads, &app.pool).await?;
    respond(engine, upload, Ask::new(top_k, deadline)).await
}

/// Asks about the images and answers as this API does.
pub(in crate::http) async fn respond(engine: &Engine, upload: Upload, ask: Ask) -> Result<Response, Problem> {
    let spec = engine.spec();
    match upload {
        Upload::One(image) => {
            let Scored { classification, image, times } = asking::one(engine, image, ask).await?;
            let predictions = classification.predictions;
            let answer = Answer::One { model: &spec.name, model_version: &spec.version, predictions, image };
            Ok(answered(Json(answer), times))
        }
        Upload::Many(images) => {
            let outcomes = asking::each(engine, images, ask).await?;
            let report = report_on(&outcomes);
            let results = outcomes.into_iter().map(ItemAnswer::from).collect();
            let answer = Answer::Many { model: &spec.name, model_version: &spec.version, results };
            Ok(with_report(Json(answer), report))
        }
    }
}

/// Several images in one report: the longest times, every cause for the log, and `ok` if any image got its classes.
fn report_on(outcomes: &[Result<Scored, Problem>]) -> Report {
    let times = outcomes.iter().flatten().fold(StageTimes::default(), |all, scored| all.max(scored.times));
    let problems = || outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    let outcome = match problems().next() {
        Some(first) if problems().count() == outcomes.len() => first.kind().code(),
        _ => "ok",
    };
    let causes: Vec<&str> = problems().filter_map(Problem::cause).collect();
    let cause = (!causes.is_empty()).then(|| causes.join("; "));
    Report { outcome, times, cause, ..Report::default() }
}

/// The engine that the query asks for, if the server takes requests now, and how many classes it asks of it.
fn admit(app: &App, uri: &Uri) -> Result<(Handle, Result<usize, Problem>), Problem> {
    asking::admit(app)?;
    let Asked { model, version, top_k } = Asked::parse(uri)?;
    let engine = app.models.get(model.as_deref(), version.as_deref())?;
    let classes = engine.spec().labels.len();
    let top_k = top_k.map_or(Ok(TOP_K_DEFAULT.min(classes)), |text| parse_top_k(&text, classes));
    Ok((engine, top_k))
}

/// The query, each parameter at most once.
#[derive(Debug, Default)]
struct Asked {
    model: Option<String>,
    version: Option<String>,
    top_k: Option<String>,
}

impl Asked {
    /// Refuses what it does not know: a misspelt parameter that is silently ignored costs its author an afternoon.
    fn parse(uri: &Uri) -> Result<Self, Problem> {
        let bad_query = |detail: String| Problem::new(ProblemKind::BadQuery, detail);
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| bad_query(format!("the query string is broken: {}", error.body_text())))?;
        let mut asked = Self::default();
        for (key, value) in pairs {
            let place = match key.as_str() {
                "model" => &mut asked.model,
                "version" => &mut asked.version,
                "top_k" => &mut asked.top_k,
                _ => {
                    return Err(bad_query(format!("unknown parameter {key:?}; there are model, version and top_k")));
                }
            };
            if place.replace(value).is_some() {
                return Err(bad_query(format!("{key} is given twice")));
            }
        }
        Ok(asked)
    }
}

impl From<Result<Scored, Problem>> for ItemAnswer {
    fn from(outcome: Result<Scored, Problem>) -> Self {
        match outcome {
            Ok(scored) => Self::Classified { predictions: scored.classification.predictions, image: scored.image },
            Err(problem) => Self::Failed { error: problem.into_body() },
        }
    }
}
