//! The models known by name: `models/catalog.toml`, compiled in and read once.
//!
//! Fetching them is left to [`super::pull`], and what a preset means to the recipes.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// The table, in the order in which people see it.
static CATALOG: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let file: File = toml::from_str(include_str!("../../models/catalog.toml")).expect("the catalogue is tested");
    file.model
});

/// How alike two names must be, from 0 to 1, for one to be suggested in place of the other.
const LIKENESS_MIN: f64 = 0.75;
/// Names suggested at most.
const SUGGESTIONS_MAX: usize = 3;

/// A model that can be pulled by name.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "Row")]
pub struct Entry {
    /// What people type.
    pub name: String,
    /// Other names for it, shorter ones mostly.
    pub aliases: Vec<String>,
    /// The hub's repository, `organisation/name`.
    pub repository: String,
    /// The file, where it is a single one with a published hash; otherwise the repository as a whole is meant.
    #[serde(flatten)]
    pub pinned: Option<Pinned>,
    /// The recipe it wants; none if nobody wrote it down, or if it comes with the model's own files.
    pub preset: Option<String>,
    /// The list of its classes.
    pub labels: Option<String>,
    /// Published accuracy in percent: how often the first class is right.
    pub top1: Option<f64>,
    /// Published accuracy in percent: how often the right class is among the first five.
    pub top5: Option<f64>,
    /// The licence of the weights as an SPDX name; none if it has to be looked up in the repository.
    pub licence: Option<String>,
    /// What one should know before choosing it.
    pub note: Option<String>,
}

/// One file, and the proof that it is the right one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pinned {
    /// Its path in the repository.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The version of ONNX's operators that it is written in.
    pub opset: u32,
}

impl Entry {
    /// Whether its weights are published without a recipe: pixels can then only be prepared by a guess.
    #[must_use]
    pub fn lacks_recipe(&self) -> bool {
        self.pinned.is_some() && self.preset.is_none()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: Vec<Entry>,
}

/// A row as it is written, in which nothing yet says that the keys of a pin come together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    repository: String,
    file: Option<String>,
    bytes: Option<u64>,
    sha256: Option<String>,
    opset: Option<u32>,
    preset: Option<String>,
    labels: Option<String>,
    top1: Option<f64>,
    top5: Option<f64>,
    licence: Option<String>,
    note: Option<String>,
}

impl TryFrom<Row> for Entry {
    type Error = String;

    fn try_from(row: Row) -> Result<Self, Self::Error> {
        let pinned = match (row.file, row.bytes, row.sha256, row.opset) {
            (Some(file), Some(bytes), Some(sha256), Some(opset)) => Some(Pinned { file, bytes, sha256, opset }),
            (None, None, None, None) => None,
            _ => return Err(format!("{}: file, bytes, sha256 and opset go together", row.name)),
        };
        let Row { name, aliases, repository, preset, labels, top1, top5, licence, note, .. } = row;
        Ok(Self { name, aliases, repository, pinned, preset, labels, top1, top5, licence, note })
    }
}

/// Why a name is not in the catalogue.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Nothing is called that.
    #[error("find {name:?} in the catalogue: no model has that name; {}", advice(name, suggestions))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Names that look like it, the likest first.
        suggestions: Vec<&'static str>,
    },
}

fn advice(name: &str, suggestions: &[&str]) -> String {
    let listing = "`residual pull --list` shows all";
    if name.contains('/') {
        let repository = name.rsplit_once("://").map_or(name, |(_, rest)| rest.split_once('/').map_or(rest, |it| it.1));
        format!("for a repository of the hub write `hf:{repository}`; {listing}")
    } else if suggestions.is_empty() {
        listing.to_owned()
    } else {
        format!("did you mean {}? {listing}", suggestions.join(" or "))
    }
}

/// Every model, in the order of the file.
#[must_use]
pub fn entries() -> &'static [Entry] {
    &CATALOG
}

/// The model with this name or alias, in any case of letters.
///
/// # Errors
/// [`CatalogError::Unknown`], which names those that come close.
pub fn find(name: &str) -> Result<&'static Entry, CatalogError> {
    names().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, entry)| entry).ok_or_else(|| {
        let mut close: Vec<(f64, &str)> = names()
            .map(|(known, _)| (strsim::jaro_winkler(&name.to_ascii_lowercase(), known), known))
            .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
            .collect();
        close.sort_by(|one, other| other.0.total_cmp(&one.0));
        let suggestions = close.into_iter().map(|(_, known)| known).take(SUGGESTIONS_MAX).collect();
        CatalogError::Unknown { name: name.to_owned(), suggestions }
    })
}

