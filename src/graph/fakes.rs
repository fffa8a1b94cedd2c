//! Networks for tests, built as exporters build them. Weights lie in a file that is not there, so that ResNet-152 is a few
//! kilobytes.

use bytes::Bytes;

use super::proto::{
    AttributeProto, AttributeType, DataType, DimensionProto, DimensionValue, FunctionProto, GraphProto, ModelProto,
    NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
    TypeValue, ValueInfoProto,
};

/// How an exporter writes a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Conv, BatchNormalization, Relu, Add, GlobalAveragePool, Flatten, Gemm.
    Plain,
    /// Weights in Constant nodes behind Identity; ReduceMean with axes as an input, Reshape, MatMul and Add.
    Nodes,
    /// Weights of 16 bits behind Cast, activations between Casts.
    Half,
    /// QuantizeLinear and DequantizeLinear around every layer.
    Qdq,
    /// QLinearConv, QLinearAdd, QGemm; no Relu, which lies in the ranges.
    Integers,
    /// Scales computed for each image: DynamicQuantizeLinear, ConvInteger, Cast, Mul, Add.
    Dynamic,
    /// FusedConv, which adds and activates by itself.
    Fused,
    /// A local function for each convolution, with attributes by reference.
    Functions,
    /// The image comes with channels last, pads are nodes, the batch norm is Mul and Add, means are over axes 1 and 2
    /// behind a Transpose.
    ChannelsLast,
}

