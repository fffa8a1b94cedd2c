//! The layers that have weights, and the additions and multiplications around them.

use super::constant::{self, Constant};
use super::flat::Call;
use super::read::{as_constant, as_flow, layers_of, trained};
use super::shape::{self, Moves};
use super::{Conv, Dense, Fact, Flow, Op, Reader};

/// A node's tensor input by position.
fn at<'f, 'a>(facts: &'f [Option<Fact<'a>>], index: usize) -> Option<&'f Fact<'a>> {
    facts.get(index).and_then(Option::as_ref)
}

impl<'a> Reader<'a> {
    /// The tensor at a place where weights belong. A weight may be an input of the graph, which the caller fills.
    fn weight(&self, fact: Option<&Fact<'a>>) -> Option<Constant<'a>> {
        match fact? {
            Fact::Constant(constant) => Some(constant.clone()),
            Fact::Flow(flow) => {
                let dims: Option<Vec<u64>> = flow.dims.as_ref()?.iter().copied().collect();
                let is_input = matches!(self.layers[flow.layer].op, Op::Input);
                // Beyond the numbers of tensors, one for each layer.
                is_input.then_some(Constant::of_numbers(self.facts.len() + flow.layer, dims?, None))
            }
        }
    }

    /// `[N,C,H,W]` with `[channels, inputs / groups, kernel...]` to `[N,channels,H',W']`.
    pub(super) fn conv(&mut self, call: &Call<'a>, facts: &[Option<Fact<'a>>]) -> Option<Fact<'a>> {
        let (weight_at, bias_at, sum_at) = match call.op() {
            "QLinearConv" => (3, Some(8), None),
            "ConvInteger" => (1, None, None),
            _ => (1, Some(2), Some(3)),
        };
        self.quantised.operators |= call.op() == "QLinearConv";
        self.quantised.dynamic |= call.op() == "ConvInteger";
        let input = at(facts, 0).and_then(as_flow)?.clone();
        let is_last = call.op().starts_with("Nhwc") || call.int("channels_last") == Some(1);
        let channel_axis = if is_last { 3 } else { 1 };
        let weight = self.weight(at(facts, weight_at)).filter(|weight| weight.dims.len() > 2);
        let Some(weight) = weight else {
            // Computed weights: dynamic convolution, or weights that nothing is known about.
            let inputs = layers_of(facts);
            return Some(self.push(Op::Other(call.op()), &inputs, 0, Flow { dims: None, channel_axis, ..input }));
        };
        let groups = call.int("group").and_then(|groups| u64::try_from(groups).ok()).unwrap_or(1).max(1);
        let moves = Moves::of(call, weight.dims[2..].to_vec());
        let sides = shape::spatial(&input.dims, channel_axis).filter(|sides| sides.len() == moves.kernel.len());
        let sides: Option<Vec<Option<u64>>> =
            sides.map(|sides| sides.iter().enumerate().map(|(axis, side)| moves.places(axis, *side)).collect());
        let places = sides.as_ref().and_then(|sides| shape::product(sides.iter().copied()));
        let macs = places.zip(weight.elements()).and_then(|(places, weights)| places.checked_mul(weights));
        // Zeros that are computed from the weight's shape stand for a bias that the network has not.
        let bias = bias_at.and_then(|index| self.weight(at(facts, index))).filter(|bias| !bias.is_zero);
        let parameters = trained(Some(&weight)).saturating_add(trained(bias.as_ref()));
        let dims = sides.and_then(|sides| shape::image(Some(weight.dims[0]), sides, channel_axis));
        let op = Op::Conv(Conv {
            weight: weight.dims,
            groups,
            stride: moves.stride,
            has_bias: bias.is_some(),
            data_type: weight.data_type,
        });
        self.has_weights = true;
        let flow = Flow { dims, channel_axis, layer: input.layer };
        let mut made = self.push(op, &[input.layer], parameters, flow);
        if let Some(layer) = self.layers.last_mut() {
            layer.macs = macs;
        }
        // ONNX Runtime's fused form adds another tensor, and then activates.
        if let Some(sum) = sum_at
            .and_then(|index| at(facts, index))
            .filter(|_| call.op() != "Conv" || call.domain() == "com.microsoft.nchwc")
        {
            made = self.add_two(&[Some(made), Some(sum.clone())])?;
        }
        match (call.text("activation"), made) {
            (Some(name), Fact::Flow(flow)) => Some(self.push(Op::Activation(name), &[flow.layer], 0, flow)),
            (_, made) => Some(made),
        }
    }

    /// `[N,inputs]` with `[inputs,outputs]` to `[N,outputs]`.
    pub(super) fn dense(&mut self, call: &Call<'a>, facts: &[Option<Fact<'a>>]) -> Option<Fact<'a>> {
        let (weight_at, bias_at) = match call.op() {
            "QGemm" => (3, Some(6)),
            "QLinearMatMul" => (3, None),
            "Gemm" | "FusedGemm" => (1, Some(2)),
            "MatMulIntegerToFloat" => (1, Some(6)),
            "DynamicQuantizeMatMul" => (1, Some(4)),
            _ => (1, None),
        };
        self.quantised.operators |= matches!(call.op(), "QGemm" | "QLinearMatMul");
        self.quantised.dynamic |=
            matches!(call.op(), "MatMulInteger" | "MatMulIntegerToFloat" | "DynamicQuantizeMatMul");
        let input = at(facts, 0).and_then(as_flow)?.clone();
        let weight = at(facts, weight_at).and_then(as_constant).filter(|weight| weight.dims.len() == 2).cloned();
        let Some(weight) = weight else {
            let inputs = layers_of(facts);
            return Some(self.push(Op::Other(call.op()), &inputs, 0, Flow { dims: None, ..input }));
        };
        let is_transposed = call.int("transB") == Some(1);
        let (inputs, outputs) =
            if is_transposed { (weight.dims[1], weight.dims[0]) } else { (weight.dims[0], weight.dims[1]) };
        let bias = bias_at.and_then(|index| self.weight(at(facts, index))).filter(|bias| bias.elements() != Some(0));
        let parameters = trained(Some(&weight)).saturating_add(trained(bias.as_ref()));
        // Each row of an image's features is multiplied; mostly there is one.
        let rows = match &input.dims {
            Some(dims) if dims.len() > 2 => shape::product(dims[1..dims.len() - 1].iter().copied()),
            Some(_) | None => Some(1),
        };
        let macs = rows.zip(weight.elements()).and_then(|(rows, weights)| rows.checked_mul(weights));
        let mut dims = input.dims.clone();
        if let Some(last) = dims.as_mut().and_then(|dims| dims.last_mut()) {
            *last = Some(outputs);
        }
        let op = Op::Dense(Dense { inputs, outputs, has_bias: bias.is_some(), data_type: weight.data_type });
        self.has_weights = true;
        let layer = input.layer;
        let flow = Flow { dims: dims.or(Some(vec![Some(1), Some(outputs)])), channel_axis: 1, ..input };
        let made = self.push(op, &[layer], parameters, flow);
        if let Some(layer) = self.layers.last_mut() {
            layer.macs = macs;
        }
        Some(made)
    }

    /// `Add`, `Sum`, `QLinearAdd`.
    pub(super) fn add(&mut self, call: &Call<'a>, facts: &[Option<Fact<'a>>]) -> Option<Fact<'a>> {
        // The quantised form has behind each operand its scale and zero point.
        let operands: Vec<Option<Fact<'a>>> = match call.op() {
            "QLinearAdd" => [0, 3].iter().map(|index| at(facts, *index).cloned()).collect(),
            _ => facts.to_vec(),
        };
        self.add_two(&operands)
    }

    fn add_two(&mut self, operands: &[Option<Fact<'a>>]) -> Option<Fact<'a>> {
        let flows: Vec<&Flow> = operands.iter().flatten().filter_map(as_flow).collect();
        if flows.len() < 2 {
            return self.shift(operands);
        }
        let dims = flows.iter().skip(1).fold(flows[0].dims.clone(), |dims, flow| shape::broadcast(&dims, &flow.dims));
        let flow = Flow { dims, ..flows[0].clone() };
        let inputs = layers_of(operands);
        Some(self.push(Op::Add, &inputs, 0, flow))
    }

    /// An image plus or minus a constant: a bias, the second half of a batch norm, or arithmetic of an activation.
    pub(super) fn shift(&mut self, operands: &[Option<Fact<'a>>]) -> Option<Fact<'a>> {
        let flows: Vec<&Flow> = operands.iter().flatten().filter_map(as_flow).collect();
        let flow = (*flows.first()?).clone();
        let constant = operands.iter().flatten().find_map(as_constant).cloned();
        let Some(constant) = constant.filter(|constant| !constant.is_scalar() && !constant.is_scale) else {
            return Some(if flows.len() < 2 {
                Fact::Flow(flow)
            } else {
                self.push(Op::Other("Sub"), &layers_of(operands), 0, flow)
            });
        };
        if !self.has_weights || self.reads_zero(&constant) {
            return Some(Fact::Flow(flow));
        }
        let parameters = trained(Some(&constant));
        let elements = constant.elements();
        let layer = &mut self.layers[flow.layer];
        let has_taken = match &mut layer.op {
            Op::Conv(conv) if !conv.has_bias && elements == Some(conv.channels()) => {
                conv.has_bias = true;
                true
            }
            Op::Dense(dense) if !dense.has_bias && elements == Some(dense.outputs) => {
                dense.has_bias = true;
                true
            }
            Op::Scale => true,
            _ => false,
        };
        if has_taken {
            layer.parameters = layer.parameters.saturating_add(parameters);
            return Some(Fact::Flow(flow));
        }
        Some(self.push(Op::Shift, &[flow.layer], parameters, flow))
    }

    /// `Mul`, `QLinearMul`, `Div`.
    pub(super) fn scale(&mut self, call: &Call<'a>, facts: &[Option<Fact<'a>>]) -> Option<Fact<'a>> {
        let operands: Vec<Option<Fact<'a>>> = match call.op() {
            "QLinearMul" => [0, 3].iter().map(|index| at(facts, *index).cloned()).collect(),
            _ => facts.to_vec(),
        };
        let flows: Vec<&Flow> = operands.iter().flatten().filter_map(as_flow).collect();
        let flow = (*flows.first()?).clone();
        if let [a, b] = flows.as_slice() {
            // x * sigmoid(x) and its relatives are one activation.
            let activates = |a: &Flow, b: &Flow| match &self.layers[b.layer].op {
                Op::Activation(name) if self.layers[b.layer].inputs == [a.layer] => Some(*name),
                _ => None,
            };
            let dims = shape::broadcast(&a.dims, &b.dims);
            if let Some(name) = activates(a, b).or_else(|| activates(b, a)) {
                let layer = if self.layers[b.layer].inputs == [a.layer] { a.layer } else { b.layer };
                let name = if name == "Sigmoid" { "Swish" } else { name };
                return Some(self.push(Op::Activation(name), &[layer], 0, Flow { dims, ..flow }));
            }
            let inputs = [a.layer, b.layer];
            return Some(self.push(Op::Gate, &inputs, 0, Flow { dims, ..flow }));
        }
        let constant = operands.iter().flatten().find_map(as_constant).cloned()?;
        let output = call.outputs.first().copied().flatten()?;
        let zero = constant.numbers.as_ref().is_some_and(|numbers| numbers.iter().all(|number| *number == 0.0));
        if zero && call.op() == "Mul" {
            // How zeros of an image's size were made where Torch 7's networks were taken over.
            let dims: Option<Vec<u64>> = flow.dims.as_ref().and_then(|dims| dims.iter().copied().collect());
            if let Some(dims) = dims.filter(|dims| dims.len() <= constant::RANK_MAX) {
                return Some(Fact::Constant(Constant { is_zero: true, ..Constant::of_numbers(output, dims, None) }));
            }
        }
        if constant.is_scalar() || constant.is_scale || !self.has_weights {
            return Some(Fact::Flow(flow));
        }
        let parameters = trained(Some(&constant));
        Some(self.push(Op::Scale, &[flow.layer], parameters, flow))
    }
}
