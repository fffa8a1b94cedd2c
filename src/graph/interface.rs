//! What a graph takes and returns, as far as the file tells: names, element types, dimensions, where the channels of
//! its images stand, and what its outputs end in.
//!
//! States facts only; which output holds the classes is the zoo's decision.

mod ending;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

pub use ending::Ending;

use super::proto::{DataType, DimensionValue, ModelProto, TensorTypeProto, ValueInfoProto};
use super::wiring::{self, Axes, STEPS_MAX, Wiring, attribute};

/// Inputs and outputs of a graph, in the file's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// What a run must be given. Initialisers that old files list as inputs are left out.
    pub inputs: Vec<Input>,
    /// What a run returns.
    pub outputs: Vec<Output>,
}

/// One dimension of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// Written in the file.
    Fixed(usize),
    /// Known at the run, with the name that the file gives it.
    Free(Option<String>),
}

/// Name, element type and dimensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in the graph.
    pub name: String,
    /// Type of its elements; `None` for what is no tensor, and for types newer than this reader.
    pub element: Option<DataType>,
    /// Its dimensions; `None` where the file leaves even their number open.
    pub dims: Option<Vec<Dim>>,
}

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its declaration.
    pub tensor: Tensor,
    /// Where the channels stand; `None` for what is no batch of images, or where nothing tells.
    pub channels: Option<ChannelAxis>,
    /// Before its first layer the graph computes with constants, one value or one a channel: it normalises by itself.
    pub normalises: bool,
}

/// Place of the channels in a batch of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelAxis {
    /// `[N,C,H,W]`
    First,
    /// `[N,H,W,C]`
    Last,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its declaration.
    pub tensor: Tensor,
    /// What its values are.
    pub ending: Ending,
    /// The tensor before whatever only rearranges or normalises: outputs of one root are views of the same scores.
    pub root: String,
    /// Values for each image, where the output is one row an image: `[N,C]`, `[N,C,1,1]`, `[N,1,1,C]`.
    pub row: Row,
}

/// How many values an output has for each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// So many.
    Known(usize),
    /// One row an image as far as the file tells, of unknown length.
    Open,
    /// Not a row: a map of features, a scalar, no tensor.
    None,
}

/// Reads what `model` takes and returns. A model without a graph has an empty interface.
#[must_use]
pub fn interface(model: &ModelProto) -> Interface {
    let Some(graph) = &model.graph else {
        return Interface::default();
    };
    let wiring = Wiring::new(model, graph);
    let inputs = graph.input.iter().filter(|value| !wiring.is_initializer(value.name()));
    let input = |value: &ValueInfoProto| {
        let tensor = tensor(value);
        let channels = channels(&tensor, &wiring);
        let normalises = normalises(&tensor.name, &wiring);
        Input { tensor, channels, normalises }
    };
    let output = |value: &ValueInfoProto| {
        let tensor = tensor(value);
        let found = ending::find(&wiring, &tensor.name);
        let row = match row(&tensor) {
            Row::Open => found.width.map_or(Row::Open, Row::Known),
            told => told,
        };
        Output { tensor, ending: found.ending, root: found.root, row }
    };
    Interface { inputs: inputs.map(input).collect(), outputs: graph.output.iter().map(output).collect() }
}

fn tensor(value: &ValueInfoProto) -> Tensor {
    let declared = wiring::tensor_type(value);
    let element = declared.and_then(|tensor| DataType::try_from(tensor.elem_type()).ok());
    Tensor { name: value.name().to_owned(), element, dims: declared.and_then(dims) }
}

fn dims(tensor: &TensorTypeProto) -> Option<Vec<Dim>> {
    let dims = tensor.shape.as_ref()?.dim.iter().map(|dim| match &dim.value {
        // Some exporters write -1 or 0 for a free dimension.
        Some(DimensionValue::Value(value)) => match usize::try_from(*value) {
            Ok(size) if size > 0 => Dim::Fixed(size),
            Ok(_) | Err(_) => Dim::Free(None),
        },
        Some(DimensionValue::Param(name)) if !name.is_empty() => Dim::Free(Some(name.clone())),
        Some(DimensionValue::Param(_)) | None => Dim::Free(None),
    });
    Some(dims.collect())
}