/// How a network is built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) blocks: &'static [u64],
    pub(crate) is_bottleneck: bool,
    /// Channels of the first stage, before the fourfold of bottlenecks.
    pub(crate) base: u64,
    /// Channels inside a bottleneck for each 64 of the base.
    pub(crate) width: u64,
    pub(crate) groups: u64,
    pub(crate) stem: Stem,
    pub(crate) shortcut: Shortcut,
    /// The stride of bottlenecks lies in their first convolution.
    pub(crate) strides_early: bool,
    pub(crate) is_pre_activated: bool,
    pub(crate) has_batch_norm: bool,
    pub(crate) has_attention: bool,
    pub(crate) classes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stem {
    Plain,
    Deep,
    Small,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortcut {
    A,
    B,
    C,
    AveragePool,
}

impl Plan {
    /// A ResNet v1.5 for ImageNet, batch norms explicit.
    pub(crate) const fn imagenet(blocks: &'static [u64], is_bottleneck: bool) -> Self {
        Self {
            blocks,
            is_bottleneck,
            base: 64,
            width: 64,
            groups: 1,
            stem: Stem::Plain,
            shortcut: Shortcut::B,
            strides_early: false,
            is_pre_activated: false,
            has_batch_norm: true,
            has_attention: false,
            classes: 1000,
        }
    }

    /// ResNet-20 for CIFAR-10.
    pub(crate) const fn cifar(shortcut: Shortcut) -> Self {
        Self { base: 16, stem: Stem::Small, shortcut, classes: 10, ..Self::imagenet(&[3, 3, 3], false) }
    }

    /// The model in `style`.
    pub(crate) fn model(&self, style: Style) -> ModelProto {
        let mut net = Net::new(style);
        let mut x = "x".to_owned();
        if style == Style::ChannelsLast {
            x = net.node("Transpose", &[&x], &[ints("perm", &[0, 3, 1, 2])]);
        }
        let x = self.stem(&mut net, &x);
        let mut x = x;
        let mut channels = if self.stem == Stem::Deep { 64 } else { self.base };
        for (stage, blocks) in self.blocks.iter().enumerate() {
            for block in 0..*blocks {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let base = self.base << stage;
                (x, channels) = self.block(&mut net, &x, channels, base, stride);
            }
        }
        if self.is_pre_activated {
            x = net.norm(&x, channels, true);
            x = net.relu(&x);
        }
        net.head(&x, channels, self.classes);
        net.model()
    }

    fn stem(&self, net: &mut Net, x: &str) -> String {
        let bn = self.has_batch_norm;
        let x = match self.stem {
            Stem::Plain => net.conv_norm(x, Shape { stride: 2, ..Shape::new(3, 64, 7) }, bn),
            Stem::Small => {
                return {
                    let x = net.conv_norm(x, Shape::new(3, self.base, 3), bn);
                    net.relu(&x)
                };
            }
            Stem::Deep => {
                let x = net.conv_norm(x, Shape { stride: 2, ..Shape::new(3, 32, 3) }, bn);
                let x = net.relu(&x);
                let x = net.conv_norm(&x, Shape::new(32, 32, 3), bn);
                let x = net.relu(&x);
                net.conv_norm(&x, Shape::new(32, 64, 3), bn)
            }
        };
        let x = net.relu(&x);
        let pads = if net.style == Style::ChannelsLast { (net.pad(&x), [0; 4]) } else { (x, [1; 4]) };
        net.node(
            "MaxPool",
            &[&pads.0],
            &[ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]), ints("pads", &pads.1)],
        )
    }

    fn block(&self, net: &mut Net, x: &str, inputs: u64, base: u64, stride: i64) -> (String, u64) {
        let bn = self.has_batch_norm;
        let outputs = if self.is_bottleneck { 4 * base } else { base };
        let mut start = x.to_owned();
        let mut y = start.clone();
        if self.is_pre_activated {
            y = net.norm(x, inputs, true);
            y = net.relu(&y);
        }
        let needs = stride > 1 || inputs != outputs;
        if self.is_pre_activated && needs {
            start.clone_from(&y);
        }
        let shapes: Vec<Shape> = if self.is_bottleneck {
            let width = base * self.width / 64;
            let (early, late) = if self.strides_early { (stride, 1) } else { (1, stride) };
            vec![
                Shape { stride: early, ..Shape::new(inputs, width, 1) },
                Shape { stride: late, groups: self.groups, ..Shape::new(width, width, 3) },
                Shape::new(width, outputs, 1),
            ]
        } else {
            vec![Shape { stride, ..Shape::new(inputs, outputs, 3) }, Shape::new(outputs, outputs, 3)]
        };
        for (index, shape) in shapes.iter().enumerate() {
            if self.is_pre_activated {
                if index > 0 {
                    y = net.norm(&y, shape.inputs, bn);
                    y = net.relu(&y);
                }
                y = net.conv(&y, *shape);
            } else {
                if index > 0 {
                    y = net.relu(&y);
                }
                y = net.conv_norm(&y, *shape, bn);
            }
        }
        if self.has_attention {
            y = net.attention(&y, outputs);
        }
        let project = |net: &mut Net, x: &str, shape: Shape| {
            if self.is_pre_activated { net.conv(x, shape) } else { net.conv_norm(x, shape, bn) }
        };
        let shape = Shape { stride, ..Shape::new(inputs, outputs, 1) };
        let shortcut = match self.shortcut {
            Shortcut::C => project(net, &start, shape),
            _ if !needs => start,
            Shortcut::A => net.zero_pad(&start, inputs, outputs),
            Shortcut::B => project(net, &start, shape),
            Shortcut::AveragePool if stride == 1 => project(net, &start, shape),
            Shortcut::AveragePool => {
                let window = [ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2]), int("ceil_mode", 1)];
                let pooled = net.node("AveragePool", &[&start], &window);
                project(net, &pooled, Shape { stride: 1, ..shape })
            }
        };
        let sum = net.add(&y, &shortcut);
        (if self.is_pre_activated { sum } else { net.relu(&sum) }, outputs)
    }
}

/// A convolution.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    inputs: u64,
    outputs: u64,
    kernel: i64,
    stride: i64,
    groups: u64,
}

impl Shape {
    pub(crate) const fn new(inputs: u64, outputs: u64, kernel: i64) -> Self {
        Self { inputs, outputs, kernel, stride: 1, groups: 1 }
    }

    /// Each channel by itself.
    pub(crate) const fn depthwise(channels: u64) -> Self {
        Self { groups: channels, ..Self::new(channels, channels, 3) }
    }

    fn dims(&self) -> [u64; 4] {
        let kernel = self.kernel as u64;
        [self.outputs, self.inputs / self.groups, kernel, kernel]
    }
}

/// A graph in the making.
pub(crate) struct Net {
    style: Style,
    graph: GraphProto,
    names: usize,
}

impl Net {
    pub(crate) fn new(style: Style) -> Self {
        let dims: [Option<i64>; 4] = match style {
            Style::ChannelsLast => [None, None, None, Some(3)],
            _ => [None, Some(3), None, None],
        };
        let graph = GraphProto { input: vec![image("x", &dims)], ..Default::default() };
        Self { style, graph, names: 0 }
    }

