//! Building the ONNX graph of a residual network: name, layers, numbers, file.
//!
//! ```
//! use residual::graph::build::{Dataset, GraphForm, HeWeights, Network, build, named};
//! let (architecture, dataset) = named("resnet20", None, None)?;
//! let network = Network::new(&architecture);
//! let model = build(&network, &GraphForm { size: dataset.size(), ..GraphForm::default() }, &mut HeWeights::new(&network, 0))?;
//! assert_eq!(network.parameter_count(), 269_722);
//! assert!(model.graph.is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod architecture;
mod emit;
mod form;
mod he;
mod names;
mod network;
mod nodes;
mod numbers;
mod write;

pub use architecture::{Architecture, StrideIn};
pub use emit::{BuildError, build};
pub use form::{BatchNormForm, Dtype, GraphForm, Layout};
pub use he::HeWeights;
pub use names::{CLASSES_MAX, Dataset, KNOWN, NameError, ShortcutOption, named};
pub use network::{Network, Parameter};
pub use numbers::{BatchNorm, Weights};
pub use write::write_model;

pub(in crate::graph) use architecture::{Block, Order, Shortcut, Stage, Stem};