/// All dimensions but the batch are 1, except the one that counts the values.
fn row(tensor: &Tensor) -> Row {
    let Some(dims) = &tensor.dims else {
        return if tensor.element.is_some() { Row::Open } else { Row::None };
    };
    // One dimension is a row whose batch of one was squeezed away.
    let dims = if dims.len() == 1 { &dims[..] } else { dims.get(1..).unwrap_or_default() };
    let long: Vec<_> = dims.iter().filter_map(|dim| if let Dim::Fixed(n) = dim { Some(*n) } else { None }).collect();
    let long: Vec<_> = long.iter().copied().filter(|&n| n != 1).collect();
    match (dims, &long[..]) {
        ([], _) => Row::None,
        (_, [width]) => Row::Known(*width),
        (_, []) if dims.iter().all(|dim| *dim == Dim::Fixed(1)) => Row::Known(1),
        (_, []) => Row::Open,
        (_, _) => Row::None,
    }
}

/// Where the channels of an image input stand. Three (or one) of them beside larger sides tell; where the dimensions
/// leave it open, the first operator that treats the axes differently does.
fn channels(tensor: &Tensor, wiring: &Wiring<'_>) -> Option<ChannelAxis> {
    match tensor.dims.as_deref() {
        Some([_, first, _, last]) => {
            let told = |count| match (*first == Dim::Fixed(count), *last == Dim::Fixed(count)) {
                (true, false) => Some(ChannelAxis::First),
                (false, true) => Some(ChannelAxis::Last),
                (true, true) | (false, false) => None,
            };
            told(3).or_else(|| channels_by_use(&tensor.name, wiring)).or_else(|| told(1))
        }
        Some(_) => None,
        None => channels_by_use(&tensor.name, wiring),
    }
}

/// Follows the input through arithmetic to the first operator that knows its axes. Those of ONNX are NCHW throughout, so
/// an NHWC graph begins with a Transpose.
fn channels_by_use(input: &str, wiring: &Wiring<'_>) -> Option<ChannelAxis> {
    let mut waiting = vec![input];
    let mut seen = HashSet::from([input]);
    let mut steps = STEPS_MAX;
    while let Some(name) = waiting.pop() {
        for node in wiring.consumers(name) {
            steps = steps.checked_sub(1)?;
            match node.op_type() {
                "Transpose" => match attribute(node, "perm").map(|perm| perm.ints.as_slice()) {
                    Some([0, 3, 1, 2]) => return Some(ChannelAxis::Last),
                    Some([0, 2, 3, 1]) => return Some(ChannelAxis::First),
                    Some(_) | None => {}
                },
                "Conv"
                | "ConvInteger"
                | "QLinearConv"
                | "BatchNormalization"
                | "InstanceNormalization"
                | "MaxPool"
                | "AveragePool"
                | "GlobalAveragePool"
                | "GlobalMaxPool" => return Some(ChannelAxis::First),
                "ReduceMean" => match wiring.axes(node, 1) {
                    Axes::Listed(axes) if axes == [1, 2] => return Some(ChannelAxis::Last),
                    Axes::Listed(axes) if axes == [2, 3] || axes == [-2, -1] => return Some(ChannelAxis::First),
                    Axes::Listed(_) | Axes::Absent | Axes::Computed => {}
                },
                "Identity"
                | "Cast"
                | "Sub"
                | "Add"
                | "Mul"
                | "Div"
                | "Pad"
                | "Clip"
                | "QuantizeLinear"
                | "DequantizeLinear"
                | "DynamicQuantizeLinear" => {
                    waiting.extend(node.output.first().map(String::as_str).filter(|name| seen.insert(name)));
                }
                _ => {}
            }
        }
    }
    None
}

/// Follows the input to its first layer, and meets arithmetic with constants on the way. A batch norm is a layer: MXNet
/// begins with one that was trained with the rest.
fn normalises(input: &str, wiring: &Wiring<'_>) -> bool {
    let (mut name, mut steps) = (input, STEPS_MAX);
    loop {
        let readers = wiring.consumers(name);
        let Some(left) = steps.checked_sub(readers.len()) else { return false };
        steps = left;
        // Who asks for a value's shape does not compute with it.
        let mut readers = readers.iter().filter(|node| node.op_type() != "Shape");
        let (Some(node), None) = (readers.next(), readers.next()) else { return false };
        match node.op_type() {
            "Sub" | "Div" | "Mul" | "Add" => {
                return node.input.iter().filter_map(|name| wiring.constant(name)).any(|constant| {
                    let mut long = constant.dims.iter().filter(|&&dim| dim != 1);
                    matches!((long.next(), long.next()), (None | Some(3), None))
                });
            }
            "Identity" | "Cast" | "Transpose" | "Pad" | "Clip" | "Resize" => {}
            _ => return false,
        }
        let Some(next) = node.output.first() else { return false };
        name = next;
    }
}
