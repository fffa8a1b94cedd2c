//! One `--preset`: a recipe by name, for one model or for all.

use std::str::FromStr;

use super::recipe::Preset;

/// A recipe that was chosen by hand.
#[derive(Debug, Clone, PartialEq)]
pub struct PresetChoice {
    /// The model it is for; without one, all.
    pub model: Option<String>,
    /// The recipe.
    pub preset: Preset,
}

impl FromStr for PresetChoice {
    type Err = String;

    /// `PRESET` or `MODEL=PRESET`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (model, preset) = match text.rsplit_once('=') {
            Some((model, preset)) => (Some(model.to_owned()), preset),
            None => (None, text),
        };
        let preset = preset.parse().map_err(|error: super::recipe::UnknownPreset| error.to_string())?;
        Ok(Self { model, preset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_is_for_one_model_or_for_all() {
        let of = |text: &str| text.parse::<PresetChoice>().map(|choice| (choice.model, choice.preset.name()));
        assert_eq!(of("torchvision-v2"), Ok((None, "torchvision-v2")));
        assert_eq!(of("resnet50=torchvision-v2"), Ok((Some("resnet50".to_owned()), "torchvision-v2")));
        assert!(of("torchvision-v9").unwrap_err().contains("torchvision-v2"), "the error lists what there is");
    }
}
