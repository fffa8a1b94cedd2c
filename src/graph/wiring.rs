//! Which node makes a tensor, which nodes read it, and what is known about it without computing.

use std::collections::HashMap;

use super::Printable;
use super::proto::{
    AttributeProto, DataLocation, DataType, GraphProto, ModelProto, NodeProto, TensorProto, TensorTypeProto, TypeValue,
    ValueInfoProto,
};

/// Nodes between a place in a graph and what is looked for from there, at most. Exporters put fewer than twenty; a file
/// that was made to be slow has as many as it likes, and a start at each of them.
pub(super) const STEPS_MAX: usize = 200;

/// An index over one graph.
pub(super) struct Wiring<'a> {
    producers: HashMap<&'a str, &'a NodeProto>,
    consumers: HashMap<&'a str, Vec<&'a NodeProto>>,
    initializers: HashMap<&'a str, &'a TensorProto>,
    declared: HashMap<&'a str, &'a TensorTypeProto>,
    opset: i64,
}

impl<'a> Wiring<'a> {
    pub(super) fn new(model: &'a ModelProto, graph: &'a GraphProto) -> Self {
        let mut producers = HashMap::new();
        let mut consumers: HashMap<&str, Vec<&NodeProto>> = HashMap::new();
        for node in &graph.node {
            producers.extend(node.output.iter().map(|name| (name.as_str(), node)));
            for name in &node.input {
                let readers = consumers.entry(name).or_default();
                // Once, also where it reads a value several times.
                if readers.last().is_none_or(|last| !std::ptr::eq(*last, node)) {
                    readers.push(node);
                }
            }
        }
        let initializers = graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
        let values = graph.value_info.iter().chain(&graph.output).chain(&graph.input);
        let declared = values.filter_map(|value| Some((value.name(), tensor_type(value)?))).collect();
        Self { producers, consumers, initializers, declared, opset: opset(model) }
    }

    /// Version of the standard operators; 1 where the file does not say.
    pub(super) fn opset(&self) -> i64 {
        self.opset
    }

    /// The node that makes `name`; none for inputs, initialisers and names that nothing makes.
    pub(super) fn producer(&self, name: &str) -> Option<&'a NodeProto> {
        self.producers.get(name).copied()
    }

    /// The nodes that read `name`.
    pub(super) fn consumers(&self, name: &str) -> &[&'a NodeProto] {
        self.consumers.get(name).map_or(&[], Vec::as_slice)
    }

    /// `name` is an initialiser: a weight, also where old files list it among the inputs.
    pub(super) fn is_initializer(&self, name: &str) -> bool {
        self.initializers.contains_key(name)
    }

    /// The tensor behind `name`, where it is an initialiser or the value of a Constant node.
    pub(super) fn constant(&self, name: &str) -> Option<&'a TensorProto> {
        self.initializers.get(name).copied().or_else(|| {
            let node = self.producer(name).filter(|node| node.op_type() == "Constant")?;
            attribute(node, "value")?.t.as_ref()
        })
    }

    /// The values of a constant list of i64, as shapes and axes are given.
    pub(super) fn ints(&self, name: &str) -> Option<Vec<i64>> {
        if let Some(tensor) = self.constant(name) {
            return ints(tensor);
        }
        let node = self.producer(name).filter(|node| node.op_type() == "Constant")?;
        match (attribute(node, "value_ints"), attribute(node, "value_int")) {
            (Some(list), _) => Some(list.ints.clone()),
            (None, Some(one)) => one.i.map(|value| vec![value]),
            (None, None) => None,
        }
    }

    /// The axes of a node, which newer operator sets take as input `at` and older ones as an attribute.
    pub(super) fn axes(&self, node: &NodeProto, at: usize) -> Axes {
        match (attribute(node, "axes"), node.input.get(at).filter(|name| !name.is_empty())) {
            (Some(list), _) => Axes::Listed(list.ints.clone()),
            (None, Some(name)) => self.ints(name).map_or(Axes::Computed, Axes::Listed),
            (None, None) => Axes::Absent,
        }
    }

    /// Number of dimensions of `name`, where the file declares it or the operator that makes it leaves no choice.
    pub(super) fn rank(&self, name: &str) -> Option<usize> {
        let declared = self.declared.get(name).and_then(|declared| declared.shape.as_ref());
        if let Some(shape) = declared {
            return Some(shape.dim.len());
        }
        match self.producer(name)?.op_type() {
            "Gemm" | "Flatten" | "QGemm" => Some(2),
            "Conv" | "GlobalAveragePool" | "GlobalMaxPool" | "QLinearConv" | "ConvInteger" => Some(4),
            _ => None,
        }
    }

    /// Dimensions of a weight: an initialiser, also behind the nodes that store it in fewer bits. Each of those costs one
    /// of `steps`.
    pub(super) fn weight_dims(&self, name: &str, steps: &mut usize) -> Option<Vec<i64>> {
        let mut name = name;
        let mut turned = false;
        loop {
            if let Some(tensor) = self.constant(name) {
                let mut dims = tensor.dims.clone();
                if turned {
                    dims.reverse();
                }
                return Some(dims);
            }
            let node = self.producer(name)?;
            match node.op_type() {
                "Identity" | "Cast" | "QuantizeLinear" | "DequantizeLinear" => {}
                "Transpose" if attribute(node, "perm").is_none_or(|perm| perm.ints == [1, 0]) => turned = !turned,
                _ => return None,
            }
            *steps = steps.checked_sub(1)?;
            name = node.input.first()?;
        }
    }
}

/// The axes that a node works on.
pub(super) enum Axes {
    /// These.
    Listed(Vec<i64>),
    /// The node does not say, and its operator has a rule for that.
    Absent,
    /// Only a run can tell.
    Computed,
}

/// An attribute by its name.
pub(super) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name() == name)
}

/// An integer attribute, or what the operator takes without it.
pub(super) fn int_attribute(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).and_then(|attribute| attribute.i).unwrap_or(default)
}

/// The node's operator belongs to the standard or to one of ONNX Runtime's quantised ones. Another vendor may call
/// anything `Softmax`.
pub(super) fn is_known_domain(node: &NodeProto) -> bool {
    matches!(node.domain(), "" | "ai.onnx" | "com.microsoft")
}

/// How errors call a node.
pub(super) fn describe(node: &NodeProto) -> String {
    let name = match node.name() {
        "" => node.output.first().map_or("", String::as_str),
        name => name,
    };
    format!("{} {}", Printable(node.op_type()), Printable(name))
}

/// The tensor type of a graph's input or output; none for sequences, maps and untyped values.
pub(super) fn tensor_type(value: &ValueInfoProto) -> Option<&TensorTypeProto> {
    match value.r#type.as_ref()?.value.as_ref()? {
        TypeValue::Tensor(tensor) => Some(tensor),
        TypeValue::Sequence(_) | TypeValue::Map(_) | TypeValue::SparseTensor(_) | TypeValue::Optional(_) => None,
    }
}

/// The values of an i64 tensor inside the file.
fn ints(tensor: &TensorProto) -> Option<Vec<i64>> {
    if tensor.data_type() != DataType::Int64 as i32 || tensor.data_location() == DataLocation::External {
        return None;
    }
    match &tensor.raw_data {
        // Raw data is little-endian by the standard.
        Some(raw) => Some(raw.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()),
        None => Some(tensor.int64_data.clone()),
    }
}

fn opset(model: &ModelProto) -> i64 {
    let standard = model.opset_import.iter().find(|opset| matches!(opset.domain(), "" | "ai.onnx"));
    standard.and_then(|opset| opset.version).unwrap_or(1)
}
