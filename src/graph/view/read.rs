//! One node after the other becomes a layer, a constant, or nothing: the operators of ONNX, of its quantised forms and
//! of ONNX Runtime's own domain, each put under what it does to an image.

use super::constant::{self, Constant};
use super::flat::{Call, ValueId};
use super::fold;
use super::rearrange::{reshape, transpose};
use super::shape;
use super::{Dims, Fact, Flow, Layer, LayerId, Op, Reader};

impl<'a> Reader<'a> {
    /// Reads one node, whose inputs have been read.
    pub(super) fn read(&mut self, call: &Call<'a>) {
        let Some(output) = call.outputs.first().copied().flatten() else {
            return;
        };
        let facts: Vec<Option<Fact<'a>>> = call.inputs.iter().map(|id| self.facts[(*id)?].clone()).collect();
        let is_flow = |fact: &Option<Fact<'a>>| matches!(fact, Some(Fact::Flow(_)));
        let made = if facts.iter().any(is_flow) {
            self.layer(call, &facts, output)
        } else {
            let given: Vec<Option<&Constant<'a>>> =
                facts.iter().map(|fact| fact.as_ref().and_then(as_constant)).collect();
            self.quantised.weights |= call.op() == "DequantizeLinear";
            fold::fold(call, &given, output).map(Fact::Constant)
        };
        self.facts[output] = made;
    }

