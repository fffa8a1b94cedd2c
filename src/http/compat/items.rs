//! Images and tensors inside JSON, wherever the compat APIs put them: read in one pass and without a tree of values, so
//! that a body of millions of numbers costs no more than what they say.
//!
//! An item is base64 by itself, `{"b64": base64}`, an object with one member of either kind beside others that are passed
//! over, or nested lists with the numbers of the graph's own input for one image.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};

use crate::edge::UploadShare;
use crate::http::asking::Item;
use crate::http::error::{Problem, ProblemKind};
use crate::http::forms;
use crate::pipeline::infer::{Element, TensorLayout};
use crate::pipeline::{Engine, SampleShape};

/// Members of an object that hold an image, beside the name of the graph's input and whatever holds `{"b64"}`: what the
/// tutorials of TensorFlow Serving, KServe, Vertex AI and TorchServe write.
const MEMBERS: [&str; 7] = ["image", "image_bytes", "bytes", "content", "data", "body", "input"];

/// Takes items out of a document, under the bounds of a request.
pub(super) struct Reader<'a> {
    engine: &'a Engine,
    items_max: usize,
    share: &'a mut UploadShare,
    /// Shape of the graph's input without its batch.
    dims: [usize; 3],
    items: Vec<Item>,
    /// The numbers of the tensor that is being read.
    numbers: Vec<f32>,
    /// The same as the graph takes them.
    raw: Vec<u8>,
    /// Some item stood in an object.
    objects: bool,
    /// What is wrong, where JSON's own errors could not say it.
    problem: Option<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(engine: &'a Engine, items_max: usize, share: &'a mut UploadShare) -> Self {
        let SampleShape { height, width } = engine.spec().sample_shape;
        let (height, width) = (height as usize, width as usize);
        let dims = match engine.contract().signature.input.layout {
            TensorLayout::Nchw => [SampleShape::CHANNELS, height, width],
            TensorLayout::Nhwc => [height, width, SampleShape::CHANNELS],
        };
        let (items, numbers, raw) = (Vec::new(), Vec::new(), Vec::new());
        Self { engine, items_max, share, dims, items, numbers, raw, objects: false, problem: None }
    }

    /// The items that were read, or what was wrong.
    pub(super) fn finish(self, parsed: Result<(), Problem>) -> Result<Vec<Item>, Problem> {
        match self.problem {
            Some(problem) => Err(problem),
            None => parsed.map(|()| self.items),
        }
    }

    /// Some item stood in an object and not by itself.
    pub(super) fn has_objects(&self) -> bool {
        self.objects
    }

    /// Keeps what is wrong for [`Reader::finish`] and ends the parse.
    pub(super) fn fail<E: serde::de::Error>(&mut self, problem: Problem) -> E {
        self.problem.get_or_insert(problem);
        E::custom("refused")
    }

    fn push<E: serde::de::Error>(&mut self, item: Result<Item, Problem>, bytes: usize) -> Result<(), E> {
        let index = self.items.len();
        if index == self.items_max {
            return Err(self.fail(forms::too_many_images(self.items_max)));
        }
        match item.map_err(|problem| problem.at(index)) {
            Ok(item) => match self.share.grow(bytes as u64) {
                Ok(()) => {
                    self.items.push(item);
                    Ok(())
                }
                Err(full) => Err(self.fail(full.into())),
            },
            Err(problem) => Err(self.fail(problem)),
        }
    }

    fn photo<E: serde::de::Error>(&mut self, base64: &str) -> Result<(), E> {
        if self.items.len() == self.items_max {
            return Err(self.fail(forms::too_many_images(self.items_max)));
        }
        let photo = forms::decode_base64(base64);
        let bytes = photo.as_ref().map_or(0, bytes::Bytes::len);
        self.push(photo.map(Item::Photo), bytes)
    }

    /// Makes a sample of the numbers that were read.
    fn tensor<E: serde::de::Error>(&mut self) -> Result<(), E> {
        let element = self.engine.contract().signature.input.element;
        self.raw.clear();
        let sample = match self.numbers.iter().find(|&&value| element == Element::U8 && !is_byte(value)) {
            Some(value) => Err(format!("a value is {value}; the model takes whole numbers from 0 to 255")),
            None => {
                element.write(&self.numbers, &mut self.raw);
                self.engine.sample(&self.raw).map_err(|error| error.to_string())
            }
        };
        let bytes = self.numbers.len() * size_of::<f32>();
        self.push(sample.map(Item::Tensor).map_err(|text| Problem::new(ProblemKind::BadTensor, text)), bytes)
    }

    fn bad_tensor<E: serde::de::Error>(&mut self, found: &str) -> E {
        let problem = Problem::new(
            ProblemKind::BadTensor,
            format!("{found}; a tensor of this model is {:?} numbers in nested lists, a photo is base64", self.dims),
        );
        let index = self.items.len();
        self.fail(problem.at(index))
    }

    /// An object's member of this name holds an image.
    fn is_member(&self, name: &str) -> bool {
        MEMBERS.contains(&name) || name == self.engine.contract().signature.input.name
    }

    fn wrong_members<E: serde::de::Error>(&mut self, found: usize) -> E {
        let what = if found == 0 { "holds no image" } else { "holds several images" };
        let (index, input) = (self.items.len(), &self.engine.contract().signature.input.name);
        let problem = Problem::new(
            ProblemKind::BadJson,
            format!(
                "the object {what}; write {{\"b64\": \"<base64>\"}}, or name it {} or {input:?}",
                MEMBERS.join(", ")
            ),
        );
        self.fail(problem.at(index))
    }
}

