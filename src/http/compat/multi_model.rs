//! SageMaker's multi-model endpoints: models that come and go while the server runs, `/models`. Only where the server was
//! started for it, since clients name paths; those must lie below the directory in the settings.
//!
//! Shapes: SageMaker's contract for multi-model containers: 409 for a name that is loaded, 507 for a model that does not fit,
//! 404 for one that is not loaded.

use std::path::PathBuf;

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sagemaker;
use crate::http::App;
use crate::http::asking;
use crate::http::error::{Problem, ProblemKind, V2Error};
use crate::http::oip::may_change;
use crate::http::openapi::Operation;
use crate::http::routes::{Routes, Under};
use crate::http::template::Captured;
use crate::http::upload::{self, Whole};
use crate::models::{AddError, LoadError, NotServed};

/// Models of one page of the list.
const PAGE_LEN: usize = 100;

/// That models come and go over the API, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiModel {
    /// The directory that models must lie below.
    pub root: PathBuf,
}

/// A model as the list shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "LoadedModel")]
struct Listed {
    model_name: String,
    model_url: String,
}

/// What loads a model.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "LoadModel")]
struct Load {
    model_name: String,
    url: String,
}

/// `GET /models` and `POST /models`.
pub(super) fn routes() -> Routes {
    let list_of = look("sagemakerModels", "The models that were loaded over this API")
        .query::<String>("next_page_token", "Where the page before ended")
        .ok::<Page>("Some of them, by name")
        .errors::<V2Error>(&[400, 503]);
    let load_of = look("sagemakerLoad", "Load a model")
        .description("Its url is a path below the directory of --sagemaker-models-root.")
        .body::<Load>("application/json")
        .ok::<Listed>("It answers")
        .errors::<V2Error>(&[400, 403, 408, 409, 413, 415, 422, 503, 504, 507]);
    Routes::new().get("/models", list, list_of).post("/models", load, load_of)
}

/// What is below `/models`.
pub(super) fn below(under: Under) -> Under {
    let describe_of = look("sagemakerModel", "A model that was loaded")
        .ok::<Listed>("Its name and place")
        .errors::<V2Error>(&[404, 503]);
    let remove_of = look("sagemakerUnload", "Unload a model; requests in flight are answered")
        .ok::<Empty>("It is gone")
        .errors::<V2Error>(&[403, 404, 503]);
    under
        .post("/models/{name}/invoke", invoke, sagemaker::operation("sagemakerInvoke"))
        .get("/models/{name}", describe, describe_of)
        .on(Method::DELETE, "/models/{name}", remove, remove_of)
}

fn look(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(id, summary).tag("sagemaker")
}

/// An empty object.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Done")]
struct Empty {}

/// `GET /models`, a page of them by name.
async fn list(State(app): State<App>, request: Request) -> Response {
    page(&app, &request).unwrap_or_else(Problem::into_v2)
}

fn page(app: &App, request: &Request) -> Result<Response, Problem> {
    asking::admit(app)?;
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(request.uri()).map_err(|error| {
        Problem::new(ProblemKind::BadQuery, format!("the query string is broken: {}", error.body_text()))
    })?;
    let after = pairs.0.into_iter().find(|(name, _)| name == "next_page_token").map(|(_, token)| token);
    Ok(Json(Page::of(app.models.added(), after.as_deref())).into_response())
}

