//! Weights without a graph: the graph is written in memory, of the size that the recipe makes.

use std::path::Path;
use std::sync::Arc;

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::recipe::{self, RecipeSource};
use super::{Beside, Choices, Found, Graph, Opened, ZooError, assemble, hex};
use crate::graph::build::{Dataset, GraphForm, build};
use crate::graph::weights::{Checkpoint, Hints, WeightsFile};
use crate::pipeline::infer::ModelSource;

/// Opens a safetensors file of torchvision, timm or transformers.
pub(super) fn open(found: &Found, path: &Path, beside: &Beside, choices: &Choices) -> Result<Opened, ZooError> {
    let wrong = |cause: Box<dyn std::error::Error + Send + Sync>| ZooError::Weights { path: path.to_owned(), cause };
    let hints = match &beside.config {
        Some((_, file)) => Hints::from_config(&file.bytes)
            .map_err(|cause| ZooError::Weights { path: file.path.clone(), cause: cause.into() })?,
        None => Hints::default(),
    };
    let file = WeightsFile::open(path).map_err(|cause| wrong(cause.into()))?;
    let mut checkpoint = Checkpoint::new(file, hints).map_err(|cause| wrong(cause.into()))?;

    let resolved = recipe::resolve(&beside.evidence(choices))?;
    let size = match (resolved.source, resolved.sample_shape) {
        // Nothing tells the size; a stem of 3x3 is for pictures of 32 pixels.
        (RecipeSource::Assumed, _) if checkpoint.architecture().is_for_small_pictures() => Dataset::Cifar.size(),
        (_, shape) if shape.width == shape.height => shape.width as usize,
        (_, shape) => {
            return Err(ZooError::Value {
                path: path.to_owned(),
                found: format!("a recipe for pictures of {}x{}", shape.width, shape.height),
                expected: "square ones; weights are served without a graph of their own only in that form".to_owned(),
            });
        }
    };
    let network = checkpoint.network().clone();
    let form = GraphForm { size, description: checkpoint.architecture().to_string(), ..GraphForm::default() };
    let model = build(&network, &form, &mut checkpoint).map_err(|cause| wrong(cause.into()))?;
    let bytes = model.encode_to_vec();
    let sha256 = sha256_of(path).map_err(|cause| ZooError::Read { path: path.to_owned(), cause })?;
    let graph = Graph { path: path.to_owned(), sha256, model };
    Ok(Opened {
        spec: assemble(found, &graph, beside, choices)?,
        source: ModelSource::Memory(Arc::from(bytes)),
        more_files: beside.labels_file().into_iter().collect(),
    })
}

/// Of the weights as they are on disk, by which they are known, and not of the graph made of them.
fn sha256_of(path: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut HashWriter(&mut hasher))?;
    Ok(hex(&hasher.finalize()))
}

/// Feeds a hasher from `io::copy`, so that a file of any size is read in small pieces.
struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