    pub(crate) fn model(self) -> ModelProto {
        let functions = if self.style == Style::Functions { vec![convolution()] } else { Vec::new() };
        let opset = |domain: &str, version| OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) };
        ModelProto {
            ir_version: Some(8),
            producer_name: Some("fakes".to_owned()),
            opset_import: vec![opset("", 18), opset("com.microsoft", 1)],
            graph: Some(self.graph),
            functions,
            ..Default::default()
        }
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("t{}", self.names)
    }

    pub(crate) fn node(&mut self, op: &str, inputs: &[&str], attribute: &[AttributeProto]) -> String {
        let output = self.name();
        self.graph.node.push(NodeProto {
            op_type: Some(op.to_owned()),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.clone()],
            attribute: attribute.to_vec(),
            domain: match op {
                "FusedConv" | "QLinearAdd" | "QGemm" => Some("com.microsoft".to_owned()),
                "Convolution" => Some("local".to_owned()),
                _ => None,
            },
            ..Default::default()
        });
        output
    }

    /// A weight that lies in a file beside the model.
    pub(crate) fn tensor(&mut self, dims: &[u64], data_type: DataType) -> String {
        let name = self.name();
        let entry = StringStringEntryProto { key: Some("location".into()), value: Some("weights.bin".into()) };
        self.graph.initializer.push(TensorProto {
            name: Some(name.clone()),
            dims: dims.iter().map(|dim| *dim as i64).collect(),
            data_type: Some(data_type as i32),
            data_location: Some(1),
            external_data: vec![entry],
            ..Default::default()
        });
        name
    }

    pub(crate) fn list(&mut self, numbers: &[i64]) -> String {
        let name = self.name();
        self.graph.initializer.push(TensorProto {
            name: Some(name.clone()),
            dims: vec![numbers.len() as i64],
            data_type: Some(DataType::Int64 as i32),
            raw_data: Some(Bytes::from(numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>())),
            ..Default::default()
        });
        name
    }

    /// A weight as the style stores it, ready for a layer in floating point.
    fn weight(&mut self, dims: &[u64]) -> String {
        match self.style {
            Style::Plain | Style::Fused | Style::Functions | Style::ChannelsLast => self.tensor(dims, DataType::Float),
            Style::Integers | Style::Dynamic => self.tensor(dims, DataType::Int8),
            Style::Nodes => {
                let name = self.tensor(dims, DataType::Float);
                let mut value = self.graph.initializer.pop().unwrap();
                value.name = None;
                let attribute = AttributeProto {
                    name: Some("value".to_owned()),
                    r#type: Some(AttributeType::Tensor as i32),
                    t: Some(value),
                    ..Default::default()
                };
                let constant = self.node("Constant", &[], &[attribute]);
                let _ = name;
                self.node("Identity", &[&constant], &[])
            }
            Style::Half => {
                let name = self.tensor(dims, DataType::Float16);
                self.node("Cast", &[&name], &[int("to", 1)])
            }
            Style::Qdq => {
                let name = self.tensor(dims, DataType::Int8);
                self.dequantised(&name)
            }
        }
    }

    fn scale(&mut self) -> (String, String) {
        (self.tensor(&[], DataType::Float), self.tensor(&[], DataType::Int8))
    }

    fn dequantised(&mut self, name: &str) -> String {
        let (scale, zero) = self.scale();
        self.node("DequantizeLinear", &[name, &scale, &zero], &[])
    }

    /// What the style puts behind a layer.
    fn behind(&mut self, x: &str) -> String {
        match self.style {
            Style::Half => {
                let x = self.node("Cast", &[x], &[int("to", 10)]);
                self.node("Cast", &[&x], &[int("to", 1)])
            }
            Style::Nodes => self.node("Identity", &[x], &[]),
            Style::Qdq => {
                let (scale, zero) = self.scale();
                let x = self.node("QuantizeLinear", &[x, &scale, &zero], &[]);
                self.dequantised(&x)
            }
            Style::Plain | Style::Integers | Style::Dynamic | Style::Fused | Style::Functions | Style::ChannelsLast => {
                x.to_owned()
            }
        }
    }

    /// A convolution with a bias.
    fn conv_biased(&mut self, x: &str, shape: Shape, has_bias: bool) -> String {
        let pad = shape.kernel / 2;
        let spread = |pad: i64| {
            vec![
                ints("kernel_shape", &[shape.kernel; 2]),
                ints("strides", &[shape.stride; 2]),
                ints("pads", &[pad; 4]),
                int("group", shape.groups as i64),
            ]
        };
        let weight = self.weight(&shape.dims());
        let bias = has_bias.then(|| self.weight(&[shape.outputs]));
        let bias = bias.as_deref();
        let mut inputs = vec![x, weight.as_str()];
        inputs.extend(bias);
        match self.style {
            Style::Integers => {
                let (scale, zero) = self.scale();
                let mut inputs = vec![x, &scale, &zero, &weight, &scale, &zero, &scale, &zero];
                inputs.extend(bias);
                self.node("QLinearConv", &inputs, &spread(pad))
            }
            Style::Dynamic => {
                let (quantised, scale, zero) = (self.name(), self.name(), self.name());
                let outputs = [&quantised, &scale, &zero];
                self.node("DynamicQuantizeLinear", &[x], &[]);
                self.graph.node.last_mut().unwrap().output = outputs.map(Clone::clone).to_vec();
                let weight_scale = self.tensor(&[shape.outputs], DataType::Float);
                let y = self.node("ConvInteger", &[&quantised, &weight, &zero], &spread(pad));
                let y = self.node("Cast", &[&y], &[int("to", 1)]);
                let factor = self.node("Mul", &[&scale, &weight_scale], &[]);
                let y = self.node("Mul", &[&y, &factor], &[]);
                match bias {
                    Some(bias) => self.node("Add", &[&y, bias], &[]),
                    None => y,
                }
            }
            Style::Functions => {
                // The function's pads and dilations are its own; absent inputs stay absent.
                inputs.resize(3, "");
                let attributes =
                    [ints("steps", &[shape.stride; 2]), ints("around", &[pad; 4]), int("groups", shape.groups as i64)];
                self.node("Convolution", &inputs, &attributes)
            }
            Style::ChannelsLast if pad > 0 && shape.stride > 1 => {
                let pads = [0, 0, pad, pad, 0, 0, pad, pad];
                let pads = self.list(&pads);
                let x = self.node("Pad", &[x, &pads], &[]);
                inputs[0] = &x;
                self.node("Conv", &inputs, &spread(0))
            }
            Style::Fused => self.node("FusedConv", &inputs, &spread(pad)),
            Style::Plain | Style::Nodes | Style::Half | Style::Qdq | Style::ChannelsLast => {
                self.node("Conv", &inputs, &spread(pad))
            }
        }
    }

    pub(crate) fn conv(&mut self, x: &str, shape: Shape) -> String {
        let y = self.conv_biased(x, shape, false);
        self.behind(&y)
    }

    /// A convolution with its batch norm, or with the bias that has taken it up.
    pub(crate) fn conv_norm(&mut self, x: &str, shape: Shape, has_batch_norm: bool) -> String {
        let y = self.conv_biased(x, shape, !has_batch_norm);
        let y = self.behind(&y);
        self.norm(&y, shape.outputs, has_batch_norm)
    }

    fn norm(&mut self, x: &str, channels: u64, has_batch_norm: bool) -> String {
        if !has_batch_norm {
            return x.to_owned();
        }
        if self.style == Style::ChannelsLast {
            let scale = self.tensor(&[1, channels, 1, 1], DataType::Float);
            let shift = self.tensor(&[1, channels, 1, 1], DataType::Float);
            let x = self.node("Mul", &[x, &scale], &[]);
            return self.node("Add", &[&shift, &x], &[]);
        }
        let parts: Vec<String> = (0..4).map(|_| self.tensor(&[channels], DataType::Float)).collect();
        let y = self.node("BatchNormalization", &[x, &parts[0], &parts[1], &parts[2], &parts[3]], &[]);
        self.behind(&y)
    }

    pub(crate) fn relu(&mut self, x: &str) -> String {
        match self.style {
            Style::Integers => x.to_owned(),
            Style::Nodes => {
                let zero = self.tensor(&[], DataType::Float);
                self.node("Clip", &[x, &zero], &[])
            }
            Style::Fused if self.graph.node.last().is_some_and(|node| node.output[0] == x) => {
                let last = self.graph.node.last_mut().unwrap();
                if last.op_type.as_deref() != Some("FusedConv") {
                    return self.node("Relu", &[x], &[]);
                }
                last.attribute.push(text("activation", "Relu"));
                x.to_owned()
            }
            Style::Plain
            | Style::Half
            | Style::Qdq
            | Style::Dynamic
            | Style::Fused
            | Style::Functions
            | Style::ChannelsLast => self.node("Relu", &[x], &[]),
        }
    }

    fn add(&mut self, y: &str, shortcut: &str) -> String {
        match self.style {
            Style::Integers => {
                let (scale, zero) = self.scale();
                self.node("QLinearAdd", &[shortcut, &scale, &zero, y, &scale, &zero, &scale, &zero], &[])
            }
            Style::Fused => {
                // The node that made `y` adds what is made by then.
                let at = self.graph.node.iter().position(|node| node.output[0] == y).unwrap();
                let mut node = self.graph.node.remove(at);
                if node.op_type.as_deref() != Some("FusedConv") {
                    self.graph.node.insert(at, node);
                    return self.node("Add", &[y, shortcut], &[]);
                }
                node.input.resize(3, String::new());
                node.input.push(shortcut.to_owned());
                let output = node.output[0].clone();
                self.graph.node.push(node);
                output
            }
            Style::Nodes => self.node("Sum", &[shortcut, y], &[]),
            Style::Plain | Style::Half | Style::Qdq | Style::Dynamic | Style::Functions | Style::ChannelsLast => {
                self.node("Add", &[y, shortcut], &[])
            }
        }
    }

    fn attention(&mut self, x: &str, channels: u64) -> String {
        let few = channels / 16;
        let pooled = self.mean(x);
        let y = self.conv_biased(&pooled, Shape::new(channels, few, 1), true);
        let y = self.relu(&y);
        let y = self.conv_biased(&y, Shape::new(few, channels, 1), true);
        let y = self.node("Sigmoid", &[&y], &[]);
        self.node("Mul", &[x, &y], &[])
    }

    fn pad(&mut self, x: &str) -> String {
        let pads = self.list(&[0, 0, 1, 1, 0, 0, 1, 1]);
        self.node("Pad", &[x, &pads], &[])
    }

    /// Every second pixel, and zeros for the channels that are missing.
    fn zero_pad(&mut self, x: &str, inputs: u64, outputs: u64) -> String {
        let missing = (outputs - inputs) as i64;
        match self.style {
            Style::Nodes => {
                let window = [ints("kernel_shape", &[1, 1]), ints("strides", &[2, 2])];
                let x = self.node("AveragePool", &[x], &window);
                let zero = self.list(&[0]);
                let none = self.node("Mul", &[&x, &zero], &[]);
                self.node("Concat", &[&x, &none], &[int("axis", 1)])
            }
            Style::ChannelsLast => {
                let x = self.node("Transpose", &[x], &[ints("perm", &[0, 2, 3, 1])]);
                let window: Vec<String> =
                    [[0, 0], [i64::MAX; 2], [1, 2], [2, 2]].iter().map(|all| self.list(all)).collect();
                let x = self.node("Slice", &[&x, &window[0], &window[1], &window[2], &window[3]], &[]);
                let pads = self.list(&[0, 0, 0, missing / 2, 0, 0, 0, missing / 2]);
                let x = self.node("Pad", &[&x, &pads], &[]);
                self.node("Transpose", &[&x], &[ints("perm", &[0, 3, 1, 2])])
            }
            _ => {
                let window: Vec<String> =
                    [[0, 0], [i64::MAX; 2], [2, 3], [2, 2]].iter().map(|all| self.list(all)).collect();
                let x = self.node("Slice", &[x, &window[0], &window[1], &window[2], &window[3]], &[]);
                // As PyTorch spells the pads: reversed pairs, turned round by a Slice with step -1.
                let pairs = self.list(&[0, 0, 0, 0, missing / 2, missing / 2, 0, 0]);
                let rows = self.list(&[-1, 2]);
                let pairs = self.node("Reshape", &[&pairs, &rows], &[]);
                let turn: Vec<String> = [-1, i64::MIN + 1, 0, -1].iter().map(|at| self.list(&[*at])).collect();
                let turned = self.node("Slice", &[&pairs, &turn[0], &turn[1], &turn[2], &turn[3]], &[]);
                let turned = self.node("Transpose", &[&turned], &[ints("perm", &[1, 0])]);
                let flat = self.list(&[-1]);
                let pads = self.node("Reshape", &[&turned, &flat], &[]);
                self.node("Pad", &[&x, &pads], &[])
            }
        }
    }

    fn mean(&mut self, x: &str) -> String {
        match self.style {
            Style::Nodes => {
                let axes = self.list(&[-1, -2]);
                self.node("ReduceMean", &[x, &axes], &[int("keepdims", 1)])
            }
            _ => self.node("GlobalAveragePool", &[x], &[]),
        }
    }

    fn head(&mut self, x: &str, channels: u64, classes: u64) {
        let y = match self.style {
            Style::ChannelsLast => {
                let x = self.node("Transpose", &[x], &[ints("perm", &[0, 2, 3, 1])]);
                let x = self.node("ReduceMean", &[&x], &[ints("axes", &[1, 2]), int("keepdims", 0)]);
                self.matmul(&x, channels, classes)
            }
            Style::Nodes => {
                let x = self.mean(x);
                let target = self.list(&[-1, channels as i64]);
                let x = self.node("Reshape", &[&x, &target], &[]);
                self.matmul(&x, channels, classes)
            }
            Style::Integers => {
                let x = self.mean(x);
                let x = self.node("Flatten", &[&x], &[]);
                let (scale, zero) = self.scale();
                let (weight, bias) = (self.weight(&[classes, channels]), self.weight(&[classes]));
                let inputs = [&x, &scale, &zero, &weight, &scale, &zero, &bias, &scale, &zero].map(String::as_str);
                self.node("QGemm", &inputs, &[int("transB", 1)])
            }
            _ => {
                let x = self.mean(x);
                let x = self.node("Flatten", &[&x], &[]);
                let (weight, bias) = (self.weight(&[classes, channels]), self.weight(&[classes]));
                self.node("Gemm", &[&x, &weight, &bias], &[int("transB", 1)])
            }
        };
        let y = self.behind(&y);
        self.graph.output.push(ValueInfoProto { name: Some(y), ..Default::default() });
    }

    fn matmul(&mut self, x: &str, channels: u64, classes: u64) -> String {
        let (weight, bias) = (self.weight(&[channels, classes]), self.weight(&[classes]));
        let y = self.node("MatMul", &[x, &weight], &[]);
        self.node("Add", &[&y, &bias], &[])
    }
}

