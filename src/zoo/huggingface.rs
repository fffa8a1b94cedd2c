//! Hugging Face's `config.json` beside a model names the classes. How an image is prepared is read in
//! [`super::recipe`].

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::ZooError;
use crate::pipeline::postprocess::Labels;

#[derive(Deserialize)]
struct Config {
    id2label: BTreeMap<String, String>,
    problem_type: Option<String>,
}

/// The class names in `config.json`.
pub(super) fn labels(path: &Path, json: &[u8]) -> Result<Labels, ZooError> {
    let config: Config =
        serde_json::from_slice(json).map_err(|cause| ZooError::Syntax { path: path.to_owned(), cause })?;
    let wrong = |found: String| ZooError::Value {
        path: path.to_owned(),
        found,
        expected: "id2label with the keys \"0\", \"1\", ... without a gap".to_owned(),
    };
    // Each class would need its own sigmoid; softmax scores would look right and be wrong.
    if let Some(kind) = config.problem_type.filter(|kind| kind != "single_label_classification") {
        return Err(ZooError::Value {
            path: path.to_owned(),
            found: format!("problem_type is {kind:?}"),
            expected: "\"single_label_classification\"".to_owned(),
        });
    }
    let mut names = vec![None; config.id2label.len()];
    for (key, name) in config.id2label {
        let slot = key.parse::<usize>().ok().and_then(|index| names.get_mut(index));
        *slot.ok_or_else(|| wrong(format!("id2label has the key {key:?}")))? = Some(name);
    }
    let names: Option<Vec<String>> = names.into_iter().collect();
    match names {
        Some(names) if !names.is_empty() => Ok(Labels::new(names)),
        Some(_) => Err(wrong("id2label is empty".to_owned())),
        None => Err(wrong("id2label has the same index twice".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_for_several_labels_at_once_is_refused() {
        let of = |kind: &str| {
            labels(Path::new("c.json"), format!(r#"{{"id2label":{{"0":"a"}},"problem_type":{kind}}}"#).as_bytes())
        };
        assert!(of("null").is_ok() && of("\"single_label_classification\"").is_ok());
        assert!(of("\"multi_label_classification\"").unwrap_err().to_string().contains("multi_label"));
    }

    #[test]
    fn labels_need_every_index_once() {
        let of = |json: &str| labels(Path::new("c.json"), json.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(of(r#"{"id2label":{"1":"b","0":"a"}}"#).unwrap(), Labels::new(["a", "b"]));
        assert!(of(r#"{"id2label":{"0":"a","2":"b"}}"#).unwrap_err().contains("has the key \"2\""));
        assert!(of(r#"{"id2label":{}}"#).unwrap_err().contains("is empty"));
        assert!(of(r#"{"id2label":{"0":"a","00":"b"}}"#).unwrap_err().contains("twice"));
    }
}
