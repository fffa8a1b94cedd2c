//! Layers for tests, written as exporters write them. Weights lie in a file that is not there, so that ResNet-152 is a few
//! kilobytes.

use bytes::Bytes;

use super::pieces::{convolution, image, int, ints, text};
use crate::graph::proto::{
    AttributeProto, AttributeType, DataType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, ValueInfoProto,
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

/// A convolution.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) inputs: u64,
    pub(crate) outputs: u64,
    pub(crate) kernel: i64,
    pub(crate) stride: i64,
    pub(crate) groups: u64,
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
    pub(crate) style: Style,
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
                self.tensor(dims, DataType::Float);
                let mut value = self.graph.initializer.pop().unwrap();
                value.name = None;
                let attribute = AttributeProto {
                    name: Some("value".to_owned()),
                    r#type: Some(AttributeType::Tensor as i32),
                    t: Some(value),
                    ..Default::default()
                };
                let constant = self.node("Constant", &[], &[attribute]);
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

    pub(crate) fn norm(&mut self, x: &str, channels: u64, has_batch_norm: bool) -> String {
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

    pub(crate) fn add(&mut self, y: &str, shortcut: &str) -> String {
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

    pub(crate) fn attention(&mut self, x: &str, channels: u64) -> String {
        let few = channels / 16;
        let pooled = self.mean(x);
        let y = self.conv_biased(&pooled, Shape::new(channels, few, 1), true);
        let y = self.relu(&y);
        let y = self.conv_biased(&y, Shape::new(few, channels, 1), true);
        let y = self.node("Sigmoid", &[&y], &[]);
        self.node("Mul", &[x, &y], &[])
    }

    pub(crate) fn pad(&mut self, x: &str) -> String {
        let pads = self.list(&[0, 0, 1, 1, 0, 0, 1, 1]);
        self.node("Pad", &[x, &pads], &[])
    }

    /// Every second pixel, and zeros for the channels that are missing.
    pub(crate) fn zero_pad(&mut self, x: &str, inputs: u64, outputs: u64) -> String {
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
                // As PyTorch cuts: one node for the rows, one for the columns.
                let mut x = x.to_owned();
                for axis in [2, 3] {
                    let window: Vec<String> = [0, i64::MAX, axis, 2].iter().map(|at| self.list(&[*at])).collect();
                    x = self.node("Slice", &[&x, &window[0], &window[1], &window[2], &window[3]], &[]);
                }
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

    pub(crate) fn mean(&mut self, x: &str) -> String {
        match self.style {
            Style::Nodes => {
                let axes = self.list(&[-1, -2]);
                self.node("ReduceMean", &[x, &axes], &[int("keepdims", 1)])
            }
            _ => self.node("GlobalAveragePool", &[x], &[]),
        }
    }

    pub(crate) fn head(&mut self, x: &str, channels: u64, classes: u64) {
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
