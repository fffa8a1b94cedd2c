//! Hugging Face's `preprocessor_config.json`: what the image processors of `transformers` do with it. Checked against
//! versions 4.57 and 5.23; where they differ, the newer one counts.

use serde::Deserialize;
use serde_json::Value;

use super::Found;
use super::error::{RecipeFileError, Wrong, wrong};
use super::preset::{CONVNEXT_SQUASH_FROM, by_crop_pct};
use crate::pipeline::preprocess::{CenterCrop, ChannelOrder, CropRounding, Filter, RecipeSteps, Resize};

/// `ConvNextImageProcessor.crop_pct`.
const CONVNEXT_CROP_PCT: f64 = 224.0 / 256.0;
/// `IMAGENET_STANDARD_MEAN` and `_STD` of transformers, which are not ImageNet's.
const HALF: [f32; 3] = [0.5; 3];
/// `OPENAI_CLIP_MEAN` and `_STD`, to the precision of an f32.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// The keys that change pixels. Nulls count as left out, as in version 5.
#[derive(Deserialize)]
struct Processor {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<Value>,
    crop_pct: Option<f64>,
    resample: Option<u8>,
    do_center_crop: Option<bool>,
    crop_size: Option<Value>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<Channels>,
    image_std: Option<Channels>,
    do_pad: Option<bool>,
    do_flip_channel_order: Option<bool>,
    /// Of `EfficientNetImageProcessor`: one is subtracted after rescaling.
    rescale_offset: Option<bool>,
    /// Of `EfficientNetImageProcessor`: the result is divided by the standard deviation again.
    include_top: Option<bool>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum Channels {
    Each([f32; 3]),
    All(f32),
}

impl Channels {
    fn each(self) -> [f32; 3] {
        match self {
            Self::Each(values) => values,
            Self::All(value) => [value; 3],
        }
    }
}

/// A size, in the two meanings that a recipe knows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Size {
    Edge(u32),
    Sides { width: u32, height: u32 },
}

/// What a processor's class does where its file is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The ResNets of Microsoft, RegNet, ConvNeXT: resize by `crop_pct`, then crop; squash from 384 on.
    ConvNext,
    /// Shortest edge, then crop.
    Bit,
    Clip,
    /// Squash.
    Vit,
    /// Squash, then crop.
    Deit,
    EfficientNet,
    /// No class is named, or one whose defaults are not known here: the file must say everything itself.
    Silent,
}

/// Processors whose resize is one of their own, so that reading their keys like everyone else's would be wrong.
const OWN_WAY: [&str; 4] = ["Levit", "MobileViT", "PoolFormer", "TextNet"];

/// Where a class differs from what all share.
struct Defaults {
    size: Size,
    resample: u8,
    crop: Option<u32>,
    mean: [f32; 3],
    std: [f32; 3],
}

impl Class {
    fn defaults(self) -> Option<Defaults> {
        let half = |size, resample, crop| Defaults { size, resample, crop, mean: HALF, std: HALF };
        let square = |side| Size::Sides { width: side, height: side };
        let clip = Defaults { size: Size::Edge(224), resample: 3, crop: Some(224), mean: CLIP_MEAN, std: CLIP_STD };
        match self {
            Self::ConvNext => Some(half(Size::Edge(384), 3, None)),
            Self::Bit | Self::Clip => Some(clip),
            Self::Vit => Some(half(square(224), 2, None)),
            Self::Deit => Some(half(square(256), 3, Some(224))),
            Self::EfficientNet => Some(half(square(346), 3, None)),
            Self::Silent => None,
        }
    }

    /// Whether `"size": 224` means a square, as `default_to_square` of the class says.
    fn number_is_square(self, crops: bool) -> bool {
        match self {
            Self::ConvNext | Self::Bit | Self::Clip => false,
            Self::Vit | Self::Deit | Self::EfficientNet => true,
            // Files of that age: the shortest edge where there is a crop, a square where there is none.
            Self::Silent => !crops,
        }
    }
}

/// The recipe in a `preprocessor_config.json`; `None` if it leaves everything to timm's `config.json`.
pub(super) fn read(place: &str, json: &[u8]) -> Result<Option<Found>, RecipeFileError> {
    let file: Processor =
        serde_json::from_slice(json).map_err(|cause| RecipeFileError::Syntax { place: place.to_owned(), cause })?;
    let (stem, _) = file.name();
    if stem == "TimmWrapper" {
        return Ok(None);
    }
    file.found().map(Some).map_err(|error| error.at(place))
}

