//! The messages that a graph is written in, with less ceremony: nodes, attributes, tensors, shapes. Knows nothing of
//! networks.

use bytes::Bytes;

use crate::graph::proto::{
    AttributeProto, AttributeType, DataType, DimensionProto, DimensionValue, NodeProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, TypeValue, ValueInfoProto,
};

/// A node with one output, called like the node's output `to`.
pub(super) fn node(op: &str, name: &str, inputs: &[&str], to: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![to.to_owned()],
        name: Some(name.to_owned()),
        op_type: Some(op.to_owned()),
        attribute: attributes,
        ..NodeProto::default()
    }
}

pub(super) fn int(name: &str, value: usize) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        i: Some(signed(value)),
        r#type: Some(AttributeType::Int.into()),
        ..AttributeProto::default()
    }
}

pub(super) fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        ints: values.iter().map(|&value| signed(value)).collect(),
        r#type: Some(AttributeType::Ints.into()),
        ..AttributeProto::default()
    }
}

pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        f: Some(value),
        r#type: Some(AttributeType::Float.into()),
        ..AttributeProto::default()
    }
}

pub(super) fn tensor(name: &str, shape: &[usize], dtype: DataType, raw: Bytes) -> TensorProto {
    TensorProto {
        dims: shape.iter().map(|&side| signed(side)).collect(),
        data_type: Some(dtype.into()),
        name: Some(name.to_owned()),
        raw_data: Some(raw),
        ..TensorProto::default()
    }
}

pub(super) fn tensor_of_ints(name: &str, values: &[i64]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, &[values.len()], DataType::Int64, Bytes::from(raw))
}

/// One side of an input or output.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Fixed(usize),
    /// Free, under this name.
    Free(&'static str),
}

pub(super) fn value_info(name: &str, dtype: DataType, shape: &[Side]) -> ValueInfoProto {
    let side = |side: &Side| DimensionProto {
        value: Some(match *side {
            Side::Fixed(len) => DimensionValue::Value(signed(len)),
            Side::Free(name) => DimensionValue::Param(name.to_owned()),
        }),
        ..DimensionProto::default()
    };
    let shape = TensorShapeProto { dim: shape.iter().map(side).collect() };
    let tensor = TensorTypeProto { elem_type: Some(dtype.into()), shape: Some(shape) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(TypeValue::Tensor(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

/// ONNX counts in i64. Counts here are of things in memory, which are far fewer.
pub(super) fn signed(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
