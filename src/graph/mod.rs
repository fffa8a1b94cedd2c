//! ONNX files without the runtime: reading and writing them, and knowing that one is a ResNet.
//!
//! Nothing here computes an image. The runtime is not needed, and neither are the weights of a model whose tensors lie
//! in a file of their own.

pub mod build;
pub mod proto;
pub mod weights;
