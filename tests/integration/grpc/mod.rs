//! The Open Inference Protocol over gRPC, from outside.

mod bounds;
pub(crate) mod client;
mod infer;
mod life;
mod traces;
