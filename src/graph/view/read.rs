//! One node after the other becomes a layer, a constant, or nothing: the operators of ONNX, of its quantised forms and
//! of ONNX Runtime's own domain, each put under what it does to an image.

use super::constant::{self, Constant};
use super::flat::{Call, ValueId};
use super::shape::{self, Moves};
use super::{Dims, Fact, Flow, Layer, LayerId, Op, Reader, Window};

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
            constant::fold(call, &given, output).map(Fact::Constant)
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
                self.conv(call, facts, output)
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
                let is_plain = constants(1).is_some_and(|scale| scale.is_all(1.0))
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
            "MaxPool" | "NhwcMaxPool" | "AveragePool" | "QLinearAveragePool" | "LpPool" => Some(self.pool(call, input)),
            "GlobalAveragePool" | "GlobalMaxPool" | "QLinearGlobalAveragePool" => {
                let channel_axis = if call.int("channels_last") == Some(1) { 3 } else { 1 };
                Some(self.global_pool(Flow { channel_axis, ..input }, true))
            }
            "ReduceMean" | "QLinearReduceMean" => self.reduce_mean(call, constants(1), input),
            "Add" | "Sum" | "QLinearAdd" => self.add(call, facts),
            "Sub" => self.shift(facts),
            "Mul" | "QLinearMul" | "Div" => self.scale(call, facts),
            "Concat" | "QLinearConcat" => Some(self.concat(call, facts)),
            "Pad" => Some(self.pad(call, constants(1), constants(3), input)),
            "Slice" => Some(self.slice(call, facts, input)),
            "Split" => self.split(call, constants(1), input),
            "Expand" => {
                let target = constants(1).and_then(Constant::ints);
                let target = target.map(|sizes| sizes.iter().map(|size| u64::try_from(*size).ok()).collect());
                let target: Dims = target.filter(|sizes: &Vec<_>| sizes.len() <= constant::RANK_MAX);
                Some(Fact::Flow(Flow { dims: shape::broadcast(&input.dims, &target), ..input }))
            }
            "Transpose" => Some(Fact::Flow(transpose(call, input))),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => Some(Fact::Flow(reshape(call, constants(1), input))),
            "Shape" => {
                let dims: Option<Vec<f64>> = input.dims?.iter().map(|dim| dim.map(|dim| dim as f64)).collect();
                Some(Fact::Constant(constant::shape(call, output, &dims?)?))
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

    fn pool(&mut self, call: &Call<'a>, input: Flow) -> Fact<'a> {
        let kernel = call.ints("kernel_shape").unwrap_or_default();
        let kernel: Vec<u64> = kernel.iter().take(3).map(|size| u64::try_from(*size).unwrap_or(1).max(1)).collect();
        let moves = Moves::of(call, kernel);
        let is_last = call.op() == "NhwcMaxPool" || call.int("channels_last") == Some(1);
        let channel_axis = if is_last { 3 } else { 1 };
        let sides = shape::spatial(&input.dims, channel_axis);
        let channels = input.dims.as_ref().and_then(|dims| dims.get(channel_axis).copied().flatten());
        let is_average = !matches!(call.op(), "MaxPool" | "NhwcMaxPool");
        let covers =
            |sides: &Vec<Option<u64>>| sides.iter().zip(&moves.kernel).all(|(side, size)| *side == Some(*size));
        let is_global = is_average && !moves.pads() && sides.as_ref().is_some_and(covers);
        let placed = sides
            .filter(|sides| sides.len() == moves.kernel.len())
            .map(|sides| sides.iter().enumerate().map(|(axis, side)| moves.places(axis, *side)).collect());
        let dims = placed.and_then(|sides| shape::image(channels, sides, channel_axis));
        let layer = input.layer;
        let flow = Flow { dims, channel_axis, ..input };
        let window = Window { kernel: moves.kernel, stride: moves.stride, is_global };
        self.push(if is_average { Op::AveragePool(window) } else { Op::MaxPool(window) }, &[layer], 0, flow)
    }

    fn global_pool(&mut self, input: Flow, keeps: bool) -> Fact<'a> {
        let channels = input.dims.as_ref().and_then(|dims| dims.get(input.channel_axis).copied().flatten());
        let dims = match input.dims.as_ref().map(Vec::len) {
            Some(rank) if keeps && rank > 2 => shape::image(channels, vec![Some(1); rank - 2], input.channel_axis),
            Some(_) if !keeps => Some(vec![Some(1), channels]),
            Some(_) | None => None,
        };
        let flow = Flow { dims, ..input };
        self.push(Op::GlobalPool, &[flow.layer], 0, flow)
    }

    /// A mean over exactly the spatial axes is a global pool.
    fn reduce_mean(&mut self, call: &Call<'a>, axes: Option<&Constant<'a>>, input: Flow) -> Option<Fact<'a>> {
        let rank = input.dims.as_ref().map_or(4, Vec::len);
        let given = axes.and_then(Constant::ints).or_else(|| call.ints("axes").map(<[i64]>::to_vec));
        let mut axes: Vec<usize> =
            given.unwrap_or_default().iter().filter_map(|at| constant::axis(*at, rank)).collect();
        axes.sort_unstable();
        let spatial: Vec<usize> = (1..rank).filter(|at| *at != input.channel_axis).collect();
        if axes == spatial && rank > 2 {
            return Some(self.global_pool(input, call.int("keepdims").unwrap_or(1) == 1));
        }
        let layer = input.layer;
        Some(self.push(Op::Other(call.op()), &[layer], 0, Flow { dims: None, ..input }))
    }

    /// `Concat` of an image with zeros lengthens it; of images it is itself.
    fn concat(&mut self, call: &Call<'a>, facts: &[Option<Fact<'a>>]) -> Fact<'a> {
        let flows: Vec<&Flow> = facts.iter().flatten().filter_map(as_flow).collect();
        let first = flows.first().copied().cloned().expect("a layer reads a flow");
        // The quantised form has scale and zero point of the result in front, and behind each input its own.
        let is_quantised = call.op() == "QLinearConcat";
        let parts = facts.iter().enumerate().filter(|(at, _)| !is_quantised || (*at >= 2 && (at - 2) % 3 == 0));
        let parts: Vec<&Option<Fact<'a>>> = parts.map(|(_, part)| part).collect();
        let rank = first.dims.as_ref().map_or(4, Vec::len);
        let axis = constant::axis(call.int("axis").unwrap_or(1), rank);
        let along = |fact: &Option<Fact<'a>>| match fact {
            Some(Fact::Flow(flow)) => flow.dims.as_ref()?.get(axis?).copied().flatten(),
            Some(Fact::Constant(constant)) => constant.dims.get(axis?).copied(),
            None => None,
        };
        let total = parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(along(part)?));
        let mut dims = first.dims.clone();
        if let (Some(dims), Some(axis)) = (&mut dims, axis) {
            dims[axis] = total;
        }
        let is_zero = |fact: &&Option<Fact<'a>>| match fact {
            Some(Fact::Constant(constant)) => self.reads_zero(constant),
            Some(Fact::Flow(_)) | None => true,
        };
        let only_zeros = parts.iter().all(is_zero);
        let lengthens = flows.len() == 1 && only_zeros && axis == Some(first.channel_axis);
        let op = if lengthens { Op::Pad { on_channels: true } } else { Op::Concat };
        let inputs = layers_of(facts);
        self.push(op, &inputs, 0, Flow { dims, ..first })
    }

    /// Whether `constant` holds nothing but zeros; each tensor is read once.
    pub(super) fn reads_zero(&mut self, constant: &Constant<'a>) -> bool {
        *self.zeros.entry(constant.root).or_insert_with(|| constant.reads_zero())
    }

    fn pad(
        &mut self,
        call: &Call<'a>,
        pads: Option<&Constant<'a>>,
        axes: Option<&Constant<'a>>,
        input: Flow,
    ) -> Fact<'a> {
        let given = pads.and_then(Constant::ints);
        let given = given.or_else(|| call.ints("pads").or_else(|| call.ints("paddings")).map(<[i64]>::to_vec));
        let rank = input.dims.as_ref().map_or(4, Vec::len);
        let axes: Vec<usize> = match axes.and_then(Constant::ints) {
            Some(axes) => axes.iter().filter_map(|at| constant::axis(*at, rank)).collect(),
            None => (0..rank).collect(),
        };
        let mut dims = input.dims.clone();
        let mut on_channels = false;
        match given.filter(|given| given.len() == 2 * axes.len()) {
            Some(given) => {
                for (index, axis) in axes.iter().enumerate() {
                    let sum = i128::from(given[index]) + i128::from(given[index + axes.len()]);
                    on_channels |= *axis == input.channel_axis && sum > 0;
                    if let Some(dim) = dims.as_mut().map(|dims| &mut dims[*axis]) {
                        *dim = dim.and_then(|dim| u64::try_from(i128::from(dim) + sum).ok());
                    }
                }
            }
            None => dims = None,
        }
        let layer = input.layer;
        self.push(Op::Pad { on_channels }, &[layer], 0, Flow { dims, ..input })
    }

    /// Each part is a slice of its own.
    fn split(&mut self, call: &Call<'a>, sizes: Option<&Constant<'a>>, input: Flow) -> Option<Fact<'a>> {
        let rank = input.dims.as_ref().map_or(4, Vec::len);
        let axis = constant::axis(call.int("axis").unwrap_or(0), rank);
        let sizes = sizes.and_then(Constant::ints).or_else(|| call.ints("split").map(<[i64]>::to_vec));
        let parts = call.outputs.len() as u64;
        let mut first = None;
        for (index, output) in call.outputs.iter().enumerate() {
            let mut dims = input.dims.clone();
            if let (Some(dims), Some(axis)) = (&mut dims, axis) {
                let given = sizes.as_ref().map(|sizes| sizes.get(index).and_then(|size| u64::try_from(*size).ok()));
                dims[axis] = given.unwrap_or_else(|| dims[axis].and_then(|all| all.checked_div(parts)));
            }
            let part = self.push(Op::Slice { step: 1 }, &[input.layer], 0, Flow { dims, ..input.clone() });
            match (index, output) {
                (0, _) => first = Some(part),
                (_, Some(output)) => self.facts[*output] = Some(part),
                (_, None) => {}
            }
        }
        first
    }

    fn slice(&mut self, call: &Call<'a>, facts: &[Option<Fact<'a>>], input: Flow) -> Fact<'a> {
        let list = |index: usize, name: &str| -> Option<Vec<i64>> {
            let given = facts.get(index).and_then(Option::as_ref).and_then(as_constant).and_then(Constant::ints);
            given.or_else(|| call.ints(name).map(<[i64]>::to_vec))
        };
        let (starts, ends) = (list(1, "starts").unwrap_or_default(), list(2, "ends").unwrap_or_default());
        let axes = list(3, "axes").unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = list(4, "steps").unwrap_or_else(|| vec![1; starts.len()]);
        let mut dims = input.dims.clone();
        let rank = input.dims.as_ref().map_or(4, Vec::len);
        let mut step = 1;
        for (index, axis) in axes.iter().enumerate() {
            let by = steps.get(index).map_or(1, |step| step.unsigned_abs().max(1));
            let Some(axis) = constant::axis(*axis, rank) else {
                continue;
            };
            if axis != 0 && axis != input.channel_axis {
                step = step.max(by);
            }
            let (Some(start), Some(end)) = (starts.get(index), ends.get(index)) else {
                continue;
            };
            if let Some(dim) = dims.as_mut().map(|dims| &mut dims[axis]) {
                *dim = dim.and_then(|dim| {
                    let size = i128::from(dim);
                    let place = |at: i64| if at < 0 { i128::from(at) + size } else { i128::from(at) }.clamp(0, size);
                    u64::try_from((place(*end) - place(*start)).max(0)).ok().map(|kept| kept.div_ceil(by))
                });
            }
        }
        let layer = input.layer;
        self.push(Op::Slice { step }, &[layer], 0, Flow { dims, ..input })
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

