//! The names of a model's classes, wherever its author left them.
//!
//! In this order: `residual.toml`, `id2label` or `label_names` in `config.json`, a list beside the model, the list of
//! ImageNet-1k for a model with 1,000 classes, and last the index itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config_json::ConfigJson;
use super::places::Files;
use super::{ZooError, imagenet, read};
use crate::pipeline::postprocess::Labels;

/// Lists as people name them, the most particular first.
pub(super) const FILES: [&str; 8] = [
    "labels.txt",
    "synset.txt",
    "synset_words.txt",
    "synsets.txt",
    "classes.txt",
    "imagenet_classes.txt",
    "labels.json",
    "index_to_name.json",
];

/// The key `labels` of `residual.toml`: a file beside it, or the names themselves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum LabelsSetting {
    File(PathBuf),
    Names(Vec<String>),
}

/// Where the names are from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct LabelSource(String);

impl LabelSource {
    /// The model brings no names and has not 1,000 classes: each class is called by its index.
    #[must_use]
    pub fn is_index(&self) -> bool {
        self.0 == "index"
    }
}

impl std::fmt::Display for LabelSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names that somebody gave the classes, with the file they are from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) names: Vec<String>,
    file: PathBuf,
    source: LabelSource,
}

/// Looks the names up. `manifest` is `residual.toml` with its key `labels`, `config` is `config.json`.
pub(super) fn known(
    files: &Files,
    manifest: Option<(&Path, &LabelsSetting)>,
    config: Option<(&Path, &ConfigJson)>,
) -> Result<Option<Known>, ZooError> {
    let of = |names: Vec<String>, file: &Path| {
        let source = LabelSource(file.file_name().unwrap_or_default().to_string_lossy().into_owned());
        Some(Known { names, file: file.to_owned(), source })
    };
    match manifest {
        Some((path, LabelsSetting::Names(names))) => return Ok(of(names.clone(), path)),
        Some((path, LabelsSetting::File(file))) => {
            let file = path.with_file_name(file);
            if !file.exists() {
                return Err(ZooError::Value {
                    path: path.to_owned(),
                    found: format!(
                        "labels = {:?}, and there is no file {}",
                        file.file_name().unwrap_or_default(),
                        file.display()
                    ),
                    expected: "a file beside it, or a list of names".to_owned(),
                });
            }
            return Ok(of(read_list(&file)?, &file));
        }
        None => {}
    }
    if let Some((path, config)) = config
        && let Some(names) = config.labels(path)?
    {
        return Ok(of(names, path));
    }
    match files.side(&FILES) {
        Some(file) => Ok(of(read_list(&file)?, &file)),
        None => Ok(None),
    }
}

/// The labels of a model with `classes` classes.
///
/// # Errors
/// [`ZooError::LabelCount`] if somebody named more or fewer.
pub(super) fn complete(known: Option<Known>, classes: usize, model: &str) -> Result<(Labels, LabelSource), ZooError> {
    match known {
        Some(Known { names, source, .. }) if names.len() == classes => Ok((Labels::new(names), source)),
        Some(Known { names, file, .. }) => {
            Err(ZooError::LabelCount { path: file, labels: names.len(), model: model.to_owned(), classes })
        }
        None if classes == imagenet::classes().len() => {
            let names = imagenet::classes().iter().map(|class| class.names);
            Ok((Labels::new(names), LabelSource("imagenet-1k".to_owned())))
        }
        None => Ok((Labels::new((0..classes).map(|index| index.to_string())), LabelSource("index".to_owned()))),
    }
}

fn read_list(path: &Path) -> Result<Vec<String>, ZooError> {
    let bytes = read(path)?;
    let wrong = |(found, expected): (String, &str)| ZooError::Value {
        path: path.to_owned(),
        found,
        expected: expected.to_owned(),
    };
    if path.extension().is_some_and(|extension| extension == "json") {
        let json: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|cause| ZooError::Syntax { path: path.to_owned(), cause })?;
        let list = JsonList::deserialize(json).map_err(|_| {
            wrong((
                "neither a list nor a map of names".to_owned(),
                "[\"cat\", \"dog\"] or {\"0\": \"cat\", \"1\": \"dog\"}",
            ))
        })?;
        return list.names().map_err(wrong);
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| wrong((format!("byte {} is no UTF-8", error.utf8_error().valid_up_to()), "UTF-8 text")))?;
    parse_lines(&text).map_err(wrong)
}

/// One class a line: its name, or a WordNet id before the name, or the line's own index before the name, or a WordNet id
/// alone.
fn parse_lines(text: &str) -> Result<Vec<String>, (String, &'static str)> {
    let text = text.trim_start_matches('\u{feff}');
    let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    if lines.is_empty() {
        return Err(("no line with a name".to_owned(), "one class a line"));
    }
    if let Some(empty) = lines.iter().position(|line| line.is_empty()) {
        return Err((format!("line {} is empty", empty + 1), "one class a line, in the order of the model's output"));
    }
    let every = |name: fn(usize, &str) -> Option<&str>| {
        lines.iter().enumerate().map(|(n, line)| name(n, line)).collect::<Option<Vec<&str>>>()
    };
    let names =
        every(after_wordnet_id).or_else(|| every(|_, line| imagenet::names_of(line))).or_else(|| every(after_index));
    Ok(names.unwrap_or(lines).into_iter().map(str::to_owned).collect())
}

