//! Requests and answers of the protocol <-> protobuf. Contents come and go raw, which is a copy of no byte, or typed.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use super::proto::infer_parameter::ParameterChoice;
use super::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use super::proto::model_infer_response::InferOutputTensor;
use super::proto::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use crate::oip::tensor::{push_bytes, split_bytes};
use crate::oip::{Datatype, InferRequest, InferResponse, OipError, Parameter, Parameters, Tensor, WantedOutput};

/// How a request's contents came; its answer's go the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// Little-endian bytes beside the tensors.
    Raw,
    /// In the field of their type.
    Typed,
}

/// Parameters of tensors that name memory which the server would have to share with its client.
const SHARED_MEMORY: &str = "shared_memory";

/// Takes a request apart. Its deadline is its call's, which is not in the message.
pub(super) fn request(message: ModelInferRequest) -> Result<(InferRequest, Contents), OipError> {
    let ModelInferRequest { model_name, model_version, id, parameters, inputs, outputs, raw_input_contents } = message;
    // A tensor without a value has no bytes, so a request without inputs is either.
    let contents = if raw_input_contents.is_empty() { Contents::Typed } else { Contents::Raw };
    let inputs = match contents {
        Contents::Typed => inputs.into_iter().map(typed).collect::<Result<_, _>>()?,
        Contents::Raw if raw_input_contents.len() != inputs.len() => {
            return Err(OipError::invalid(format!(
                "there are {} raw contents for {} input(s); send one for each, in their order, or none",
                raw_input_contents.len(),
                inputs.len()
            )));
        }
        Contents::Raw => inputs
            .into_iter()
            .zip(raw_input_contents)
            .map(|(input, raw)| of_raw(input, raw))
            .collect::<Result<_, _>>()?,
    };
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let request = InferRequest {
        model: model_name,
        version: some(model_version),
        id: some(id),
        parameters: parameters_of(parameters)?,
        inputs,
        outputs: outputs.into_iter().map(wanted).collect::<Result<_, _>>()?,
        deadline: None,
    };
    Ok((request, contents))
}

fn of_raw(input: InferInputTensor, raw: Bytes) -> Result<Tensor, OipError> {
    if input.contents.as_ref().is_some_and(|contents| *contents != InferTensorContents::default()) {
        return Err(OipError::invalid(format!(
            "input {:?} has typed contents, and the request has raw contents; send one of them",
            input.name
        )));
    }
    refuse_shared_memory(&input)?;
    Ok(Tensor { datatype: Datatype::named(&input.datatype)?, name: input.name, shape: input.shape, raw })
}

fn refuse_shared_memory(input: &InferInputTensor) -> Result<(), OipError> {
    match input.parameters.keys().find(|name| name.starts_with(SHARED_MEMORY)) {
        Some(name) => Err(OipError::invalid(format!(
            "input {:?} brings {name}; shared memory is not offered, send the values",
            input.name
        ))),
        None => Ok(()),
    }
}

fn wanted(output: InferRequestedOutputTensor) -> Result<WantedOutput, OipError> {
    let small = |parameter| match parameter {
        // These are not given back, so one kind of whole number is enough.
        Parameter::Uint(number) => i64::try_from(number).map_or(Parameter::Uint(number), Parameter::Int),
        other => other,
    };
    let parameters = parameters_of(output.parameters)?.into_iter().map(|(name, value)| (name, small(value))).collect();
    Ok(WantedOutput { name: output.name, parameters })
}

fn parameters_of(parameters: HashMap<String, InferParameter>) -> Result<Parameters, OipError> {
    let one = |(name, parameter): (String, InferParameter)| {
        let value = match parameter.parameter_choice {
            Some(ParameterChoice::BoolParam(value)) => Parameter::Bool(value),
            Some(ParameterChoice::Int64Param(value)) => Parameter::Int(value),
            Some(ParameterChoice::StringParam(value)) => Parameter::Text(value),
            Some(ParameterChoice::DoubleParam(value)) => Parameter::Number(value),
            Some(ParameterChoice::Uint64Param(value)) => Parameter::Uint(value),
            None => return Err(OipError::invalid(format!("parameter {name:?} has no value"))),
        };
        Ok((name, value))
    };
    parameters.into_iter().map(one).collect()
}

