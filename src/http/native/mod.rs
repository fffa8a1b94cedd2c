//! Residual's own API under `/api/v1`.

mod classify;
mod models;

use std::num::NonZeroU32;

pub(super) use classify::respond;

use super::error::ProblemKind as P;
use super::openapi::Operation;
use super::routes::Routes;
use crate::graph::Summary;
use crate::pipeline::Failure as F;
use classify::{Answer, ImagesAsJson};
use models::{Details, Index, Listed};

/// What can be wrong with the model that a request names.
const MODEL_PROBLEMS: [P; 4] = [P::UnknownModel, P::UnknownVersion, P::ModelUnavailable, P::NotReady];

/// What can be wrong with a request for classes.
const CLASSIFY_PROBLEMS: [P; 22] = [
    P::EmptyBody,
    P::BadQuery,
    P::BadTopK,
    P::BadJson,
    P::BadBase64,
    P::BadMultipart,
    P::BodyIncomplete,
    P::ModelNeeded,
    P::BodyTimeout,
    P::BodyTooLarge,
    P::TooManyImages,
    P::UnsupportedEncoding,
    P::Failed(F::EmptyImage),
    P::Failed(F::ImageTooLarge),
    P::Failed(F::NotAnImage),
    P::Failed(F::UnsupportedImage),
    P::Failed(F::BrokenImage),
    P::Failed(F::PreprocessFailed),
    P::Failed(F::InferenceFailed),
    P::Failed(F::Overloaded),
    P::Failed(F::ShuttingDown),
    P::Failed(F::DeadlineExceeded),
];

/// The routes of this API.
pub(super) fn routes() -> Routes {
    let index = Operation::new("index", "The name of the server, its version, and its routes")
        .tag("native")
        .ok::<Index>("What there is");
    let classify = Operation::new("classify", "Classify an image, or several")
        .description(
            "The body is the image itself, a form with a file for each image, or JSON with base64. Images are JPEG, PNG, \
             WebP, GIF, BMP or TIFF, and their bytes tell which.",
        )
        .tag("native")
        .query::<String>("model", "The model; without it, the default one")
        .query::<String>("version", "Its version; without it, the newest that is ready")
        .query::<NonZeroU32>("top_k", "Classes in the answer, up to those of the model; without it, 5")
        .body_bytes("image/*")
        .body_bytes("application/octet-stream")
        .body_files("image")
        .body::<ImagesAsJson>("application/json")
        .ok::<Answer>("The classes of one image; or, of several, a list in which one can fail alone")
        .problems(&MODEL_PROBLEMS)
        .problems(&CLASSIFY_PROBLEMS);
    let models = Operation::new("listModels", "The models and their versions")
        .tag("native")
        .ok::<Listed>("Every version of every model")
        .problems(&[P::NotReady]);
    let model = |id, summary| {
        Operation::new(id, summary)
            .tag("native")
            .ok::<Details>("Input, recipe, classes, provider, threads")
            .problems(&MODEL_PROBLEMS)
    };
    let graph = |id, summary| {
        Operation::new(id, summary)
            .tag("native")
            .ok::<Summary>("Blocks, shortcuts, parameters, MACs")
            .problems(&MODEL_PROBLEMS)
    };
    Routes::new()
        .get("/", models::index, index)
        .post("/api/v1/classify", classify::classify, classify)
        .get("/api/v1/models", models::models, models)
        .get(
            "/api/v1/models/{name}",
            models::model,
            model("getModel", "The newest version of a model: input, recipe, classes, provider, threads"),
        )
        .get(
            "/api/v1/models/{name}/graph",
            models::graph,
            graph("getGraph", "What network the newest version is: blocks, shortcuts, parameters, MACs"),
        )
        .get(
            "/api/v1/models/{name}/versions/{version}",
            models::model_version,
            model("getModelVersion", "One version of a model"),
        )
        .get(
            "/api/v1/models/{name}/versions/{version}/graph",
            models::graph_version,
            graph("getGraphVersion", "What network that version is"),
        )
}
