//! One ONNX Runtime session, owned by one worker thread.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use half::{bf16, f16};
use ort::session::SessionInputValue;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{DynValue, Outlet, PrimitiveTensorElementType, Shape, TensorRef};

use super::signature::{Element, Scores, Signature};
use super::tensors::Values;
use super::{Batch, Environment, Infer, InferError, Provider, RawScores};

/// Where a model's ONNX bytes are.
#[derive(Debug, Clone)]
pub enum ModelSource {
    /// In memory, as the built-in model is.
    Memory(Bytes),
    /// On disk; external data is looked up beside the file.
    File(PathBuf),
}

/// How a session runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// The execution provider.
    pub provider: Provider,
    /// ONNX Runtime threads inside one run.
    pub intra_op_threads: usize,
}

/// A graph that a session can be made from.
#[derive(Clone, Copy)]
pub(super) enum Graph<'a> {
    /// As it was published.
    Source(&'a ModelSource),
    /// Changed in memory; weights outside the file still lie in `folder`.
    Edited { bytes: &'a [u8], folder: Option<&'a Path> },
}

/// A loaded model on one thread.
#[derive(Debug)]
pub struct Session {
    ort: ort::session::Session,
    signature: Signature,
}

impl Session {
    /// Loads `graph`. `model` names it in errors.
    ///
    /// # Errors
    /// [`InferError::Provider`], [`InferError::Model`], or [`InferError::Contract`] if the runtime sees other inputs and
    /// outputs than the file declares.
    pub(super) fn load(
        environment: &Environment,
        model: &str,
        graph: Graph<'_>,
        signature: &Signature,
        options: SessionOptions,
    ) -> Result<Self, InferError> {
        let failed = |cause: ort::Error| InferError::Model { model: model.to_owned(), cause: cause.to_string() };
        let builder = configure(environment, options).map_err(failed)?;
        let mut builder = options.provider.register(builder, environment)?;
        let ort = match graph {
            Graph::Source(ModelSource::Memory(bytes)) => builder.commit_from_memory(bytes),
            Graph::Source(ModelSource::File(path)) => builder.commit_from_file(path),
            Graph::Edited { bytes, folder: None } => builder.commit_from_memory(bytes),
            Graph::Edited { bytes, folder: Some(folder) } => {
                let key = "session.model_external_initializers_file_folder_path";
                let located =
                    builder.with_config_entry(key, folder.to_string_lossy()).map_err(|error| failed(error.into()))?;
                { located }.commit_from_memory(bytes)
            }
        }
        .map_err(failed)?;
        let names = |outlets: &[Outlet]| outlets.iter().map(|outlet| outlet.name().to_owned()).collect::<Vec<_>>();
        let (inputs, outputs) = (names(ort.inputs()), names(ort.outputs()));
        let (input, output) = (&signature.input.name, &signature.output.name);
        // The runtime reads the same file; a run by names that it does not know would fail with less to read.
        if inputs != [input.as_str()] || !outputs.contains(output) {
            return Err(InferError::Contract {
                model: model.to_owned(),
                found: format!("inputs {inputs:?} and outputs {outputs:?} as the runtime loads it"),
                expected: format!("input {input:?} alone, and output {output:?}"),
            });
        }
        Ok(Self { ort, signature: signature.clone() })
    }
}

/// The options whose defaults matter, spelled out.
fn configure(environment: &Environment, options: SessionOptions) -> Result<SessionBuilder, ort::Error> {
    Ok(ort::session::Session::builder(&environment.ort)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(options.intra_op_threads)?
        // A ResNet is a chain: there is nothing to run beside anything else.
        .with_inter_threads(1)?
        .with_parallel_execution(false)?
        // Spinning threads steal the cores that decode.
        .with_intra_op_spinning(false)?)
}

impl Infer for Session {
    fn infer(&mut self, batch: &Batch) -> Result<RawScores, InferError> {
        let batch_len = batch.len();
        let failed = |cause: ort::Error| InferError::Run { batch_len, cause: cause.to_string() };
        let input = view(batch).map_err(failed)?;
        let outputs = self.ort.run(ort::inputs![self.signature.input.name.as_str() => input]).map_err(failed)?;
        // Checked when the session was made.
        let output = &outputs[self.signature.output.name.as_str()];
        let (shape, mut values) = match self.signature.output.element {
            // `to_vec` copies without looking at the numbers.
            Element::F32 => output.try_extract_tensor::<f32>().map(|(shape, values)| (shape, values.to_vec())),
            Element::F16 => read(output, f16::to_f32),
            Element::Bf16 => read(output, bf16::to_f32),
            #[expect(clippy::cast_possible_truncation, reason = "scores are reported as f32")]
            Element::F64 => read(output, |value: f64| value as f32),
            Element::U8 => read(output, |value: u8| f32::from(value)),
        }
        .map_err(failed)?;
        if self.signature.output.scores == Scores::LogProbabilities {
            // The logarithm of a probability that is 0, and no failure of the model.
            values.iter_mut().filter(|value| **value == f32::NEG_INFINITY).for_each(|value| *value = f32::MIN);
        }
        RawScores::new(shape, values, batch.rows(), self.signature.output.width())
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
