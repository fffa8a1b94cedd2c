//! A body -> the tensors of a request: JSON alone, JSON with tensors behind it, or one raw tensor.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::HeaderMap;
use bytes::BytesMut;

use super::document::{self, Document, Input};
use super::encoding::Encoding;
use crate::edge::UploadShare;
use crate::http::error::{Problem, ProblemKind};
use crate::http::forms;
use crate::oip::{Datatype, Face, InferRequest, OipError, Parameter, Parameters, Tensor, WantedOutput, tensor};

/// The bytes of JSON before the tensors, told beside the body.
pub(in crate::http) const HEADER_LENGTH: &str = "inference-header-content-length";
/// What a value in JSON may grow to: `0,` is two bytes, and eight as FP64.
const GROWTH_MAX: u64 = 4;

/// Where the JSON of a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum JsonPart {
    /// The body is JSON.
    All,
    /// So many bytes are JSON, tensors follow. With 0 the body is one raw tensor.
    Bytes(usize),
}

impl JsonPart {
    /// As the header says.
    ///
    /// # Errors
    /// [`OipError`] if it is no number.
    pub(in crate::http) fn of(headers: &HeaderMap) -> Result<Self, OipError> {
        let mut values = headers.get_all(HEADER_LENGTH).into_iter();
        let Some(value) = values.next() else { return Ok(Self::All) };
        if values.next().is_some() {
            return Err(OipError::invalid("Inference-Header-Content-Length is given twice"));
        }
        let text = value.to_str().unwrap_or("not printable").trim();
        let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|digits| digits.parse().ok()).map(Self::Bytes).ok_or_else(|| {
            OipError::invalid(format!("Inference-Header-Content-Length is {text:?}; it is the number of bytes of JSON"))
        })
    }
}

/// A body as it came, and what its headers say about it.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) bytes: Bytes,
    pub(super) encoding: Option<Encoding>,
    pub(super) json: JsonPart,
    pub(super) body_bytes_max: u64,
}

/// A request, and which of its outputs travel as bytes.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) request: InferRequest,
    pub(super) binary: Binary,
}

/// Which outputs travel as bytes behind the JSON.
#[derive(Debug, Clone, Default)]
pub(super) struct Binary {
    all: bool,
    by_name: BTreeMap<String, bool>,
}

impl Binary {
    /// Whether this one does.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.get(name).copied().unwrap_or(self.all)
    }
}

impl Packed {
    /// Takes the body apart. Computes, and for a large body takes milliseconds.
    pub(super) fn unpack(
        self,
        name: String,
        version: Option<String>,
        face: &Face,
        share: &mut UploadShare,
    ) -> Result<Unpacked, Problem> {
        let bytes = match self.encoding {
            Some(encoding) => encoding.unpack(&self.bytes, self.body_bytes_max, share)?,
            None => self.bytes,
        };
        let request = |inputs| InferRequest {
            model: name,
            version,
            id: None,
            parameters: Parameters::new(),
            inputs,
            outputs: Vec::new(),
            deadline: None,
        };
        let (json, mut rest) = match self.json {
            JsonPart::Bytes(0) => {
                share.grow(bytes.len() as u64)?;
                let inputs = vec![raw_input(face, &bytes)?];
                return Ok(Unpacked { request: request(inputs), binary: Binary { all: true, ..Binary::default() } });
            }
            JsonPart::Bytes(len) if len > bytes.len() => {
                return Err(OipError::invalid(format!(
                    "Inference-Header-Content-Length is {len}, the body has {} bytes",
                    bytes.len()
                ))
                .into());
            }
            JsonPart::Bytes(len) => (bytes.slice(..len), bytes.slice(len..)),
            JsonPart::All => (bytes, Bytes::new()),
        };
        if json.trim_ascii().is_empty() {
            return Err(Problem::new(ProblemKind::EmptyBody, "the body has no JSON; send inputs"));
        }
        let document: Document<'_> = super::parse(&json)?;
        let only = document.inputs.len() == 1;
        let mut inputs = Vec::with_capacity(document.inputs.len());
        for input in document.inputs {
            inputs.push(one_input(face, input, &mut rest, only, share)?);
        }
        if !rest.is_empty() {
            return Err(OipError::invalid(format!("{} bytes are left behind the last tensor", rest.len())).into());
        }
        let binary = Binary {
            all: flag(&document.parameters, "binary_data_output")?.unwrap_or(false),
            by_name: document
                .outputs
                .iter()
                .filter_map(|output| match flag(&output.parameters, "binary_data") {
                    Ok(binary) => binary.map(|binary| Ok((output.name.clone(), binary))),
                    Err(error) => Some(Err(error)),
                })
                .collect::<Result<_, OipError>>()?,
        };
        let outputs = document
            .outputs
            .into_iter()
            .map(|output| WantedOutput { name: output.name, parameters: output.parameters });
        let request = InferRequest {
            id: document.id,
            parameters: document.parameters,
            outputs: outputs.collect(),
            ..request(inputs)
        };
        Ok(Unpacked { request, binary })
    }
}