impl Processor {
    /// The class without its endings, and whether it computes with torch.
    fn name(&self) -> (&str, bool) {
        let name = self.image_processor_type.as_deref().or(self.feature_extractor_type.as_deref()).unwrap_or_default();
        let (name, fast) = name.strip_suffix("Fast").map_or((name, false), |name| (name, true));
        let name = name.strip_suffix("Pil").unwrap_or(name);
        let stem = name.strip_suffix("ImageProcessor").or_else(|| name.strip_suffix("FeatureExtractor"));
        (stem.unwrap_or(name), fast)
    }

    fn found(&self) -> Result<Found, Wrong> {
        let (stem, fast) = self.name();
        let class = match stem {
            "ConvNext" => Class::ConvNext,
            // The key is ConvNeXT's; files without a class come from its early versions.
            "" if self.crop_pct.is_some() => Class::ConvNext,
            "Bit" => Class::Bit,
            "CLIP" => Class::Clip,
            "ViT" => Class::Vit,
            "DeiT" => Class::Deit,
            "EfficientNet" => Class::EfficientNet,
            _ if OWN_WAY.contains(&stem) || self.crop_pct.is_some() => {
                return wrong(
                    format!("the image processor is {stem:?}, which resizes in a way of its own"),
                    "ConvNext, Bit, CLIP, ViT, DeiT or EfficientNet; or a preset in residual.toml",
                );
            }
            _ => Class::Silent,
        };
        let mut notes = Vec::new();
        if class == Class::Silent && !stem.is_empty() {
            notes.push(format!("the image processor {stem:?} is not known; its keys are read like everyone else's"));
        }
        if class == Class::ConvNext && self.resample.is_none() && self.do_resize != Some(false) {
            notes.push("no resample is named: transformers 5 takes bicubic, version 4 took bilinear".to_owned());
        }
        let steps = self.steps(class, fast)?;
        Ok(Found { steps, note: (!notes.is_empty()).then(|| notes.join("; ")) })
    }

    fn steps(&self, class: Class, fast: bool) -> Result<RecipeSteps, Wrong> {
        if self.do_pad == Some(true) {
            return wrong("do_pad is true", "false: padding is not supported");
        }
        let rounding = if fast { CropRounding::FloorPadAfter } else { CropRounding::Floor };
        let (resize, crop) =
            if class == Class::ConvNext { self.convnext(rounding)? } else { self.resize_and_crop(class, rounding)? };
        let (mean, std) = self.mean_and_std(class)?;
        let rescale = if self.do_rescale.unwrap_or(true) { self.rescale_factor.unwrap_or(1.0 / 255.0) } else { 1.0 };
        let flip = self.do_flip_channel_order.unwrap_or(false);
        let channel_order = if flip { ChannelOrder::Bgr } else { ChannelOrder::Rgb };
        Ok(RecipeSteps { resize, filter: self.filter(class)?, crop, rescale, mean, std, channel_order })
    }

    /// `resample` is a code of `PIL.Image.Resampling`.
    fn filter(&self, class: Class) -> Result<Filter, Wrong> {
        let code = self.resample.or_else(|| Some(class.defaults()?.resample));
        Ok(match code {
            Some(0) => Filter::Nearest,
            Some(1) => Filter::Lanczos,
            Some(2) => Filter::Bilinear,
            Some(3) => Filter::Bicubic,
            Some(4) => Filter::Box,
            Some(5) => Filter::Hamming,
            Some(other) => return wrong(format!("resample is {other}"), "a code of Pillow's filters, 0 to 5"),
            None if self.do_resize == Some(false) => Filter::Bilinear,
            None => return wrong("no resample", "a code of Pillow's filters, 0 to 5"),
        })
    }

