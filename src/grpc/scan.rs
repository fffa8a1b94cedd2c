//! What decoding a request will hold, told from its wire format before it is decoded.
//!
//! A tensor of two bytes on the wire becomes a structure of hundreds in memory, so twenty megabytes could become
//! gigabytes. Structures are counted against a bound, and values against the memory of uploads.

use prost::encoding::{WireType, decode_key, decode_varint};

use super::status::MessageError;

/// Tensors, wanted outputs and parameters of a request, at most. A model takes one tensor and returns three.
pub(super) const PARTS_MAX: usize = 256;

/// Fields of `ModelInferRequest`.
mod request {
    pub(super) const PARAMETERS: u32 = 4;
    pub(super) const INPUTS: u32 = 5;
    pub(super) const OUTPUTS: u32 = 6;
    pub(super) const RAW: u32 = 7;
}

/// Fields of a tensor of it. `PARAMETERS` of an output stand at 2.
mod tensor {
    pub(super) const SHAPE: u32 = 3;
    pub(super) const PARAMETERS: u32 = 4;
    pub(super) const CONTENTS: u32 = 5;
}

/// Fields of a tensor's typed contents.
mod contents {
    pub(super) const BOOL: u32 = 1;
    pub(super) const INT: u32 = 2;
    pub(super) const INT64: u32 = 3;
    pub(super) const UINT: u32 = 4;
    pub(super) const UINT64: u32 = 5;
    pub(super) const FP32: u32 = 6;
    pub(super) const FP64: u32 = 7;
    pub(super) const BYTES: u32 = 8;
}

const OUTPUT_PARAMETERS: u32 = 2;

/// Bytes that decoding `message`, a `ModelInferRequest`, takes beside the message itself: the values of typed contents,
/// twice, since vectors grow by doubling. Raw contents are views and take none.
///
/// # Errors
/// [`MessageError`] if there are too many parts, or the bytes are no message.
pub(super) fn decoded_bytes(message: &[u8]) -> Result<u64, MessageError> {
    let mut count = Count::default();
    for_each_field(message, |field, value| match (field, value) {
        (request::INPUTS, Value::Bytes(input)) => {
            count.part()?;
            for_each_field(input, |field, value| count.of_input(field, value))
        }
        (request::OUTPUTS, Value::Bytes(output)) => {
            count.part()?;
            for_each_field(output, |field, _| if field == OUTPUT_PARAMETERS { count.part() } else { Ok(()) })
        }
        (request::PARAMETERS | request::RAW, _) => count.part(),
        _ => Ok(()),
    })?;
    Ok(count.value_bytes * 2)
}

#[derive(Default)]
struct Count {
    parts: usize,
    value_bytes: u64,
}

impl Count {
    fn part(&mut self) -> Result<(), MessageError> {
        self.parts += 1;
        if self.parts > PARTS_MAX { Err(MessageError::TooManyParts { max: PARTS_MAX }) } else { Ok(()) }
    }

