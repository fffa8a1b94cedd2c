//! Batches -> raw scores, through ONNX Runtime. The only folder that names `ort`.
//!
//! An instance of a model is one session, and computes one batch at a time. What a model's [`Signature`] promises is settled once, by runs where the file
//! leaves it open, into a [`Contract`]; what a run returns is checked against it, so that a NaN or a wrong shape is an
//! error and never an answer.

mod brake;
mod device_io;
mod environment;
mod instances;
mod layout;
mod load;
mod provider;
mod readback;
mod register;
mod session;
mod shared;
mod signature;
mod tensors;
mod trial;

pub use brake::Brake;
pub use environment::{Environment, preload};
pub(super) use instances::images_per_second;
pub use instances::{Instances, OneImage};
pub use layout::{InstanceGroup, Layout, LayoutRequest, layout};
pub use load::Load;
pub use provider::{CudnnSearch, Precision, PrecisionChoice, Provider, ProviderChoice};
pub use readback::{Nodes, Placement};
pub use register::{GpuOptions, SessionOptions};
pub use session::{ModelSource, Session};
pub use signature::{
    Activation, BatchForm, BatchSupport, Contract, Element, InputSignature, OutputSignature, Reading, Rows, Scores,
    ScoresSource, Signature, TensorLayout,
};
pub(super) use tensors::read_sample;
pub use tensors::{Batch, RawScores, TensorError, Values};

/// Computes the scores of a batch. Implemented by [`Session`], and by fakes in tests and benches.
pub trait Infer: std::fmt::Debug {
    /// One row for each of [`Batch::rows`].
    ///
    /// # Errors
    /// If the run fails or returns anything but that shape.
    fn infer(&mut self, batch: &Batch) -> Result<RawScores, InferError>;

    /// What ends a run that takes too long, if anything can.
    fn brake(&self) -> Option<Brake> {
        None
    }
}

impl<T: Infer + ?Sized> Infer for Box<T> {
    fn infer(&mut self, batch: &Batch) -> Result<RawScores, InferError> {
        (**self).infer(batch)
    }

    fn brake(&self) -> Option<Brake> {
        (**self).brake()
    }
}

/// Why a model cannot be loaded or a batch cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// The shared library cannot be used.
    #[error("load ONNX Runtime from {library}: {cause}")]
    Library {
        /// Path of the library.
        library: String,
        /// What the loader said.
        cause: String,
    },
    /// A second, different library in one process.
    #[error("ONNX Runtime is already loaded from {loaded}; one process cannot load {asked} as well")]
    SecondLibrary {
        /// The library in use.
        loaded: String,
        /// The library asked for.
        asked: String,
    },
    /// The provider that was asked for by name is not to be had.
    #[error("execution provider {provider} is not available: {cause}; {fix}")]
    Provider {
        /// The provider asked for.
        provider: &'static str,
        /// What is missing.
        cause: String,
        /// What to do about it.
        fix: &'static str,
    },
    /// The provider does not compute in the precision that was asked for.
    #[error("precision {found} is not to be had from provider {provider} on this machine; use one of auto, {offered}")]
    Precision {
        /// The provider.
        provider: &'static str,
        /// The precision asked for.
        found: &'static str,
        /// What it has.
        offered: String,
    },
    /// The provider computes nothing of the graph.
    #[error("provider {provider} computes no node of model {model}: {elsewhere}; use `--provider auto` or another one")]
    Placement {
        /// Name of the model.
        model: String,
        /// The provider.
        provider: &'static str,
        /// Where its nodes are instead.
        elsewhere: String,
    },
    /// ONNX Runtime refuses the model.
    #[error("load model {model}: {cause}")]
    Model {
        /// Name or path of the model.
        model: String,
        /// What the runtime said.
        cause: String,
    },
    /// The graph's inputs or outputs are not those that its file declares.
    #[error("model {model} has {found}; expected {expected}")]
    Contract {
        /// Name or path of the model.
        model: String,
        /// What the graph has.
        found: String,
        /// What is supported.
        expected: String,
    },
    /// The runtime failed while computing.
    #[error("run a batch of {batch_len}: {cause}")]
    Run {
        /// Images in the batch.
        batch_len: usize,
        /// What the runtime said.
        cause: String,
    },
    /// The output has another shape than the graph promised.
    #[error("the model returned shape {found:?} for a batch of {rows}; expected [{rows}, {width}]")]
    Shape {
        /// The shape returned.
        found: Vec<i64>,
        /// Images in the run.
        rows: usize,
        /// Scores of one image.
        width: usize,
    },
    /// A score is NaN or infinite.
    #[error("the model returned {value} for class {class}; every score must be finite")]
    NotFinite {
        /// Index of the class.
        class: usize,
        /// `NaN`, `inf` or `-inf`.
        value: String,
    },
    /// The system gives no thread.
    #[error("start a thread: {cause}; allow this process more (ulimit -u, or the container's limit of pids)")]
    Thread {
        /// What the system said.
        cause: String,
    },
    /// The run was stopped because it took too long.
    #[error("a run of {batch_len} was stopped after {seconds} s: no run should take that long (--stuck-after)")]
    Stopped {
        /// Images in the batch.
        batch_len: usize,
        /// How long it had taken.
        seconds: u64,
    },
    /// The call into the runtime panicked.
    #[error("the runtime's binding panicked during a run")]
    Panicked,
}

impl InferError {
    /// Why a thread could not be started.
    #[expect(clippy::needless_pass_by_value, reason = "so that it can stand in map_err")]
    pub(in crate::pipeline) fn thread(error: std::io::Error) -> Self {
        Self::Thread { cause: error.to_string() }
    }
}
