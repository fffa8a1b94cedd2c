//! An ONNX file, written tensor by tensor: the weights of a large model are never copied into a second buffer.

use std::io::{self, Write};

use prost::{Message, encode_length_delimiter};

use crate::graph::proto::{GraphProto, ModelProto, TensorProto};

/// Keys of `onnx.proto`, for fields of bytes: the field's number times eight, plus wire type 2.
const MODEL_GRAPH: u8 = (7 << 3) | 2;
const GRAPH_INITIALIZER: u8 = (5 << 3) | 2;
const TENSOR_RAW_DATA: u8 = (9 << 3) | 2;

/// Writes `model` as its protobuf encoding. Readers see the same message as from `model.encode_to_vec()`; the tensors
/// stand behind the graph's other fields, which protobuf leaves open.
///
/// # Errors
/// What the writer says.
pub fn write_model(model: &ModelProto, to: &mut impl Write) -> io::Result<()> {
    let Some(graph) = &model.graph else {
        return to.write_all(&model.encode_to_vec());
    };
    // Clones of names and shapes; the weights inside are shared, not copied.
    let around = ModelProto { graph: None, ..model.clone() }.encode_to_vec();
    let beside_tensors = GraphProto { initializer: Vec::new(), ..graph.clone() }.encode_to_vec();
    let tensors: usize =
        graph.initializer.iter().map(Message::encoded_len).map(|len| 1 + prost::length_delimiter_len(len) + len).sum();

    to.write_all(&around)?;
    write_head(to, MODEL_GRAPH, beside_tensors.len() + tensors)?;
    to.write_all(&beside_tensors)?;
    for tensor in &graph.initializer {
        write_head(to, GRAPH_INITIALIZER, tensor.encoded_len())?;
        let Some(raw) = &tensor.raw_data else {
            to.write_all(&tensor.encode_to_vec())?;
            continue;
        };
        to.write_all(&TensorProto { raw_data: None, ..tensor.clone() }.encode_to_vec())?;
        write_head(to, TENSOR_RAW_DATA, raw.len())?;
        to.write_all(raw)?;
    }
    to.flush()
}

/// A field's key and the length of what follows.
fn write_head(to: &mut impl Write, key: u8, len: usize) -> io::Result<()> {
    let mut head = vec![key];
    encode_length_delimiter(len, &mut head).map_err(io::Error::other)?;
    to.write_all(&head)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_is_written_reads_back_as_the_same_model() {
        let file = Bytes::from_static(include_bytes!("../../../models/resnet20-cifar10/model.onnx"));
        let model = ModelProto::decode(file).unwrap();
        let mut written = Vec::new();
        write_model(&model, &mut written).unwrap();
        assert_eq!(ModelProto::decode(Bytes::from(written)).unwrap(), model);

        let empty = ModelProto { graph: None, ..model };
        let mut written = Vec::new();
        write_model(&empty, &mut written).unwrap();
        assert_eq!(ModelProto::decode(Bytes::from(written)).unwrap(), empty);
    }
}
