//! The ResNet-20 for CIFAR-10 inside the binary, so that a first start needs no download. Its card is
//! `models/resnet20-cifar10/README.md`.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::recipe::{self, Evidence};
use super::{ZooError, hex, huggingface};
use crate::pipeline::ModelSpec;
use crate::pipeline::infer::ModelSource;

const MODEL: &[u8] = include_bytes!("../../models/resnet20-cifar10/model.onnx");
const CONFIG: &[u8] = include_bytes!("../../models/resnet20-cifar10/config.json");
const PREPROCESSOR: &[u8] = include_bytes!("../../models/resnet20-cifar10/preprocessor_config.json");

/// Opens it, through the same parsers as any directory.
pub(super) fn open() -> Result<ModelSpec, ZooError> {
    let resolved = recipe::resolve(&Evidence {
        preprocessor: Some((Path::new(super::PREPROCESSOR_FILE), PREPROCESSOR)),
        ..Evidence::default()
    })?;
    Ok(ModelSpec {
        name: "resnet20-cifar10".to_owned(),
        version: "1".to_owned(),
        source: ModelSource::Memory(Arc::from(MODEL)),
        origin: "built in".to_owned(),
        sha256: hex(&Sha256::digest(MODEL)),
        recipe: resolved.recipe,
        sample_shape: resolved.sample_shape,
        recipe_source: format!("built-in {}", super::PREPROCESSOR_FILE),
        labels: huggingface::labels(Path::new(super::CONFIG_FILE), CONFIG)?,
    })
}
