//! The APIs of other servers, each in one file: its routes, what it takes, and its own shapes of answers and errors. All
//! ask the same models under the same bounds (`http/asking.rs`); what is not spoken (`--apis`) has no routes.

mod document;
mod huggingface;
mod items;
mod kserve_v1;
mod multi_model;
mod ping;
mod sagemaker;
mod schema;
mod torchserve;
mod vertex;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;

use super::App;
use super::routes::Routes;
use crate::apis::Api;

#[cfg(any(test, fuzzing))]
pub use document::fuzzing::items;
pub use multi_model::MultiModel;
pub use vertex::VertexRoutes;
pub(super) use vertex::before;

/// What any question about images may meet.
const ASK_ERRORS: [u16; 6] = [400, 404, 408, 413, 503, 504];

/// The routes of all of these APIs that are spoken.
pub(super) fn routes(app: &App) -> Routes {
    let has = |api| app.apis.has(api);
    let multi_model = has(Api::Sagemaker) && app.multi_model.is_some();
    let mut routes = Routes::new();
    if has(Api::Sagemaker) || has(Api::Torchserve) {
        routes = routes.merge(ping::routes());
    }
    if has(Api::Huggingface) {
        routes = routes.merge(huggingface::routes());
    }
    if has(Api::Kserve) {
        routes = routes.merge(kserve_v1::routes());
    }
    if has(Api::Sagemaker) {
        routes = routes.merge(sagemaker::routes());
    }
    if multi_model {
        routes = routes.merge(multi_model::routes());
    }
    if has(Api::Torchserve) {
        routes = routes.merge(torchserve::routes());
    }
    if has(Api::Vertex) {
        routes = routes.merge(vertex::described(app));
    }
    // SageMaker's models and Hugging Face's share a path; a name of the latter may have slashes in it.
    match (multi_model, has(Api::Huggingface)) {
        (false, false) => routes,
        (true, false) => routes.under(MODELS, multi_model::below),
        (false, true) => routes.under(MODELS, huggingface::below),
        (true, true) => {
            routes.under(MODELS, |under| huggingface::below(huggingface::beside(multi_model::below(under))))
        }
    }
}

/// Where models of both are.
const MODELS: &str = "/models/{*path}";

/// What varies in a path. What is no UTF-8 is no model's name either.
type Named<T> = Result<Path<T>, PathRejection>;

/// The name of a path, or one that no model has.
fn named(path: Named<String>) -> String {
    path.map_or_else(|_| "\u{fffd}".to_owned(), |Path(name)| name)
}