fn transpose(call: &Call<'_>, input: Flow) -> Flow {
    let rank = input.dims.as_ref().map_or_else(|| call.ints("perm").map_or(0, <[i64]>::len), Vec::len);
    let Some(order) = constant::order(call, rank) else {
        return Flow { dims: None, ..input };
    };
    let channel_axis = order.iter().position(|axis| *axis == input.channel_axis).unwrap_or(1);
    let dims = input.dims.map(|dims| order.iter().map(|axis| dims[*axis]).collect());
    Flow { dims, channel_axis, ..input }
}

/// Another shape of the same values; where the target is not known neither is the shape.
fn reshape(call: &Call<'_>, target: Option<&Constant<'_>>, input: Flow) -> Flow {
    let target = target.and_then(Constant::ints);
    let axes = || target.clone().or_else(|| call.ints("axes").map(<[i64]>::to_vec));
    let dims = input.dims.as_deref();
    let dims: Dims = match call.op() {
        "Reshape" => {
            let target = target.clone().or_else(|| call.ints("shape").map(<[i64]>::to_vec));
            let unknown =
                |target: &[i64]| target.iter().map(|size| u64::try_from(*size).ok().filter(|size| *size > 0)).collect();
            target.and_then(|target| match dims {
                Some(dims) => constant::reshaped(dims, &target),
                None => (target.len() <= constant::RANK_MAX).then(|| unknown(&target)),
            })
        }
        "Flatten" => dims.and_then(|dims| {
            let at = usize::try_from(call.int("axis").unwrap_or(1)).ok().filter(|at| *at <= dims.len())?;
            let (rows, columns) = dims.split_at(at);
            Some(vec![shape::product(rows.iter().copied()), shape::product(columns.iter().copied())])
        }),
        "Squeeze" => dims.and_then(|dims| match axes() {
            Some(axes) => constant::squeezed(dims, Some(&axes)),
            // The first size is the batch, which only looks like a 1.
            None => Some(
                dims.iter().enumerate().filter(|(at, dim)| *at == 0 || **dim != Some(1)).map(|(_, dim)| *dim).collect(),
            ),
        }),
        _ => dims.and_then(|dims| constant::unsqueezed(dims, &axes()?)),
    };
    // In a flattened image the channels are second; wherever else they went, nobody asks any more.
    Flow { dims, channel_axis: 1, ..input }
}
