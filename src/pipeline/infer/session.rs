//! One ONNX Runtime session: an instance of the model that computes one batch at a time.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use half::{bf16, f16};
use ort::logging::LogLevel;
use ort::session::SessionInputValue;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{DynValue, Outlet, PrimitiveTensorElementType, Shape, TensorRef};

use super::device_io::DeviceIo;
use super::readback::{Placement, RECORD};
use super::register::{EngineShapes, SessionOptions};
use super::shared::{Optimised, Shared};
use super::signature::{Element, Scores, Signature};
use super::tensors::Values;
use super::{Batch, Brake, Environment, Infer, InferError, RawScores};

/// Where a model's ONNX bytes are.
#[derive(Debug, Clone)]
pub enum ModelSource {
    /// In memory, as the built-in model is.
    Memory(Bytes),
    /// On disk; external data is looked up beside the file.
    File(PathBuf),
}

/// A graph that a session can be made from.
#[derive(Clone, Copy)]
pub(super) enum Graph<'a> {
    /// As it was published.
    Source(&'a ModelSource),
    /// Changed in memory; weights outside the file still lie in `folder`.
    Edited { bytes: &'a [u8], folder: Option<&'a Path> },
}

/// The session option that says where the weights outside of a graph in memory lie.
pub(super) const WEIGHTS_FOLDER: &str = "session.model_external_initializers_file_folder_path";

impl Graph<'_> {
    /// The folder of the weights outside of the file, if there is a file.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        match self {
            Self::Source(ModelSource::Memory(_)) => None,
            // A cache of Hugging Face consists of links into another folder.
            Self::Source(ModelSource::File(path)) => path.canonicalize().ok()?.parent().map(Path::to_owned),
            Self::Edited { folder, .. } => folder.map(Path::to_owned),
        }
    }
}

/// A loaded model that one run at a time may use.
#[derive(Debug)]
pub struct Session {
    ort: ort::session::Session,
    signature: Signature,
    device_io: Option<DeviceIo>,
    brake: Brake,
}

/// What a session is made from, but for the graph.
#[derive(Debug, Clone, Copy)]
pub(super) struct Making<'a> {
    pub(super) environment: &'a Environment,
    /// The model's name, for errors.
    pub(super) model: &'a str,
    pub(super) signature: &'a Signature,
    pub(super) options: &'a SessionOptions,
    pub(super) shapes: Option<&'a EngineShapes>,
}

impl Making<'_> {
    /// Loads `graph`.
    ///
    /// # Errors
    /// [`InferError::Provider`], [`InferError::Model`], or [`InferError::Contract`] if the runtime sees other inputs and
    /// outputs than the file declares.
    pub(super) fn load(&self, graph: Graph<'_>) -> Result<Session, InferError> {
        self.finish(self.commit(graph, self.builder(GraphOptimizationLevel::All)?)?)
    }

    /// Like [`Making::load`], and writes the optimised graph down for others.
    pub(super) fn load_and_optimise(&self, graph: Graph<'_>) -> Result<(Session, Optimised), InferError> {
        let optimised = Optimised::create().map_err(|error| self.failed(error))?;
        let builder = self
            .builder(GraphOptimizationLevel::All)?
            .with_optimized_model_path(optimised.path())
            .map_err(|error| self.failed(error))?
            // The runtime warns that the file fits this machine only, which is the only one that reads it.
            .with_log_level(LogLevel::Error)
            .map_err(|error| self.failed(error))?;
        let session = self.finish(self.commit(graph, builder)?)?;
        Ok((session, optimised))
    }

    /// One more session of a graph that was optimised before.
    pub(super) fn load_shared(&self, shared: &Shared) -> Result<Session, InferError> {
        let builder = self.builder(GraphOptimizationLevel::Disable)?;
        self.finish(shared.commit(builder).map_err(|error| self.failed(error))?)
    }

    #[expect(clippy::needless_pass_by_value, reason = "so that it can stand in map_err")]
    fn failed<E: ToString>(&self, cause: E) -> InferError {
        InferError::Model { model: self.model.to_owned(), cause: cause.to_string() }
    }

    fn builder(&self, level: GraphOptimizationLevel) -> Result<SessionBuilder, InferError> {
        let builder = configure(self.environment, self.options, level).map_err(|error| self.failed(error))?;
        self.options.register(builder, self.environment, self.shapes)
    }

    fn commit(&self, graph: Graph<'_>, mut builder: SessionBuilder) -> Result<ort::session::Session, InferError> {
        match graph {
            Graph::Source(ModelSource::Memory(bytes)) => builder.commit_from_memory(bytes),
            Graph::Source(ModelSource::File(path)) => builder.commit_from_file(path),
            Graph::Edited { bytes, folder: None } => builder.commit_from_memory(bytes),
            Graph::Edited { bytes, folder: Some(folder) } => {
                let located = builder
                    .with_config_entry(WEIGHTS_FOLDER, folder.to_string_lossy())
                    .map_err(|error| self.failed(error))?;
                { located }.commit_from_memory(bytes)
            }
        }
        .map_err(|error| self.failed(error))
    }

    fn finish(&self, ort: ort::session::Session) -> Result<Session, InferError> {
        let names = |outlets: &[Outlet]| outlets.iter().map(|outlet| outlet.name().to_owned()).collect::<Vec<_>>();
        let (inputs, outputs) = (names(ort.inputs()), names(ort.outputs()));
        let (input, output) = (&self.signature.input.name, &self.signature.output.name);
        // The runtime reads the same file; a run by names that it does not know would fail with less to read.
        if inputs != [input.as_str()] || !outputs.contains(output) {
            return Err(InferError::Contract {
                model: self.model.to_owned(),
                found: format!("inputs {inputs:?} and outputs {outputs:?} as the runtime loads it"),
                expected: format!("input {input:?} alone, and output {output:?}"),
            });
        }
        let device_io = match self.options.provider.is_gpu() {
            true => Some(DeviceIo::pinned(&ort, self.options.gpu.device).map_err(|error| self.failed(error))?),
            false => None,
        };
        let brake = Brake::new().map_err(|error| self.failed(error))?;
        Ok(Session { ort, signature: self.signature.clone(), device_io, brake })
    }
}