/// The model whose file has this SHA-256, in hexadecimal.
#[must_use]
pub fn by_sha256(hex: &str) -> Option<&'static Entry> {
    entries().iter().find(|entry| entry.pinned.as_ref().is_some_and(|pinned| pinned.sha256.eq_ignore_ascii_case(hex)))
}

/// Every name and alias with its model.
fn names() -> impl Iterator<Item = (&'static str, &'static Entry)> {
    entries().iter().flat_map(|entry| {
        let aliases = entry.aliases.iter().map(String::as_str);
        std::iter::once(entry.name.as_str()).chain(aliases).map(move |name| (name, entry))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_is_whole() {
        assert!(entries().len() > 18);
        for entry in entries() {
            let name = &entry.name;
            assert!(entry.repository.split('/').filter(|part| !part.is_empty()).count() == 2, "{name}");
            assert!([entry.top1, entry.top5].into_iter().flatten().all(|p| p > 50.0 && p < 100.0), "{name}");
            assert!(entry.top5.is_none() || entry.top5 > entry.top1, "{name}");
            assert_eq!(entry.labels.as_deref(), Some("imagenet-1k"), "{name}");
            match &entry.pinned {
                Some(pinned) => {
                    assert!(pinned.sha256.len() == 64, "{name}");
                    assert!(pinned.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{name}");
                    assert!(pinned.file.ends_with(&format!("/{name}.onnx")), "{name}");
                    assert!((20_000_000..300_000_000).contains(&pinned.bytes), "{name}");
                    assert!(
                        name.trim_end_matches("-int8")
                            .trim_end_matches("-qdq")
                            .ends_with(&format!("-{}", pinned.opset))
                    );
                    assert_eq!(entry.licence.as_deref(), Some("Apache-2.0"), "{name}");
                    assert_eq!(entry.lacks_recipe(), name.contains("caffe2"), "{name}");
                }
                None => assert!(!entry.lacks_recipe(), "{name}"),
            }
        }
    }

    #[test]
    fn a_row_with_half_a_pin_is_refused() {
        let row = |rest: &str| format!("[[model]]\nname = \"a\"\nrepository = \"b/c\"\n{rest}");
        let parse = |rest: &str| toml::from_str::<File>(&row(rest)).map(|file| file.model[0].pinned.is_some());
        assert!(!parse("").unwrap());
        assert!(parse("file = \"x\"\nbytes = 1\nsha256 = \"00\"\nopset = 7").unwrap());
        assert!(parse("file = \"x\"\nbytes = 1").is_err());
        assert!(parse("sha265 = \"00\"").is_err());
    }

    #[test]
    fn no_name_and_no_hash_means_two_models() {
        let mut seen = BTreeSet::new();
        for (name, _) in names() {
            assert!(seen.insert(name.to_ascii_lowercase()), "{name} is there twice");
        }
        let pins = entries().iter().filter_map(|entry| entry.pinned.as_ref());
        for pin in pins {
            assert!(seen.insert(pin.sha256.clone()), "{} is there twice", pin.sha256);
            assert_eq!(by_sha256(&pin.sha256.to_uppercase()).unwrap().pinned.as_ref(), Some(pin));
        }
        assert_eq!(by_sha256("00"), None);
    }

    #[test]
    fn short_names_mean_models_with_a_recipe() {
        assert_eq!(find("resnet50").unwrap().name, "resnet50-v1-12");
        assert_eq!(find("ResNet50-v2").unwrap().name, "resnet50-v2-7");
        for entry in entries().iter().filter(|entry| entry.lacks_recipe()) {
            assert_eq!(entry.aliases, Vec::<String>::new(), "{} is only meant by its whole name", entry.name);
        }
    }

    #[test]
    fn an_unknown_name_gets_close_ones_or_the_way_to_the_hub() {
        let text = |name: &str| find(name).unwrap_err().to_string();
        assert!(text("resnet-50").contains("did you mean resnet50"), "{}", text("resnet-50"));
        assert!(text("zzz").ends_with("no model has that name; `residual pull --list` shows all"), "{}", text("zzz"));
        assert!(text("timm/resnet50.a1_in1k").contains("write `hf:timm/resnet50.a1_in1k`"));
        assert!(text("https://hub.example/timm/resnet50.a1_in1k").contains("write `hf:timm/resnet50.a1_in1k`"));
    }
}