    fn of_input(&mut self, field: u32, value: Value<'_>) -> Result<(), MessageError> {
        match (field, value) {
            (tensor::PARAMETERS, _) => self.part()?,
            (tensor::SHAPE, value) => self.values(value.varints(), size_of::<i64>()),
            (tensor::CONTENTS, Value::Bytes(contents)) => {
                for_each_field(contents, |field, value| {
                    self.of_contents(field, value);
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    }

    fn of_contents(&mut self, field: u32, value: Value<'_>) {
        match field {
            contents::BOOL => self.values(value.varints(), size_of::<bool>()),
            contents::INT | contents::UINT => self.values(value.varints(), size_of::<u32>()),
            contents::INT64 | contents::UINT64 => self.values(value.varints(), size_of::<u64>()),
            contents::FP32 => self.values(value.fixed(size_of::<f32>()), size_of::<f32>()),
            contents::FP64 => self.values(value.fixed(size_of::<f64>()), size_of::<f64>()),
            contents::BYTES => self.values(1, size_of::<bytes::Bytes>()),
            _ => {}
        }
    }

    fn values(&mut self, values: usize, size: usize) {
        self.value_bytes += (values * size) as u64;
    }
}

/// One field's value.
#[derive(Clone, Copy)]
enum Value<'a> {
    /// A single number.
    Number,
    /// A message, a text, or packed numbers.
    Bytes(&'a [u8]),
}

impl Value<'_> {
    /// Numbers of variable length in it.
    fn varints(self) -> usize {
        match self {
            Self::Number => 1,
            // The last byte of each has its highest bit clear.
            Self::Bytes(packed) => packed.iter().filter(|&&byte| byte < 0x80).count(),
        }
    }

    /// Numbers of `size` bytes in it.
    fn fixed(self, size: usize) -> usize {
        match self {
            Self::Number => 1,
            Self::Bytes(packed) => packed.len() / size,
        }
    }
}

/// Calls `visit` with each field of one message, not of those inside it.
fn for_each_field(
    mut message: &[u8],
    mut visit: impl FnMut(u32, Value<'_>) -> Result<(), MessageError>,
) -> Result<(), MessageError> {
    let headless = |_| broken("a field's head is broken");
    while !message.is_empty() {
        let (field, wire) = decode_key(&mut message).map_err(headless)?;
        let value = match wire {
            WireType::Varint => {
                decode_varint(&mut message).map_err(headless)?;
                Value::Number
            }
            WireType::ThirtyTwoBit => taken(&mut message, 4).map(|_| Value::Number)?,
            WireType::SixtyFourBit => taken(&mut message, 8).map(|_| Value::Number)?,
            WireType::LengthDelimited => {
                let len = decode_varint(&mut message).map_err(headless)?;
                Value::Bytes(taken(&mut message, len)?)
            }
            // No version of the protocol ever had any.
            WireType::StartGroup | WireType::EndGroup => return Err(broken("it has a group")),
        };
        visit(field, value)?;
    }
    Ok(())
}

fn broken(what: &str) -> MessageError {
    MessageError::Broken(what.to_owned())
}

fn taken<'a>(message: &mut &'a [u8], len: u64) -> Result<&'a [u8], MessageError> {
    let split = usize::try_from(len).ok().and_then(|len| message.split_at_checked(len));
    let (taken, rest) = split.ok_or_else(|| broken("a field is longer than its message"))?;
    *message = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::grpc::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
    use crate::grpc::proto::{InferParameter, InferTensorContents, ModelInferRequest};

    fn typed(contents: InferTensorContents, shape: Vec<i64>) -> ModelInferRequest {
        let input = InferInputTensor { contents: Some(contents), shape, ..InferInputTensor::default() };
        ModelInferRequest { inputs: vec![input], ..ModelInferRequest::default() }
    }

    #[test]
    fn values_are_counted_at_the_size_that_they_have_in_memory() {
        let each = [
            (InferTensorContents { bool_contents: vec![true; 3], ..Default::default() }, 3),
            (InferTensorContents { int_contents: vec![-1, 0, 300], ..Default::default() }, 12),
            (InferTensorContents { int64_contents: vec![-1, 0, 300], ..Default::default() }, 24),
            (InferTensorContents { uint_contents: vec![1, 0, 300], ..Default::default() }, 12),
            (InferTensorContents { uint64_contents: vec![1, 0, u64::MAX], ..Default::default() }, 24),
            (InferTensorContents { fp32_contents: vec![1.5; 3], ..Default::default() }, 12),
            (InferTensorContents { fp64_contents: vec![1.5; 3], ..Default::default() }, 24),
            (InferTensorContents { bytes_contents: vec!["photo".into(); 3], ..Default::default() }, 96),
        ];
        for (contents, bytes) in each {
            let request = typed(contents, vec![3]);
            assert_eq!(decoded_bytes(&request.encode_to_vec()), Ok((bytes + 8) * 2), "{request:?}");
        }
        let raw = ModelInferRequest { raw_input_contents: vec![vec![7; 1000].into()], ..Default::default() };
        assert_eq!(decoded_bytes(&raw.encode_to_vec()), Ok(0));
    }

    #[test]
    fn a_request_has_so_many_parts_and_no_more() {
        let (input, output) = (InferInputTensor::default(), InferRequestedOutputTensor::default());
        let parameters: std::collections::HashMap<_, _> =
            (0..4).map(|number: u32| (number.to_string(), InferParameter::default())).collect();
        let mut request = ModelInferRequest {
            inputs: vec![InferInputTensor { parameters: parameters.clone(), ..input.clone() }; 10],
            outputs: vec![InferRequestedOutputTensor { parameters: parameters.clone(), ..output }; 10],
            parameters,
            raw_input_contents: vec![bytes::Bytes::new(); PARTS_MAX - 104],
            ..Default::default()
        };
        assert_eq!(decoded_bytes(&request.encode_to_vec()), Ok(0));
        request.inputs.push(input);
        assert_eq!(decoded_bytes(&request.encode_to_vec()), Err(MessageError::TooManyParts { max: PARTS_MAX }));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in
            [&[0x2a, 5, 1][..], &[0x2a, 0x80], &[0x2b], &[0x08], &[0x0d, 1, 2], &[0x09, 1], &[0x2a, 2, 0x1a, 9]]
        {
            assert!(matches!(decoded_bytes(bytes), Err(MessageError::Broken(_))), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_decodes_was_counted_as_enough(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let counted = decoded_bytes(&bytes);
            if let Ok(request) = ModelInferRequest::decode(&*bytes) {
                let values: usize = request.inputs.iter().filter_map(|input| input.contents.as_ref()).map(|contents| {
                    contents.int64_contents.len() * 8 + contents.fp32_contents.len() * 4 + contents.uint_contents.len() * 4
                }).sum();
                if let Ok(counted) = counted {
                    prop_assert!(counted >= 2 * values as u64);
                }
            }
        }
    }
}
