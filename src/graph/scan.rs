//! One walk over the bytes of a model before anything is allocated for it. It bounds what decoding will cost: how many
//! nodes and tensors, how deep, how much memory beyond the file itself. What the fields mean is left to `proto.rs`.

use std::mem::size_of;

use super::GraphError;
use super::proto;

/// Most nodes in a file, those of functions and subgraphs included. The largest ResNets have about a thousand; a
/// quantised or decomposed export a few times that.
pub const NODES_MAX: usize = 200_000;
/// Most tensors in a file.
pub const TENSORS_MAX: usize = 200_000;
/// Most memory that the decoded structures may take beyond the bytes of the file. A protobuf field of two bytes can
/// become a structure of two thousand; ResNet-152 needs about 10 MB.
pub const EXCESS_BYTES_MAX: usize = 256 << 20;
/// Messages inside messages. `prost` stops at 100; a model without subgraphs needs 6.
pub const DEPTH_MAX: usize = 64;

/// The messages that a walk enters. Names are those of `onnx.proto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Model,
    OperatorSetId,
    StringStringEntry,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    TensorAnnotation,
    ValueInfo,
    Type,
    TensorType,
    ElementType,
    MapType,
    Shape,
    Dimension,
    Function,
}

/// What a field becomes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// A message.
    Message(Kind),
    /// A string or bytes; one of many, so that each takes its place in a `Vec`.
    Blob,
    /// Numbers in a `Vec`, each so many bytes wide in memory and as wide in the file.
    Fixed(usize),
    /// Numbers in a `Vec`, each so many bytes wide in memory and from one to ten bytes long in the file.
    Varints(usize),
    /// Nothing that is not paid for already: single values, and fields that nobody declared.
    Other,
}

impl Kind {
    /// Bytes that one message takes in memory, its own fields included and what they point to not.
    const fn size(self) -> usize {
        match self {
            Self::Model => size_of::<proto::ModelProto>(),
            Self::OperatorSetId => size_of::<proto::OperatorSetIdProto>(),
            Self::StringStringEntry => size_of::<proto::StringStringEntryProto>(),
            Self::Graph => size_of::<proto::GraphProto>(),
            Self::Node => size_of::<proto::NodeProto>(),
            Self::Attribute => size_of::<proto::AttributeProto>(),
            Self::Tensor => size_of::<proto::TensorProto>(),
            Self::SparseTensor => size_of::<proto::SparseTensorProto>(),
            Self::TensorAnnotation => size_of::<proto::TensorAnnotation>(),
            Self::ValueInfo => size_of::<proto::ValueInfoProto>(),
            Self::Type => size_of::<proto::TypeProto>(),
            Self::TensorType => size_of::<proto::TensorTypeProto>(),
            Self::ElementType => size_of::<proto::ElementTypeProto>(),
            Self::MapType => size_of::<proto::MapTypeProto>(),
            Self::Shape => size_of::<proto::TensorShapeProto>(),
            Self::Dimension => size_of::<proto::DimensionProto>(),
            Self::Function => size_of::<proto::FunctionProto>(),
        }
    }

    /// What field `number` of this message is. A field that is left out here costs nothing that grows.
    const fn field(self, number: u64) -> Field {
        use Field::{Blob, Fixed, Message, Other, Varints};
        match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Message(Self::Graph),
            (Self::Model, 8) | (Self::Function, 9) => Message(Self::OperatorSetId),
            (Self::Model | Self::Function, 14)
            | (Self::Graph | Self::Tensor, 16)
            | (Self::Node, 9)
            | (Self::Tensor, 13)
            | (Self::ValueInfo, 4)
            | (Self::TensorAnnotation, 2) => Message(Self::StringStringEntry),
            (Self::Model, 25) => Message(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Message(Self::Node),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => Message(Self::Tensor),
            (Self::Graph, 11..=13) | (Self::Function, 12) => Message(Self::ValueInfo),
            (Self::Graph, 14) => Message(Self::TensorAnnotation),
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Message(Self::SparseTensor),
            (Self::Node, 5) | (Self::Function, 11) => Message(Self::Attribute),
            (Self::Attribute, 14 | 15) | (Self::ValueInfo, 2) | (Self::ElementType, 1) | (Self::MapType, 2) => {
                Message(Self::Type)
            }
            (Self::Type, 1 | 8) => Message(Self::TensorType),
            (Self::Type, 4 | 9) => Message(Self::ElementType),
            (Self::Type, 5) => Message(Self::MapType),
            (Self::TensorType, 2) => Message(Self::Shape),
            (Self::Shape, 1) => Message(Self::Dimension),
            (Self::Node, 1 | 2) | (Self::Attribute, 9) | (Self::Tensor, 6) | (Self::Function, 4..=6) => Blob,
            (Self::Attribute, 7) | (Self::Tensor, 4) => Fixed(4),
            (Self::Tensor, 10) => Fixed(8),
            (Self::Tensor, 5) => Varints(4),
            (Self::Attribute, 8) | (Self::Tensor, 1 | 7 | 11) | (Self::SparseTensor, 3) => Varints(8),
            _ => Other,
        }
    }
}