/// A tensor whose values came in the field of their type.
fn typed(input: InferInputTensor) -> Result<Tensor, OipError> {
    refuse_shared_memory(&input)?;
    let datatype = Datatype::named(&input.datatype)?;
    let contents = input.contents.unwrap_or_default();
    let field = field(datatype).ok_or_else(|| {
        OipError::invalid(format!(
            "input {:?} is {}, which has no typed contents; send raw contents",
            input.name,
            datatype.name()
        ))
    })?;
    if let Some(other) = filled(&contents).find(|&other| other != field) {
        return Err(OipError::invalid(format!(
            "input {:?} is {}, whose values belong into {field}; the request has {other}",
            input.name,
            datatype.name()
        )));
    }
    let raw = packed(datatype, &contents).map_err(|value| {
        OipError::invalid(format!("input {:?} has a value of {value}, which {} cannot be", input.name, datatype.name()))
    })?;
    Ok(Tensor { name: input.name, datatype, shape: input.shape, raw })
}

/// The field that holds values of this type.
fn field(datatype: Datatype) -> Option<&'static str> {
    use Datatype as D;
    match datatype {
        D::Bool => Some("bool_contents"),
        D::Int8 | D::Int16 | D::Int32 => Some("int_contents"),
        D::Int64 => Some("int64_contents"),
        D::Uint8 | D::Uint16 | D::Uint32 => Some("uint_contents"),
        D::Uint64 => Some("uint64_contents"),
        D::Fp32 => Some("fp32_contents"),
        D::Fp64 => Some("fp64_contents"),
        D::Bytes => Some("bytes_contents"),
        D::Fp16 | D::Bf16 => None,
    }
}

/// The fields that hold anything.
fn filled(contents: &InferTensorContents) -> impl Iterator<Item = &'static str> {
    let fields = [
        ("bool_contents", contents.bool_contents.is_empty()),
        ("int_contents", contents.int_contents.is_empty()),
        ("int64_contents", contents.int64_contents.is_empty()),
        ("uint_contents", contents.uint_contents.is_empty()),
        ("uint64_contents", contents.uint64_contents.is_empty()),
        ("fp32_contents", contents.fp32_contents.is_empty()),
        ("fp64_contents", contents.fp64_contents.is_empty()),
        ("bytes_contents", contents.bytes_contents.is_empty()),
    ];
    fields.into_iter().filter(|(_, empty)| !empty).map(|(name, _)| name)
}

/// Values row-major and little-endian; the first that the type cannot hold, as text.
fn packed(datatype: Datatype, contents: &InferTensorContents) -> Result<Bytes, String> {
    /// values: integers of the wire -> raw: little-endian `T`
    fn narrowed<V: Copy + ToString, T: TryFrom<V>, const N: usize>(
        values: &[V],
        bytes: fn(T) -> [u8; N],
    ) -> Result<Bytes, String> {
        let mut raw = Vec::with_capacity(values.len() * N);
        for &value in values {
            raw.extend_from_slice(&bytes(T::try_from(value).map_err(|_| value.to_string())?));
        }
        Ok(raw.into())
    }
    use Datatype as D;
    match datatype {
        D::Bool => Ok(contents.bool_contents.iter().map(|&value| u8::from(value)).collect()),
        D::Int8 => narrowed(&contents.int_contents, i8::to_le_bytes),
        D::Int16 => narrowed(&contents.int_contents, i16::to_le_bytes),
        D::Int32 => narrowed(&contents.int_contents, i32::to_le_bytes),
        D::Int64 => narrowed(&contents.int64_contents, i64::to_le_bytes),
        D::Uint8 => narrowed(&contents.uint_contents, u8::to_le_bytes),
        D::Uint16 => narrowed(&contents.uint_contents, u16::to_le_bytes),
        D::Uint32 => narrowed(&contents.uint_contents, u32::to_le_bytes),
        D::Uint64 => narrowed(&contents.uint64_contents, u64::to_le_bytes),
        D::Fp32 => narrowed(&contents.fp32_contents, f32::to_le_bytes),
        D::Fp64 => narrowed(&contents.fp64_contents, f64::to_le_bytes),
        D::Bytes => {
            let mut raw =
                BytesMut::with_capacity(contents.bytes_contents.iter().map(|element| 4 + element.len()).sum());
            for element in &contents.bytes_contents {
                push_bytes(&mut raw, element).map_err(|_too_long| format!("{} bytes", element.len()))?;
            }
            Ok(raw.freeze())
        }
        D::Fp16 | D::Bf16 => Ok(Bytes::new()),
    }
}

