//! The Open Inference Protocol over gRPC, from outside.

mod bounds;
mod client;
mod infer;
mod life;
mod traces;