/// The options whose defaults matter, spelled out.
fn configure(
    environment: &Environment,
    options: &SessionOptions,
    level: GraphOptimizationLevel,
) -> Result<SessionBuilder, ort::Error> {
    Ok(ort::session::Session::builder(&environment.ort)?
        .with_optimization_level(level)?
        .with_intra_threads(options.intra_op_threads)?
        // A ResNet is a chain: there is nothing to run beside anything else.
        .with_inter_threads(1)?
        .with_parallel_execution(false)?
        // Spinning threads steal the cores that decode.
        .with_intra_op_spinning(false)?
        .with_config_entry(RECORD, "1")?)
}

impl Session {
    /// Which provider computes how many nodes, if the runtime tells.
    #[must_use]
    pub fn placement(&self) -> Option<Placement> {
        Placement::of(&self.ort)
    }
}

impl Infer for Session {
    fn infer(&mut self, batch: &Batch) -> Result<RawScores, InferError> {
        let batch_len = batch.len();
        let failed = |cause: ort::Error| InferError::Run { batch_len, cause: cause.to_string() };
        let Self { ort, signature, device_io, brake } = self;
        let (input, output) = (signature.input.name.as_str(), &signature.output);
        let outputs = match device_io {
            Some(device_io) => device_io.run(ort, brake, batch, input, &output.name),
            None => view(batch).and_then(|view| ort.run_with_options(ort::inputs![input => view], brake.options())),
        }
        .map_err(failed)?;
        // Checked when the session was made.
        let value = &outputs[output.name.as_str()];
        let (shape, mut values) = match output.element {
            // `to_vec` copies without looking at the numbers.
            Element::F32 => value.try_extract_tensor::<f32>().map(|(shape, values)| (shape, values.to_vec())),
            Element::F16 => read(value, f16::to_f32),
            Element::Bf16 => read(value, bf16::to_f32),
            #[expect(clippy::cast_possible_truncation, reason = "scores are reported as f32")]
            Element::F64 => read(value, |value: f64| value as f32),
            Element::U8 => read(value, |value: u8| f32::from(value)),
        }
        .map_err(failed)?;
        if output.scores == Scores::LogProbabilities {
            // The logarithm of a probability that is 0, and no failure of the model.
            values.iter_mut().filter(|value| **value == f32::NEG_INFINITY).for_each(|value| *value = f32::MIN);
        }
        RawScores::new(shape, values, batch.rows(), output.width())
    }

    fn brake(&self) -> Option<Brake> {
        Some(self.brake.clone())
    }
}

/// The batch as the runtime sees it, without a copy.
fn view(batch: &Batch) -> Result<SessionInputValue<'_>, ort::Error> {
    let shape = batch.dimensions();
    Ok(match batch.values() {
        Values::U8(values) => TensorRef::from_array_view((shape, values))?.into(),
        Values::F16(values) => TensorRef::from_array_view((shape, values))?.into(),
        Values::Bf16(values) => TensorRef::from_array_view((shape, values))?.into(),
        Values::F32(values) => TensorRef::from_array_view((shape, values))?.into(),
        Values::F64(values) => TensorRef::from_array_view((shape, values))?.into(),
    })
}

fn read<T: PrimitiveTensorElementType + Copy + 'static>(
    output: &DynValue,
    convert: impl Fn(T) -> f32,
) -> Result<(&Shape, Vec<f32>), ort::Error> {
    let (shape, values) = output.try_extract_tensor::<T>()?;
    Ok((shape, values.iter().map(|&value| convert(value)).collect()))
}
