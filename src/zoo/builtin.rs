//! The ResNet-20 for CIFAR-10 inside the binary, so that a first start needs no download. Its card is
//! `models/resnet20-cifar10/README.md`.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{Known, SignatureOverrides, ZooError, hex, huggingface, signature};
use crate::graph::{decode, interface};
use crate::pipeline::ModelSpec;
use crate::pipeline::infer::ModelSource;

pub(super) const MODEL: &[u8] = include_bytes!("../../models/resnet20-cifar10/model.onnx");
const CONFIG: &[u8] = include_bytes!("../../models/resnet20-cifar10/config.json");
const PREPROCESSOR: &[u8] = include_bytes!("../../models/resnet20-cifar10/preprocessor_config.json");

/// Opens it, through the same parsers as any directory.
pub(super) fn open() -> Result<ModelSpec, ZooError> {
    let (recipe, sample_shape) = huggingface::recipe(Path::new(super::PREPROCESSOR_FILE), PREPROCESSOR)?;
    let (labels, multi_label) = huggingface::labels(Path::new(super::CONFIG_FILE), CONFIG)?;
    let known = Known { sample: sample_shape, labels: Some(labels.len()), multi_label };
    let model = decode(Bytes::from_static(MODEL))?;
    let signature = signature(&interface(&model), known, &SignatureOverrides::default())
        .map_err(|cause| ZooError::Signature { path: super::MODEL_FILE.into(), cause })?;
    Ok(ModelSpec {
        name: "resnet20-cifar10".to_owned(),
        version: "1".to_owned(),
        source: ModelSource::Memory(Arc::from(MODEL)),
        signature,
        origin: "built in".to_owned(),
        sha256: hex(&Sha256::digest(MODEL)),
        recipe,
        sample_shape,
        recipe_source: format!("built-in {}", super::PREPROCESSOR_FILE),
        labels,
    })
}
