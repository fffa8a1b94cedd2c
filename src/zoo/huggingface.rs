//! Hugging Face's two files beside a model: `config.json` names the classes, `preprocessor_config.json` says how an
//! image is prepared. Semantics are those of `transformers`' image processors, version 4.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::ZooError;
use crate::pipeline::SampleShape;
use crate::pipeline::postprocess::Labels;
use crate::pipeline::preprocess::{CenterCrop, ChannelOrder, CropRounding, Filter, Recipe, RecipeSteps, Resize};

/// Below this size a ConvNext processor resizes and crops, from it on it squashes (`ConvNextImageProcessor.resize`).
const CONVNEXT_SQUASH_FROM: u32 = 384;
/// `ConvNextImageProcessor`'s default.
const CONVNEXT_CROP_PCT: f64 = 224.0 / 256.0;

#[derive(Deserialize)]
struct Config {
    id2label: BTreeMap<String, String>,
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

#[derive(Deserialize)]
struct Preprocessor {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    #[serde(default)]
    do_resize: bool,
    size: Option<Size>,
    crop_pct: Option<f64>,
    resample: Option<u8>,
    #[serde(default)]
    do_center_crop: bool,
    crop_size: Option<Size>,
    #[serde(default = "yes")]
    do_rescale: bool,
    #[serde(default = "one_255th")]
    rescale_factor: f64,
    #[serde(default)]
    do_normalize: bool,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
}

fn yes() -> bool {
    true
}

fn one_255th() -> f64 {
    1.0 / 255.0
}

#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum Size {
    ShortestEdge { shortest_edge: u32 },
    Exact { height: u32, width: u32 },
    Edge(u32),
}

/// The recipe in `preprocessor_config.json`, and the shape of its samples.
pub(super) fn recipe(path: &Path, json: &[u8]) -> Result<(Recipe, SampleShape), ZooError> {
    let file: Preprocessor =
        serde_json::from_slice(json).map_err(|cause| ZooError::Syntax { path: path.to_owned(), cause })?;
    let wrong = |found: &str, expected: &str| ZooError::Value {
        path: path.to_owned(),
        found: found.to_owned(),
        expected: expected.to_owned(),
    };
    let (resize, crop) = if file.is_convnext() { file.convnext() } else { file.plain() }
        .map_err(|(found, expected)| wrong(found, expected))?;
    let filter = match file.resample {
        // PIL.Image.Resampling
        Some(0) => Filter::Nearest,
        Some(1) => Filter::Lanczos,
        // Most processors' default.
        Some(2) | None => Filter::Bilinear,
        Some(3) => Filter::Bicubic,
        Some(4) => Filter::Box,
        Some(5) => Filter::Hamming,
        Some(other) => return Err(wrong(&format!("resample is {other}"), "a code of Pillow's filters, 0 to 5")),
    };
    let (mean, std) = match (file.do_normalize, file.image_mean, file.image_std) {
        (false, _, _) => ([0.0; 3], [1.0; 3]),
        (true, Some(mean), Some(std)) => (mean, std),
        (true, _, _) => return Err(wrong("do_normalize without image_mean and image_std", "three numbers in each")),
    };
    let rescale = if file.do_rescale { file.rescale_factor } else { 1.0 };
    let steps = RecipeSteps { resize, filter, crop, rescale, mean, std, channel_order: ChannelOrder::Rgb };
    let recipe = Recipe::new(steps).map_err(|cause| ZooError::Recipe { path: path.to_owned(), cause })?;
    let shape = recipe
        .sample_shape()
        .ok_or_else(|| wrong("no fixed size of the model's input", "a crop_size, or a size with height and width"))?;
    Ok((recipe, shape))
}

type Steps = Result<(Resize, Option<CenterCrop>), (&'static str, &'static str)>;

impl Preprocessor {
    fn is_convnext(&self) -> bool {
        let named = |name: &Option<String>| name.as_deref().is_some_and(|name| name.starts_with("ConvNext"));
        self.crop_pct.is_some() || named(&self.image_processor_type) || named(&self.feature_extractor_type)
    }

