//! Any bytes are a body of the Open Inference Protocol or an error, and every value of its JSON becomes its bytes.

use std::sync::Arc;

use axum::body::Bytes;
use serde_json::Value;

use super::body::{JsonPart, Packed};
use super::encoding::Encoding;
use crate::edge::UploadMemory;
use crate::models::fakes;
use crate::oip::tensor::split_bytes;
use crate::oip::{Datatype, Face, Tensor};
use crate::pipeline::PreparePool;
use crate::pipeline::decode::DecodeOptions;
use crate::pipeline::decode::budget::MemoryBudget;
use crate::pipeline::infer::{Element, TensorLayout};

const BODY_BYTES_MAX: u64 = 256 << 10;
const UPLOAD_BYTES_MAX: u64 = 4 << 20;

thread_local! {
    static FACES: [Face; 2] = {
        let pool = PreparePool::new(1, Arc::new(MemoryBudget::new(1 << 20)), DecodeOptions::default());
        let engine = fakes::handle(Element::F32, TensorLayout::Nchw, pool);
        [Face::Tensor(engine.clone()), Face::Image(engine)]
    };
}

/// Reads the first line of `data` as the face, the encoding and the number of bytes of JSON (`image gzip 12`, `tensor -
/// all`), and the rest as the body. What comes out was charged for, and no more than may come out; of JSON alone, every
/// tensor holds the values that a tree of the same JSON has. True for such a
/// body.
pub fn tensors(data: &[u8]) -> bool {
    let Some(at) = data.iter().position(|&byte| byte == b'\n') else { return false };
    let mut words = data[..at].split(|&byte| byte == b' ');
    let face = usize::from(words.next() == Some(b"image"));
    let encoding = match words.next() {
        Some(b"gzip") => Some(Encoding::Gzip),
        Some(b"deflate") => Some(Encoding::Deflate),
        _ => None,
    };
    let told = words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
    let json = told.map_or(JsonPart::All, JsonPart::Bytes);
    let bytes = Bytes::copy_from_slice(&data[at + 1..]);
    let memory = UploadMemory::new(UPLOAD_BYTES_MAX);
    let mut share = memory.share();
    let packed = Packed { bytes: bytes.clone(), encoding, json, body_bytes_max: BODY_BYTES_MAX };
    let unpacked = FACES.with(|faces| packed.unpack("model".to_owned(), None, &faces[face], &mut share));
    let taken = unpacked.is_ok();
    if let Ok(unpacked) = unpacked {
        let inputs = &unpacked.request.inputs;
        let held: usize = inputs.iter().map(|input| input.raw.len()).sum();
        // Raw values are views of a body whose charge is its reader's, unless they were unpacked or read from JSON.
        assert!(held as u64 <= share.bytes() + bytes.len() as u64 + 4, "{} charged, {held} held", share.bytes());
        if (encoding, json) == (None, JsonPart::All) {
            let tree = serde_json::from_slice::<Value>(&bytes).ok();
            let told = tree.as_ref().and_then(|tree| tree["inputs"].as_array());
            for (told, input) in told.into_iter().flatten().zip(inputs) {
                // A tree of a body with two members of one name keeps the other one.
                let mut values = Vec::new();
                flat(&told["data"], &mut values);
                same(&values, input, face == 1);
            }
        }
        for input in inputs {
            let count = input.shape.iter().try_fold(1_usize, |all, &side| all.checked_mul(usize::try_from(side).ok()?));
            if let (Datatype::Bytes, Some(count)) = (input.datatype, count)
                && let Ok(elements) = split_bytes(&input.raw, count)
            {
                assert_eq!(elements.len(), count);
                assert_eq!(elements.iter().map(|element| 4 + element.len()).sum::<usize>(), input.raw.len());
            }
        }
    }
    drop(share);
    assert_eq!(memory.held_bytes(), 0);
    taken
}

fn flat<'v>(value: &'v Value, values: &mut Vec<&'v Value>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| flat(value, values)),
        one => values.push(one),
    }
}

/// Floats, integers and truths have one size each, so that their number and each of them can be compared.
fn same(values: &[&Value], input: &Tensor, photos: bool) {
    let Some(bytes) = input.datatype.bytes() else {
        let texts = split_bytes(&input.raw, values.len());
        let texts = texts.expect("as many texts as the tree has");
        for (text, value) in texts.iter().zip(values) {
            assert!(photos || value.as_str().map(str::as_bytes) == Some(&text[..]), "{value} became {text:?}");
        }
        return;
    };
    assert_eq!(input.raw.len(), values.len() * bytes, "{} {:?}", input.datatype.name(), input.shape);
    for (raw, value) in input.raw.chunks_exact(bytes).zip(values) {
        let told = match *value {
            Value::Bool(truth) => f64::from(u8::from(*truth)),
            number => number.as_f64().expect("a number was taken"),
        };
        let read = match (input.datatype, raw) {
            (Datatype::Fp32, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
            (Datatype::Fp64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
            (Datatype::Uint8 | Datatype::Bool, &[byte]) => f64::from(byte),
            (Datatype::Int8, &[byte]) => f64::from(byte.cast_signed()),
            (Datatype::Int16, &[a, b]) => f64::from(i16::from_le_bytes([a, b])),
            (Datatype::Int32, &[a, b, c, d]) => f64::from(i32::from_le_bytes([a, b, c, d])),
            (Datatype::Uint16, &[a, b]) => f64::from(u16::from_le_bytes([a, b])),
            (Datatype::Uint32, &[a, b, c, d]) => f64::from(u32::from_le_bytes([a, b, c, d])),
            _ => continue,
        };
        #[expect(clippy::cast_possible_truncation, reason = "the client chose the type")]
        let told = if input.datatype == Datatype::Fp32 { f64::from(told as f32) } else { told };
        assert_eq!(read.to_bits(), told.to_bits(), "{value} became {read}");
    }
}