/// The whole body as a model's one input, for a batch of one.
fn raw_input(face: &Face, bytes: &Bytes) -> Result<Tensor, OipError> {
    let input = face.input();
    let mut shape = input.shape;
    shape[0] = 1;
    let raw = match input.datatype {
        Datatype::Bytes => {
            let mut raw = BytesMut::new();
            tensor::push_bytes(&mut raw, bytes)?;
            raw.freeze()
        }
        _ => bytes.clone(),
    };
    Ok(Tensor { name: input.name, datatype: input.datatype, shape, raw })
}

fn one_input(
    face: &Face,
    input: Input<'_>,
    rest: &mut Bytes,
    only: bool,
    share: &mut UploadShare,
) -> Result<Tensor, Problem> {
    let Input { name, shape, datatype, parameters, data } = input;
    if parameters.keys().any(|key| key.starts_with("shared_memory")) {
        return Err(OipError::invalid(format!("input {name:?} lies in shared memory, which is not offered")).into());
    }
    let datatype = Datatype::named(&datatype)?;
    let raw = match (parameters.get("binary_data_size"), data) {
        (Some(_), Some(_)) => {
            return Err(OipError::invalid(format!("input {name:?} has both data and binary_data_size")).into());
        }
        (Some(size), None) => {
            let size = match size {
                &Parameter::Int(size) => usize::try_from(size).ok(),
                _ => None,
            };
            let found = || parameters.get("binary_data_size");
            let Some(size) = size else {
                return Err(OipError::invalid(format!(
                    "binary_data_size of input {name:?} is {:?}; it is a number of bytes",
                    found()
                ))
                .into());
            };
            if size > rest.len() {
                return Err(OipError::invalid(format!(
                    "input {name:?} claims {size} bytes, {} are left behind the JSON",
                    rest.len()
                ))
                .into());
            }
            rest.split_to(size)
        }
        (None, Some(data)) => {
            let count = elements(&name, &shape)?;
            let grown = GROWTH_MAX.saturating_mul(data.get().len() as u64);
            share.grow(datatype.bytes().map_or(grown, |bytes| grown.min(bytes.saturating_mul(count) as u64)))?;
            let raw = document::values(data, datatype, count)?;
            match face {
                Face::Image(_) if datatype == Datatype::Bytes => photos(&raw, count)?,
                Face::Image(_) | Face::Tensor(_) => raw,
            }
        }
        // As OpenVINO Model Server takes it.
        (None, None) if only && !rest.is_empty() => std::mem::take(rest),
        (None, None) => {
            return Err(OipError::invalid(format!(
                "input {name:?} has neither data nor binary_data_size, and nothing follows the JSON"
            ))
            .into());
        }
    };
    Ok(Tensor { name, datatype, shape, raw })
}

/// The number of elements that a shape announces.
fn elements(name: &str, shape: &[i64]) -> Result<usize, OipError> {
    let product = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(usize::try_from(size).ok()?));
    product.ok_or_else(|| OipError::invalid(format!("input {name:?} has shape {shape:?}, which no tensor can have")))
}

/// Photos out of JSON texts: base64, since no photo is valid UTF-8.
fn photos(raw: &Bytes, count: usize) -> Result<Bytes, Problem> {
    let mut photos = BytesMut::with_capacity(raw.len());
    for text in tensor::split_bytes(raw, count)? {
        let photo = forms::decode_base64(&String::from_utf8_lossy(&text))?;
        tensor::push_bytes(&mut photos, &photo)?;
    }
    Ok(photos.freeze())
}

fn flag(parameters: &Parameters, name: &str) -> Result<Option<bool>, OipError> {
    match parameters.get(name) {
        None => Ok(None),
        Some(&Parameter::Bool(value)) => Ok(Some(value)),
        Some(other) => Err(OipError::invalid(format!("parameter {name} is {other:?}; it is true or false"))),
    }
}
