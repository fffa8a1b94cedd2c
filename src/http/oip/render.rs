//! An answer -> JSON, with the outputs that travel as bytes behind it.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use half::{bf16, f16};
use schemars::JsonSchema;
use serde::Serialize;
use serde::ser::{SerializeSeq as _, Serializer};

use super::body::{Binary, HEADER_LENGTH};
use super::encoding::Encoding;
use crate::oip::{Datatype, InferResponse, Parameters, Tensor};

/// The JSON of an answer.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "V2InferResponse")]
pub(in crate::http) struct InferAnswer<'a> {
    /// The model that ran.
    model_name: &'a str,
    /// Its version.
    model_version: &'a str,
    /// That of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// Those of the request that mean nothing here.
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    parameters: &'a Parameters,
    /// What came out.
    outputs: Vec<OutputTensor<'a>>,
}

/// One output.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "V2OutputTensor")]
pub(in crate::http) struct OutputTensor<'a> {
    /// As the model's metadata has it.
    name: &'a str,
    /// Of its elements.
    datatype: Datatype,
    /// With the batch dimension.
    shape: &'a [i64],
    /// There if the values follow the JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
    /// The values, flat and row-major.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<serde_json::Value>>")]
    data: Option<Data<'a>>,
}

/// How many bytes of the body are this output.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::http) struct BinarySize {
    /// Bytes.
    binary_data_size: usize,
}

/// The values of a tensor as JSON.
#[derive(Debug)]
pub(in crate::http) struct Data<'a>(&'a Tensor);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = &self.0.raw;
        match self.0.datatype {
            Datatype::Bool => numbers(raw, serializer, |[byte]| byte != 0),
            Datatype::Uint8 => numbers(raw, serializer, u8::from_le_bytes),
            Datatype::Uint16 => numbers(raw, serializer, u16::from_le_bytes),
            Datatype::Uint32 => numbers(raw, serializer, u32::from_le_bytes),
            Datatype::Uint64 => numbers(raw, serializer, u64::from_le_bytes),
            Datatype::Int8 => numbers(raw, serializer, i8::from_le_bytes),
            Datatype::Int16 => numbers(raw, serializer, i16::from_le_bytes),
            Datatype::Int32 => numbers(raw, serializer, i32::from_le_bytes),
            Datatype::Int64 => numbers(raw, serializer, i64::from_le_bytes),
            Datatype::Fp16 => numbers(raw, serializer, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Datatype::Bf16 => numbers(raw, serializer, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Datatype::Fp32 => numbers(raw, serializer, f32::from_le_bytes),
            Datatype::Fp64 => numbers(raw, serializer, f64::from_le_bytes),
            Datatype::Bytes => texts(raw, serializer),
        }
    }
}

fn numbers<S: Serializer, T: Serialize, const BYTES: usize>(
    raw: &[u8],
    serializer: S,
    read: impl Fn([u8; BYTES]) -> T,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(raw.as_chunks().0.iter().map(|&bytes| read(bytes)))
}

fn texts<S: Serializer>(raw: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    let mut rest = raw;
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        // What this server wrote itself is whole.
        let (text, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize).unwrap_or((after, &[]));
        list.serialize_element(&String::from_utf8_lossy(text))?;
        rest = after;
    }
    list.end()
}

/// A body on its way out.
#[derive(Debug)]
pub(in crate::http) struct Rendered {
    body: Vec<u8>,
    /// Bytes of JSON before the tensors, where there are any.
    pub(in crate::http) json_bytes: Option<usize>,
    encoding: Option<Encoding>,
}

impl Rendered {
    /// Writes an answer. Computes, and for a large one takes milliseconds.
    pub(super) fn new(answer: &InferResponse, binary: &Binary, encoding: Option<Encoding>) -> Self {
        let output = |tensor: &'_ Tensor| {
            let binary = binary.has(&tensor.name);
            (binary, tensor.raw.len())
        };
        let outputs = answer.outputs.iter().map(|tensor| {
            let (binary, binary_data_size) = output(tensor);
            OutputTensor {
                name: &tensor.name,
                datatype: tensor.datatype,
                shape: &tensor.shape,
                parameters: binary.then_some(BinarySize { binary_data_size }),
                data: (!binary).then_some(Data(tensor)),
            }
        });
        let document = InferAnswer {
            model_name: &answer.model,
            model_version: &answer.version,
            id: answer.id.as_deref(),
            parameters: &answer.parameters,
            outputs: outputs.collect(),
        };
        let mut body = serde_json::to_vec(&document).expect("texts and finite numbers are always JSON");
        let json = body.len();
        let behind = || answer.outputs.iter().filter(|tensor| binary.has(&tensor.name));
        let json_bytes = behind().next().is_some().then_some(json);
        behind().for_each(|tensor| body.extend_from_slice(&tensor.raw));
        match encoding.and_then(|encoding| Some((encoding, encoding.pack(&body)?))) {
            Some((encoding, packed)) => Self { body: packed, json_bytes, encoding: Some(encoding) },
            None => Self { body, json_bytes, encoding: None },
        }
    }
}

impl IntoResponse for Rendered {
    fn into_response(self) -> Response {
        let content_type = match self.json_bytes {
            Some(_) => "application/octet-stream",
            None => "application/json",
        };
        let mut response = self.body.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(bytes) = self.json_bytes {
            headers.insert(HEADER_LENGTH, HeaderValue::from(bytes));
        }
        // Whatever is between must not give this answer to a client that asks for another form.
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if let Some(encoding) = self.encoding {
            headers.insert(header::CONTENT_ENCODING, encoding.name());
        }
        response
    }
}
