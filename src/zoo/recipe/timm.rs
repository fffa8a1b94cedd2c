//! timm's `config.json`: the numbers of `pretrained_cfg`, and what `timm.data.transforms_imagenet_eval` makes of them.
//! `TimmWrapperImageProcessor` of transformers calls the same function.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::Found;
use super::error::{RecipeFileError, Wrong, wrong};
use super::preset::by_crop_pct;
use crate::pipeline::preprocess::{CenterCrop, ChannelOrder, CropRounding, Filter, RecipeSteps, Resize};

/// `timm.data.constants`.
const DEFAULT_CROP_PCT: f64 = 0.875;
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// The part of `pretrained_cfg` that changes pixels. Nulls count as left out, as in `resolve_data_config`.
#[derive(Deserialize)]
struct Settings {
    /// Channels, height, width.
    input_size: Option<[u32; 3]>,
    crop_pct: Option<f64>,
    crop_mode: Option<String>,
    interpolation: Option<String>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    /// The size that the best published accuracy was measured with, where it is not that of the training.
    test_input_size: Option<[u32; 3]>,
    test_crop_pct: Option<f64>,
}

/// The recipe in a `config.json`, for a graph that fixes `(width, height)` or leaves them free; `None` if timm did not
/// write the file.
pub(super) fn read(place: &str, json: &[u8], input_size: Option<(u32, u32)>) -> Result<Option<Found>, RecipeFileError> {
    let syntax = |cause| RecipeFileError::Syntax { place: place.to_owned(), cause };
    let config: Value = serde_json::from_slice(json).map_err(syntax)?;
    let Some(settings) = settings_of(&config) else { return Ok(None) };
    let settings = Settings::deserialize(settings).map_err(syntax)?;
    settings.found(input_size).map(Some).map_err(|error| error.at(place))
}

/// Today's files keep the numbers under `pretrained_cfg`; those of 2022 are flat.
fn settings_of(config: &Value) -> Option<&Value> {
    match config.get("pretrained_cfg") {
        Some(nested) => Some(nested),
        None => {
            let flat = config.get("architecture").is_some() && config.get("input_size").is_some();
            flat.then_some(config)
        }
    }
}

impl Settings {
    fn found(&self, graph: Option<(u32, u32)>) -> Result<Found, Wrong> {
        let train = self.sides(self.input_size.unwrap_or([3, 224, 224]), "input_size")?;
        let test = self.test_input_size.map(|size| self.sides(size, "test_input_size")).transpose()?;
        let crop_pct = self.crop_pct.filter(|pct| *pct != 0.0).unwrap_or(DEFAULT_CROP_PCT);
        let test_crop_pct = self.test_crop_pct.filter(|pct| *pct != 0.0).unwrap_or(crop_pct);
        match test.filter(|test| *test != train) {
            Some(test) if graph == Some(test) => Ok(Found {
                steps: self.steps(test, test_crop_pct)?,
                note: Some(format!("the graph takes {}x{}, the test_input_size", test.0, test.1)),
            }),
            Some((width, height)) if graph.is_none() => Ok(Found {
                steps: self.steps(train, crop_pct)?,
                note: Some(format!(
                    "the graph takes any size; timm also publishes test_input_size {width}x{height} with crop_pct \
                     {test_crop_pct}, often more accurate: set resize and crop under [recipe] in residual.toml"
                )),
            }),
            Some(_) | None => Ok(Found { steps: self.steps(train, crop_pct)?, note: None }),
        }
    }

    fn sides(&self, [channels, height, width]: [u32; 3], key: &str) -> Result<(u32, u32), Wrong> {
        if channels == 3 { Ok((width, height)) } else { wrong(format!("{key} has {channels} channels"), "3") }
    }

    fn steps(&self, (width, height): (u32, u32), crop_pct: f64) -> Result<RecipeSteps, Wrong> {
        if !(crop_pct.is_finite() && crop_pct > 0.0) {
            return wrong(format!("crop_pct is {crop_pct}"), "a number above 0");
        }
        let mean = three(self.mean.as_deref(), "mean", IMAGENET_MEAN)?;
        let (wide, high) = (by_crop_pct(width, crop_pct), by_crop_pct(height, crop_pct));
        let crop = CenterCrop::new(width, height, CropRounding::RoundHalfEven);
        let (resize, crop) = match self.crop_mode.as_deref() {
            None | Some("center") if width == height => (Resize::ShortestEdge(wide), crop),
            None | Some("center") => (Resize::Cover { width: wide, height: high }, crop),
            Some("squash") => (Resize::Exact { width: wide, height: high }, crop),
            Some("border") => {
                (Resize::Contain { width: wide, height: high }, CenterCrop { fill: mean.map(colour), ..crop })
            }
            Some(other) => return wrong(format!("crop_mode is {other:?}"), "\"center\", \"squash\" or \"border\""),
        };
        Ok(RecipeSteps {
            resize,
            filter: self.filter()?,
            crop: Some(crop),
            rescale: 1.0 / 255.0,
            mean,
            std: three(self.std.as_deref(), "std", IMAGENET_STD)?,
            channel_order: ChannelOrder::Rgb,
        })
    }

