//! One ONNX Runtime session, owned by one worker thread.

use std::path::PathBuf;
use std::sync::Arc;

use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};
use serde::Serialize;

use super::{Batch, Environment, Infer, InferError, Logits, Provider};
use crate::pipeline::types::SampleShape;

/// Where a model's ONNX bytes are.
#[derive(Debug, Clone)]
pub enum ModelSource {
    /// In memory, as the built-in model is.
    Memory(Arc<[u8]>),
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

/// What a model's directory promises about its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The samples its recipe makes.
    pub sample: SampleShape,
    /// The number of its labels.
    pub classes: usize,
}

/// What the graph takes and returns, read from the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Contract {
    /// Name of the input tensor, `[N,3,H,W]` f32.
    pub input: String,
    /// Declared input shape; -1 where it is free.
    pub input_shape: Vec<i64>,
    /// Name of the output tensor, `[N,classes]` f32.
    pub output: String,
    /// Number of classes.
    pub classes: usize,
    /// Images a run takes at most, where the graph fixes its batch dimension to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_images_max: Option<usize>,
}

/// A loaded model on one thread.
#[derive(Debug)]
pub struct Session {
    ort: ort::session::Session,
    contract: Contract,
}

impl Session {
    /// Loads `source` and checks that the graph is what is `expected`. `model` names it in errors.
    ///
    /// # Errors
    /// [`InferError::Provider`], [`InferError::Model`] or [`InferError::Contract`].
    pub fn load(
        environment: &Environment,
        model: &str,
        source: &ModelSource,
        expected: Expected,
        options: SessionOptions,
    ) -> Result<Self, InferError> {
        let failed = |cause: String| InferError::Model { model: model.to_owned(), cause };
        let builder = configure(environment, options).map_err(|error| failed(error.to_string()))?;
        let mut builder = options.provider.register(builder, environment)?;
        let ort = match source {
            ModelSource::Memory(bytes) => builder.commit_from_memory(bytes),
            ModelSource::File(path) => builder.commit_from_file(path),
        }
        .map_err(|error| failed(error.to_string()))?;
        let contract = contract(model, ort.inputs(), ort.outputs(), expected)?;
        Ok(Self { ort, contract })
    }

    /// What the graph takes and returns.
    #[must_use]
    pub fn contract(&self) -> &Contract {
        &self.contract
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
    fn infer(&mut self, batch: &Batch) -> Result<Logits, InferError> {
        let batch_len = batch.len();
        let failed = |cause: ort::Error| InferError::Run { batch_len, cause: cause.to_string() };
        let input = TensorRef::from_array_view((batch.dimensions(), batch.values())).map_err(failed)?;
        let outputs = self.ort.run(ort::inputs![self.contract.input.as_str() => input]).map_err(failed)?;
        // The contract was read from this session's own outputs, so the name is there.
        let output = &outputs[self.contract.output.as_str()];
        let (shape, values) = output.try_extract_tensor::<f32>().map_err(failed)?;
        Logits::new(shape, values.to_vec(), batch_len, self.contract.classes)
    }
}

fn contract(model: &str, inputs: &[Outlet], outputs: &[Outlet], expected: Expected) -> Result<Contract, InferError> {
    let refuse = |found: String, expected: String| InferError::Contract { model: model.to_owned(), found, expected };
    let [input] = inputs else {
        return Err(refuse(format!("{} inputs", inputs.len()), "one image input".to_owned()));
    };
    let (height, width) = (i64::from(expected.sample.height), i64::from(expected.sample.width));
    let expected_input = || format!("f32 [N, 3, {height}, {width}] as its recipe prepares");
    let input_shape = match tensor(input) {
        Some((TensorElementType::Float32, shape)) if fits(shape, &[-1, 3, height, width]) => shape.to_vec(),
        _ => return Err(refuse(format!("input {}", describe(input)), expected_input())),
    };
    let batch_images_max = match input_shape[0] {
        -1 => None,
        1 => Some(1),
        n => return Err(refuse(format!("a fixed batch of {n}"), "a free batch dimension, or 1".to_owned())),
    };
    // A graph may return features or an ArgMax beside its logits: the labels tell which output is which.
    let classes = expected.classes;
    let is_logits = |output: &&Outlet| match tensor(output) {
        Some((TensorElementType::Float32, &[_, found])) => usize::try_from(found) == Ok(classes),
        _ => false,
    };
    let Some(output) = outputs.iter().find(is_logits) else {
        let found = outputs.iter().map(describe).collect::<Vec<_>>().join(", ");
        return Err(refuse(format!("outputs {found}"), format!("f32 [N, {classes}], one score for each label")));
    };
    Ok(Contract {
        input: input.name().to_owned(),
        input_shape,
        output: output.name().to_owned(),
        classes,
        batch_images_max,
    })
}

fn tensor(outlet: &Outlet) -> Option<(TensorElementType, &[i64])> {
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => Some((*ty, shape)),
        ValueType::Sequence(_) | ValueType::Map { .. } | ValueType::Optional(_) => None,
    }
}

/// A declared shape can take `wanted`; -1 in either is free.
fn fits(declared: &[i64], wanted: &[i64]) -> bool {
    declared.len() == wanted.len()
        && declared.iter().zip(wanted).all(|(&have, &want)| have == want || have == -1 || want == -1)
}

fn describe(outlet: &Outlet) -> String {
    match tensor(outlet) {
        Some((ty, shape)) => format!("{} {ty} {shape:?}", outlet.name()),
        None => format!("{} (not a tensor)", outlet.name()),
    }
}
