//! Residual: image classification for pretrained ResNets.
//!
//! The modules stand in the order in which a request meets them; `docs/ARCHITECTURE.md` walks one image through them.

pub mod cli;
pub mod config;
pub mod serve;
pub mod shutdown;
pub mod tune;

pub mod edge;
pub mod grpc;
pub mod guard;
pub mod http;
pub mod oip;

pub mod models;
pub mod pipeline;

pub mod graph;
pub mod runtime;
pub mod zoo;

pub mod apis;
pub mod machine;
pub mod telemetry;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