/// Some models, and where the list goes on.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "LoadedModels")]
struct Page {
    models: Vec<Listed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

impl Page {
    /// The models whose names come after `after`, as many as a page holds. A token is the last name of a page, so that models
    /// may come and go between two of them.
    fn of(added: impl IntoIterator<Item = (String, String)>, after: Option<&str>) -> Self {
        let mut rest = added.into_iter().skip_while(|(name, _)| after.is_some_and(|after| name.as_str() <= after));
        let listed = |(model_name, model_url)| Listed { model_name, model_url };
        let models: Vec<Listed> = rest.by_ref().take(PAGE_LEN).map(listed).collect();
        let last = || models.last().map(|model| model.model_name.clone());
        Self { next_page_token: rest.next().and_then(|_| last()), models }
    }
}

/// `GET /models/{name}`.
async fn describe(State(app): State<App>, captured: Captured) -> Response {
    let name = captured.get("name");
    let found = asking::admit(&app).and_then(|()| {
        let found = app.models.added().into_iter().find(|(added, _)| added == name);
        found.ok_or_else(|| not_loaded(name))
    });
    match found {
        Ok((model_name, model_url)) => Json(Listed { model_name, model_url }).into_response(),
        Err(problem) => problem.into_v2(),
    }
}

fn not_loaded(name: &str) -> Problem {
    Problem::new(ProblemKind::UnknownModel, format!("no model {name:?} is loaded; load it with POST /models"))
}

/// `POST /models`.
async fn load(State(app): State<App>, request: Request) -> Response {
    match may_change(&app, request.headers()).map_err(Problem::from) {
        Ok(()) => load_from(&app, request).await.unwrap_or_else(Problem::into_v2),
        Err(problem) => {
            upload::refuse(request);
            problem.into_v2()
        }
    }
}

async fn load_from(app: &App, request: Request) -> Result<Response, Problem> {
    let Whole { bytes, share: _share, deadline } = upload::plain(request, &app.limits, &app.uploads).await?;
    let parsed = app.pool.run(deadline, move || serde_json::from_slice::<Load>(&bytes)).await?;
    let Load { model_name, url } = parsed.map_err(|error| {
        let example = "{\"model_name\": \"...\", \"url\": \"/opt/ml/models/.../model\"}";
        Problem::new(
            ProblemKind::BadJson,
            format!("the body is not the JSON that is expected: {error}; send {example}"),
        )
    })?;
    let root = app.multi_model.as_ref().map(|multi_model| multi_model.root.clone()).unwrap_or_default();
    let (name, place) = (model_name.clone(), url.clone());
    app.oip.in_turn(move |models| models.add(&name, &place, &root)).await??;
    Ok(Json(Listed { model_name, model_url: url }).into_response())
}

/// `DELETE /models/{name}`.
async fn remove(State(app): State<App>, captured: Captured) -> Response {
    match removed(&app, captured.get("name").to_owned()).await {
        Ok(()) => Json(Empty {}).into_response(),
        Err(problem) => problem.into_v2(),
    }
}

async fn removed(app: &App, name: String) -> Result<(), Problem> {
    app.oip.may_change()?;
    let wanted = name.clone();
    let removed = app.oip.in_turn(move |models| models.remove(&wanted)).await?;
    removed.map_err(|_unknown| not_loaded(&name))?;
    Ok(())
}

/// `POST /models/{name}/invoke`.
async fn invoke(State(app): State<App>, captured: Captured, request: Request) -> Response {
    let name = captured.get("name");
    let find = |app: &App| match app.models.get(Some(name), None) {
        // A server of this kind begins with none.
        Err(NotServed::Nothing | NotServed::UnknownModel { .. }) => Err(not_loaded(name)),
        other => Ok(other?),
    };
    let answer = |engine, request| sagemaker::answer(&app, engine, request);
    asking::ask(&app, request, find, Problem::into_v2, answer).await
}

impl From<AddError> for Problem {
    fn from(error: AddError) -> Self {
        let kind = match &error {
            AddError::Taken { .. } => ProblemKind::AlreadyLoaded,
            AddError::Name { .. } | AddError::Outside { .. } => ProblemKind::BadModelPath,
            AddError::Memory { .. } => ProblemKind::NotEnoughMemory,
            AddError::Stopping => return Self::shutting_down(),
            AddError::Load(load) if ran_out_of_memory(load) => {
                let detail =
                    "the memory of the machine or its GPU ran out while the model was loaded; unload others first";
                return Self::new(ProblemKind::NotEnoughMemory, detail);
            }
            AddError::Load(_) => {
                let detail = "the model could not be loaded; the server's log says why";
                return Self::new(ProblemKind::LoadFailed, detail);
            }
        };
        Self::new(kind, error.to_string())
    }
}

/// What ONNX Runtime and CUDA say when there is no more memory. They have no code for it that would reach this far.
const OUT_OF_MEMORY: [&str; 5] =
    ["Failed to allocate memory", "bad_alloc", "out of memory", "OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"];

/// The estimate was too small, or the memory is a GPU's. SageMaker unloads other models only where it is told so.
fn ran_out_of_memory(error: &LoadError) -> bool {
    let text = error.to_string();
    OUT_OF_MEMORY.iter().any(|says| text.contains(says))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_ran_out_while_loading_is_told_as_such() {
        let of = |cause: &str| LoadError::Partly { problems: vec![format!("m version 1: load model m: {cause}")] };
        for (error, kind) in [
            (of("std::bad_alloc"), ProblemKind::NotEnoughMemory),
            (of("CUDA failure 2: out of memory ; GPU=0"), ProblemKind::NotEnoughMemory),
            (of("Failed to allocate memory for requested buffer of size 4"), ProblemKind::NotEnoughMemory),
            (of("the graph ends early"), ProblemKind::LoadFailed),
        ] {
            assert_eq!(Problem::from(AddError::Load(error)).kind(), kind);
        }
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repetition() {
        let all: Vec<(String, String)> = (0..PAGE_LEN * 2 + 1).map(|n| (format!("m{n:04}"), String::new())).collect();
        let (mut seen, mut token, mut pages) = (Vec::new(), None::<String>, 0);
        loop {
            let page = Page::of(all.clone(), token.as_deref());
            seen.extend(page.models.into_iter().map(|model| model.model_name));
            pages += 1;
            token = page.next_page_token;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(pages, 3);
        assert!(seen.iter().eq(all.iter().map(|(name, _)| name)));
        assert!(Page::of(all[..PAGE_LEN].to_vec(), None).next_page_token.is_none());
    }
}
