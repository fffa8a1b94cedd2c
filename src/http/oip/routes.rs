//! The protocol's routes.

use super::document::Document;
use super::infer::{infer, infer_version};
use super::render::InferAnswer;
use super::*;
use crate::guard::Access;
use crate::http::error::V2Error;
use crate::http::openapi::Operation;
use crate::http::routes::Routes;

/// What any request about a model may meet.
const MODEL_ERRORS: [u16; 2] = [404, 503];
/// What a body may meet on its way in.
const BODY_ERRORS: [u16; 4] = [400, 408, 413, 503];
/// What an inference may meet.
const INFER_ERRORS: [u16; 8] = [400, 404, 408, 413, 415, 500, 503, 504];

/// The routes of this API.
pub(in crate::http) fn routes() -> Routes {
    let look = |id, summary| Operation::new(id, summary).tag("v2");
    let server = |id| look(id, "The server and the extensions that work").ok::<ServerMetadata>("What it is");
    let metadata = |id| {
        look(id, "What a model takes and returns")
            .description("NAME shows the graph's own tensor; NAME_image takes encoded photos.")
            .ok::<ModelMetadata>("Inputs and outputs")
            .errors::<V2Error>(&MODEL_ERRORS)
    };
    let model_ready = |id| {
        look(id, "Whether a model answers now")
            .ok::<ModelReady>("It does")
            .errors::<V2Error>(&[404])
            .errors::<ModelReady>(&[503])
    };
    let config = |id| {
        look(id, "How a model is served, as Triton's configuration has it")
            .ok::<ModelConfig>("The configuration")
            .errors::<V2Error>(&MODEL_ERRORS)
    };
    let statistics = |id| {
        look(
            id,
            "What a model has done since it was loaded: requests by how they ended, images by where their time went",
        )
        .ok::<Statistics>("Sums of counts and times")
        .errors::<V2Error>(&MODEL_ERRORS)
    };
    let infer_of = |id| {
        look(id, "Run a model")
            .description(
                "The body is JSON, JSON with binary tensors behind it, or one raw tensor. Inference-Header-Content-Length says \
                 how many bytes of it are JSON; with 0 the body is the model's one input for a batch of one: of NAME_image a \
                 photo as it is. Bodies may be compressed with gzip or deflate.",
            )
            .header::<u64>(HEADER_LENGTH, "Bytes of JSON before the binary tensors; without it, all are")
            .body::<Document<'_>>("application/json")
            .body_bytes("application/octet-stream")
            .ok::<InferAnswer<'_>>("The outputs; those that were asked for as binary follow the JSON")
            .ok_bytes("application/octet-stream", "JSON, and the binary outputs behind it")
            .ok_header(HEADER_LENGTH, "Bytes of JSON before the binary outputs")
            .errors::<V2Error>(&INFER_ERRORS)
    };
    Routes::new()
        .get("/v2", server_metadata, server("v2Server"))
        .get("/v2/", server_metadata, server("v2ServerSlash"))
        .merge(probes())
        .get("/v2/models", models, look("v2Models", "The names that answer").ok::<ModelNames>("Names"))
        .get("/v2/models/stats", all_statistics, statistics("v2AllStatistics"))
        .get("/v2/models/{name}", metadata_newest, metadata("v2Metadata"))
        .get("/v2/models/{name}/versions/{version}", metadata_version, metadata("v2MetadataVersion"))
        .get("/v2/models/{name}/ready", model_ready_newest, model_ready("v2ModelReady"))
        .get("/v2/models/{name}/versions/{version}/ready", model_ready_version, model_ready("v2ModelReadyVersion"))
        .get("/v2/models/{name}/config", config_newest, config("v2Config"))
        .get("/v2/models/{name}/versions/{version}/config", config_version, config("v2ConfigVersion"))
        .get("/v2/models/{name}/stats", statistics_newest, statistics("v2Statistics"))
        .get("/v2/models/{name}/versions/{version}/stats", statistics_version, statistics("v2StatisticsVersion"))
        .post("/v2/models/{name}/infer", infer, infer_of("v2Infer"))
        .post("/v2/models/{name}/versions/{version}/infer", infer_version, infer_of("v2InferVersion"))
        .merge(index_route())
}

/// Whether the server answers.
pub(in crate::http) fn probes() -> Routes {
    let probe = |id, summary| Operation::new(id, summary).tag("v2").access(Access::Probe);
    Routes::new().get("/v2/health/live", live, probe("v2Live", "The process answers").ok::<Live>("It does")).get(
        "/v2/health/ready",
        ready,
        probe("v2Ready", "The models are warm").ok::<Ready>("They are").errors::<Ready>(&[503]),
    )
}

/// What there is to load and unload.
fn index_route() -> Routes {
    Routes::new().post(
        "/v2/repository/index",
        index,
        Operation::new("v2Index", "Every version of every model, with its state")
            .tag("v2")
            .body::<IndexRequest>("application/json")
            .body_optional()
            .ok::<Vec<IndexEntry>>("The list")
            .errors::<V2Error>(&BODY_ERRORS),
    )
}

/// Loading and unloading, and what there is to load.
pub(in crate::http) fn administration() -> Routes {
    control_routes().merge(index_route())
}

/// Loading and unloading.
pub(in crate::http) fn control_routes() -> Routes {
    let control = |id, summary| {
        Operation::new(id, summary)
            .tag("v2")
            .body::<ControlRequest>("application/json")
            .body_optional()
            .ok_empty("Done")
            .errors::<V2Error>(&[403, 404, 422])
            .errors::<V2Error>(&BODY_ERRORS)
    };
    Routes::new()
        .post(
            "/v2/repository/models/{name}/load",
            load,
            control("v2Load", "Load a model from its place, or load it again"),
        )
        .post(
            "/v2/repository/models/{name}/unload",
            unload,
            control("v2Unload", "Stop serving a model until it is loaded again"),
        )
}