    /// `ViTImageProcessor`, `CLIPImageProcessor`, `BitImageProcessor` and their like.
    fn plain(&self) -> Steps {
        let resize = match (self.do_resize, self.size) {
            (false, _) => Resize::None,
            (true, Some(Size::ShortestEdge { shortest_edge })) => Resize::ShortestEdge(shortest_edge),
            (true, Some(Size::Exact { height, width })) => Resize::Exact { width, height },
            // Old files: one number means a square where there is no crop, the shortest edge where there is one.
            (true, Some(Size::Edge(edge))) if self.do_center_crop => Resize::ShortestEdge(edge),
            (true, Some(Size::Edge(edge))) => Resize::Exact { width: edge, height: edge },
            (true, None) => {
                return Err(("do_resize without a size", "{\"shortest_edge\": N} or {\"height\": N, \"width\": N}"));
            }
        };
        let crop = match (self.do_center_crop, self.crop_size) {
            (false, _) => None,
            (true, Some(Size::Exact { height, width })) => Some(center(width, height)),
            (true, Some(Size::Edge(edge) | Size::ShortestEdge { shortest_edge: edge })) => Some(center(edge, edge)),
            (true, None) => return Err(("do_center_crop without a crop_size", "{\"height\": N, \"width\": N}")),
        };
        Ok((resize, crop))
    }

    /// `ConvNextImageProcessor`, which the published ResNets of Microsoft use.
    fn convnext(&self) -> Steps {
        let edge = match (self.do_resize, self.size) {
            (false, _) => return Ok((Resize::None, None)),
            (true, Some(Size::ShortestEdge { shortest_edge } | Size::Edge(shortest_edge))) => shortest_edge,
            (true, Some(Size::Exact { .. }) | None) => {
                return Err(("a ConvNext processor without a shortest edge", "size {\"shortest_edge\": N}"));
            }
        };
        if edge >= CONVNEXT_SQUASH_FROM {
            return Ok((Resize::Exact { width: edge, height: edge }, None));
        }
        let crop_pct = self.crop_pct.unwrap_or(CONVNEXT_CROP_PCT);
        if !(crop_pct > 0.0 && crop_pct <= 1.0) {
            return Err(("crop_pct out of range", "a number above 0 and up to 1"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "int() truncates; both are positive"
        )]
        let resized = (f64::from(edge) / crop_pct) as u32;
        Ok((Resize::ShortestEdge(resized), Some(center(edge, edge))))
    }
}

fn center(width: u32, height: u32) -> CenterCrop {
    CenterCrop { width, height, rounding: CropRounding::Floor }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(json: &str) -> Result<RecipeSteps, String> {
        recipe(Path::new("p.json"), json.as_bytes())
            .map(|(recipe, _)| recipe.steps().clone())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn a_convnext_processor_resizes_by_crop_pct_and_crops() {
        let steps = steps(
            r#"{"crop_pct":0.875,"do_normalize":true,"do_resize":true,"feature_extractor_type":"ConvNextFeatureExtractor",
                "image_mean":[0.485,0.456,0.406],"image_std":[0.229,0.224,0.225],"resample":3,"size":{"shortest_edge":224}}"#,
        )
        .unwrap();
        assert_eq!(steps.resize, Resize::ShortestEdge(256));
        assert_eq!(steps.crop, Some(center(224, 224)));
        assert_eq!(steps.filter, Filter::Bicubic);
    }

    #[test]
    fn a_large_convnext_processor_squashes() {
        let steps =
            steps(r#"{"image_processor_type":"ConvNextImageProcessor","do_resize":true,"size":384,"resample":3}"#)
                .unwrap();
        assert_eq!((steps.resize, steps.crop), (Resize::Exact { width: 384, height: 384 }, None));
    }

    #[test]
    fn a_vit_processor_squashes() {
        let steps =
            steps(r#"{"do_resize":true,"size":{"height":224,"width":200},"resample":2,"do_normalize":false}"#).unwrap();
        assert_eq!((steps.resize, steps.crop), (Resize::Exact { width: 200, height: 224 }, None));
        assert_eq!((steps.mean, steps.std), ([0.0; 3], [1.0; 3]));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (json, expected) in [
            (r#"{"do_resize":true}"#, "read p.json: do_resize without a size; expected {\"shortest_edge\": N}"),
            (r#"{"do_resize":true,"size":{"shortest_edge":32}}"#, "read p.json: no fixed size of the model's input"),
            (r#"{"resample":9,"size":3,"do_resize":true}"#, "read p.json: resample is 9; expected"),
            (r#"{"do_normalize":true,"size":3,"do_resize":true}"#, "read p.json: do_normalize without image_mean"),
        ] {
            let text = steps(json).unwrap_err();
            assert!(text.starts_with(expected), "{text}");
        }
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
