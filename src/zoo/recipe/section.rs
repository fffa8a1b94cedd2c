//! A recipe as people write it: the keys of `[recipe]` in residual.toml, and of the JSON under `residual.recipe` in a
//! model's metadata. Whatever is left out comes from below.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::preset::Preset;
use crate::pipeline::preprocess::{CenterCrop, ChannelOrder, CropRounding, Filter, RecipeSteps, Resize};

/// What residual.toml says about the recipe: `preset = "..."` and the table `[recipe]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeSection {
    /// The recipe to start from.
    pub preset: Option<Preset>,
    /// Steps that differ from it.
    #[serde(default)]
    pub recipe: RecipeKeys,
}

/// Single steps of a recipe, spelled as in [`RecipeSteps`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeKeys {
    /// `"none"`, `{ shortest_edge = 256 }`, or `exact`, `cover`, `contain` with width and height.
    pub resize: Option<Resize>,
    /// Name of the filter.
    pub filter: Option<Filter>,
    /// `"none"`, or width, height and, if need be, rounding and fill.
    #[serde(default, deserialize_with = "crop_that_may_be_null")]
    pub crop: Option<CropKey>,
    /// Factor before mean and std.
    pub rescale: Option<f64>,
    /// Three numbers in the order of the model's channels.
    pub mean: Option<[f32; 3]>,
    /// Three numbers in the order of the model's channels.
    pub std: Option<[f32; 3]>,
    /// `"rgb"` or `"bgr"`.
    pub channel_order: Option<ChannelOrder>,
}