    /// The result of a node that reads at least one flow.
    fn layer(&mut self, call: &Call<'a>, facts: &[Option<Fact<'a>>], output: ValueId) -> Option<Fact<'a>> {
        let op = call.op();
        let first = facts.iter().flatten().find_map(as_flow)?.clone();
        let input = facts.first().and_then(Option::as_ref).and_then(as_flow).cloned().unwrap_or_else(|| first.clone());
        let constants = |index: usize| facts.get(index).and_then(Option::as_ref).and_then(as_constant);
        match op {
            // Of the second input only the type is read.
            "CastLike" if constants(0).is_some() => constants(0).cloned().map(Fact::Constant),
            "Identity" | "Cast" | "CastLike" | "Dropout" | "ReorderInput" | "ReorderOutput" => Some(Fact::Flow(input)),
            "QuantizeLinear" | "DequantizeLinear" => {
                self.quantised.pairs = true;
                Some(Fact::Flow(input))
            }
            "DynamicQuantizeLinear" => {
                self.quantised.dynamic = true;
                for id in call.outputs.iter().skip(1).flatten() {
                    let scale = Constant { is_scale: true, ..Constant::of_numbers(*id, Vec::new(), None) };
                    self.facts[*id] = Some(Fact::Constant(scale));
                }
                Some(Fact::Flow(input))
            }
            "Conv" | "FusedConv" | "NhwcConv" | "NhwcFusedConv" | "ConvInteger" | "QLinearConv" => {
                self.conv(call, facts)
            }
            "Gemm"
            | "FusedGemm"
            | "QGemm"
            | "MatMul"
            | "FusedMatMul"
            | "MatMulInteger"
            | "QLinearMatMul"
            | "MatMulIntegerToFloat"
            | "DynamicQuantizeMatMul" => self.dense(call, facts),
            "BatchNormalization" | "SpatialBN" => {
                let parameters = trained(constants(1)).saturating_add(trained(constants(2)));
                Some(self.push(Op::BatchNorm, &[input.layer], parameters, input))
            }
            "InstanceNormalization"
            | "LayerNormalization"
            | "GroupNormalization"
            | "RMSNormalization"
            | "SimplifiedLayerNormalization"
            | "LpNormalization" => {
                // A group norm is exported as an instance norm that scales by 1 and shifts by 0, for it must.
                let is_plain = op == "InstanceNormalization"
                    && constants(1).is_some_and(|scale| scale.is_all(1.0))
                    && constants(2).is_none_or(|shift| shift.is_all(0.0));
                let parameters = trained(constants(1)).saturating_add(trained(constants(2)));
                let parameters = if is_plain { 0 } else { parameters };
                Some(self.push(Op::Norm(op), &[input.layer], parameters, input))
            }
            "PRelu" => Some(self.push(Op::Activation(op), &[input.layer], trained(constants(1)), input)),
            "ConvTranspose" => {
                let parameters = trained(constants(1)).saturating_add(trained(constants(2)));
                let flow = Flow { dims: None, ..input };
                Some(self.unknown(op, facts, flow, parameters))
            }
            "Relu" | "Clip" | "LeakyRelu" | "ThresholdedRelu" | "Elu" | "Celu" | "Selu" | "Sigmoid" | "HardSigmoid"
            | "HardSwish" | "Swish" | "Silu" | "QuickGelu" | "Gelu" | "FastGelu" | "Tanh" | "Softplus" | "Softsign"
            | "Mish" | "Erf" | "QLinearLeakyRelu" | "QLinearSigmoid" | "BiasGelu" => {
                Some(self.push(Op::Activation(op), &[input.layer], 0, input))
            }
            "Max" | "Min" if facts.iter().flatten().filter_map(as_flow).count() == 1 => {
                Some(self.push(Op::Activation(op), &[first.layer], 0, first))
            }
            "MaxPool" | "NhwcMaxPool" | "AveragePool" | "QLinearAveragePool" | "LpPool" => {
                Some(self.pool(call, &input))
            }
            "GlobalAveragePool" | "GlobalMaxPool" | "QLinearGlobalAveragePool" => {
                let channel_axis = if call.int("channels_last") == Some(1) { 3 } else { 1 };
                Some(self.global_pool(&Flow { channel_axis, ..input }, true))
            }
            "ReduceMean" | "QLinearReduceMean" => self.reduce_mean(call, constants(1), &input),
            "Add" | "Sum" | "QLinearAdd" => self.add(call, facts),
            "Sub" => self.shift(facts),
            "Mul" | "QLinearMul" | "Div" => self.scale(call, facts),
            "Concat" | "QLinearConcat" => Some(self.concat(call, facts)),
            "Pad" => Some(self.pad(call, constants(1), constants(3), &input)),
            "Slice" => Some(self.slice(call, facts, &input)),
            "Split" => self.split(call, constants(1), &input),
            "Expand" => {
                let target = constants(1).and_then(Constant::ints);
                let target = target.map(|sizes| sizes.iter().map(|size| u64::try_from(*size).ok()).collect());
                let target: Dims = target.filter(|sizes: &Vec<_>| sizes.len() <= constant::RANK_MAX);
                Some(Fact::Flow(Flow { dims: shape::broadcast(&input.dims, &target), ..input }))
            }
            "Transpose" => Some(Fact::Flow(transpose(call, input))),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => Some(Fact::Flow(reshape(call, constants(1), &input))),
            "Shape" => {
                let dims: Option<Vec<f64>> = input.dims?.iter().map(|dim| dim.map(|dim| dim as f64)).collect();
                Some(Fact::Constant(fold::shape(call, output, &dims?)?))
            }
            "Softmax" | "LogSoftmax" | "QLinearSoftmax" => Some(self.push(Op::Softmax, &[input.layer], 0, input)),
            _ => Some(self.unknown(op, facts, Flow { dims: None, ..first }, 0)),
        }
    }

    /// Appends a layer whose result is like `flow`.
    pub(super) fn push(&mut self, op: Op<'a>, inputs: &[LayerId], parameters: u64, flow: Flow) -> Fact<'a> {
        let dims = flow.dims.clone();
        self.layers.push(Layer { op, inputs: inputs.to_vec(), dims, parameters, macs: Some(0) });
        Fact::Flow(Flow { layer: self.layers.len() - 1, ..flow })
    }

    /// A layer that is not known, which reads every flow among `facts`.
    fn unknown(&mut self, op: &'a str, facts: &[Option<Fact<'a>>], flow: Flow, parameters: u64) -> Fact<'a> {
        let inputs = layers_of(facts);
        self.push(Op::Other(op), &inputs, parameters, flow)
    }
}

pub(super) fn as_flow<'f>(fact: &'f Fact<'_>) -> Option<&'f Flow> {
    match fact {
        Fact::Flow(flow) => Some(flow),
        Fact::Constant(_) => None,
    }
}

pub(super) fn as_constant<'f, 'a>(fact: &'f Fact<'a>) -> Option<&'f Constant<'a>> {
    match fact {
        Fact::Constant(constant) => Some(constant),
        Fact::Flow(_) => None,
    }
}

/// How many trained values `constant` holds. A tensor that several layers read counts for each of them: exporters keep
/// equal tensors once, and the network has them all.
pub(super) fn trained(constant: Option<&Constant<'_>>) -> u64 {
    constant.filter(|constant| !constant.is_scale).and_then(Constant::elements).unwrap_or(0)
}

/// The layers that `facts` come from.
pub(super) fn layers_of(facts: &[Option<Fact<'_>>]) -> Vec<LayerId> {
    facts.iter().flatten().filter_map(as_flow).map(|flow| flow.layer).collect()
}
