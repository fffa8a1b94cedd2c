//! `config.json` as Hugging Face and timm write it: the names of the classes, and whether several can be true at once.
//! What it says about preprocessing is read in `recipe/`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::recipe::timm;
use super::{ZooError, labels};

/// `problem_type` of a model whose classes do not exclude each other.
const MULTI_LABEL: &str = "multi_label_classification";

/// The keys that are of use here.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ConfigJson {
    id2label: Option<BTreeMap<String, String>>,
    problem_type: Option<String>,
    /// The names where timm puts them.
    #[serde(skip)]
    timm_labels: Option<Vec<String>>,
}

impl ConfigJson {
    /// Reads the file's text.
    pub(super) fn parse(path: &Path, json: &[u8]) -> Result<Self, ZooError> {
        let config: Self =
            serde_json::from_slice(json).map_err(|cause| ZooError::Syntax { path: path.to_owned(), cause })?;
        Ok(Self { timm_labels: timm::labels(json), ..config })
    }

    /// Each class has a probability of its own.
    ///
    /// # Errors
    /// [`ZooError::Value`] for a model that is no classifier.
    pub(super) fn is_multi_label(&self, path: &Path) -> Result<bool, ZooError> {
        match self.problem_type.as_deref() {
            None | Some("single_label_classification") => Ok(false),
            Some(MULTI_LABEL) => Ok(true),
            Some(other) => Err(ZooError::Value {
                path: path.to_owned(),
                found: format!("problem_type is {other:?}"),
                expected: format!("\"single_label_classification\" or {MULTI_LABEL:?}: a classifier"),
            }),
        }
    }

    /// The classes' names, if the file has any. `LABEL_0`, `LABEL_1`, ... are what transformers writes for want of names,
    /// and count as none.
    pub(super) fn labels(&self, path: &Path) -> Result<Option<Vec<String>>, ZooError> {
        if let Some(id2label) = &self.id2label {
            let named = id2label.iter().map(|(key, name)| (key.clone(), name.clone()));
            let names = labels::in_order(named).map_err(|(found, expected)| ZooError::Value {
                path: path.to_owned(),
                found: format!("in id2label {found}"),
                expected: expected.to_owned(),
            })?;
            let placeholders = names.iter().enumerate().all(|(index, name)| *name == format!("LABEL_{index}"));
            return Ok((!placeholders).then_some(names));
        }
        Ok(self.timm_labels.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels_of(json: &str) -> Result<Option<Vec<String>>, String> {
        let path = Path::new("c.json");
        ConfigJson::parse(path, json.as_bytes())
            .and_then(|config| config.labels(path))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_read_by_index() {
        assert_eq!(labels_of(r#"{"id2label":{"1":"b","0":"a"}}"#), Ok(Some(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(labels_of(r#"{"id2label":{"0":"LABEL_0","1":"LABEL_1"}}"#), Ok(None), "placeholders are no names");
        assert_eq!(labels_of(r#"{"architecture":"resnet50","num_classes":1000}"#), Ok(None));
        assert!(labels_of(r#"{"id2label":{"0":"a","2":"b"}}"#).unwrap_err().contains("the key \"2\""));
        assert!(labels_of(r#"{"id2label":{}}"#).unwrap_err().contains("no class has a name"));
        assert!(labels_of(r#"{"id2label":3}"#).unwrap_err().starts_with("read c.json: invalid type"));
    }

    #[test]
    fn timm_describes_its_names() {
        let json = r#"{"architecture":"resnet50","label_names":["n1","n2"],"label_descriptions":{"n1":"one"},"pretrained_cfg":{}}"#;
        assert_eq!(labels_of(json), Ok(Some(vec!["one".to_owned(), "n2".to_owned()])));
    }

    #[test]
    fn several_classes_can_be_true_only_where_the_file_says_so() {
        let of = |json: &str| {
            let path = Path::new("c.json");
            ConfigJson::parse(path, json.as_bytes()).unwrap().is_multi_label(path).map_err(|error| error.to_string())
        };
        assert_eq!(of("{}"), Ok(false));
        assert_eq!(of(r#"{"problem_type":"single_label_classification"}"#), Ok(false));
        assert_eq!(of(r#"{"problem_type":"multi_label_classification"}"#), Ok(true));
        assert!(of(r#"{"problem_type":"regression"}"#).unwrap_err().contains("problem_type is \"regression\""));
    }
}
