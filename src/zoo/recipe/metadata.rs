//! Recipes in the metadata of an ONNX file: Residual's own keys, the image keys of ONNX itself, and Ultralytics' exports.
//! timm's, torch's and optimum's exporters write nothing there that tells a recipe.

use std::collections::BTreeMap;

use super::error::{RecipeFileError, Wrong, wrong};
use super::section::RecipeKeys;
use super::{Base, Evidence, Layer, Preset, RecipeSource};
use crate::pipeline::preprocess::{CenterCrop, ChannelOrder, CropRounding, Filter, RecipeSteps, Resize};

/// Holds the name of a preset.
pub const PRESET_KEY: &str = "residual.preset";
/// Holds a recipe in JSON, whole or single steps of it.
pub const RECIPE_KEY: &str = "residual.recipe";

fn place(key: &str) -> String {
    format!("metadata {key} of the model")
}

/// `residual.preset` and `residual.recipe`: what `[recipe]` is to residual.toml.
pub(super) fn read_own(evidence: &Evidence<'_>) -> Result<Option<Layer>, RecipeFileError> {
    let key = |name: &str| evidence.metadata.and_then(|metadata| metadata.get(name));
    let (preset, recipe) = (key(PRESET_KEY), key(RECIPE_KEY));
    let preset = preset
        .map(|name| {
            name.parse::<Preset>().map_err(|_| {
                let expected = format!("one of {}", Preset::names().collect::<Vec<_>>().join(", "));
                Wrong { found: format!("the preset {name:?}"), expected }.at(&place(PRESET_KEY))
            })
        })
        .transpose()?;
    let keys = recipe
        .map(|json| {
            serde_json::from_str::<RecipeKeys>(json)
                .map_err(|cause| RecipeFileError::Syntax { place: place(RECIPE_KEY), cause })
        })
        .transpose()?;
    if preset.is_none() && keys.is_none() {
        return Ok(None);
    }
    Ok(Some(Layer {
        source: RecipeSource::OnnxMetadata,
        place: place(if keys.is_some() { RECIPE_KEY } else { PRESET_KEY }),
        base: preset.map(Base::Preset),
        keys: keys.unwrap_or_default(),
        note: None,
    }))
}

/// `Image.BitmapPixelFormat`, `Image.NominalPixelRange` and `Image.ColorSpaceGamma`, as ONNX's `docs/MetadataProps.md`
/// defines them. They tell what values the graph takes, and nothing of the picture's size. Keys and values are case
/// insensitive.
pub(super) fn read_image(evidence: &Evidence<'_>) -> Result<Option<Layer>, RecipeFileError> {
    let Some(metadata) = evidence.metadata else { return Ok(None) };
    let value = |name: &str| {
        metadata.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_ascii_lowercase())
    };
    let mut keys = RecipeKeys::default();
    let set = |name: &str, read: &mut dyn FnMut(&str) -> Result<(), Wrong>| match value(name) {
        Some(value) => read(&value).map_err(|error| error.at(&place(name))),
        None => Ok(()),
    };
    set("Image.ColorSpaceGamma", &mut |gamma| match gamma {
        "srgb" => Ok(()),
        other => wrong(format!("the gamma {other:?}"), "\"SRGB\": pixels are served as they are stored"),
    })?;
    set("Image.BitmapPixelFormat", &mut |format| {
        keys.channel_order = Some(match format {
            "rgb8" => ChannelOrder::Rgb,
            "bgr8" => ChannelOrder::Bgr,
            other => return wrong(format!("the pixel format {other:?}"), "\"Rgb8\" or \"Bgr8\""),
        });
        Ok(())
    })?;
    set("Image.NominalPixelRange", &mut |range| {
        // (v * rescale - mean) / std
        let (rescale, mean, std) = match range {
            "nominalrange_0_255" => (1.0, 0.0, 1.0),
            "normalized_0_1" => (1.0 / 255.0, 0.0, 1.0),
            "normalized_1_1" => (1.0 / 255.0, 0.5, 0.5),
            "nominalrange_16_235" => (219.0 / 255.0, -16.0, 1.0),
            other => {
                return wrong(
                    format!("the pixel range {other:?}"),
                    "\"NominalRange_0_255\", \"Normalized_0_1\", \"Normalized_1_1\" or \"NominalRange_16_235\"",
                );
            }
        };
        (keys.rescale, keys.mean, keys.std) = (Some(rescale), Some([mean; 3]), Some([std; 3]));
        Ok(())
    })?;
    Ok((!keys.is_empty()).then(|| Layer {
        source: RecipeSource::OnnxMetadata,
        place: "metadata Image.* of the model".to_owned(),
        base: None,
        keys,
        note: None,
    }))
}

/// Exports of Ultralytics' classifiers. From version 8.1 on their `classify_transforms` is torchvision's shortest edge and
/// centre crop of the same size, and pixels from 0 to 1; versions 8.1.0, 8.2.0, 8.3.0 and 8.4 were looked at.
pub(super) fn read_ultralytics(evidence: &Evidence<'_>) -> Result<Option<Layer>, RecipeFileError> {
    let Some(metadata) = evidence.metadata else { return Ok(None) };
    let value = |name: &str| metadata.get(name).map(String::as_str);
    if value("author") != Some("Ultralytics") || value("task") != Some("classify") || !is_from_8_1_on(metadata) {
        return Ok(None);
    }
    let size = value("imgsz").unwrap_or_default();
    let (height, width) = serde_json::from_str(size).map_err(|_| {
        Wrong { found: format!("imgsz is {size:?}"), expected: "[height, width]".to_owned() }.at(&place("imgsz"))
    })?;
    let resize = if width == height { Resize::ShortestEdge(width) } else { Resize::Exact { width, height } };
    let steps = RecipeSteps {
        resize,
        filter: Filter::Bilinear,
        crop: Some(CenterCrop::new(width, height, CropRounding::RoundHalfEven)),
        rescale: 1.0 / 255.0,
        mean: [0.0; 3],
        std: [1.0; 3],
        channel_order: ChannelOrder::Rgb,
    };
    Ok(Some(Layer {
        source: RecipeSource::OnnxMetadata,
        place: place("imgsz"),
        base: Some(Base::Steps(steps)),
        keys: RecipeKeys::default(),
        note: None,
    }))
}

fn is_from_8_1_on(metadata: &BTreeMap<String, String>) -> bool {
    let Some(version) = metadata.get("version") else { return false };
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    matches!((parts.next().flatten(), parts.next().flatten()), (Some(8), Some(1..)) | (Some(9..), Some(_)))
}