/// Puts an answer together, its contents as those of the request came. What has no typed contents goes raw.
pub(super) fn response(answer: InferResponse, contents: Contents) -> Result<ModelInferResponse, OipError> {
    let InferResponse { model, version, id, parameters, outputs, times: _ } = answer;
    let mut response = ModelInferResponse {
        model_name: model,
        model_version: version,
        id: id.unwrap_or_default(),
        parameters: parameters.into_iter().map(|(name, value)| (name, parameter(value))).collect(),
        ..ModelInferResponse::default()
    };
    // All outputs go the same way: a client finds raw contents by their place.
    let raw = contents == Contents::Raw || outputs.iter().any(|output| field(output.datatype).is_none());
    for Tensor { name, datatype, shape, raw: values } in outputs {
        let contents = if raw { None } else { Some(unpacked(datatype, &shape, &values)?) };
        if raw {
            response.raw_output_contents.push(values);
        }
        let datatype = datatype.name().to_owned();
        response.outputs.push(InferOutputTensor { name, datatype, shape, parameters: HashMap::new(), contents });
    }
    Ok(response)
}

fn parameter(value: Parameter) -> InferParameter {
    let choice = match value {
        Parameter::Bool(value) => ParameterChoice::BoolParam(value),
        Parameter::Int(value) => ParameterChoice::Int64Param(value),
        Parameter::Uint(value) => ParameterChoice::Uint64Param(value),
        Parameter::Number(value) => ParameterChoice::DoubleParam(value),
        Parameter::Text(value) => ParameterChoice::StringParam(value),
    };
    InferParameter { parameter_choice: Some(choice) }
}

