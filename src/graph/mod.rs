//! ONNX files without the runtime: reading and writing them, and knowing that one is a ResNet.
//!
//! Nothing here computes an image. The runtime is not needed, and neither are the weights of a model whose tensors lie
//! in a file of their own.

pub mod build;
mod check;
pub mod edit;
mod error;
mod external;
#[cfg(test)]
mod fakes;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod interface;
mod outsource;
mod printable;
pub mod proto;
mod resnet;
mod scan;
mod sniff;
mod summarise;
pub mod summary;
mod view;
pub mod weights;
mod wiring;

pub use error::GraphError;
pub use external::{ExternalFile, ExternalTensor, check_external, external_data};
pub use file::{FILE_BYTES_MAX, OnnxFile, decode};
pub use interface::{Interface, interface};
pub use outsource::{Weight, take_weights};
pub use printable::Printable;
pub use scan::{DEPTH_MAX, EXCESS_BYTES_MAX, NODES_MAX, TENSORS_MAX};
pub use summarise::summarise;
pub use summary::Summary;
