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
    problem_type: Option<String>,
}

/// The class names in `config.json`, and whether one image may have several of them.
pub(super) fn labels(path: &Path, json: &[u8]) -> Result<(Labels, bool), ZooError> {
    let config: Config =
        serde_json::from_slice(json).map_err(|cause| ZooError::Syntax { path: path.to_owned(), cause })?;
    let wrong = |found: String| ZooError::Value {
        path: path.to_owned(),
        found,
        expected: "id2label with the keys \"0\", \"1\", ... without a gap".to_owned(),
    };
    let multi_label = match config.problem_type.as_deref() {
        None | Some("single_label_classification") => false,
        Some("multi_label_classification") => true,
        Some(kind) => {
            return Err(ZooError::Value {
                path: path.to_owned(),
                found: format!("problem_type is {kind:?}"),
                expected: "\"single_label_classification\" or \"multi_label_classification\"".to_owned(),
            });
        }
    };
    let mut names = vec![None; config.id2label.len()];
    for (key, name) in config.id2label {
        let slot = key.parse::<usize>().ok().and_then(|index| names.get_mut(index));
        *slot.ok_or_else(|| wrong(format!("id2label has the key {key:?}")))? = Some(name);
    }
    let names: Option<Vec<String>> = names.into_iter().collect();
    match names {
        Some(names) if !names.is_empty() => Ok((Labels::new(names), multi_label)),
        Some(_) => Err(wrong("id2label is empty".to_owned())),
        None => Err(wrong("id2label has the same index twice".to_owned())),
    }
}

/// The keys that change pixels. Those of other kinds of models (`do_thumbnail`, `max_patches`, ...) do not appear beside
/// ResNets.
#[derive(Deserialize)]
struct Preprocessor {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<Size>,
    crop_pct: Option<f64>,
    resample: Option<u8>,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
    #[serde(default)]
    do_pad: bool,
    #[serde(default)]
    do_flip_channel_order: bool,
}

/// Sizes are written in four ways.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum Size {
    Sides(Sides),
    Edge(u32),
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Sides {
    shortest_edge: Option<u32>,
    height: Option<u32>,
    width: Option<u32>,
}

/// What a processor's class does where its file is silent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `ConvNextImageProcessor`, which the ResNets of Microsoft use: resize by `crop_pct`, then crop.
    ConvNext,
    /// `BitImageProcessor`, `CLIPImageProcessor`: shortest edge, bicubic, then crop.
    Cropping,
    /// `ViTImageProcessor`, `DeiTImageProcessor` and their like: squash, bilinear.
    Squashing,
    /// The file names no class, or one that is not known here: it must say everything itself.
    Unknown,
}

/// The recipe in `preprocessor_config.json`, and the shape of its samples.
pub(super) fn recipe(path: &Path, json: &[u8]) -> Result<(Recipe, SampleShape), ZooError> {
    let file: Preprocessor =
        serde_json::from_slice(json).map_err(|cause| ZooError::Syntax { path: path.to_owned(), cause })?;
    let steps = file.steps().map_err(|Wrong { found, expected }| ZooError::Value {
        path: path.to_owned(),
        found,
        expected: expected.to_owned(),
    })?;
    let recipe = Recipe::new(steps).map_err(|cause| ZooError::Recipe { path: path.to_owned(), cause })?;
    match recipe.sample_shape() {
        Some(shape) => Ok((recipe, shape)),
        None => Err(ZooError::Value {
            path: path.to_owned(),
            found: "no fixed size of the model's input".to_owned(),
            expected: "a crop_size, or a size with height and width".to_owned(),
        }),
    }
}

/// What a file says and what it could say.
struct Wrong {
    found: String,
    expected: &'static str,
}

fn wrong<T>(found: impl Into<String>, expected: &'static str) -> Result<T, Wrong> {
    Err(Wrong { found: found.into(), expected })
}