/// raw: little-endian values -> the field of their type. Outputs are scores, indices and texts.
fn unpacked(datatype: Datatype, shape: &[i64], raw: &Bytes) -> Result<InferTensorContents, OipError> {
    fn each<T, const N: usize>(raw: &[u8], of: fn([u8; N]) -> T) -> Vec<T> {
        raw.as_chunks::<N>().0.iter().map(|&bytes| of(bytes)).collect()
    }
    use Datatype as D;
    let mut contents = InferTensorContents::default();
    match datatype {
        D::Bool => contents.bool_contents = raw.iter().map(|&byte| byte != 0).collect(),
        D::Int8 => contents.int_contents = each(raw, |bytes| i8::from_le_bytes(bytes).into()),
        D::Int16 => contents.int_contents = each(raw, |bytes| i16::from_le_bytes(bytes).into()),
        D::Int32 => contents.int_contents = each(raw, i32::from_le_bytes),
        D::Int64 => contents.int64_contents = each(raw, i64::from_le_bytes),
        D::Uint8 => contents.uint_contents = each(raw, |bytes| u8::from_le_bytes(bytes).into()),
        D::Uint16 => contents.uint_contents = each(raw, |bytes| u16::from_le_bytes(bytes).into()),
        D::Uint32 => contents.uint_contents = each(raw, u32::from_le_bytes),
        D::Uint64 => contents.uint64_contents = each(raw, u64::from_le_bytes),
        D::Fp32 => contents.fp32_contents = each(raw, f32::from_le_bytes),
        D::Fp64 => contents.fp64_contents = each(raw, f64::from_le_bytes),
        D::Bytes => {
            let texts = usize::try_from(shape.iter().product::<i64>()).unwrap_or_default();
            contents.bytes_contents = split_bytes(raw, texts)?;
        }
        D::Fp16 | D::Bf16 => {}
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_contents_become_little_endian_and_come_back() {
        type C = InferTensorContents;
        let ints = |values: [i32; 2]| C { int_contents: values.into(), ..C::default() };
        let uints = |values: [u32; 2]| C { uint_contents: values.into(), ..C::default() };
        for (datatype, contents, raw) in [
            (Datatype::Bool, C { bool_contents: vec![true, false], ..C::default() }, &[1, 0][..]),
            (Datatype::Int8, ints([-1, 127]), &[255, 127]),
            (Datatype::Int16, ints([-2, 256]), &[254, 255, 0, 1]),
            (Datatype::Int32, ints([-1, 1]), &[255, 255, 255, 255, 1, 0, 0, 0]),
            (Datatype::Int64, C { int64_contents: vec![-1], ..C::default() }, &[255; 8]),
            (Datatype::Uint8, uints([0, 255]), &[0, 255]),
            (Datatype::Uint16, uints([1, 65535]), &[1, 0, 255, 255]),
            (Datatype::Uint32, uints([1, u32::MAX]), &[1, 0, 0, 0, 255, 255, 255, 255]),
            (Datatype::Uint64, C { uint64_contents: vec![2], ..C::default() }, &[2, 0, 0, 0, 0, 0, 0, 0]),
            (Datatype::Fp32, C { fp32_contents: vec![-0.5], ..C::default() }, &[0, 0, 0, 0xbf]),
            (Datatype::Fp64, C { fp64_contents: vec![2.0], ..C::default() }, &[0, 0, 0, 0, 0, 0, 0, 0x40]),
            (
                Datatype::Bytes,
                C { bytes_contents: vec!["ab".into(), "".into()], ..C::default() },
                &[2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0],
            ),
        ] {
            let field = field(datatype).unwrap();
            assert_eq!(filled(&contents).collect::<Vec<_>>(), [field]);
            let bytes = packed(datatype, &contents).unwrap();
            assert_eq!(bytes, raw, "{datatype:?}");
            assert_eq!(unpacked(datatype, &[2], &bytes).unwrap(), contents, "{datatype:?}");
        }
    }

    #[test]
    fn a_value_that_its_type_cannot_hold_is_named() {
        let ints = InferTensorContents { int_contents: vec![0, -129], ..InferTensorContents::default() };
        assert_eq!(packed(Datatype::Int8, &ints), Err("-129".to_owned()));
        let uints = InferTensorContents { uint_contents: vec![65536], ..InferTensorContents::default() };
        assert_eq!(packed(Datatype::Uint16, &uints), Err("65536".to_owned()));
    }

    #[test]
    fn an_answer_with_an_output_that_has_no_typed_contents_goes_raw() {
        let tensor = |datatype, raw: &'static [u8]| Tensor {
            name: "scores".to_owned(),
            datatype,
            shape: vec![1, 1],
            raw: Bytes::from_static(raw),
        };
        let answer = |outputs| InferResponse {
            model: "m".to_owned(),
            version: "1".to_owned(),
            id: None,
            parameters: Parameters::new(),
            outputs,
            times: crate::telemetry::StageTimes::default(),
        };
        let typed = answer(vec![tensor(Datatype::Fp32, &[0; 4])]);
        let typed = response(typed, Contents::Typed).unwrap();
        assert!(typed.raw_output_contents.is_empty() && typed.outputs[0].contents.is_some());
        let half = answer(vec![tensor(Datatype::Fp16, &[0; 2]), tensor(Datatype::Fp32, &[0; 4])]);
        let half = response(half, Contents::Typed).unwrap();
        assert_eq!(half.raw_output_contents, [&[0; 2][..], &[0; 4]]);
        assert!(half.outputs.iter().all(|output| output.contents.is_none()));
    }
}
