//! A [`Network`] and its numbers as an ONNX graph: one or two nodes a layer, batch norm folded or kept. Opset 17 with IR
//! version 8, which every ONNX Runtime since 1.12 reads.

use super::form::{BatchNormForm, Dtype, GraphForm, Layout};
use super::network::{COLOURS, Layer, LayerId, Network, Op};
use super::nodes::{Side, float, int, ints, node, signed, tensor, tensor_of_ints, value_info};
use super::numbers::{Weights, fold, raw};
use crate::graph::proto::{AttributeProto, GraphProto, ModelProto, OperatorSetIdProto};

const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;
/// What protobuf can hold, in bytes. Tensors in files of their own are not written.
const MODEL_BYTES_MAX: u64 = i32::MAX as u64;
/// Room for nodes, names and shapes; ResNet-152 needs 0.1 MB.
const MODEL_BYTES_BESIDE_TENSORS: u64 = 16 << 20;

/// Name of the graph's input.
const INPUT: &str = "input";
/// Name of the graph's output,
const LOGITS: &str = "logits";
/// or of this one, where softmax was asked for.
const PROBABILITIES: &str = "probabilities";

/// Why there is no graph.
#[derive(Debug, thiserror::Error)]
pub enum BuildError<E> {
    /// The source of the numbers failed.
    #[error(transparent)]
    Weights(E),
    /// A number is infinite or not a number, or does not fit the element type.
    #[error("tensor {name} has the value {found}, which is no finite {dtype}{advice}")]
    NotFinite {
        /// The tensor, as it would have been called in the graph.
        name: String,
        /// The first such value.
        found: f64,
        /// `f32` or `f16`.
        dtype: &'static str,
        /// What to do, where something can be done.
        advice: &'static str,
    },
    /// The file would be larger than ONNX allows.
    #[error("the model would have about {found} bytes; one ONNX file holds at most {max}; f16 takes half of f32")]
    TooLarge {
        /// Estimated size.
        found: u64,
        /// Largest size.
        max: u64,
    },
}

/// Writes `network` down as an ONNX model.
///
/// # Errors
/// Where a number cannot be had or does not fit, or the file would be too large.
pub fn build<W: Weights>(
    network: &Network,
    form: &GraphForm,
    weights: &mut W,
) -> Result<ModelProto, BuildError<W::Error>> {
    let bytes = network.parameter_count().saturating_mul(form.dtype.bytes()).saturating_add(MODEL_BYTES_BESIDE_TENSORS);
    if bytes > MODEL_BYTES_MAX {
        return Err(BuildError::TooLarge { found: bytes, max: MODEL_BYTES_MAX });
    }
    let layers = network.layers();
    let norms = folding(layers, form.batch_norm);
    let mut emitter = Emitter { form, weights, graph: GraphProto::default(), values: Vec::with_capacity(layers.len()) };
    for (id, layer) in layers.iter().enumerate() {
        let value = if norms.contains(&Some(id)) {
            emitter.value(layer.inputs[0])
        } else {
            emitter.emit(layer, norms[id].map(|norm| &layers[norm]))?
        };
        emitter.values.push(value);
    }
    Ok(emitter.finish(layers))
}

/// For each layer the batch norm that is folded into it: the one that alone reads a convolution.
fn folding(layers: &[Layer], form: BatchNormForm) -> Vec<Option<LayerId>> {
    let mut norms = vec![None; layers.len()];
    if form == BatchNormForm::Folded {
        for (id, layer) in layers.iter().enumerate().filter(|(_, layer)| layer.op == Op::BatchNorm) {
            let from = layer.inputs[0];
            let readers = layers.iter().filter(|layer| layer.inputs.contains(&from)).count();
            if readers == 1 && matches!(layers[from].op, Op::Conv { .. }) {
                norms[from] = Some(id);
            }
        }
    }
    norms
}

struct Emitter<'a, W> {
    form: &'a GraphForm,
    weights: &'a mut W,
    graph: GraphProto,
    /// For each layer so far, the name of the value it gives.
    values: Vec<String>,
}

