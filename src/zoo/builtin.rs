//! The ResNet-20 for CIFAR-10 inside the binary, so that a first start needs no download. Its card is
//! `models/resnet20-cifar10/README.md`.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::config_json::ConfigJson;
use super::recipe::RecipeSource;
use super::{CONFIG_FILE, Choices, Found, Origin, PREPROCESSOR_FILE, SideFile, ZooError, assemble};
use crate::graph::{OnnxFile, decode};
use crate::pipeline::ModelSpec;
use crate::pipeline::infer::ModelSource;

pub(super) const MODEL: &[u8] = include_bytes!("../../models/resnet20-cifar10/model.onnx");
const CONFIG: &[u8] = include_bytes!("../../models/resnet20-cifar10/config.json");
const PREPROCESSOR: &[u8] = include_bytes!("../../models/resnet20-cifar10/preprocessor_config.json");

/// Its name, unless it is asked for under another one.
pub(super) const NAME: &str = "resnet20-cifar10";

/// Opens it as any directory is opened.
pub(super) fn open(found: &Found, choices: &Choices) -> Result<ModelSpec, ZooError> {
    let bytes = Bytes::from_static(MODEL);
    let model = decode(bytes.clone())?;
    let side = |name: &str, bytes: &[u8]| SideFile { path: PathBuf::from(name), bytes: bytes.to_owned() };
    let config = side(CONFIG_FILE, CONFIG);
    let origin = Origin {
        source: ModelSource::Memory(Arc::from(MODEL)),
        file: OnnxFile { path: PathBuf::from(NAME), bytes, model },
        manifest: None,
        config: Some((ConfigJson::parse(&config.path, &config.bytes)?, config)),
        preprocessor: Some(side(PREPROCESSOR_FILE, PREPROCESSOR)),
    };
    let mut spec = assemble(found, &origin, choices)?;
    if spec.recipe_source == RecipeSource::PreprocessorConfig.as_str() {
        spec.recipe_source = RecipeSource::BuiltIn.as_str();
    }
    Ok(spec)
}
