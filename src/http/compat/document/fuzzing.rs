//! The one-pass reader of images in JSON, beside a slow one that walks a tree of values.

use std::sync::Arc;

use serde_json::Value;

use super::{Document, Key};
use crate::edge::UploadMemory;
use crate::http::asking::Item;
use crate::http::fuzzing::base64_by_hand;
use crate::models::{Handle, fakes};
use crate::pipeline::PreparePool;
use crate::pipeline::decode::DecodeOptions;
use crate::pipeline::decode::budget::MemoryBudget;
use crate::pipeline::infer::{Element, TensorLayout};

const ITEMS_MAX: usize = 4;
/// The keys of KServe v1, Hugging Face, Vertex AI, SageMaker and TorchServe.
const KEYS: [&[Key]; 5] = [
    &[Key::Instances, Key::Inputs],
    &[Key::Inputs],
    &[Key::Instances],
    &[Key::Inputs, Key::Instances, Key::Image, Key::Images],
    &[Key::Data, Key::Instances],
];

thread_local! {
    static ENGINES: [Handle; 2] = {
        let pool = PreparePool::new(1, Arc::new(MemoryBudget::new(1 << 20)), DecodeOptions::default());
        [(Element::F32, TensorLayout::Nchw), (Element::U8, TensorLayout::Nhwc)]
            .map(|(element, layout)| fakes::handle(element, layout, pool.clone()))
    };
}

/// Reads `data` behind its first byte as a JSON body; the digit in front chooses the API and the model. What comes out
/// stands in the tree, in its order, and is charged for. True for such a body.
pub fn items(data: &[u8]) -> bool {
    let Some((&choice, body)) = data.split_first() else { return false };
    let choice = usize::from(choice);
    let keys = KEYS[choice % KEYS.len()];
    ENGINES.with(|engines| {
        let engine = &engines[choice / KEYS.len() % engines.len()];
        let memory = UploadMemory::new(1 << 20);
        let mut share = memory.share();
        let document = Document::parse(engine, body, keys, ITEMS_MAX, &mut share);
        let taken = document.is_ok();
        if let Ok(document) = document {
            assert!((1..=ITEMS_MAX).contains(&document.items.len()));
            let held: usize = document.items.iter().map(bytes_of).sum();
            assert!(share.bytes() >= (body.len() + held) as u64, "{} charged, {held} held", share.bytes());
            same_as_in_a_tree(body, &document);
        }
        drop(share);
        assert_eq!(memory.held_bytes(), 0);
        taken
    })
}

fn bytes_of(item: &Item) -> usize {
    match item {
        Item::Photo(photo) => photo.len(),
        Item::Tensor(sample) => size_of_val(sample.values()),
    }
}

/// A tree drops all but the last of several members of one name, and numbers that no f64 holds; such bodies are skipped.
fn same_as_in_a_tree(body: &[u8], document: &Document) {
    let Ok(tree) = serde_json::from_slice::<Value>(body) else {
        let ignored = serde_json::from_slice::<serde::de::IgnoredAny>(body);
        assert!(ignored.is_ok(), "what is no JSON was taken: {:?}", ignored.err());
        return;
    };
    let names: &[&str] = match document.key {
        Key::Instances => &["instances"],
        Key::Inputs => &["inputs"],
        Key::Data => &["data", "body"],
        Key::Image => &["image"],
        Key::Images => &["images"],
    };
    let members = tree.as_object().expect("an object was taken");
    let under = names.iter().find_map(|name| members.get(*name)).expect("items stand under their key");
    let (mut texts, mut numbers) = (Vec::new(), Vec::new());
    leaves(under, &mut texts, &mut numbers);
    let mut texts = texts.into_iter();
    let mut seen = 0;
    for item in &document.items {
        match item {
            // Between two photos there may be texts that are none: members with other names.
            Item::Photo(photo) => {
                let found = texts.any(|text| base64_by_hand(text) == photo[..]);
                assert!(found || repeats_a_name(body), "a photo that is not in the tree");
            }
            Item::Tensor(sample) => seen += sample.values().len(),
        }
    }
    assert!(seen <= numbers.len() || repeats_a_name(body), "{seen} numbers out of {}", numbers.len());
    if let [Item::Tensor(sample)] = &document.items[..]
        && numbers.len() == seen
    {
        // Two layouts: the same values in another order.
        let sorted = |mut values: Vec<f32>| {
            values.sort_by(f32::total_cmp);
            values
        };
        let read = sorted(sample.values().to_vec());
        #[expect(clippy::cast_possible_truncation, reason = "samples are f32")]
        let told = sorted(numbers.iter().map(|&number| number as f32).collect());
        assert!(read.iter().zip(&told).all(|(read, told)| read == told), "{read:?} {told:?}");
    }
}

/// Texts and numbers in the order of the document: serde_json's maps are sorted, so only where each has one member.
fn leaves<'v>(value: &'v Value, texts: &mut Vec<&'v str>, numbers: &mut Vec<f64>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Number(number) => numbers.extend(number.as_f64()),
        Value::Array(values) => values.iter().for_each(|value| leaves(value, texts, numbers)),
        Value::Object(members) => members.values().for_each(|value| leaves(value, texts, numbers)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Some member's name stands in the body more than once inside one object.
fn repeats_a_name(body: &[u8]) -> bool {
    struct Names(bool);
    impl<'de> serde::de::DeserializeSeed<'de> for &mut Names {
        type Value = ();
        fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_any(self)
        }
    }
    impl<'de> serde::de::Visitor<'de> for &mut Names {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("any value")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let mut names = std::collections::BTreeSet::new();
            while let Some(name) = map.next_key::<String>()? {
                self.0 |= !names.insert(name);
                map.next_value_seed(&mut *self)?;
            }
            Ok(())
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
            while list.next_element_seed(&mut *self)?.is_some() {}
            Ok(())
        }
        fn visit_bool<E>(self, _: bool) -> Result<(), E> {
            Ok(())
        }
        fn visit_i64<E>(self, _: i64) -> Result<(), E> {
            Ok(())
        }
        fn visit_u64<E>(self, _: u64) -> Result<(), E> {
            Ok(())
        }
        fn visit_f64<E>(self, _: f64) -> Result<(), E> {
            Ok(())
        }
        fn visit_str<E>(self, _: &str) -> Result<(), E> {
            Ok(())
        }
        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
    }
    let mut names = Names(false);
    let mut parser = serde_json::Deserializer::from_slice(body);
    let parsed = serde::de::DeserializeSeed::deserialize(&mut names, &mut parser);
    parsed.is_err() || names.0
}