impl<W: Weights> Emitter<'_, W> {
    /// Adds the nodes of a layer and returns the name of its value. `norm` is the batch norm to fold into it.
    fn emit(&mut self, layer: &Layer, norm: Option<&Layer>) -> Result<String, BuildError<W::Error>> {
        let name = layer.name.as_str();
        Ok(match layer.op {
            Op::Input => self.input(),
            Op::Conv { inputs, kernel, stride, groups } => {
                let shape = [layer.channels, inputs / groups, kernel, kernel];
                let mut from = vec![self.value(layer.inputs[0]), format!("{name}.weight")];
                let weight = self.weights.weight(&from[1], &shape).map_err(BuildError::Weights)?;
                if let Some(norm) = norm {
                    let norm = self.weights.batch_norm(&norm.name, norm.channels).map_err(BuildError::Weights)?;
                    let (weight, bias) = fold(&weight, &norm);
                    self.numbers(&from[1], &shape, weight)?;
                    from.push(format!("{name}.bias"));
                    self.numbers(&from[2], &[layer.channels], bias)?;
                } else {
                    self.numbers(&from[1], &shape, weight.into_iter().map(f64::from))?;
                }
                let attributes = vec![
                    ints("dilations", &[1, 1]),
                    int("group", groups),
                    ints("kernel_shape", &[kernel, kernel]),
                    ints("pads", &[kernel / 2; 4]),
                    ints("strides", &[stride, stride]),
                ];
                self.node("Conv", name, &from, attributes)
            }
            Op::BatchNorm => self.batch_norm(layer)?,
            Op::Relu => self.node("Relu", name, &[self.value(layer.inputs[0])], vec![]),
            Op::MaxPool => {
                let attributes =
                    vec![ints("kernel_shape", &[3, 3]), ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 2])];
                self.node("MaxPool", name, &[self.value(layer.inputs[0])], attributes)
            }
            Op::AveragePool { stride } => {
                let attributes = vec![
                    int("ceil_mode", 1),
                    int("count_include_pad", 0),
                    ints("kernel_shape", &[stride, stride]),
                    ints("strides", &[stride, stride]),
                ];
                self.node("AveragePool", name, &[self.value(layer.inputs[0])], attributes)
            }
            Op::Subsample { stride } => {
                let stride = signed(stride);
                let from = [
                    self.value(layer.inputs[0]),
                    self.indices("subsample.starts", &[0, 0]),
                    self.indices("subsample.ends", &[i64::MAX, i64::MAX]),
                    self.indices("subsample.axes", &[2, 3]),
                    self.indices(&format!("subsample.steps_{stride}"), &[stride, stride]),
                ];
                self.node("Slice", name, &from, vec![])
            }
            Op::ZeroPad { before, after } => {
                let (before, after) = (signed(before), signed(after));
                let pads = self.indices(&format!("zero_pad.{before}_{after}"), &[0, before, 0, 0, 0, after, 0, 0]);
                self.node("Pad", name, &[self.value(layer.inputs[0]), pads], vec![])
            }
            Op::Add => {
                let from: Vec<String> = layer.inputs.iter().map(|&input| self.value(input)).collect();
                self.node("Add", name, &from, vec![])
            }
            Op::GlobalAveragePool => self.node("GlobalAveragePool", name, &[self.value(layer.inputs[0])], vec![]),
            Op::Linear { inputs } => self.linear(layer, inputs)?,
        })
    }

    fn input(&mut self) -> String {
        let (batch, size) = (self.form.batch.map_or(Side::Free("N"), Side::Fixed), Side::Fixed(self.form.size));
        let colours = Side::Fixed(COLOURS);
        let shape = match self.form.layout {
            Layout::Nchw => [batch, colours, size, size],
            Layout::Nhwc => [batch, size, size, colours],
        };
        self.graph.input.push(value_info(INPUT, self.form.dtype.code(), &shape));
        match self.form.layout {
            Layout::Nchw => INPUT.to_owned(),
            Layout::Nhwc => self.node("Transpose", "to_nchw", &[INPUT.to_owned()], vec![ints("perm", &[0, 3, 1, 2])]),
        }
    }

    fn batch_norm(&mut self, layer: &Layer) -> Result<String, BuildError<W::Error>> {
        let name = &layer.name;
        let norm = self.weights.batch_norm(name, layer.channels).map_err(BuildError::Weights)?;
        let mut from = vec![self.value(layer.inputs[0])];
        for (suffix, values) in
            [("weight", norm.scale), ("bias", norm.bias), ("running_mean", norm.mean), ("running_var", norm.variance)]
        {
            let tensor = format!("{name}.{suffix}");
            self.numbers(&tensor, &[layer.channels], values.into_iter().map(f64::from))?;
            from.push(tensor);
        }
        Ok(self.node("BatchNormalization", name, &from, vec![float("epsilon", norm.epsilon)]))
    }

    fn linear(&mut self, layer: &Layer, inputs: usize) -> Result<String, BuildError<W::Error>> {
        let (weight, bias) = (format!("{}.weight", layer.name), format!("{}.bias", layer.name));
        let shape = [layer.channels, inputs];
        let values = self.weights.weight(&weight, &shape).map_err(BuildError::Weights)?;
        self.numbers(&weight, &shape, values.into_iter().map(f64::from))?;
        let values = self.weights.bias(&bias, layer.channels).map_err(BuildError::Weights)?;
        self.numbers(&bias, &[layer.channels], values.into_iter().map(f64::from))?;
        let flat = self.node("Flatten", "flatten", &[self.value(layer.inputs[0])], vec![int("axis", 1)]);
        let name = if self.form.softmax { &layer.name } else { LOGITS };
        let logits = node("Gemm", &layer.name, &[&flat, &weight, &bias], name, vec![int("transB", 1)]);
        self.graph.node.push(logits);
        Ok(name.to_owned())
    }

    fn finish(mut self, layers: &[Layer]) -> ModelProto {
        let mut output = self.values.pop().unwrap_or_default();
        if self.form.softmax {
            self.graph.node.push(node("Softmax", "softmax", &[&output], PROBABILITIES, vec![int("axis", 1)]));
            output = PROBABILITIES.to_owned();
        }
        let batch = self.form.batch.map_or(Side::Free("N"), Side::Fixed);
        let classes = Side::Fixed(layers.last().map_or(0, |layer| layer.channels));
        self.graph.output.push(value_info(&output, self.form.dtype.code(), &[batch, classes]));
        self.graph.name = Some("residual".to_owned());
        ModelProto {
            ir_version: Some(IR_VERSION),
            producer_name: Some("residual".to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            doc_string: Some(self.form.description.clone()),
            graph: Some(self.graph),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
            ..ModelProto::default()
        }
    }

    fn value(&self, layer: LayerId) -> String {
        self.values[layer].clone()
    }

    /// Adds a node whose output is called like itself.
    fn node(&mut self, op: &str, name: &str, inputs: &[String], attributes: Vec<AttributeProto>) -> String {
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.graph.node.push(node(op, name, &inputs, name, attributes));
        name.to_owned()
    }

    /// A tensor of integers, once for each name.
    fn indices(&mut self, name: &str, values: &[i64]) -> String {
        if !self.graph.initializer.iter().any(|tensor| tensor.name.as_deref() == Some(name)) {
            self.graph.initializer.push(tensor_of_ints(name, values));
        }
        name.to_owned()
    }

    /// A tensor of the graph's element type.
    fn numbers(
        &mut self,
        name: &str,
        shape: &[usize],
        values: impl Iterator<Item = f64>,
    ) -> Result<(), BuildError<W::Error>> {
        let raw = raw(self.form.dtype, values).map_err(|found| BuildError::NotFinite {
            name: name.to_owned(),
            found,
            dtype: match self.form.dtype {
                Dtype::F32 => "f32",
                Dtype::F16 => "f16",
            },
            advice: if found.is_finite() && self.form.dtype == Dtype::F16 { "; choose f32" } else { "" },
        })?;
        self.graph.initializer.push(tensor(name, shape, self.form.dtype.code(), raw));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
