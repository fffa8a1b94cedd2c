//! The JSON of a request, and numbers in JSON -> the bytes of a tensor, without a tree of values between.

use axum::body::Bytes;
use half::{bf16, f16};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::bounded;
use crate::oip::{Datatype, OipError, Parameters};

/// A request's JSON. Members that the protocol does not have are left alone: KServe's client sends some.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "V2InferRequest")]
pub(super) struct Document<'a> {
    /// Comes back in the answer.
    pub(super) id: Option<String>,
    /// Of the whole request.
    #[serde(default, deserialize_with = "bounded::map")]
    pub(super) parameters: Parameters,
    /// What goes in.
    #[serde(borrow, deserialize_with = "bounded::list")]
    pub(super) inputs: Vec<Input<'a>>,
    /// What is wanted.
    #[serde(default, deserialize_with = "bounded::list")]
    pub(super) outputs: Vec<Output>,
}

/// One input.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "V2InputTensor")]
pub(super) struct Input<'a> {
    /// As the model's metadata has it.
    pub(super) name: String,
    /// With the batch dimension.
    #[serde(deserialize_with = "bounded::list")]
    pub(super) shape: Vec<i64>,
    /// Of its elements.
    #[schemars(with = "Datatype")]
    pub(super) datatype: String,
    /// `binary_data_size`: bytes of this input behind the JSON.
    #[serde(default, deserialize_with = "bounded::map")]
    pub(super) parameters: Parameters,
    /// The values, flat or nested, if they are not behind the JSON.
    #[serde(borrow)]
    #[schemars(with = "Option<serde_json::Value>")]
    pub(super) data: Option<&'a RawValue>,
}

/// One output that is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "V2RequestedOutput")]
pub(super) struct Output {
    /// As the model's metadata has it.
    pub(super) name: String,
    /// `binary_data`: behind the JSON instead of inside. `classification`: so many best classes instead of all values.
    #[serde(default, deserialize_with = "bounded::map")]
    pub(super) parameters: Parameters,
}

/// Reads `data` as `count` values of `datatype`, into little-endian bytes.
///
/// # Errors
/// [`OipError`] if a value is none of that type, or there are more or fewer.
pub(super) fn values(data: &RawValue, datatype: Datatype, count: usize) -> Result<Bytes, OipError> {
    // As many as were charged: `count` is what a client claims, and a value in JSON has two bytes at least.
    let room = datatype.bytes().map_or(0, |bytes| count.min(data.get().len() / 2 + 1) * bytes);
    let mut values = Values { datatype, count, found: 0, raw: Vec::with_capacity(room) };
    let mut deserializer = serde_json::Deserializer::from_str(data.get());
    Value(&mut values)
        .deserialize(&mut deserializer)
        .map_err(|error| OipError::invalid(format!("data of {}: {error}", datatype.name())))?;
    if values.found != count {
        return Err(OipError::invalid(format!("data has {} value(s), the shape says {count}", values.found)));
    }
    Ok(values.raw.into())
}

/// The values so far.
struct Values {
    datatype: Datatype,
    count: usize,
    found: usize,
    raw: Vec<u8>,
}

impl Values {
    fn push<E: serde::de::Error>(&mut self, bytes: &[u8]) -> Result<(), E> {
        if self.found == self.count {
            return Err(E::custom(format_args!("more than {} value(s), which is what the shape says", self.count)));
        }
        self.found += 1;
        self.raw.extend_from_slice(bytes);
        Ok(())
    }

    fn whole<E: serde::de::Error>(&mut self, value: i128) -> Result<(), E> {
        fn fit<T: TryFrom<i128>, E: serde::de::Error>(value: i128, datatype: Datatype) -> Result<T, E> {
            T::try_from(value).map_err(|_| E::custom(format_args!("{value} does not fit {}", datatype.name())))
        }
        let datatype = self.datatype;
        match datatype {
            Datatype::Uint8 => self.push(&fit::<u8, E>(value, datatype)?.to_le_bytes()),
            Datatype::Uint16 => self.push(&fit::<u16, E>(value, datatype)?.to_le_bytes()),
            Datatype::Uint32 => self.push(&fit::<u32, E>(value, datatype)?.to_le_bytes()),
            Datatype::Uint64 => self.push(&fit::<u64, E>(value, datatype)?.to_le_bytes()),
            Datatype::Int8 => self.push(&fit::<i8, E>(value, datatype)?.to_le_bytes()),
            Datatype::Int16 => self.push(&fit::<i16, E>(value, datatype)?.to_le_bytes()),
            Datatype::Int32 => self.push(&fit::<i32, E>(value, datatype)?.to_le_bytes()),
            Datatype::Int64 => self.push(&fit::<i64, E>(value, datatype)?.to_le_bytes()),
            #[expect(clippy::cast_precision_loss, reason = "as every JSON reader rounds a number to a float")]
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => self.float(value as f64),
            Datatype::Bool => match value {
                0 | 1 => self.push(&[u8::from(value == 1)]),
                _ => Err(E::custom(format_args!("{value} is neither true nor false"))),
            },
            Datatype::Bytes => Err(E::custom("a number where a text was expected")),
        }
    }