    fn resize_and_crop(&self, class: Class, rounding: CropRounding) -> Result<(Resize, Option<CenterCrop>), Wrong> {
        let defaults = class.defaults();
        let default_crop = defaults.as_ref().and_then(|defaults| defaults.crop);
        let crops = match self.do_center_crop {
            Some(crops) => crops,
            None if class == Class::Silent && self.crop_size.is_some() => {
                return wrong("crop_size without do_center_crop", "do_center_crop true or false");
            }
            None => default_crop.is_some(),
        };
        let resize = if self.do_resize.unwrap_or(true) {
            let given =
                self.size.as_ref().map(|size| size_of(size, class.number_is_square(crops), "size")).transpose()?;
            match given.or(defaults.map(|defaults| defaults.size)) {
                Some(Size::Edge(edge)) => Resize::ShortestEdge(edge),
                Some(Size::Sides { width, height }) => Resize::Exact { width, height },
                None => return wrong("do_resize without a size", SIZES),
            }
        } else {
            Resize::None
        };
        if !crops {
            return Ok((resize, None));
        }
        let given = self.crop_size.as_ref().map(|size| size_of(size, true, "crop_size")).transpose()?;
        let default = default_crop.map(|side| Size::Sides { width: side, height: side });
        match given.or(default) {
            Some(Size::Sides { width, height }) => Ok((resize, Some(CenterCrop::new(width, height, rounding)))),
            // Files of 2022 carry a crop_size that was made like a size.
            Some(Size::Edge(edge)) => Ok((resize, Some(CenterCrop::new(edge, edge, rounding)))),
            None => wrong("do_center_crop without a crop_size", "{\"height\": N, \"width\": N}"),
        }
    }

    fn convnext(&self, rounding: CropRounding) -> Result<(Resize, Option<CenterCrop>), Wrong> {
        if self.do_resize == Some(false) {
            return Ok((Resize::None, None));
        }
        let given = self.size.as_ref().map(|size| size_of(size, false, "size")).transpose()?;
        let edge = match given.unwrap_or(Size::Edge(CONVNEXT_SQUASH_FROM)) {
            Size::Edge(edge) => edge,
            Size::Sides { width, height } => {
                return wrong(format!("a ConvNext processor of size {width}x{height}"), "size {\"shortest_edge\": N}");
            }
        };
        if self.do_center_crop == Some(true) {
            // Version 5 crops once more, version 4 did not look at the key.
            let again = self.crop_size.as_ref().map(|size| size_of(size, true, "crop_size")).transpose()?;
            if again != Some(Size::Sides { width: edge, height: edge }) {
                return wrong(
                    "a ConvNext processor with a second crop",
                    "do_center_crop false, or a crop_size like size",
                );
            }
        }
        if edge >= CONVNEXT_SQUASH_FROM {
            return Ok((Resize::Exact { width: edge, height: edge }, None));
        }
        let crop_pct = self.crop_pct.unwrap_or(CONVNEXT_CROP_PCT);
        if !(crop_pct > 0.0 && crop_pct <= 1.0) {
            return wrong(format!("crop_pct is {crop_pct}"), "a number above 0 and up to 1");
        }
        Ok((Resize::ShortestEdge(by_crop_pct(edge, crop_pct)), Some(CenterCrop::new(edge, edge, rounding))))
    }

    fn mean_and_std(&self, class: Class) -> Result<([f32; 3], [f32; 3]), Wrong> {
        let defaults = class.defaults();
        let given = |channels: Option<Channels>| channels.map(Channels::each);
        let mean = given(self.image_mean).or(defaults.as_ref().map(|defaults| defaults.mean));
        let std = given(self.image_std).or(defaults.as_ref().map(|defaults| defaults.std));
        let (mut mean, mut std) = match (self.do_normalize.unwrap_or(true), mean, std) {
            (false, _, _) => ([0.0; 3], [1.0; 3]),
            (true, Some(mean), Some(std)) => (mean, std),
            (true, _, _) => return wrong("do_normalize without image_mean and image_std", "three numbers in each"),
        };
        if self.rescale_offset == Some(true) {
            mean = mean.map(|mean| mean + 1.0);
        }
        if class == Class::EfficientNet && self.include_top.unwrap_or(true) {
            // (x - mean) / std, and that divided by image_std: also where the first step is left out.
            let again = given(self.image_std).unwrap_or(HALF);
            std = std::array::from_fn(|channel| std[channel] * again[channel]);
        }
        Ok((mean, std))
    }
}

/// What a size may look like.
const SIZES: &str = "{\"shortest_edge\": N}, {\"height\": N, \"width\": N}, [height, width] or N";