impl Preprocessor {
    fn steps(&self) -> Result<RecipeSteps, Wrong> {
        let class = self.class();
        if self.do_pad {
            return wrong("do_pad is true", "false: padding is not supported");
        }
        let (resize, crop) = match class {
            Class::ConvNext => self.convnext()?,
            Class::Cropping | Class::Squashing | Class::Unknown => (self.resize()?, self.crop(class)?),
        };
        let (mean, std) = match (self.do_normalize.unwrap_or(true), self.image_mean, self.image_std) {
            (false, _, _) => ([0.0; 3], [1.0; 3]),
            (true, Some(mean), Some(std)) => (mean, std),
            (true, _, _) => return wrong("do_normalize without image_mean and image_std", "three numbers in each"),
        };
        let rescale = if self.do_rescale.unwrap_or(true) { self.rescale_factor.unwrap_or(1.0 / 255.0) } else { 1.0 };
        let channel_order = if self.do_flip_channel_order { ChannelOrder::Bgr } else { ChannelOrder::Rgb };
        Ok(RecipeSteps { resize, filter: self.filter(class)?, crop, rescale, mean, std, channel_order })
    }

    fn class(&self) -> Class {
        let name = self.image_processor_type.as_deref().or(self.feature_extractor_type.as_deref()).unwrap_or_default();
        match name {
            _ if self.crop_pct.is_some() || name.starts_with("ConvNext") => Class::ConvNext,
            _ if name.starts_with("Bit") || name.starts_with("CLIP") => Class::Cropping,
            _ if name.starts_with("ViT") || name.starts_with("DeiT") => Class::Squashing,
            _ => Class::Unknown,
        }
    }

    /// `resample` is a code of `PIL.Image.Resampling`.
    fn filter(&self, class: Class) -> Result<Filter, Wrong> {
        Ok(match (self.resample, class) {
            (Some(0), _) => Filter::Nearest,
            (Some(1), _) => Filter::Lanczos,
            (Some(2), _) | (None, Class::ConvNext | Class::Squashing) => Filter::Bilinear,
            (Some(3), _) | (None, Class::Cropping) => Filter::Bicubic,
            (Some(4), _) => Filter::Box,
            (Some(5), _) => Filter::Hamming,
            (Some(other), _) => return wrong(format!("resample is {other}"), "a code of Pillow's filters, 0 to 5"),
            (None, Class::Unknown) if self.do_resize == Some(false) => Filter::Bilinear,
            (None, Class::Unknown) => return wrong("no resample", "a code of Pillow's filters, 0 to 5"),
        })
    }

    fn resize(&self) -> Result<Resize, Wrong> {
        if !self.do_resize.unwrap_or(true) {
            return Ok(Resize::None);
        }
        match self.size {
            Some(Size::Sides(Sides { shortest_edge: Some(edge), height: None, width: None })) => {
                Ok(Resize::ShortestEdge(edge))
            }
            Some(Size::Sides(Sides { shortest_edge: None, height: Some(height), width: Some(width) })) => {
                Ok(Resize::Exact { width, height })
            }
            // Old files: one number means the shortest edge where there is a crop, a square where there is none.
            Some(Size::Edge(edge)) if self.do_center_crop == Some(true) => Ok(Resize::ShortestEdge(edge)),
            Some(Size::Edge(edge)) => Ok(Resize::Exact { width: edge, height: edge }),
            Some(Size::Sides(_)) | None => {
                wrong("do_resize without a usable size", "{\"shortest_edge\": N} or {\"height\": N, \"width\": N}")
            }
        }
    }

    fn crop(&self, class: Class) -> Result<Option<CenterCrop>, Wrong> {
        let crops = match (self.do_center_crop, class) {
            (Some(crops), _) => crops,
            (None, Class::Cropping) => true,
            (None, Class::Unknown) if self.crop_size.is_some() => {
                return wrong("crop_size without do_center_crop", "do_center_crop true or false");
            }
            (None, Class::ConvNext | Class::Squashing | Class::Unknown) => false,
        };
        match self.crop_size {
            _ if !crops => Ok(None),
            Some(Size::Sides(Sides { shortest_edge: None, height: Some(height), width: Some(width) })) => {
                Ok(Some(center(width, height)))
            }
            Some(Size::Edge(edge) | Size::Sides(Sides { shortest_edge: Some(edge), height: None, width: None })) => {
                Ok(Some(center(edge, edge)))
            }
            Some(Size::Sides(_)) | None => {
                wrong("do_center_crop without a usable crop_size", "{\"height\": N, \"width\": N}")
            }
        }
    }

