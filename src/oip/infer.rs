//! One inference: tensors in, tensors out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::describe::{self, IMAGE_INPUT};
use super::outputs::Outputs;
use super::tensor::{Datatype, Tensor, split_bytes};
use super::{ErrorKind, Face, Oip, OipError};
use crate::models::Handle;
use crate::pipeline::Sample;
use crate::pipeline::batch::{Row, RowOf};
use crate::telemetry::{Ended, StageTimes};
use bytes::Bytes;
use futures_util::future::try_join_all;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// Tensors up to this size are taken apart where they are; larger ones in the pool, since an async thread must not compute
/// for long.
const INLINE_BYTES_MAX: usize = 256 * 1024;

/// Longest id, and longest text among the parameters.
const TEXT_BYTES_MAX: usize = 1024;

/// One value of a request's, an input's or an output's parameters.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Parameter {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number above those.
    Uint(u64),
    /// Any other number.
    Number(f64),
    /// A text.
    Text(String),
}

/// By hand: serde's own way for such a type is to hold all of a value before it looks at its kind, and a list of zeros then
/// grows to 16 times its size.
impl<'de> Deserialize<'de> for Parameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl serde::de::Visitor<'_> for One {
            type Value = Parameter;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a boolean, a number or a text")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Parameter, E> {
                Ok(Parameter::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Parameter, E> {
                Ok(Parameter::Int(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Parameter, E> {
                Ok(i64::try_from(value).map_or(Parameter::Uint(value), Parameter::Int))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Parameter, E> {
                Ok(Parameter::Number(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Parameter, E> {
                Ok(Parameter::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(One)
    }
}

/// Parameters by name.
pub type Parameters = BTreeMap<String, Parameter>;

/// One request, taken apart by its wire.
#[derive(Debug, Clone)]
pub struct InferRequest {
    /// The model, by the name of one of its faces.
    pub model: String,
    /// Its version; the newest if none.
    pub version: Option<String>,
    /// Comes back in the answer.
    pub id: Option<String>,
    /// What the protocol does not know comes back in the answer.
    pub parameters: Parameters,
    /// The tensors.
    pub inputs: Vec<Tensor>,
    /// What is wanted; everything if empty.
    pub outputs: Vec<WantedOutput>,
    /// When the client stops waiting, where its wire says so.
    pub deadline: Option<Instant>,
}

/// One output that a client wants.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedOutput {
    /// Its name.
    pub name: String,
    /// Its parameters: `classification` asks for the best classes instead of the values.
    pub parameters: Parameters,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct InferResponse {
    /// The name that was asked for.
    pub model: String,
    /// The version that answered.
    pub version: String,
    /// That of the request.
    pub id: Option<String>,
    /// Those of the request that the protocol does not know.
    pub parameters: Parameters,
    /// The outputs, in the order in which they were asked for.
    pub outputs: Vec<Tensor>,
    /// The longest time of an image in each stage.
    pub times: StageTimes,
}

impl InferRequest {
    /// What comes back in the answer must not be of any size.
    fn check_texts(&self) -> Result<(), OipError> {
        let texts = self.parameters.values().filter_map(|parameter| match parameter {
            Parameter::Text(text) => Some(text),
            _ => None,
        });
        let longest = self.id.iter().chain(texts).map(String::len).max().unwrap_or(0);
        if longest > TEXT_BYTES_MAX {
            return Err(OipError::invalid(format!(
                "the id or a parameter has {longest} bytes, at most {TEXT_BYTES_MAX} are allowed"
            )));
        }
        Ok(())
    }
}

impl Oip {
    /// Runs a model. The images of a request are batched together and with those of others; one that fails fails them all.
    /// Dropping the future is how a caller leaves.
    ///
    /// # Errors
    /// [`OipError`] that says which part of the request is wrong, or why there is no answer.
    pub async fn infer(&self, request: InferRequest) -> Result<InferResponse, OipError> {
        let face = self.admitted(&request.model, request.version.as_deref())?;
        self.infer_on(&face, request).await
    }

    /// As [`Oip::infer`], on the face that was there when the request came in: what has happened to the server or the model
    /// since does not concern it.
    ///
    /// # Errors
    /// As [`Oip::infer`].
    pub async fn infer_on(&self, face: &Face, request: InferRequest) -> Result<InferResponse, OipError> {
        let counted = face.engine().counted();
        let answer = match request.check_texts() {
            Ok(()) => self.run(face, request).await,
            Err(error) => Err(error),
        };
        counted.ended(answer.as_ref().map_or_else(OipError::ended, |_| Ended::Answered));
        answer
    }

    async fn run(&self, face: &Face, request: InferRequest) -> Result<InferResponse, OipError> {
        let deadline = self.deadline(&request)?;
        let outputs = Outputs::wanted(face, &request.outputs)?;
        let input = self.only_input(face, request.inputs)?;
        let rows = match face {
            Face::Tensor(engine) => self.run_tensor(engine, input, outputs.top_k(), deadline).await?,
            Face::Image(engine) => self.run_photos(engine, input, outputs.top_k(), deadline).await?,
        };
        let times = rows.iter().fold(StageTimes::default(), |all, row| all.max(row.times));
        let parameters = request.parameters.into_iter().filter(|(name, _)| !is_known(name)).collect();
        Ok(InferResponse {
            model: request.model,
            version: face.engine().spec().version.clone(),
            id: request.id.filter(|id| !id.is_empty()),
            parameters,
            outputs: outputs.of(&rows)?,
            times,
        })
    }

    /// The settings' time limit, the client's `timeout` in microseconds, or its wire's: the first of them.
    fn deadline(&self, request: &InferRequest) -> Result<Instant, OipError> {
        let now = Instant::now();
        let own = match request.parameters.get("timeout") {
            None | Some(Parameter::Int(0) | Parameter::Uint(0)) => None,
            Some(&Parameter::Int(micros)) if micros > 0 => {
                now.checked_add(Duration::from_micros(micros.unsigned_abs()))
            }
            Some(&Parameter::Uint(micros)) => now.checked_add(Duration::from_micros(micros)),
            Some(other) => {
                return Err(OipError::invalid(format!(
                    "parameter timeout is {other:?}; it is a whole number of microseconds, 0 for none"
                )));
            }
        };
        let limit = now + self.limits.request_timeout;
        Ok([own, request.deadline].into_iter().flatten().fold(limit, Instant::min))
    }

    /// The model's one input, with the right name and type.
    fn only_input(&self, face: &Face, inputs: Vec<Tensor>) -> Result<Tensor, OipError> {
        let expected = describe::input(face);
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        if names != [expected.name.as_str()] {
            let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(OipError::invalid(format!(
                "model {:?} takes one input, {:?}; the request has {found}",
                face.name(),
                expected.name
            )));
        }
        let input = inputs.into_iter().next().expect("there is one");
        if input.datatype != expected.datatype {
            return Err(OipError::invalid(format!(
                "input {:?} is {}, expected {}",
                input.name,
                input.datatype.name(),
                expected.datatype.name()
            )));
        }
        Ok(input)
    }

    /// The images that a first dimension announces.
    fn images(&self, found: i64) -> Result<usize, OipError> {
        let max = self.limits.request_images_max;
        match usize::try_from(found) {
            Ok(images @ 1..) if images <= max => Ok(images),
            Ok(1..) => Err(OipError::new(
                ErrorKind::TooLarge,
                "too_many_images",
                format!("the request has {found} images, at most {max} are allowed; send several requests"),
            )),
            Ok(_) | Err(_) => Err(OipError::invalid(format!("the batch is {found}; send 1 to {max} images"))),
        }
    }

    async fn run_tensor(
        &self,
        engine: &Handle,
        input: Tensor,
        top_k: usize,
        deadline: Instant,
    ) -> Result<Vec<Row>, OipError> {
        let expected = describe::graph_input(engine);
        let (wanted, found) = (&expected.shape[1..], input.shape.get(1..));
        if found != Some(wanted) {
            return Err(OipError::invalid(format!(
                "input {:?} has shape {:?}, expected {:?}; the first dimension is the batch",
                input.name, input.shape, expected.shape
            )));
        }
        let images = self.images(input.shape[0])?;
        let sample = engine.spec().sample_shape.len() * engine.contract().signature.input.element.bytes();
        let all = images.saturating_mul(sample);
        if input.raw.len() != all {
            return Err(OipError::invalid(format!(
                "input {:?} has {} bytes; shape {:?} of {} is {all} bytes",
                input.name,
                input.raw.len(),
                input.shape,
                input.datatype.name()
            )));
        }
        // Places first: overload is answered before anything is computed.
        let places = engine.reserve(images)?;
        let samples = self.samples(engine, input.raw, sample, deadline).await?;
        let asked = places.into_iter().zip(samples).enumerate().map(|(index, (place, sample))| async move {
            let row = engine.infer(place, sample, top_k, deadline).await;
            row.map_err(|error| OipError::of_tensor(&error).of_image(index, images))
        });
        try_join_all(asked).await
    }

    /// Reads a tensor into samples, in the pool where it is large.
    async fn samples(
        &self,
        engine: &Handle,
        raw: Bytes,
        sample: usize,
        deadline: Instant,
    ) -> Result<Vec<Sample>, OipError> {
        let read = move |engine: &Handle, raw: &[u8]| -> Result<Vec<Sample>, OipError> {
            let images = raw.len() / sample;
            let each = |(index, image)| {
                let read = engine.sample(image);
                read.map_err(|error| OipError::invalid(error.to_string()).of_image(index, images))
            };
            raw.chunks_exact(sample).enumerate().map(each).collect()
        };
        if raw.len() <= INLINE_BYTES_MAX {
            return read(engine, &raw);
        }
        let engine = engine.clone();
        let read = self.pool.run(deadline, move || read(&engine, &raw)).await;
        read.map_err(|error| OipError::of_run(&error))?
    }

    async fn run_photos(
        &self,
        engine: &Handle,
        input: Tensor,
        top_k: usize,
        deadline: Instant,
    ) -> Result<Vec<Row>, OipError> {
        let ([batch] | [batch, 1]) = input.shape[..] else {
            return Err(OipError::invalid(format!(
                "input {IMAGE_INPUT:?} has shape {:?}, expected [N] or [N,1]: one encoded photo an element",
                input.shape
            )));
        };
        let images = self.images(batch)?;
        let photos = split_bytes(&input.raw, images)?;
        let places = engine.reserve(images)?;
        let asked = places.into_iter().zip(photos).enumerate().map(|(index, (place, photo))| async move {
            let row = engine.row(place, photo, RowOf::Probabilities, top_k, deadline).await;
            row.map_err(|error| OipError::of_run(&error).of_image(index, images))
        });
        try_join_all(asked).await
    }
}

/// Parameters of a request that mean something here. The others come back, so that a client finds what it sent.
fn is_known(name: &str) -> bool {
    ["timeout", "binary_data_output", "priority", "headers"].contains(&name)
}

/// Parameters that say how one tensor travels.
pub(super) fn is_of_the_wire(name: &str) -> bool {
    ["binary_data", "binary_data_size", "classification"].contains(&name)
}

impl Tensor {
    /// A tensor of texts.
    pub(super) fn of_texts<T: AsRef<[u8]>>(
        name: &str,
        shape: Vec<i64>,
        texts: impl IntoIterator<Item = T>,
    ) -> Result<Self, OipError> {
        let mut raw = bytes::BytesMut::new();
        for text in texts {
            super::tensor::push_bytes(&mut raw, text.as_ref())?;
        }
        Ok(Self { name: name.to_owned(), datatype: Datatype::Bytes, shape, raw: raw.freeze() })
    }
}
