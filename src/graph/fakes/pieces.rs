//! Attributes, inputs and a function: what the messages of a graph are put together from in tests.

use bytes::Bytes;

use crate::graph::proto::{
    AttributeProto, DataType, DimensionProto, DimensionValue, FunctionProto, NodeProto, TensorShapeProto,
    TensorTypeProto, TypeProto, TypeValue, ValueInfoProto,
};

/// The function that [`Style::Functions`](super::Style) calls; it calls another for the work.
pub(super) fn convolution() -> FunctionProto {
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

pub(super) fn text(name: &str, text: &'static str) -> AttributeProto {
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