    fn filter(&self) -> Result<Filter, Wrong> {
        match self.interpolation.as_deref() {
            None | Some("" | "bicubic") => Ok(Filter::Bicubic),
            Some("bilinear") => Ok(Filter::Bilinear),
            Some("nearest") => Ok(Filter::Nearest),
            Some("box") => Ok(Filter::Box),
            Some("hamming") => Ok(Filter::Hamming),
            Some("lanczos") => Ok(Filter::Lanczos),
            // "random" chooses anew for each picture, which only training can want.
            Some(other) => wrong(
                format!("interpolation is {other:?}"),
                "\"bicubic\", \"bilinear\", \"nearest\", \"box\", \"hamming\" or \"lanczos\"",
            ),
        }
    }
}

/// `round(255 * mean)`, the padding of timm's border mode.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a u8 before")]
fn colour(mean: f32) -> u8 {
    (255.0 * f64::from(mean)).round_ties_even().clamp(0.0, 255.0) as u8
}

fn three(values: Option<&[f32]>, key: &str, default: [f32; 3]) -> Result<[f32; 3], Wrong> {
    match values {
        None | Some([]) => Ok(default),
        Some(&[value]) => Ok([value; 3]),
        Some(&[r, g, b]) => Ok([r, g, b]),
        Some(more) => wrong(format!("{key} has {} numbers", more.len()), "3"),
    }
}

#[derive(Deserialize)]
struct Labels {
    num_classes: Option<usize>,
    label_names: Option<Names>,
    /// The key's name until 2023.
    labels: Option<Names>,
    label_descriptions: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    List(Vec<String>),
    ByIndex(BTreeMap<String, String>),
}

