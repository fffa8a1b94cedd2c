//! The APIs of other servers, each in one file: its routes, what it takes, and its own shapes of answers and errors. All
//! ask the same models under the same bounds (`http/asking.rs`); what is not spoken (`--apis`) has no routes.

mod document;
mod huggingface;
mod items;
mod kserve_v1;
mod multi_model;
mod ping;
mod sagemaker;
mod torchserve;
mod vertex;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter};

use super::App;
use super::error::Problem;
use super::upload;
use crate::apis::Api;

pub use multi_model::MultiModel;
pub use vertex::VertexRoutes;
pub(super) use vertex::before;

/// The routes of all of these APIs that are spoken.
pub(super) fn routes(app: &App) -> Router<App> {
    let mut routes = Router::new().merge(ping::routes(app));
    if app.apis.has(Api::Huggingface) {
        routes = routes.merge(huggingface::routes());
    }
    if app.apis.has(Api::Kserve) {
        routes = routes.merge(kserve_v1::routes());
    }
    if app.apis.has(Api::Sagemaker) {
        routes = routes.merge(sagemaker::routes(app));
    }
    if app.apis.has(Api::Torchserve) {
        routes = routes.merge(torchserve::routes());
    }
    routes.merge(models_below(app))
}

/// `/models/{name}`: Hugging Face's models beside SageMaker's.
fn models_below(app: &App) -> Router<App> {
    let mut methods = MethodRouter::new();
    let multi_model = app.apis.has(Api::Sagemaker) && app.multi_model.is_some();
    if multi_model {
        methods = methods.get(multi_model::describe).delete(multi_model::remove);
    }
    if multi_model || app.apis.has(Api::Huggingface) {
        Router::new().route("/models/{*name}", methods.on(MethodFilter::POST, post_model))
    } else {
        Router::new()
    }
}

/// `POST /models/{name}/invoke` is SageMaker's where models come and go through it; anything else is a name of Hugging
/// Face's, which has slashes in it.
async fn post_model(app: State<App>, path: Named<String>, request: Request) -> Response {
    let invoked = path.as_ref().ok().and_then(|Path(path)| path.strip_suffix("/invoke")).map(str::to_owned);
    match invoked {
        Some(name) if app.multi_model.is_some() => multi_model::invoke(app, name, request).await,
        Some(_) | None if app.apis.has(Api::Huggingface) => huggingface::model(app, path, request).await,
        Some(_) | None => super::fallback::not_found(request).await.into_error(),
    }
}

/// What varies in a path. What is no UTF-8 is no model's name either.
type Named<T> = Result<Path<T>, PathRejection>;

/// The name of a path, or one that no model has.
fn named(path: Named<String>) -> String {
    path.map_or_else(|_| "\u{fffd}".to_owned(), |Path(name)| name)
}

/// Refuses a method that a route does not have, in the shape of its API.
fn wrong_method(request: Request, allowed: &'static str, refused: fn(Problem) -> Response) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    upload::refuse(request);
    refused(Problem::method_not_allowed(format!("{method} is not for {path}; use {allowed}"), allowed))
}