/// The key `crop`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CropKey {
    /// `"none"`, or `null` in JSON.
    None,
    /// A table. What it leaves out is that of the crop it replaces; on its own, it rounds down and pads with black.
    Crop {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// How the offset is rounded.
        rounding: Option<CropRounding>,
        /// Colour of the padding, R, G, B.
        fill: Option<[u8; 3]>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CropTable {
    width: u32,
    height: u32,
    rounding: Option<CropRounding>,
    fill: Option<[u8; 3]>,
}

impl<'de> Deserialize<'de> for CropKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = CropKey;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"none\" or a table with width and height")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<CropKey, E> {
                match text {
                    "none" => Ok(CropKey::None),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_unit<E>(self) -> Result<CropKey, E> {
                Ok(CropKey::None)
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<CropKey, A::Error> {
                let table = CropTable::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                let CropTable { width, height, rounding, fill } = table;
                Ok(CropKey::Crop { width, height, rounding, fill })
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// `"crop": null` says that there is none; without this it would read as a key left out.
fn crop_that_may_be_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<CropKey>, D::Error> {
    CropKey::deserialize(deserializer).map(Some).map_err(D::Error::custom)
}

impl RecipeKeys {
    /// The names of the keys that are set.
    pub(super) fn names(&self) -> Vec<&'static str> {
        [
            ("resize", self.resize.is_some()),
            ("filter", self.filter.is_some()),
            ("crop", self.crop.is_some()),
            ("rescale", self.rescale.is_some()),
            ("mean", self.mean.is_some()),
            ("std", self.std.is_some()),
            ("channel_order", self.channel_order.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
        .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether they decide the size of the samples.
    pub(super) fn frame(&self) -> bool {
        self.resize.is_some() || self.crop.is_some()
    }

    /// The recipe, where no key is left out.
    pub(super) fn complete(&self) -> Option<RecipeSteps> {
        Some(RecipeSteps {
            resize: self.resize?,
            filter: self.filter?,
            crop: self.crop?.over(None),
            rescale: self.rescale?,
            mean: self.mean?,
            std: self.std?,
            channel_order: self.channel_order?,
        })
    }

    /// `below`, less what these keys replace.
    pub(super) fn over(&self, below: &RecipeSteps) -> RecipeSteps {
        RecipeSteps {
            resize: self.resize.unwrap_or(below.resize),
            filter: self.filter.unwrap_or(below.filter),
            crop: self.crop.map_or(below.crop, |crop| crop.over(below.crop)),
            rescale: self.rescale.unwrap_or(below.rescale),
            mean: self.mean.unwrap_or(below.mean),
            std: self.std.unwrap_or(below.std),
            channel_order: self.channel_order.unwrap_or(below.channel_order),
        }
    }
}

impl CropKey {
    fn over(self, below: Option<CenterCrop>) -> Option<CenterCrop> {
        match self {
            Self::None => None,
            Self::Crop { width, height, rounding, fill } => Some(CenterCrop {
                width,
                height,
                rounding: rounding.or(below.map(|crop| crop.rounding)).unwrap_or(CropRounding::Floor),
                fill: fill.or(below.map(|crop| crop.fill)).unwrap_or([0; 3]),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::preprocess::Recipe;

    fn section(toml: &str) -> Result<RecipeSection, String> {
        toml::from_str(toml).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_replaces_its_step() {
        let section = section(
            r#"
            preset = "torchvision-v2"
            [recipe]
            resize = { exact = { width = 30, height = 20 } }
            filter = "opencv_area"
            crop = { width = 10, height = 9, fill = [1, 2, 3] }
            rescale = 1.0
            mean = [1, 2, 3]
            std = [4.0, 5.0, 6.0]
            channel_order = "bgr"
            "#,
        )
        .unwrap();
        let preset = section.preset.unwrap();
        assert_eq!(preset.name(), "torchvision-v2");
        assert_eq!(
            section.recipe.over(&preset.steps(None)),
            RecipeSteps {
                resize: Resize::Exact { width: 30, height: 20 },
                filter: Filter::OpencvArea,
                // The rounding is torchvision's, since the key does not tell.
                crop: Some(CenterCrop { width: 10, height: 9, rounding: CropRounding::RoundHalfEven, fill: [1, 2, 3] }),
                rescale: 1.0,
                mean: [1.0, 2.0, 3.0],
                std: [4.0, 5.0, 6.0],
                channel_order: ChannelOrder::Bgr,
            }
        );
        assert_eq!(section.recipe.names().len(), 7);
    }

    #[test]
    fn what_is_left_out_stays() {
        let keys = section("[recipe]\nfilter = \"bicubic\"").unwrap().recipe;
        let below = Preset::ASSUMED.steps(None);
        assert_eq!(keys.over(&below), RecipeSteps { filter: Filter::Bicubic, ..below });
        assert_eq!((keys.names(), keys.complete()), (vec!["filter"], None));
    }

    #[test]
    fn none_is_a_word() {
        let keys = section("[recipe]\nresize = \"none\"\ncrop = \"none\"").unwrap().recipe;
        let steps = keys.over(&Preset::ASSUMED.steps(None));
        assert_eq!((steps.resize, steps.crop), (Resize::None, None));
    }

    #[test]
    fn a_recipe_in_json_reads_back_as_itself() {
        for preset in Preset::all() {
            for crop in [None, preset.steps(None).crop] {
                let steps = RecipeSteps { crop, ..preset.steps(None) };
                let json = serde_json::to_string(&Recipe::new(steps.clone()).unwrap()).unwrap();
                let keys: RecipeKeys = serde_json::from_str(&json).unwrap();
                assert_eq!(keys.complete(), Some(steps), "{json}");
            }
        }
    }

    #[test]
    fn a_misspelt_key_or_value_is_answered_with_the_known_ones() {
        for (toml, expected) in [
            ("[recipe]\nfiltre = \"bicubic\"", "unknown field `filtre`, expected one of `resize`, `filter`, `crop`"),
            ("[recipe]\nfilter = \"cubic\"", "unknown variant `cubic`, expected one of `nearest`, `box`, `bilinear`"),
            (
                "[recipe]\nresize = { longest_edge = 3 }",
                "unknown variant `longest_edge`, expected one of `none`, `exact`",
            ),
            (
                "[recipe]\nresize = { exact = { width = 3, hight = 3 } }",
                "unexpected keys in table: hight, available keys: width, height",
            ),
            (
                "[recipe]\ncrop = \"no\"",
                "invalid value: string \"no\", expected \"none\" or a table with width and height",
            ),
            ("[recipe]\ncrop = { width = 3 }", "missing field `height`"),
            ("[recipe]\ncrop = { width = 3, height = 3, round = 1 }", "unknown field `round`"),
            ("[recipe]\nmean = [0.5]", "invalid length 1"),
            ("preset = \"v1\"", "no preset is named \"v1\"; expected one of torchvision-v1,"),
        ] {
            let text = section(toml).unwrap_err();
            assert!(text.contains(expected), "{toml}: {text}");
        }
    }
}