/// The class names in timm's `config.json`, by index: descriptions where it has some, names such as `n01440764` where
/// not. `None` if it names no classes, or not each exactly once.
#[must_use]
pub fn labels(json: &[u8]) -> Option<Vec<String>> {
    let config: Value = serde_json::from_slice(json).ok()?;
    let settings = settings_of(&config)?;
    // Files differ in which of the two objects they write labels into.
    let both = [&config, settings].map(|part| Labels::deserialize(part).ok());
    let both = || both.iter().flatten();
    let num_classes = both().find_map(|part| part.num_classes);
    let names = match both().find_map(|part| part.label_names.as_ref().or(part.labels.as_ref()))? {
        Names::List(names) => names.clone(),
        Names::ByIndex(by_index) => {
            let mut names = vec![None; by_index.len()];
            for (index, name) in by_index {
                *names.get_mut(index.parse::<usize>().ok()?)? = Some(name.clone());
            }
            names.into_iter().collect::<Option<Vec<_>>>()?
        }
    };
    if names.is_empty() || num_classes.is_some_and(|classes| classes != names.len()) {
        return None;
    }
    let descriptions = both().find_map(|part| part.label_descriptions.as_ref());
    let described = |name: String| descriptions.and_then(|by_name| by_name.get(&name)).cloned().unwrap_or(name);
    Some(names.into_iter().map(described).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What timm writes for `resnet50.a1_in1k`.
    const A1: &str = r#"{"architecture": "resnet50", "num_classes": 1000, "num_features": 2048, "pretrained_cfg": {
        "tag": "a1_in1k", "custom_load": false, "input_size": [3, 224, 224], "test_input_size": [3, 288, 288],
        "fixed_input_size": false, "interpolation": "bicubic", "crop_pct": 0.95, "test_crop_pct": 1.0,
        "crop_mode": "center", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "num_classes": 1000,
        "pool_size": [7, 7], "first_conv": "conv1", "classifier": "fc", "license": "apache-2.0"}}"#;

    fn found(json: &str, graph: Option<(u32, u32)>) -> Result<Found, String> {
        read("config.json", json.as_bytes(), graph).map(|found| found.unwrap()).map_err(|error| error.to_string())
    }

    fn nested(settings: &str) -> Result<RecipeSteps, String> {
        found(&format!("{{\"pretrained_cfg\": {{{settings}}}}}"), Some((1, 1))).map(|found| found.steps)
    }

    fn square(edge: u32, crop: u32) -> (Resize, Option<CenterCrop>) {
        (Resize::ShortestEdge(edge), Some(CenterCrop::new(crop, crop, CropRounding::RoundHalfEven)))
    }

    #[test]
    fn a_free_graph_takes_the_training_size_and_hears_of_the_other() {
        let Found { steps, note } = found(A1, None).unwrap();
        assert_eq!((steps.resize, steps.crop), square(235, 224));
        assert_eq!((steps.filter, steps.mean), (Filter::Bicubic, IMAGENET_MEAN));
        assert!(note.unwrap().contains("test_input_size 288x288 with crop_pct 1"));
    }

    #[test]
    fn a_graph_of_the_test_size_takes_the_test_settings() {
        let Found { steps, note } = found(A1, Some((288, 288))).unwrap();
        assert_eq!((steps.resize, steps.crop), square(288, 288));
        assert_eq!(note.unwrap(), "the graph takes 288x288, the test_input_size");
        assert_eq!(found(A1, Some((224, 224))).unwrap().note, None);
    }

    #[test]
    fn flat_files_of_2022_are_read_too() {
        let flat = r#"{"architecture": "resnet18", "num_classes": 2, "input_size": [3, 224, 224], "crop_pct": 0.9,
            "interpolation": "bilinear", "mean": [0.5], "std": [0.5, 0.5, 0.5], "labels": ["no", "yes"]}"#;
        let steps = found(flat, None).unwrap().steps;
        assert_eq!((steps.resize, steps.crop), square(248, 224));
        assert_eq!((steps.filter, steps.mean), (Filter::Bilinear, [0.5; 3]));
        assert_eq!(labels(flat.as_bytes()).unwrap(), ["no", "yes"]);
    }

    #[test]
    fn what_is_left_out_is_timms_default() {
        let steps = nested("\"crop_mode\": null").unwrap();
        assert_eq!((steps.resize, steps.crop), square(256, 224));
        assert_eq!((steps.filter, steps.std), (Filter::Bicubic, IMAGENET_STD));
    }

    #[test]
    fn crop_modes_frame_the_picture_in_three_ways() {
        let crop = Some(CenterCrop::new(320, 224, CropRounding::RoundHalfEven));
        let of = |mode: &str| {
            nested(&format!("\"input_size\": [3, 224, 320], \"crop_pct\": 0.95, \"crop_mode\": \"{mode}\"")).unwrap()
        };
        let (width, height) = (336, 235);
        assert_eq!((of("center").resize, of("center").crop), (Resize::Cover { width, height }, crop));
        assert_eq!((of("squash").resize, of("squash").crop), (Resize::Exact { width, height }, crop));
        let border = of("border");
        assert_eq!(border.resize, Resize::Contain { width, height });
        assert_eq!(border.crop.unwrap().fill, [124, 116, 104]);
    }

    #[test]
    fn a_config_of_transformers_is_no_recipe() {
        let config = br#"{"architectures": ["ResNetForImageClassification"], "id2label": {"0": "a"}}"#;
        assert_eq!(read("config.json", config, None).unwrap(), None);
        assert_eq!(labels(config), None);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (settings, expected) in [
            ("\"interpolation\": \"random\"", "interpolation is \"random\"; expected \"bicubic\", "),
            ("\"crop_mode\": \"corner\"", "crop_mode is \"corner\"; expected \"center\", "),
            ("\"crop_pct\": -1", "crop_pct is -1; expected a number above 0"),
            ("\"input_size\": [1, 28, 28]", "input_size has 1 channels; expected 3"),
            ("\"mean\": [0.5, 0.5]", "mean has 2 numbers; expected 3"),
            ("\"input_size\": [224, 224]", "invalid length 2"),
        ] {
            let text = nested(settings).unwrap_err();
            assert!(text.starts_with(&format!("read config.json: {expected}")), "{text}");
        }
        assert!(read("config.json", b"{", None).unwrap_err().to_string().starts_with("read config.json: EOF"));
    }

    #[test]
    fn labels_are_descriptions_where_there_are_some() {
        let of = |rest: &str| labels(format!("{{\"num_classes\": 2, \"pretrained_cfg\": {{}}, {rest}}}").as_bytes());
        let names = "\"label_names\": [\"n01440764\", \"n01443537\"]";
        assert_eq!(of(names).unwrap(), ["n01440764", "n01443537"]);
        let described = format!("{names}, \"label_descriptions\": {{\"n01443537\": \"goldfish\"}}");
        assert_eq!(of(&described).unwrap(), ["n01440764", "goldfish"]);
        assert_eq!(of("\"label_names\": {\"1\": \"b\", \"0\": \"a\"}").unwrap(), ["a", "b"]);
        for broken in
            ["\"label_names\": [\"a\"]", "\"label_names\": {\"0\": \"a\", \"7\": \"b\"}", "\"label_names\": []"]
        {
            assert_eq!(of(broken), None, "{broken}");
        }
    }
}
