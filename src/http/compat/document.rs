//! A JSON body of one of the compat APIs: under which name its items stand, and its parameters.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;

use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::items::{Place, Reader, Value, Was};
use crate::edge::UploadShare;
use crate::http::App;
use crate::http::asking::Item;
use crate::http::error::{Problem, ProblemKind};
use crate::http::forms;
use crate::models::Handle;
use crate::pipeline::Engine;
use crate::pipeline::infer::Activation;

/// The name under which items stand; it says how they are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// TensorFlow Serving's rows.
    Instances,
    /// TensorFlow Serving's columns, Hugging Face's image.
    Inputs,
    /// TorchServe's image.
    Data,
    /// The native API's image,
    Image,
    /// and its images.
    Images,
}

impl Key {
    fn of(name: &str) -> Option<Self> {
        match name {
            "instances" => Some(Self::Instances),
            "inputs" => Some(Self::Inputs),
            "data" | "body" => Some(Self::Data),
            "image" => Some(Self::Image),
            "images" => Some(Self::Images),
            _ => None,
        }
    }

    fn place(self) -> Place {
        match self {
            Self::Instances | Self::Images => Place::List,
            Self::Inputs | Self::Data | Self::Image => Place::Column,
        }
    }
}

/// What stands beside the items. Members that are not known here are passed over, as these APIs do.
#[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Parameters {
    /// Classes in the answer.
    #[serde(deserialize_with = "whole")]
    pub top_k: Option<u32>,
    /// Hugging Face: what is done to the values of the output.
    pub function_to_apply: Option<Activation>,
    /// Vertex AI: classes in the answer, at most.
    #[serde(rename = "maxPredictions", deserialize_with = "whole")]
    pub max_predictions: Option<u32>,
    /// Vertex AI: classes below it are left out.
    #[serde(rename = "confidenceThreshold")]
    pub confidence_threshold: Option<f32>,
}

/// A number of classes. Vertex AI carries parameters as floats, and some clients write them so.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let told = Option::<serde_json::Number>::deserialize(deserializer)
        .map_err(|error| D::Error::custom(format_args!("top_k or maxPredictions: {error}")))?;
    let Some(told) = told else { return Ok(None) };
    let number = told.as_f64().unwrap_or(f64::NAN);
    if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and within the bounds")]
        return Ok(Some(number as u32));
    }
    Err(D::Error::custom(format_args!("top_k or maxPredictions is {told}; it is a whole number of classes")))
}

/// A body, taken apart.
#[derive(Debug)]
pub(super) struct Document {
    /// Where the items stood.
    pub key: Key,
    /// They are one that stood by itself, not in a list.
    pub one: bool,
    /// They stood in objects, `{"b64": ...}` or under the name of an input, as TensorFlow Serving has them.
    pub named: bool,
    /// The items.
    pub items: Vec<Item>,
    /// What stood beside them.
    pub parameters: Parameters,
}

impl Document {
    /// Reads `body` in the pool that prepares images. `keys` are those that this API has. The share comes back grown by what
    /// the items hold.
    pub(super) async fn read(
        app: &App,
        engine: &Handle,
        body: Bytes,
        keys: &'static [Key],
        mut share: UploadShare,
        deadline: Instant,
    ) -> Result<(Self, UploadShare), Problem> {
        let (engine, items_max) = (engine.clone(), app.limits.request_images_max);
        let (document, share) = app
            .pool
            .run(deadline, move || {
                let document = Self::parse(&engine, &body, keys, items_max, &mut share);
                (document, share)
            })
            .await?;
        Ok((document?, share))
    }

    fn parse(
        engine: &Engine,
        body: &[u8],
        keys: &'static [Key],
        items_max: usize,
        share: &mut UploadShare,
    ) -> Result<Self, Problem> {
        let bad = |error: &dyn fmt::Display| {
            Problem::new(
                ProblemKind::BadJson,
                format!("the body is not the JSON that is expected: {error}; {}", example(keys)),
            )
        };
        // What a photo's text holds while it is taken apart: JSON's escapes and line breaks are taken out of a copy.
        share.grow(body.len() as u64)?;
        let mut reader = Reader::new(engine, items_max, share);
        let mut top = Top { reader: &mut reader, keys, found: None, parameters: Parameters::default() };
        let mut parser = serde_json::Deserializer::from_slice(body);
        let parsed = parser.deserialize_map(&mut top).and_then(|()| parser.end()).map_err(|error| bad(&error));
        let (found, parameters) = (top.found, top.parameters);
        let named = reader.has_objects();
        let items = reader.finish(parsed)?;
        let Some((key, was)) = found else { return Err(bad(&"it has no image")) };
        if items.is_empty() {
            return Err(bad(&"the list of images is empty"));
        }
        Ok(Self { key, one: was == Was::One, named, items, parameters })
    }
}

/// What this API's body looks like.
fn example(keys: &[Key]) -> &'static str {
    match keys {
        [Key::Instances, Key::Inputs] => "send {\"instances\": [{\"b64\": \"<base64>\"}]}",
        [Key::Instances] => "send {\"instances\": [{\"b64\": \"<base64>\"}], \"parameters\": {}}",
        [Key::Inputs] => "send {\"inputs\": \"<base64>\", \"parameters\": {}}",
        [Key::Data, ..] => "send {\"data\": \"<base64>\"}",
        _ => "send {\"inputs\": \"<base64>\"}, {\"instances\": [{\"b64\": \"<base64>\"}]} or {\"image\": \"<base64>\"}",
    }
}

/// The outermost object.
struct Top<'r, 'a> {
    reader: &'r mut Reader<'a>,
    keys: &'static [Key],
    found: Option<(Key, Was)>,
    parameters: Parameters,
}

impl<'de> Visitor<'de> for &mut Top<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            match Key::of(&name).filter(|key| self.keys.contains(key)) {
                Some(key) => {
                    if self.found.is_some() {
                        return Err(A::Error::custom(format_args!("images stand under {name:?} and before it")));
                    }
                    let was = map.next_value_seed(Value { reader: &mut *self.reader, place: key.place() })?;
                    self.found = Some((key, was));
                }
                None => match name.as_str() {
                    "parameters" => self.parameters = map.next_value::<Option<Parameters>>()?.unwrap_or_default(),
                    "signature_name" => self.signature(&map.next_value::<String>()?)?,
                    _ => drop(map.next_value::<IgnoredAny>()?),
                },
            }
        }
        Ok(())
    }
}

impl Top<'_, '_> {
    /// TensorFlow Serving's name for a way of calling a model: there is one, under the name that all exports have.
    fn signature<E: serde::de::Error>(&mut self, name: &str) -> Result<(), E> {
        if ["", SIGNATURE].contains(&name) {
            return Ok(());
        }
        let detail = format!("there is no signature {name:?}; this model has {SIGNATURE:?}");
        Err(self.reader.fail(Problem::new(ProblemKind::BadParameter, detail)))
    }
}

/// The one signature of every model.
pub(super) const SIGNATURE: &str = "serving_default";

/// What a body is, by its bytes: content types are often wrong or missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looks {
    /// An image, or nothing that is known.
    Raw,
    /// JSON.
    Json,
}

impl Looks {
    pub(super) fn of(body: &[u8]) -> Self {
        let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
        let is_json = matches!(first, Some(b'{' | b'[' | b'"')) && !forms::looks_like_an_image(body);
        if is_json { Self::Json } else { Self::Raw }
    }
}
