//! `residual.toml`: what a person says about a model where its own files are silent or wrong. Every key is optional.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::labels::LabelsSetting;
use super::places::{Files, manifests};
use super::recipe::{Preset, RecipeKeys, RecipeSection};
use super::signature::{InputOverrides, OutputOverrides, SignatureOverrides};
use super::{ZooError, read};

/// The file, taken apart.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) path: PathBuf,
    pub(super) labels: Option<LabelsSetting>,
    pub(super) recipe: RecipeSection,
    pub(super) signature: SignatureOverrides,
}

/// The keys, as they are written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    labels: Option<LabelsSetting>,
    preset: Option<Preset>,
    #[serde(default)]
    recipe: RecipeKeys,
    #[serde(default)]
    input: InputOverrides,
    #[serde(default)]
    output: OutputOverrides,
}

impl Manifest {
    /// The file with the labels, if it names one.
    pub(super) fn labels_file(&self) -> Option<PathBuf> {
        match &self.labels {
            Some(LabelsSetting::File(file)) => Some(self.path.with_file_name(file)),
            Some(LabelsSetting::Names(_)) | None => None,
        }
    }
}

/// Reads the manifest of a model, if it has one.
pub(super) fn open(files: &Files) -> Result<Option<Manifest>, ZooError> {
    let Files::Disk { model, .. } = files else { return Ok(None) };
    let names = manifests(model);
    let names = names.each_ref().map(String::as_str);
    let Some(path) = files.side(&names) else { return Ok(None) };
    let bytes = read(&path)?;
    parse(&path, &bytes).map(Some)
}

pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest, ZooError> {
    let Keys { labels, preset, recipe, input, output } = toml::from_slice(bytes)
        .map_err(|cause| ZooError::Manifest { path: path.to_owned(), cause: Box::new(cause) })?;
    Ok(Manifest {
        path: path.to_owned(),
        labels,
        recipe: RecipeSection { preset, recipe },
        signature: SignatureOverrides { input, output },
    })
}