/// `n01440764 tench, Tinca tinca` -> `tench, Tinca tinca`.
fn after_wordnet_id(_line: usize, text: &str) -> Option<&str> {
    let (id, name) = text.split_once([' ', '\t', ','])?;
    let digits = id.strip_prefix('n')?;
    let is_id = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    Some(name.trim()).filter(|name| is_id && !name.is_empty())
}

/// `0: tench`, `0<tab>tench` or `0 tench` in the line of class 0.
fn after_index(line: usize, text: &str) -> Option<&str> {
    let (index, name) = text.split_once([':', '\t', ' ', ','])?;
    Some(name.trim()).filter(|name| index.parse() == Ok(line) && !name.is_empty())
}

/// A list of names, or TorchServe's map from the index to the name or to WordNet id and name.
#[derive(Deserialize)]
#[serde(untagged)]
enum JsonList {
    Names(Vec<String>),
    Map(BTreeMap<String, JsonName>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum JsonName {
    Name(String),
    WordnetAndName([String; 2]),
}

impl JsonList {
    fn names(self) -> Result<Vec<String>, (String, &'static str)> {
        match self {
            Self::Names(names) => Ok(names),
            Self::Map(map) => in_order(map.into_iter().map(|(key, name)| match name {
                JsonName::Name(name) | JsonName::WordnetAndName([_, name]) => (key, name),
            })),
        }
    }
}

/// Names by the index in their key: each index once, none missing.
pub(super) fn in_order(
    named: impl ExactSizeIterator<Item = (String, String)>,
) -> Result<Vec<String>, (String, &'static str)> {
    const EXPECTED: &str = "the keys \"0\", \"1\", ... without a gap";
    let mut names = vec![None; named.len()];
    for (key, name) in named {
        let slot = key.parse::<usize>().ok().and_then(|index| names.get_mut(index));
        let slot = slot.ok_or_else(|| (format!("the classes have the key {key:?}"), EXPECTED))?;
        if slot.replace(name).is_some() {
            return Err((format!("the classes have the index {key} twice"), EXPECTED));
        }
    }
    let names: Option<Vec<String>> = names.into_iter().collect();
    names.filter(|names| !names.is_empty()).ok_or_else(|| ("no class has a name".to_owned(), EXPECTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_people_write_them() {
        for (text, expected) in [
            ("cat\ndog\n\n", ["cat", "dog"]),
            ("\u{feff}cat\r\ndog\r\n", ["cat", "dog"]),
            ("n01440764 tench, Tinca tinca\nn01443537\tgoldfish", ["tench, Tinca tinca", "goldfish"]),
            ("n01440764\nn01443537", ["tench, Tinca tinca", "goldfish, Carassius auratus"]),
            ("n01440764\nn99999999", ["n01440764", "n99999999"]),
            ("0: cat\n1: dog", ["cat", "dog"]),
            ("0\tcat\n1\tdog", ["cat", "dog"]),
            ("1 cat\n2 dog", ["1 cat", "2 dog"]),
            ("0 cat\n7 dog", ["0 cat", "7 dog"]),
        ] {
            assert_eq!(parse_lines(text).unwrap(), expected, "{text:?}");
        }
        assert_eq!(parse_lines("cat\n\ndog").unwrap_err().0, "line 2 is empty");
        assert_eq!(parse_lines(" \n").unwrap_err().0, "no line with a name");
    }

    #[test]
    fn json_lists_and_maps_are_read() {
        let of = |json: &str| serde_json::from_str::<JsonList>(json).unwrap().names();
        assert_eq!(of(r#"["cat","dog"]"#).unwrap(), ["cat", "dog"]);
        assert_eq!(of(r#"{"1":"dog","0":"cat"}"#).unwrap(), ["cat", "dog"]);
        assert_eq!(of(r#"{"0":["n01","cat"],"1":["n02","dog"]}"#).unwrap(), ["cat", "dog"]);
        assert!(of(r#"{"0":"cat","2":"dog"}"#).unwrap_err().0.contains("the key \"2\""));
        assert!(of(r#"{"0":"cat","00":"dog"}"#).unwrap_err().0.contains("twice"));
        assert!(of("{}").unwrap_err().0.contains("no class"));
    }

    #[test]
    fn a_model_without_names_has_those_of_imagenet_or_its_indices() {
        let (labels, source) = complete(None, 1000, "m").unwrap();
        assert_eq!((&**labels.get(0), source.to_string().as_str()), ("tench, Tinca tinca", "imagenet-1k"));
        let (labels, source) = complete(None, 3, "m").unwrap();
        assert_eq!(labels, Labels::new(["0", "1", "2"]));
        assert!(source.is_index());
    }

    #[test]
    fn as_many_names_as_classes() {
        let names = || vec!["a".to_owned(), "b".to_owned()];
        let source = LabelSource("labels.txt".to_owned());
        let known = || Some(Known { names: names(), file: PathBuf::from("m/labels.txt"), source: source.clone() });
        assert_eq!(complete(known(), 2, "m").unwrap().1, source);
        let error = complete(known(), 3, "m").unwrap_err().to_string();
        assert_eq!(
            error,
            "m/labels.txt names 2 classes, but the model m has 3; give one name for each, in the order of its output"
        );
    }
}