/// Bytes that a name takes: its string in a `Vec` that grows, and what checking and analysis keep for each tensor.
const NAME_BYTES: usize = 256;

/// Checks that `bytes` are the message of a model whose decoding stays within the bounds above. Returns how much memory it
/// will take beyond the bytes, at most.
///
/// # Errors
/// [`GraphError::Broken`] where the bytes are no protobuf message, or one of the bounds.
pub(super) fn scan(bytes: &[u8]) -> Result<usize, GraphError> {
    let mut scan = Scan { bytes, nodes: 0, tensors: 0, excess: 0 };
    scan.message(Kind::Model, 0, bytes.len(), 0)?;
    Ok(scan.excess)
}

struct Scan<'a> {
    bytes: &'a [u8],
    nodes: usize,
    tensors: usize,
    excess: usize,
}

impl Scan<'_> {
    /// Walks the message that lies in `at..end`.
    fn message(&mut self, kind: Kind, mut at: usize, end: usize, depth: usize) -> Result<(), GraphError> {
        if depth > DEPTH_MAX {
            return Err(GraphError::TooDeep { max: DEPTH_MAX });
        }
        self.count(kind)?;
        while at < end {
            let start = at;
            let key = self.varint(&mut at, end)?;
            let (number, wire) = (key >> 3, key & 7);
            if number == 0 || key > u64::from(u32::MAX) {
                return Err(broken("a field without a number", start));
            }
            let field = kind.field(number);
            match wire {
                0 => {
                    self.varint(&mut at, end)?;
                    self.number(field, 1, at - start)?;
                }
                1 | 5 => {
                    at += if wire == 1 { 8 } else { 4 };
                    if at > end {
                        return Err(cut(at - end, start));
                    }
                    self.number(field, 1, at - start)?;
                }
                2 => {
                    let len = self.varint(&mut at, end)?;
                    let rest = end - at;
                    let len = usize::try_from(len)
                        .ok()
                        .filter(|len| *len <= rest)
                        .ok_or_else(|| cut(usize::try_from(len).unwrap_or(usize::MAX).saturating_sub(rest), start))?;
                    let body = at..at + len;
                    at += len;
                    match field {
                        Field::Message(kind) => self.message(kind, body.start, body.end, depth + 1)?,
                        Field::Blob => self.charge(NAME_BYTES)?,
                        // The last byte of a varint, and no other, has its top bit clear.
                        Field::Varints(_) => {
                            let count = self.bytes[body].iter().filter(|byte| **byte < 0x80).count();
                            self.number(field, count, len)?;
                        }
                        Field::Fixed(_) | Field::Other => {}
                    }
                }
                _ => return Err(broken("a field of an unknown kind", start)),
            }
        }
        Ok(())
    }

    /// Counts one message and what it takes.
    fn count(&mut self, kind: Kind) -> Result<(), GraphError> {
        match kind {
            Kind::Node => self.nodes += 1,
            Kind::Tensor => self.tensors += 1,
            _ => {}
        }
        if self.nodes > NODES_MAX {
            return Err(GraphError::TooMany { what: "nodes", max: NODES_MAX });
        }
        if self.tensors > TENSORS_MAX {
            return Err(GraphError::TooMany { what: "tensors", max: TENSORS_MAX });
        }
        // A `Vec` that grows may have room for twice as many.
        self.charge(2 * kind.size())
    }

    /// Charges what `count` numbers of a `field` take beyond the `bytes` that they have in the file.
    fn number(&mut self, field: Field, count: usize, bytes: usize) -> Result<(), GraphError> {
        match field {
            Field::Fixed(width) | Field::Varints(width) => self.charge((count * width).saturating_sub(bytes)),
            Field::Message(_) | Field::Blob | Field::Other => Ok(()),
        }
    }

    fn charge(&mut self, bytes: usize) -> Result<(), GraphError> {
        self.excess = self.excess.saturating_add(bytes);
        if self.excess > EXCESS_BYTES_MAX {
            return Err(GraphError::Amplified { max: EXCESS_BYTES_MAX });
        }
        Ok(())
    }

    /// Reads a varint of at most ten bytes before `end` and moves `at` behind it.
    fn varint(&self, at: &mut usize, end: usize) -> Result<u64, GraphError> {
        let start = *at;
        let mut value = 0;
        for (index, byte) in self.bytes[start..end].iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                *at += index + 1;
                return Ok(value);
            }
        }
        Err(if end - start < 10 { cut(1, start) } else { broken("a number of more than ten bytes", start) })
    }
}

fn broken(what: &str, offset: usize) -> GraphError {
    GraphError::Broken { what: format!("{what} at byte {offset}") }
}

/// A field that goes `missing` bytes beyond what it lies in.
fn cut(missing: usize, offset: usize) -> GraphError {
    GraphError::Broken { what: format!("the field at byte {offset} ends {missing} bytes beyond what holds it") }
}
