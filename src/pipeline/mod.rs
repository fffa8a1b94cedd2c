//! The way of one image, stage by stage: bytes -> [`Image`] -> [`Sample`] -> batch -> logits -> [`Classification`].
//!
//! Each stage is a folder or a file of its own and knows only the nouns in [`types`]. HTTP, settings and model
//! directories are other people's business.

pub mod decode;
pub mod preprocess;
pub mod types;

pub use types::{Classification, Image, ImageFormat, ImageInfo, Prediction, Sample, SampleShape};