/// Sizes are written in four ways.
fn size_of(size: &Value, number_is_square: bool, key: &str) -> Result<Size, Wrong> {
    let number = |value: &Value| value.as_u64().and_then(|value| u32::try_from(value).ok());
    let read = || match size {
        Value::Number(_) if number_is_square => {
            let side = number(size)?;
            Some(Size::Sides { width: side, height: side })
        }
        Value::Number(_) => number(size).map(Size::Edge),
        Value::Array(sides) => match sides.as_slice() {
            [height, width] => Some(Size::Sides { width: number(width)?, height: number(height)? }),
            _ => None,
        },
        Value::Object(keys) => {
            // Version 5 leaves out what is null, version 4 did not always.
            let set = |name: &str| keys.get(name).filter(|value| !value.is_null());
            let all = keys.values().filter(|value| !value.is_null()).count();
            match (set("shortest_edge"), set("height"), set("width")) {
                (Some(edge), None, None) if all == 1 => number(edge).map(Size::Edge),
                (None, Some(height), Some(width)) if all == 2 => {
                    Some(Size::Sides { width: number(width)?, height: number(height)? })
                }
                _ => None,
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => None,
    };
    read().ok_or_else(|| Wrong { found: format!("{key} is {size}"), expected: SIZES.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str) -> Result<Found, String> {
        read("p.json", json.as_bytes()).map(|found| found.unwrap()).map_err(|error| error.to_string())
    }

    fn steps(json: &str) -> Result<RecipeSteps, String> {
        found(json).map(|found| found.steps)
    }

    fn center(width: u32, height: u32) -> CenterCrop {
        CenterCrop::new(width, height, CropRounding::Floor)
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
        let of = |size| {
            let json = format!(
                r#"{{"image_processor_type":"ConvNextImageProcessor","size":{size},"resample":3,"do_normalize":false}}"#
            );
            steps(&json).map(|steps| (steps.resize, steps.crop)).unwrap()
        };
        assert_eq!(of("384"), (Resize::Exact { width: 384, height: 384 }, None));
        assert_eq!(of("null"), of("384"));
        // One below: 383 / 0.875 = 437.7.
        assert_eq!(of("383"), (Resize::ShortestEdge(437), Some(center(383, 383))));
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
            (r#"{"resample":2}"#, "do_resize without a size; expected {\"shortest_edge\": N}"),
            (r#"{"resample":9,"size":3,"do_normalize":false}"#, "resample is 9; expected"),
            (r#"{"size":3,"do_normalize":false}"#, "no resample; expected"),
            (r#"{"resample":2,"size":3}"#, "do_normalize without image_mean"),
            (r#"{"resample":2,"size":3,"crop_size":2,"do_normalize":false}"#, "crop_size without do_center_crop"),
            (
                r#"{"resample":2,"size":{"longest_edge":3}}"#,
                "size is {\"longest_edge\":3}; expected {\"shortest_edge\"",
            ),
            (r#"{"resample":2,"size":{"longest_edge":3,"shortest_edge":2}}"#, "size is {\"longest_edge\":3,"),
            (r#"{"resample":2,"size":[1,2,3]}"#, "size is [1,2,3]; expected"),
            (r#"{"resample":2,"size":-1}"#, "size is -1; expected"),
            (r#"{"resample":2,"size":3,"do_pad":true}"#, "do_pad is true"),
            (r#"{"crop_pct":1.5,"size":3,"do_normalize":false}"#, "crop_pct is 1.5"),
            (r#"{"image_processor_type":"ConvNextImageProcessor","size":[3,4]}"#, "a ConvNext processor of size 4x3"),
            (
                r#"{"image_processor_type":"ConvNextImageProcessor","size":9,"do_center_crop":true,"crop_size":8}"#,
                "a ConvNext processor with a second crop",
            ),
            (
                r#"{"image_processor_type":"LevitImageProcessorFast","size":9}"#,
                "the image processor is \"Levit\", which resizes in a way of its own",
            ),
            (
                r#"{"image_processor_type":"OtherImageProcessor","size":9,"crop_pct":0.9}"#,
                "the image processor is \"Other\", which resizes in a way of its own",
            ),
        ] {
            let text = steps(json).unwrap_err();
            assert!(text.starts_with(&format!("read p.json: {expected}")), "{text}");
        }
    }

    #[test]
    fn where_the_file_is_silent_its_class_decides() {
        let of = |class: &str| steps(&format!(r#"{{"image_processor_type":"{class}ImageProcessor"}}"#)).unwrap();
        let (bit, clip, vit, deit, convnext) = (of("Bit"), of("CLIP"), of("ViT"), of("DeiT"), of("ConvNext"));
        assert_eq!(bit, clip);
        assert_eq!((clip.resize, clip.filter), (Resize::ShortestEdge(224), Filter::Bicubic));
        assert_eq!((clip.crop, clip.mean), (Some(center(224, 224)), CLIP_MEAN));
        assert_eq!((vit.resize, vit.filter), (Resize::Exact { width: 224, height: 224 }, Filter::Bilinear));
        assert_eq!((vit.crop, vit.std), (None, HALF));
        assert!((vit.rescale - 1.0 / 255.0).abs() < f64::EPSILON);
        assert_eq!((deit.resize, deit.filter), (Resize::Exact { width: 256, height: 256 }, Filter::Bicubic));
        assert_eq!(deit.crop, Some(center(224, 224)));
        assert_eq!((convnext.resize, convnext.mean), (Resize::Exact { width: 384, height: 384 }, HALF));
    }

    #[test]
    fn a_number_as_size_means_what_the_class_makes_of_it() {
        let resize = |class: &str| {
            let json = format!(r#"{{"image_processor_type":"{class}","size":9,"crop_size":8}}"#);
            let steps = steps(&json).unwrap();
            (steps.resize, steps.crop)
        };
        let square = Resize::Exact { width: 9, height: 9 };
        assert_eq!(resize("CLIPFeatureExtractor"), (Resize::ShortestEdge(9), Some(center(8, 8))));
        assert_eq!(resize("DeiTFeatureExtractor"), (square, Some(center(8, 8))));
        assert_eq!(resize("ViTFeatureExtractor"), (square, None));
        let silent = |crops: bool| {
            let normal = r#""resample":2,"image_mean":0.5,"image_std":[0.5,0.5,0.5]"#;
            steps(&format!(r#"{{"size":9,"crop_size":[8,7],"do_center_crop":{crops},{normal}}}"#)).unwrap()
        };
        assert_eq!((silent(true).resize, silent(true).crop), (Resize::ShortestEdge(9), Some(center(7, 8))));
        assert_eq!((silent(false).resize, silent(false).mean), (square, HALF));
    }

    #[test]
    fn processors_on_torch_pad_the_other_side() {
        let rounding = |class: &str| {
            let json = format!(r#"{{"image_processor_type":"{class}"}}"#);
            steps(&json).unwrap().crop.unwrap().rounding
        };
        assert_eq!(rounding("BitImageProcessorFast"), CropRounding::FloorPadAfter);
        assert_eq!(rounding("BitImageProcessorPil"), CropRounding::Floor);
        assert_eq!(rounding("BitImageProcessor"), CropRounding::Floor);
    }

    #[test]
    fn efficientnet_divides_twice_and_may_subtract_one() {
        let of = |rest: &str| {
            let json = format!(
                r#"{{"image_processor_type":"EfficientNetImageProcessor","size":9,"resample":0,"image_mean":0.4,"image_std":0.5,{rest}}}"#
            );
            steps(&json).map(|steps| (steps.mean, steps.std)).unwrap()
        };
        assert_eq!(of("\"include_top\":true"), ([0.4; 3], [0.25; 3]));
        assert_eq!(of("\"include_top\":null,\"rescale_offset\":true"), ([1.4; 3], [0.25; 3]));
        assert_eq!(of("\"include_top\":false"), ([0.4; 3], [0.5; 3]));
    }

    #[test]
    fn what_is_not_certain_is_noted() {
        let note = |json: &str| found(json).unwrap().note;
        let all = r#""size":9,"resample":2,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5]"#;
        assert_eq!(note(&format!(r#"{{"image_processor_type":"ViTImageProcessor",{all}}}"#)), None);
        let unknown = note(&format!(r#"{{"image_processor_type":"SiglipImageProcessor",{all}}}"#)).unwrap();
        assert!(unknown.starts_with("the image processor \"Siglip\" is not known"));
        let silent = note(r#"{"image_processor_type":"ConvNextImageProcessor","size":9}"#).unwrap();
        assert!(silent.contains("transformers 5 takes bicubic"));
    }

    #[test]
    fn channels_may_be_turned_around() {
        let json = r#"{"resample":2,"size":9,"do_flip_channel_order":true,"do_normalize":false}"#;
        assert_eq!(steps(json).unwrap().channel_order, ChannelOrder::Bgr);
    }

    #[test]
    fn timms_wrapper_leaves_it_to_timms_file() {
        assert_eq!(read("p.json", br#"{"image_processor_type":"TimmWrapperImageProcessor"}"#).unwrap(), None);
    }
}
