//! Lists and maps in JSON that end at a bound, so that what is read stays about as large as what was sent.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::oip::Parameters;

/// Inputs, outputs, dimensions, parameters: more than any client sends.
const ENTRIES_MAX: usize = 256;

/// A list of at most so many.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct List<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {ENTRIES_MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = list.next_element()? {
                if all.len() == ENTRIES_MAX {
                    return Err(A::Error::custom(format_args!("a list has more than {ENTRIES_MAX} entries")));
                }
                all.push(one);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_seq(List(PhantomData))
}

/// Parameters, at most so many.
pub(super) fn map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Parameters, D::Error> {
    struct Map;
    impl<'de> Visitor<'de> for Map {
        type Value = Parameters;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "an object of at most {ENTRIES_MAX} parameters")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
            let mut all = Parameters::new();
            while let Some((name, value)) = map.next_entry()? {
                if all.len() == ENTRIES_MAX {
                    return Err(A::Error::custom(format_args!("there are more than {ENTRIES_MAX} parameters")));
                }
                all.insert(name, value);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_map(Map)
}
