//! Tensors as the wires carry them: a name, a type, a shape, and the values row-major and little-endian.

use bytes::{BufMut as _, Bytes, BytesMut};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OipError;
use crate::pipeline::infer::Element;

/// Types of elements, by the protocol's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "each name says its kind and its bits")]
pub enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    /// Strings of bytes, each with its length in 4 bytes before it.
    Bytes,
}

impl Datatype {
    const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// The protocol's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// The type of this name.
    ///
    /// # Errors
    /// [`OipError`] that lists the names.
    pub fn named(name: &str) -> Result<Self, OipError> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|datatype| datatype.name()).collect();
            OipError::invalid(format!("there is no datatype {name:?}; there are {}", names.join(", ")))
        })
    }

    /// The name in a model's configuration: `TYPE_FP32`.
    #[must_use]
    pub fn config_name(self) -> &'static str {
        match self {
            Self::Bool => "TYPE_BOOL",
            Self::Uint8 => "TYPE_UINT8",
            Self::Uint16 => "TYPE_UINT16",
            Self::Uint32 => "TYPE_UINT32",
            Self::Uint64 => "TYPE_UINT64",
            Self::Int8 => "TYPE_INT8",
            Self::Int16 => "TYPE_INT16",
            Self::Int32 => "TYPE_INT32",
            Self::Int64 => "TYPE_INT64",
            Self::Fp16 => "TYPE_FP16",
            Self::Bf16 => "TYPE_BF16",
            Self::Fp32 => "TYPE_FP32",
            Self::Fp64 => "TYPE_FP64",
            Self::Bytes => "TYPE_STRING",
        }
    }

    /// Bytes of one element; none for [`Datatype::Bytes`], whose elements say so themselves.
    #[must_use]
    pub fn bytes(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl From<Element> for Datatype {
    fn from(element: Element) -> Self {
        match element {
            Element::U8 => Self::Uint8,
            Element::F16 => Self::Fp16,
            Element::Bf16 => Self::Bf16,
            Element::F32 => Self::Fp32,
            Element::F64 => Self::Fp64,
        }
    }
}

/// One tensor of a request or an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub datatype: Datatype,
    /// Its dimensions. A client may claim anything.
    pub shape: Vec<i64>,
    /// Its elements, row-major, little-endian; of [`Datatype::Bytes`] each with its length before it.
    pub raw: Bytes,
}

/// Appends one element of [`Datatype::Bytes`].
///
/// # Errors
/// [`OipError`] if it is longer than its length can say.
pub fn push_bytes(target: &mut BytesMut, element: &[u8]) -> Result<(), OipError> {
    let len = u32::try_from(element.len()).map_err(|_| {
        OipError::invalid(format!("an element has {} bytes, at most 4294967295 are allowed", element.len()))
    })?;
    target.reserve(4 + element.len());
    target.put_u32_le(len);
    target.put_slice(element);
    Ok(())
}

/// The elements of a tensor of [`Datatype::Bytes`], which must be `count`. They share the memory of `raw`.
///
/// # Errors
/// [`OipError`] if a length points past the end, or there are more or fewer elements.
pub fn split_bytes(raw: &Bytes, count: usize) -> Result<Vec<Bytes>, OipError> {
    // `count` is bounded by its caller; the bytes say how many there can be.
    let mut elements = Vec::with_capacity(count.min(raw.len() / 4));
    let mut rest = raw.clone();
    while !rest.is_empty() {
        let found = elements.len();
        if found == count {
            return Err(OipError::invalid(format!(
                "after {count} element(s), as the shape says, {} bytes are left",
                rest.len()
            )));
        }
        let Some(head) = rest.first_chunk::<4>() else {
            return Err(OipError::invalid(format!(
                "element {found} has no length: {} of its 4 bytes are there",
                rest.len()
            )));
        };
        let len = u32::from_le_bytes(*head) as usize;
        let _head = rest.split_to(4);
        if len > rest.len() {
            return Err(OipError::invalid(format!("element {found} claims {len} bytes, {} are left", rest.len())));
        }
        elements.push(rest.split_to(len));
    }
    if elements.len() == count {
        Ok(elements)
    } else {
        Err(OipError::invalid(format!("there are {} element(s), the shape says {count}", elements.len())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_those_that_serde_writes() {
        for datatype in Datatype::ALL {
            assert_eq!(serde_json::to_value(datatype).unwrap(), datatype.name());
            assert_eq!(Datatype::named(datatype.name()), Ok(datatype));
        }
        assert!(Datatype::named("FLOAT").unwrap_err().message.contains("FP32"));
    }

    #[test]
    fn elements_that_lie_about_their_length_are_refused() {
        let mut raw = BytesMut::new();
        push_bytes(&mut raw, b"photo").unwrap();
        let raw = raw.freeze();
        assert_eq!(split_bytes(&raw, 1).unwrap(), [Bytes::from_static(b"photo")]);
        for (bytes, count, says) in [
            (raw.slice(..8), 1, "claims 5 bytes, 4 are left"),
            (raw.slice(..3), 1, "has no length"),
            (raw.clone(), 2, "the shape says 2"),
            (raw.clone(), 0, "bytes are left"),
            (Bytes::from_static(&[255; 4]), 1, "claims 4294967295"),
            (Bytes::new(), 1, "there are 0"),
        ] {
            let message = split_bytes(&bytes, count).unwrap_err().message;
            assert!(message.contains(says), "{message}");
        }
    }

    proptest! {
        #[test]
        fn elements_come_back_as_they_were(elements in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..8)) {
            let mut raw = BytesMut::new();
            for element in &elements {
                push_bytes(&mut raw, element).unwrap();
            }
            prop_assert_eq!(split_bytes(&raw.freeze(), elements.len()).unwrap(), elements);
        }

        #[test]
        fn any_bytes_are_elements_or_an_error(raw in prop::collection::vec(any::<u8>(), 0..64), count in 0usize..8) {
            let _ = split_bytes(&raw.into(), count);
        }
    }
}
