//! Which recipe a model was trained with, and who says so. [`resolve`] weighs what lies around a model; the files beside
//! this one read one kind of evidence each.

mod error;
mod metadata;
mod preset;
mod processor;
mod section;
pub mod timm;

#[cfg(test)]
mod tests;

pub use error::RecipeFileError;
pub use metadata::{PRESET_KEY, RECIPE_KEY};
pub use preset::{Preset, UnknownPreset};
pub use section::{CropKey, RecipeKeys, RecipeSection};

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::pipeline::SampleShape;
use crate::pipeline::preprocess::{Recipe, RecipeSteps};

/// Everything around a model that may tell its recipe. What is absent is `None` or empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// The preset that a flag or a setting names.
    pub explicit: Option<Preset>,
    /// What residual.toml says, and where it lies.
    pub residual: Option<(&'a Path, &'a RecipeSection)>,
    /// `metadata_props` of the ONNX file.
    pub metadata: Option<&'a BTreeMap<String, String>>,
    /// `preprocessor_config.json` and its bytes.
    pub preprocessor: Option<(&'a Path, &'a [u8])>,
    /// `config.json` and its bytes, of timm or of transformers.
    pub config: Option<(&'a Path, &'a [u8])>,
    /// The preset that the catalogue knows for the file's sha256.
    pub catalog: Option<Preset>,
    /// Width and height, where the graph fixes them.
    pub input_size: Option<(u32, u32)>,
}

/// Who tells the recipe. The words are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum RecipeSource {
    /// A flag or a setting.
    #[serde(rename = "setting")]
    Setting,
    /// residual.toml beside the model.
    #[serde(rename = "residual.toml")]
    ResidualToml,
    /// The metadata inside the ONNX file.
    #[serde(rename = "onnx_metadata")]
    OnnxMetadata,
    /// Hugging Face's file beside the model.
    #[serde(rename = "preprocessor_config.json")]
    PreprocessorConfig,
    /// timm's file beside the model.
    #[serde(rename = "config.json")]
    Config,
    /// The catalogue, by the file's sha256.
    #[serde(rename = "catalog")]
    Catalog,
    /// Nobody: [`Preset::ASSUMED`] is taken, and a warning is due.
    #[serde(rename = "assumed")]
    Assumed,
    /// The program itself, for the model inside it.
    #[serde(rename = "built_in")]
    BuiltIn,
}

impl RecipeSource {
    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Setting => "setting",
            Self::ResidualToml => "residual.toml",
            Self::OnnxMetadata => "onnx_metadata",
            Self::PreprocessorConfig => "preprocessor_config.json",
            Self::Config => "config.json",
            Self::Catalog => "catalog",
            Self::Assumed => "assumed",
            Self::BuiltIn => "built_in",
        }
    }
}

impl fmt::Display for RecipeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The recipe, and what is to be known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The recipe.
    pub recipe: Recipe,
    /// The shape of every sample.
    pub sample_shape: SampleShape,
    /// Who told the steps that no key above replaces.
    pub source: RecipeSource,
    /// Sentences for the log: keys that replaced steps, other published sizes, assumptions.
    pub notes: Vec<String>,
}

/// One voice: a whole recipe, or single steps of one, or a whole recipe and steps that differ from it.
struct Layer {
    source: RecipeSource,
    /// The file or the key, for errors and notes.
    place: String,
    base: Option<Base>,
    keys: RecipeKeys,
    note: Option<String>,
}

/// A whole recipe. A preset fits any graph; what stands in a file fits or is an error.
enum Base {
    Preset(Preset),
    Steps(RecipeSteps),
}