    fn float<E: serde::de::Error>(&mut self, value: f64) -> Result<(), E> {
        #[expect(clippy::cast_possible_truncation, reason = "the client chose the type")]
        match self.datatype {
            Datatype::Fp16 => self.push(&f16::from_f64(value).to_le_bytes()),
            Datatype::Bf16 => self.push(&bf16::from_f64(value).to_le_bytes()),
            Datatype::Fp32 => self.push(&(value as f32).to_le_bytes()),
            Datatype::Fp64 => self.push(&value.to_le_bytes()),
            _ => Err(E::custom(format_args!("{value} is not a whole number"))),
        }
    }

    fn text<E: serde::de::Error>(&mut self, text: &str) -> Result<(), E> {
        if self.datatype != Datatype::Bytes {
            return Err(E::custom("a text where a number was expected"));
        }
        let len = u32::try_from(text.len()).map_err(|_| E::custom("a text of more than 4 GiB"))?;
        self.push(&len.to_le_bytes())?;
        self.raw.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// One value, or a list of values and lists.
struct Value<'a>(&'a mut Values);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a {} or a list of them", self.0.datatype.name())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Value(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        if self.0.datatype == Datatype::Bool {
            self.0.push(&[u8::from(value)])
        } else {
            Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self))
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.0.whole(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.0.whole(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.0.float(value)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.0.text(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str, datatype: Datatype, count: usize) -> Result<Bytes, OipError> {
        values(serde_json::from_str(json).unwrap(), datatype, count)
    }

    #[test]
    fn nested_and_flat_lists_are_the_same_values() {
        let expected: Vec<u8> = [1.0f32, -2.5, 3.0, 4.0].into_iter().flat_map(f32::to_le_bytes).collect();
        for json in ["[1,-2.5,3,4.0]", "[[1,-2.5],[3,4.0]]", "[[[1]],[[-2.5]],[3,[4.0]]]"] {
            assert_eq!(read(json, Datatype::Fp32, 4).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn every_type_is_written_as_its_bytes() {
        for (datatype, json, bytes) in [
            (Datatype::Bool, "[true,false,1]", &[1, 0, 1][..]),
            (Datatype::Uint8, "[0,255]", &[0, 255]),
            (Datatype::Int8, "[-128,127]", &[0x80, 0x7f]),
            (Datatype::Uint16, "[65535]", &[0xff, 0xff]),
            (Datatype::Int16, "[-2]", &[0xfe, 0xff]),
            (Datatype::Uint32, "[1]", &[1, 0, 0, 0]),
            (Datatype::Int32, "[-1]", &[255; 4]),
            (Datatype::Uint64, "[18446744073709551615]", &[255; 8]),
            (Datatype::Int64, "[-1]", &[255; 8]),
            (Datatype::Fp16, "[1]", &[0, 0x3c]),
            (Datatype::Bf16, "[1]", &[0x80, 0x3f]),
            (Datatype::Fp64, "[0.5]", &[0, 0, 0, 0, 0, 0, 0xe0, 0x3f]),
            (Datatype::Bytes, "[\"ab\"]", b"\x02\0\0\0ab"),
        ] {
            let count = json.matches(',').count() + 1;
            assert_eq!(read(json, datatype, count).unwrap(), bytes, "{}", datatype.name());
        }
    }

    #[test]
    fn a_value_of_another_type_and_a_wrong_number_are_told() {
        for (json, datatype, count, says) in [
            ("[256]", Datatype::Uint8, 1, "256 does not fit UINT8"),
            ("[-1]", Datatype::Uint8, 1, "-1 does not fit UINT8"),
            ("[1.5]", Datatype::Int32, 1, "1.5 is not a whole number"),
            ("[\"x\"]", Datatype::Fp32, 1, "a text where a number was expected"),
            ("[1]", Datatype::Bytes, 1, "a number where a text was expected"),
            ("[true]", Datatype::Fp32, 1, "boolean"),
            ("[null]", Datatype::Fp32, 1, "null"),
            ("[{}]", Datatype::Fp32, 1, "map"),
            ("[1,2,3]", Datatype::Fp32, 2, "more than 2"),
            ("[1]", Datatype::Fp32, 2, "has 1 value(s), the shape says 2"),
            ("[2]", Datatype::Bool, 1, "neither true nor false"),
        ] {
            let message = read(json, datatype, count).unwrap_err().message;
            assert!(message.contains(says), "{json}: {message}");
        }
    }

    proptest! {
        #[test]
        fn numbers_survive_the_way_through_json(numbers in prop::collection::vec(any::<i32>(), 1..50)) {
            let json = serde_json::to_string(&numbers).unwrap();
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            prop_assert_eq!(read(&json, Datatype::Int32, numbers.len()).unwrap(), bytes);
        }
    }
}