/// The function that [`Style::Functions`] calls; it calls another for the work.
fn convolution() -> FunctionProto {
    let by_name = |name: &str, given: &str| AttributeProto {
        name: Some(name.to_owned()),
        ref_attr_name: Some(given.to_owned()),
        ..Default::default()
    };
    let node = |op: &str, input: &[&str], output: &str, attribute: Vec<AttributeProto>| NodeProto {
        op_type: Some(op.to_owned()),
        input: input.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..Default::default()
    };
    let attributes = vec![by_name("strides", "steps"), by_name("pads", "around"), by_name("group", "groups")];
    FunctionProto {
        name: Some("Convolution".to_owned()),
        domain: Some("local".to_owned()),
        input: ["image", "weight", "bias"].map(str::to_owned).to_vec(),
        output: vec!["result".to_owned()],
        attribute: ["steps", "around", "groups"].map(str::to_owned).to_vec(),
        node: vec![
            node("Identity", &["image"], "same", Vec::new()),
            node("Conv", &["same", "weight", "bias"], "result", attributes),
        ],
        ..Default::default()
    }
}

pub(crate) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), ints: ints.to_vec(), ..Default::default() }
}

pub(crate) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), i: Some(i), ..Default::default() }
}

fn text(name: &str, text: &'static str) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), s: Some(Bytes::from_static(text.as_bytes())), ..Default::default() }
}

/// An input of these dimensions, free where none is given.
pub(crate) fn image(name: &str, dims: &[Option<i64>]) -> ValueInfoProto {
    let dim = |size: &Option<i64>| DimensionProto { value: size.map(DimensionValue::Value), denotation: None };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = TensorTypeProto { elem_type: Some(DataType::Float as i32), shape: Some(shape) };
    let kind = TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: None };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..Default::default() }
}
