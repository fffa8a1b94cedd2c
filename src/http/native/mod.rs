//! Residual's own API under `/api/v1`.

mod classify;
mod models;

pub(super) use classify::{classify, respond};
pub(super) use models::{graph, graph_version, index, model, model_version, models};