    fn convnext(&self) -> Result<(Resize, Option<CenterCrop>), Wrong> {
        let edge = match (self.do_resize.unwrap_or(true), self.size) {
            (false, _) => return Ok((Resize::None, None)),
            (
                true,
                Some(Size::Edge(edge) | Size::Sides(Sides { shortest_edge: Some(edge), height: None, width: None })),
            ) => edge,
            (true, Some(Size::Sides(_)) | None) => {
                return wrong("a ConvNext processor without a shortest edge", "size {\"shortest_edge\": N}");
            }
        };
        if edge >= CONVNEXT_SQUASH_FROM {
            return Ok((Resize::Exact { width: edge, height: edge }, None));
        }
        let crop_pct = self.crop_pct.unwrap_or(CONVNEXT_CROP_PCT);
        if !(crop_pct > 0.0 && crop_pct <= 1.0) {
            return wrong(format!("crop_pct is {crop_pct}"), "a number above 0 and up to 1");
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
            steps(r#"{"image_processor_type":"ConvNextImageProcessor","do_resize":true,"size":384,"resample":3,"do_normalize":false}"#)
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
            (r#"{"resample":2}"#, "do_resize without a usable size; expected {\"shortest_edge\": N}"),
            (
                r#"{"resample":2,"size":{"shortest_edge":32},"do_normalize":false}"#,
                "no fixed size of the model's input",
            ),
            (r#"{"resample":9,"size":3,"do_normalize":false}"#, "resample is 9; expected"),
            (r#"{"size":3,"do_normalize":false}"#, "no resample; expected"),
            (r#"{"resample":2,"size":3}"#, "do_normalize without image_mean"),
            (r#"{"resample":2,"size":3,"crop_size":2,"do_normalize":false}"#, "crop_size without do_center_crop"),
            (r#"{"resample":2,"size":{"longest_edge":3}}"#, "data did not match any variant"),
            (r#"{"resample":2,"size":3,"do_pad":true}"#, "do_pad is true"),
            (r#"{"crop_pct":1.5,"size":3,"do_normalize":false}"#, "crop_pct is 1.5"),
        ] {
            let text = steps(json).unwrap_err();
            assert!(text.starts_with(&format!("read p.json: {expected}")), "{text}");
        }
    }

    #[test]
    fn where_the_file_is_silent_its_class_decides() {
        let normal = r#""image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5]"#;
        let clip = steps(&format!(
            r#"{{"image_processor_type":"CLIPImageProcessor","size":{{"shortest_edge":9}},"crop_size":8,{normal}}}"#
        ));
        let clip = clip.unwrap();
        assert_eq!((clip.resize, clip.filter), (Resize::ShortestEdge(9), Filter::Bicubic));
        assert_eq!((clip.crop, clip.mean), (Some(center(8, 8)), [0.5; 3]));
        let vit = steps(&format!(r#"{{"image_processor_type":"ViTImageProcessor","size":9,{normal}}}"#)).unwrap();
        assert_eq!((vit.resize, vit.filter, vit.crop), (Resize::Exact { width: 9, height: 9 }, Filter::Bilinear, None));
        assert!((vit.rescale - 1.0 / 255.0).abs() < f64::EPSILON);
        let bgr = steps(&format!(r#"{{"resample":2,"size":9,"do_flip_channel_order":true,{normal}}}"#)).unwrap();
        assert_eq!(bgr.channel_order, ChannelOrder::Bgr);
    }

    #[test]
    fn classes_that_do_not_exclude_each_other_are_told_apart() {
        let of = |kind: &str| {
            labels(Path::new("c.json"), format!(r#"{{"id2label":{{"0":"a"}},"problem_type":{kind}}}"#).as_bytes())
                .map(|(_, multi_label)| multi_label)
        };
        assert!(!of("null").unwrap() && !of("\"single_label_classification\"").unwrap());
        assert!(of("\"multi_label_classification\"").unwrap());
        assert!(of("\"regression\"").unwrap_err().to_string().contains("regression"));
    }

    #[test]
    fn labels_need_every_index_once() {
        let of = |json: &str| labels(Path::new("c.json"), json.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(of(r#"{"id2label":{"1":"b","0":"a"}}"#).unwrap().0, Labels::new(["a", "b"]));
        assert!(of(r#"{"id2label":{"0":"a","2":"b"}}"#).unwrap_err().contains("has the key \"2\""));
        assert!(of(r#"{"id2label":{}}"#).unwrap_err().contains("is empty"));
        assert!(of(r#"{"id2label":{"0":"a","00":"b"}}"#).unwrap_err().contains("twice"));
    }
}
