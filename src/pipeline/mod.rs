//! The way of one image, stage by stage: upload bytes -> [`Image`] -> [`Sample`] -> batch -> logits ->
//! [`Classification`].
//!
//! Each stage is a folder or a file of its own and knows only the nouns in [`types`]; [`engine`] strings them together
//! for one model. HTTP, settings and model directories are other people's business.

pub mod batch;
mod buffers;
mod choose;
pub mod decode;
pub mod engine;
pub mod error;
pub mod infer;
pub mod postprocess;
pub mod prepare;
pub mod preprocess;
pub mod proof;
pub mod types;

pub use engine::{Ailment, Ask, Engine, EngineOptions, Execution, Loaded, Model, ModelSpec};
pub use error::{ClassifyError, Failure};
pub use prepare::PreparePool;
pub use types::{Classification, Image, ImageFormat, ImageInfo, Prediction, Sample, SampleShape};
