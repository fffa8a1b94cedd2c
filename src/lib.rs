//! Residual: image classification for pretrained ResNets.
//!
//! The modules stand in the order in which a request meets them; `docs/ARCHITECTURE.md` walks one image through them.

pub mod cli;
pub mod machine;
pub mod pipeline;
pub mod runtime;
pub mod shutdown;
pub mod telemetry;
pub mod zoo;
