//! The Open Inference Protocol, version 2, whatever the wire: models as tensors in and tensors out, and what a client may
//! ask about them. `http/oip` and `grpc` put it into JSON and protobuf, and decide nothing.
//!
//! A model `NAME` shows the graph's own tensor. Beside it stands `NAME_image`, which takes encoded photos, and prepares
//! them as the native API does. The protocol: <https://github.com/kserve/open-inference-protocol>; its extensions are
//! those of NVIDIA Triton.

pub mod describe;
mod error;
mod infer;
mod outputs;
mod repository;
pub mod statistics;
pub mod tensor;

use std::sync::Arc;
use std::time::Duration;

pub use describe::{ModelConfig, ModelMetadata, ServerMetadata, TensorMetadata};
pub use error::{ErrorKind, MESSAGE_BYTES_MAX, OipError, shortened};
pub use infer::{InferRequest, InferResponse, Parameter, Parameters, WantedOutput};
pub use repository::IndexEntry;
pub use statistics::ModelStatistics;
pub use tensor::{Datatype, Tensor};

use tokio::sync::Semaphore;

#[cfg(any(test, fuzzing))]
pub(crate) use crate::models::fakes;
use crate::models::{Handle, Models, NotServed};
use crate::pipeline::PreparePool;
use crate::shutdown::{Phase, Phases};

/// What the name of a model's photo side ends in.
pub const IMAGE_SUFFIX: &str = "_image";

/// The protocol's server side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Oip {
    models: Models,
    phases: Phases,
    pool: PreparePool,
    limits: OipLimits,
    /// One change of the models at a time: each blocks a thread of those that also prepare images.
    changes: Arc<Semaphore>,
}

/// What clients may ask for.
#[derive(Debug, Clone, Copy)]
pub struct OipLimits {
    /// Images in one request.
    pub request_images_max: usize,
    /// Bytes of one request.
    pub request_bytes_max: u64,
    /// From the end of the request to its answer.
    pub request_timeout: Duration,
    /// Whether clients may load and unload models.
    pub model_control: ModelControl,
}

/// Whether clients may load and unload models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelControl {
    /// Here they may.
    Here,
    /// On another port they may.
    OnAdminPort,
    /// Nowhere.
    Off,
}

/// One of the two faces of a model.
#[derive(Debug, Clone)]
pub enum Face {
    /// The graph's own tensor.
    Tensor(Handle),
    /// Encoded photos.
    Image(Handle),
}

impl Face {
    /// The model behind it.
    #[must_use]
    pub fn engine(&self) -> &Handle {
        match self {
            Self::Tensor(engine) | Self::Image(engine) => engine,
        }
    }

    /// What it takes.
    #[must_use]
    pub fn input(&self) -> TensorMetadata {
        describe::input(self)
    }

    /// The name clients use.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Tensor(engine) => engine.spec().name.clone(),
            Self::Image(engine) => image_name(&engine.spec().name),
        }
    }
}

/// The name of a model's photo side.
#[must_use]
pub fn image_name(model: &str) -> String {
    format!("{model}{IMAGE_SUFFIX}")
}

impl Oip {
    /// The protocol for these models.
    #[must_use]
    pub fn new(models: Models, phases: Phases, pool: PreparePool, limits: OipLimits) -> Self {
        Self { models, phases, pool, limits, changes: Arc::new(Semaphore::new(1)) }
    }

    /// The same protocol on another port, where clients may do this.
    #[must_use]
    pub fn with_model_control(&self, model_control: ModelControl) -> Self {
        Self { limits: OipLimits { model_control, ..self.limits }, ..self.clone() }
    }

    /// The process answers.
    #[must_use]
    pub fn is_live(&self) -> bool {
        true
    }

    /// The models are warm and no signal has come.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phases.is_ready()
    }

    /// Whether this model answers now. A model of no such name does not.
    #[must_use]
    pub fn is_model_ready(&self, name: &str, version: Option<&str>) -> bool {
        let well = |face: Face| face.engine().ailment().is_none();
        self.phases.now() == Phase::Ready && self.face(name, version).is_ok_and(well)
    }

    /// The face that a name means. A model whose own name ends in `_image` comes before the photo side of another.
    ///
    /// # Errors
    /// [`OipError`] if there is no such model or version, or it cannot answer now.
    pub fn face(&self, name: &str, version: Option<&str>) -> Result<Face, OipError> {
        let version = version.filter(|version| !version.is_empty());
        match self.models.get(Some(name), version) {
            Ok(engine) => Ok(Face::Tensor(engine)),
            Err(unknown @ NotServed::UnknownModel { .. }) => match name.strip_suffix(IMAGE_SUFFIX) {
                Some(model) => match self.models.get(Some(model), version) {
                    Ok(engine) => Ok(Face::Image(engine)),
                    Err(NotServed::UnknownModel { .. }) => Err(unknown.into()),
                    Err(other) => Err(other.into()),
                },
                None => Err(unknown.into()),
            },
            Err(other) => Err(other.into()),
        }
    }

    /// The face that a name means, if the server takes requests now. To ask before a body is read.
    ///
    /// # Errors
    /// As [`Oip::face`].
    pub fn admitted(&self, name: &str, version: Option<&str>) -> Result<Face, OipError> {
        self.admit()?;
        self.face(name, version)
    }

    /// The server takes requests for models now.
    fn admit(&self) -> Result<(), OipError> {
        match self.phases.now() {
            Phase::Starting => Err(OipError::not_ready()),
            Phase::Draining => Err(OipError::shutting_down()),
            Phase::Ready | Phase::Leaving => Ok(()),
        }
    }
}
