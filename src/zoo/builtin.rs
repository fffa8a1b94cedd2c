//! The ResNet-20 for CIFAR-10 inside the binary, so that a first start needs no download. Its card is
//! `models/resnet20-cifar10/README.md`.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::config_json::ConfigJson;
use super::signature::{self, Known, SignatureOverrides};
use super::{Found, ZooError, hex, huggingface, labels};
use crate::graph::{decode, interface};
use crate::pipeline::ModelSpec;
use crate::pipeline::infer::ModelSource;

pub(super) const MODEL: &[u8] = include_bytes!("../../models/resnet20-cifar10/model.onnx");
const CONFIG: &[u8] = include_bytes!("../../models/resnet20-cifar10/config.json");
const PREPROCESSOR: &[u8] = include_bytes!("../../models/resnet20-cifar10/preprocessor_config.json");

/// Its name, unless it is asked for under another one.
pub(super) const NAME: &str = "resnet20-cifar10";

/// Opens it, through the same parsers as any directory.
pub(super) fn open(found: &Found) -> Result<ModelSpec, ZooError> {
    let config_path = Path::new(super::CONFIG_FILE);
    let config = ConfigJson::parse(config_path, CONFIG)?;
    let labels = labels::known(&found.files, None, Some((config_path, &config)))?;
    let (recipe, sample_shape) = huggingface::recipe(Path::new(super::PREPROCESSOR_FILE), PREPROCESSOR)?;
    let known = Known { sample: sample_shape, labels: None, multi_label: false };
    let signature =
        signature::signature(&interface(&decode(Bytes::from_static(MODEL))?), known, &SignatureOverrides::default())
            .map_err(|cause| ZooError::Signature { path: NAME.into(), cause })?;
    let (labels, label_source) = labels::complete(labels, signature.output.classes, &found.name)?;
    Ok(ModelSpec {
        name: found.name.clone(),
        version: found.version.to_string(),
        source: ModelSource::Memory(Arc::from(MODEL)),
        signature,
        origin: "built in".to_owned(),
        sha256: hex(&Sha256::digest(MODEL)),
        recipe,
        sample_shape,
        recipe_source: format!("built-in {}", super::PREPROCESSOR_FILE),
        labels,
        label_source: label_source.to_string(),
    })
}
