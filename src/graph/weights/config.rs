//! What a `config.json` says about the network itself. Labels and recipes in the same file are read by the zoo.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::graph::build::StrideIn;

/// What shapes cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hints {
    /// Which convolution of a bottleneck has the stride; [`StrideIn::Middle`] unless something says otherwise.
    pub stride: StrideIn,
    /// Whether the first stage halves the picture as the others do; transformers allows it.
    pub first_stage_strides: bool,
}

impl Default for Hints {
    /// As in torchvision and timm, and as transformers has it unless told otherwise.
    fn default() -> Self {
        Self { stride: StrideIn::Middle, first_stage_strides: false }
    }
}

/// Why a configuration describes a network that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is no JSON object, or a key has a value of the wrong kind.
    #[error("{0}")]
    Syntax(#[from] serde_json::Error),
    /// It says something that the tensors cannot show and the graph builder cannot build.
    #[error("{key} is {found}; {expected}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What it could be.
        expected: &'static str,
    },
}

#[derive(Deserialize)]
struct Config {
    // transformers
    hidden_act: Option<String>,
    downsample_in_bottleneck: Option<bool>,
    downsample_in_first_stage: Option<bool>,
    // timm
    architecture: Option<String>,
    global_pool: Option<String>,
    model_args: Option<Map<String, Value>>,
}

/// timm's networks whose tensors have a ResNet's names and shapes, and which are not a ResNet: anti-aliasing and
/// attention without weights.
const NOT_RESNETS: [&str; 3] = ["resnetaa", "resnetblur", "seresnetaa"];

/// Arguments of timm's models that leave the layers as the tensors show them.
const HARMLESS_ARGS: [&str; 5] = ["num_classes", "in_chans", "drop_rate", "drop_path_rate", "zero_init_last"];

impl Hints {
    /// Reads the keys of transformers' and timm's `config.json` that matter here.
    ///
    /// # Errors
    /// Where it is no JSON object, or says that the network is another one than its tensors would show.
    pub fn from_config(json: &[u8]) -> Result<Self, ConfigError> {
        let config: Config = serde_json::from_slice(json)?;
        let unsupported = |key, found, expected| Err(ConfigError::Unsupported { key, found, expected });
        if let Some(act) = config.hidden_act.filter(|act| act != "relu") {
            return unsupported("hidden_act", format!("{act:?}"), "\"relu\" can be converted");
        }
        if let Some(name) = config.architecture.filter(|name| NOT_RESNETS.iter().any(|other| name.contains(other))) {
            let expected = "it pools where a ResNet strides, which its weights do not show; export it to ONNX instead";
            return unsupported("architecture", format!("{name:?}"), expected);
        }
        let mut arguments = config.model_args.unwrap_or_default();
        // timm writes it in either place, and in both.
        for pool in config.global_pool.map(Value::String).into_iter().chain(arguments.remove("global_pool")) {
            if pool != "avg" {
                return unsupported("global_pool", pool.to_string(), "\"avg\" can be converted");
            }
        }
        if let Some((key, value)) = arguments.iter().find(|(key, _)| !HARMLESS_ARGS.contains(&key.as_str())) {
            let expected = "arguments that change layers cannot be converted; export the model to ONNX instead";
            return unsupported("model_args", format!("{{{key:?}: {value}}}"), expected);
        }
        Ok(Self {
            stride: if config.downsample_in_bottleneck == Some(true) { StrideIn::First } else { StrideIn::Middle },
            first_stage_strides: config.downsample_in_first_stage == Some(true),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stride_is_taken_from_the_configuration() {
        let hints = |json: &str| Hints::from_config(json.as_bytes()).unwrap();
        assert_eq!(hints("{}"), Hints::default());
        assert_eq!(hints(r#"{"downsample_in_bottleneck": true, "hidden_act": "relu"}"#).stride, StrideIn::First);
        assert!(hints(r#"{"downsample_in_first_stage": true}"#).first_stage_strides);
        assert_eq!(
            hints(r#"{"architecture": "resnet50d", "global_pool": "avg", "model_args": {"global_pool": "avg"}}"#),
            Hints::default()
        );
    }

    #[test]
    fn what_weights_do_not_show_is_refused() {
        for (json, expected) in [
            (r#"{"architecture": "resnetaa50"}"#, "architecture is \"resnetaa50\"; it pools"),
            (r#"{"architecture": "resnetblur50"}"#, "architecture is \"resnetblur50\""),
            (r#"{"hidden_act": "gelu"}"#, "hidden_act is \"gelu\"; \"relu\" can"),
            (r#"{"global_pool": "max"}"#, "global_pool is \"max\""),
            (r#"{"model_args": {"global_pool": "catavgmax"}}"#, "global_pool is \"catavgmax\""),
            (r#"{"model_args": {"output_stride": 8}}"#, "model_args is {\"output_stride\": 8}"),
            ("3", "invalid type"),
            ("{", "EOF"),
            (r#"{"downsample_in_bottleneck": 1}"#, "invalid type: integer `1`"),
        ] {
            let error = Hints::from_config(json.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
