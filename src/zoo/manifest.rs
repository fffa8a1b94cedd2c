//! `residual.toml`: what a person says about a model where its own files are silent or wrong. Every key is optional.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::labels::LabelsSetting;
use super::places::Files;
use super::recipe::{Preset, RecipeKeys, RecipeSection};
use super::signature::{InputOverrides, OutputOverrides, SignatureOverrides};
use super::{ZooError, read};

/// Beside a directory's model; beside a lone file `NAME.residual.toml` comes first.
const FILE: &str = "residual.toml";

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

/// Reads the manifest of a model, if it has one.
pub(super) fn open(files: &Files) -> Result<Option<Manifest>, ZooError> {
    let own = match files {
        Files::Disk { model, .. } => model.file_stem().map(|stem| format!("{}.{FILE}", stem.to_string_lossy())),
        Files::Builtin => None,
    };
    let names: Vec<&str> = own.as_deref().into_iter().chain([FILE]).collect();
    let Some(path) = files.side(&names) else { return Ok(None) };
    let bytes = read(&path)?;
    parse(&path, &bytes).map(Some)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest, ZooError> {
    let Keys { labels, preset, recipe, input, output } = toml::from_slice(bytes)
        .map_err(|cause| ZooError::Manifest { path: path.to_owned(), cause: Box::new(cause) })?;
    Ok(Manifest {
        path: path.to_owned(),
        labels,
        recipe: RecipeSection { preset, recipe },
        signature: SignatureOverrides { input, output },
    })
}