/// Reads one kind of evidence, if there is some.
type Reader = fn(&Evidence<'_>) -> Result<Option<Layer>, RecipeFileError>;

/// From the first word to the last. What stands below a whole recipe is not even read, so that a preset in residual.toml
/// helps beside a file that cannot be understood.
const READERS: [Reader; 8] = [
    read_setting,
    read_residual_toml,
    metadata::read_own,
    metadata::read_image,
    metadata::read_ultralytics,
    read_preprocessor,
    read_config,
    read_catalog,
];

/// The recipe of a model: the first whole recipe in the order of [`Evidence`]'s fields, and on top of it the single steps
/// that stand above it. A preset is brought to the size that the graph fixes.
///
/// # Errors
/// Where a file that counts cannot be understood, or makes samples that the graph does not take.
pub fn resolve(evidence: &Evidence<'_>) -> Result<Resolved, RecipeFileError> {
    // Highest first; the last one has the whole recipe.
    let mut layers = Vec::new();
    for read in READERS {
        if let Some(mut layer) = read(evidence)? {
            if let Some(steps) = layer.keys.complete() {
                layer.base = Some(Base::Steps(steps));
                layer.keys = RecipeKeys::default();
            }
            let whole = layer.base.is_some();
            layers.push(layer);
            if whole {
                break;
            }
        }
    }
    if layers.last().is_none_or(|layer| layer.base.is_none()) {
        layers.push(assumed());
    }
    finish(evidence, layers)
}

fn finish(evidence: &Evidence<'_>, mut layers: Vec<Layer>) -> Result<Resolved, RecipeFileError> {
    let mut notes: Vec<String> = layers.iter_mut().filter_map(|layer| layer.note.take()).collect();
    let lowest = layers.last_mut().expect("resolve ends with a whole recipe");
    let (source, base_place) = (lowest.source, lowest.place.clone());
    let mut steps = match lowest.base.take().expect("resolve ends with a whole recipe") {
        Base::Steps(steps) => steps,
        Base::Preset(preset) => {
            if let Some((width, height)) = evidence.input_size
                && preset.size() != (width, height)
            {
                let (w, h) = preset.size();
                notes.push(format!(
                    "{preset} is published for {w}x{h}; resize and crop are brought to {width}x{height}"
                ));
            }
            preset.steps(evidence.input_size)
        }
    };
    for layer in layers.iter().rev().filter(|layer| !layer.keys.is_empty()) {
        steps = layer.keys.over(&steps);
        notes.push(format!("{} sets {}", layer.place, layer.keys.names().join(", ")));
    }
    let place_of = |decides: fn(&RecipeKeys) -> bool| {
        layers.iter().find(|layer| decides(&layer.keys)).map_or(&base_place, |layer| &layer.place).clone()
    };
    let recipe = Recipe::new(steps)
        .map_err(|cause| RecipeFileError::Recipe { place: place_of(|keys| !keys.is_empty()), cause })?;
    let frame_place = || place_of(RecipeKeys::frame);
    let Some(sample_shape) = recipe.sample_shape() else {
        return Err(RecipeFileError::Value {
            place: frame_place(),
            found: "no fixed size of the model's input".to_owned(),
            expected: "a crop, or a resize to both width and height".to_owned(),
        });
    };
    let size = (sample_shape.width, sample_shape.height);
    match evidence.input_size {
        Some(graph) if graph != size => Err(RecipeFileError::Size { place: frame_place(), recipe: size, graph }),
        Some(_) | None => Ok(Resolved { recipe, sample_shape, source, notes }),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the readers share one signature")]
fn read_setting(evidence: &Evidence<'_>) -> Result<Option<Layer>, RecipeFileError> {
    let Some(preset) = evidence.explicit else { return Ok(None) };
    let unread = evidence.residual.filter(|(_, section)| section.preset.is_some() || !section.recipe.is_empty());
    Ok(Some(Layer {
        note: unread.map(|(path, _)| format!("the preset that was set wins over {}", path.display())),
        ..Layer::preset(RecipeSource::Setting, preset)
    }))
}

#[expect(clippy::unnecessary_wraps, reason = "the readers share one signature")]
fn read_residual_toml(evidence: &Evidence<'_>) -> Result<Option<Layer>, RecipeFileError> {
    Ok(evidence.residual.map(|(path, section)| Layer {
        source: RecipeSource::ResidualToml,
        place: path.display().to_string(),
        base: section.preset.map(Base::Preset),
        keys: section.recipe.clone(),
        note: None,
    }))
}

fn read_preprocessor(evidence: &Evidence<'_>) -> Result<Option<Layer>, RecipeFileError> {
    let Some((path, json)) = evidence.preprocessor else { return Ok(None) };
    let place = path.display().to_string();
    let found = processor::read(&place, json)?;
    Ok(found.map(|found| Layer::steps(RecipeSource::PreprocessorConfig, place, found)))
}

fn read_config(evidence: &Evidence<'_>) -> Result<Option<Layer>, RecipeFileError> {
    let Some((path, json)) = evidence.config else { return Ok(None) };
    let place = path.display().to_string();
    let found = timm::read(&place, json, evidence.input_size)?;
    Ok(found.map(|found| Layer::steps(RecipeSource::Config, place, found)))
}

#[expect(clippy::unnecessary_wraps, reason = "the readers share one signature")]
fn read_catalog(evidence: &Evidence<'_>) -> Result<Option<Layer>, RecipeFileError> {
    Ok(evidence.catalog.map(|preset| Layer::preset(RecipeSource::Catalog, preset)))
}

fn assumed() -> Layer {
    let note = format!(
        "nothing beside or inside the model tells how images are prepared: {} is assumed; name the right preset in \
         residual.toml",
        Preset::ASSUMED
    );
    Layer { note: Some(note), ..Layer::preset(RecipeSource::Assumed, Preset::ASSUMED) }
}

/// A whole recipe from a file, and what else is to be known about it.
#[derive(Debug, PartialEq)]
struct Found {
    steps: RecipeSteps,
    note: Option<String>,
}

impl Layer {
    fn preset(source: RecipeSource, preset: Preset) -> Self {
        let place = format!("the preset {preset}");
        Self { source, place, base: Some(Base::Preset(preset)), keys: RecipeKeys::default(), note: None }
    }

    fn steps(source: RecipeSource, place: String, Found { steps, note }: Found) -> Self {
        Self { source, place, base: Some(Base::Steps(steps)), keys: RecipeKeys::default(), note }
    }
}