fn is_byte(value: f32) -> bool {
    (0.0..=255.0).contains(&value) && value.fract() == 0.0
}

/// Reads one value of a document.
pub(super) struct Value<'r, 'a> {
    pub(super) reader: &'r mut Reader<'a>,
    pub(super) place: Place,
}

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A list of items.
    List,
    /// A list of items, one item, or either under the name of an input.
    Column,
    /// One item of a list.
    Item,
    /// A member of an item's object; `named` if its name says that it is an image.
    Member { named: bool },
}

/// What a value was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Was {
    /// Items in a list.
    Several,
    /// One item.
    One,
    /// Nothing of interest.
    Nothing,
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = Was;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Was, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Value<'_, '_> {
    /// A number, a truth or nothing, where no image can be.
    fn scalar<E: serde::de::Error>(self, found: Unexpected<'_>) -> Result<Was, E> {
        match self.place {
            Place::Member { named: false } => Ok(Was::Nothing),
            _ => Err(E::invalid_type(found, &self)),
        }
    }

    fn items<'de, A: SeqAccess<'de>>(self, mut list: A) -> Result<Was, A::Error> {
        let reader = self.reader;
        while list.next_element_seed(Value { reader: &mut *reader, place: Place::Item })?.is_some() {}
        Ok(Was::Several)
    }

    /// `{"b64": ...}` or `{"image": ...}` with whatever is beside them.
    fn members<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Was, A::Error> {
        let reader = self.reader;
        let mut found = 0;
        while let Some(name) = map.next_key::<String>()? {
            let place = Place::Member { named: name == "b64" || reader.is_member(&name) };
            found += usize::from(map.next_value_seed(Value { reader: &mut *reader, place })? == Was::One);
        }
        if found == 1 { Ok(Was::One) } else { Err(reader.wrong_members(found)) }
    }

    /// `{"b64": ...}` under some name: an image whatever the name is.
    fn wrapped<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Was, A::Error> {
        let reader = self.reader;
        let mut was = Was::Nothing;
        while let Some(name) = map.next_key::<String>()? {
            if name == "b64" {
                if was != Was::Nothing {
                    return Err(reader.wrong_members(2));
                }
                was = map.next_value_seed(Value { reader: &mut *reader, place: Place::Member { named: true } })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(was)
    }

    /// `{"b64": ...}` for one item, or an input's name for all.
    fn column<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Was, A::Error> {
        let reader = self.reader;
        let mut was = Was::Nothing;
        while let Some(name) = map.next_key::<String>()? {
            if was != Was::Nothing || !(name == "b64" || reader.is_member(&name)) {
                let problem = Problem::new(
                    ProblemKind::BadTensor,
                    format!("there is no input {name:?} beside what the model takes: \"image\" or {:?}", {
                        &reader.engine.contract().signature.input.name
                    }),
                );
                return Err(reader.fail(problem));
            }
            let place = if name == "b64" { Place::Member { named: true } } else { Place::Column };
            was = map.next_value_seed(Value { reader: &mut *reader, place })?;
        }
        Ok(was)
    }
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = Was;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.place {
            Place::List => "a list of images",
            Place::Column => "an image or a list of them",
            Place::Item | Place::Member { .. } => "an image in base64, or a tensor in nested lists",
        })
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Was, E> {
        match self.place {
            Place::List => Err(E::invalid_type(Unexpected::Other("a string"), &self)),
            Place::Member { named: false } => Ok(Was::Nothing),
            Place::Column | Place::Item | Place::Member { named: true } => {
                self.reader.photo(text)?;
                Ok(Was::One)
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Was, A::Error> {
        self.reader.objects = true;
        match self.place {
            Place::List => Err(A::Error::invalid_type(Unexpected::Map, &self)),
            Place::Column => self.column(map),
            Place::Item => self.members(map),
            Place::Member { .. } => self.wrapped(map),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Was, A::Error> {
        match self.place {
            Place::List | Place::Column => self.items(list),
            Place::Member { named: false } => {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Was::Nothing)
            }
            Place::Item | Place::Member { named: true } => {
                self.reader.numbers.clear();
                if (Dimension { reader: &mut *self.reader, depth: 0 }).visit_seq(list)? == Leaf::Number {
                    self.reader.tensor()?;
                }
                Ok(Was::One)
            }
        }
    }

    fn visit_bool<E: serde::de::Error>(self, found: bool) -> Result<Was, E> {
        self.scalar(Unexpected::Bool(found))
    }

    fn visit_i64<E: serde::de::Error>(self, found: i64) -> Result<Was, E> {
        self.scalar(Unexpected::Signed(found))
    }

    fn visit_u64<E: serde::de::Error>(self, found: u64) -> Result<Was, E> {
        self.scalar(Unexpected::Unsigned(found))
    }

    fn visit_f64<E: serde::de::Error>(self, found: f64) -> Result<Was, E> {
        self.scalar(Unexpected::Float(found))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Was, E> {
        self.scalar(Unexpected::Unit)
    }
}

/// Reads the lists of a tensor, `depth` of which are open.
struct Dimension<'r, 'a> {
    reader: &'r mut Reader<'a>,
    depth: usize,
}

/// What was found inside the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Number,
    /// A photo by itself in a list, which is a row of a `[N,1]` tensor of texts.
    Photo,
}

impl<'de> DeserializeSeed<'de> for Dimension<'_, '_> {
    type Value = Leaf;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Leaf, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Dimension<'_, '_> {
    #[expect(clippy::cast_possible_truncation, reason = "samples are f32; what is beyond them becomes infinite")]
    fn number<E: serde::de::Error>(self, value: f64) -> Result<Leaf, E> {
        if self.depth != self.reader.dims.len() {
            return Err(self.reader.bad_tensor(&format!("a number stands in {} lists", self.depth)));
        }
        self.reader.numbers.push(value as f32);
        Ok(Leaf::Number)
    }

    fn photo<E: serde::de::Error>(self, read: impl FnOnce(Value<'_, '_>) -> Result<Was, E>) -> Result<Leaf, E> {
        if self.depth != 1 || !self.reader.numbers.is_empty() {
            return Err(self.reader.bad_tensor("there is a text among the numbers"));
        }
        match read(Value { reader: self.reader, place: Place::Item })? {
            Was::One | Was::Several | Was::Nothing => Ok(Leaf::Photo),
        }
    }
}

impl<'de> Visitor<'de> for Dimension<'_, '_> {
    type Value = Leaf;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a list of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Leaf, A::Error> {
        let Self { reader, depth } = self;
        let Some(&wanted) = reader.dims.get(depth) else {
            return Err(reader.bad_tensor(&format!("numbers stand in more than {depth} lists")));
        };
        let mut found = 0;
        while let Some(leaf) = list.next_element_seed(Dimension { reader: &mut *reader, depth: depth + 1 })? {
            if leaf == Leaf::Photo {
                return match list.next_element::<IgnoredAny>()? {
                    None => Ok(leaf),
                    Some(_) => Err(reader.bad_tensor("a list of several photos stands where one was expected")),
                };
            }
            found += 1;
            // Here and not at the end: a list without one would be kept until then.
            if found > wanted {
                return Err(reader.bad_tensor(&format!("dimension {depth} has more than {wanted} values")));
            }
        }
        if found == wanted {
            Ok(Leaf::Number)
        } else {
            Err(reader.bad_tensor(&format!("dimension {depth} has {found} values, expected {wanted}")))
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Leaf, E> {
        self.photo(|value| value.visit_str(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Leaf, A::Error> {
        self.photo(|value| value.visit_map(map))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Leaf, E> {
        self.number(value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Leaf, E> {
        self.number(value as f64)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Leaf, E> {
        self.number(value as f64)
    }
}
