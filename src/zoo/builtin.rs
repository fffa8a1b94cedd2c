//! The ResNet-20 for CIFAR-10 inside the binary, so that a first start needs no download. Its card is
//! `models/resnet20-cifar10/README.md`.

use std::path::PathBuf;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::config_json::ConfigJson;
use super::recipe::RecipeSource;
use super::{Beside, CONFIG_FILE, Choices, Found, Graph, Opened, PREPROCESSOR_FILE, SideFile, ZooError, assemble, hex};
use crate::graph::decode;
use crate::pipeline::infer::ModelSource;

pub(super) const MODEL: &[u8] = include_bytes!("../../models/resnet20-cifar10/model.onnx");
const CONFIG: &[u8] = include_bytes!("../../models/resnet20-cifar10/config.json");
const PREPROCESSOR: &[u8] = include_bytes!("../../models/resnet20-cifar10/preprocessor_config.json");

/// Its name, unless it is asked for under another one.
pub(super) const NAME: &str = "resnet20-cifar10";

/// Opens it as any directory is opened.
pub(super) fn open(found: &Found, choices: &Choices) -> Result<Opened, ZooError> {
    let side = |name: &str, bytes: &[u8]| SideFile { path: PathBuf::from(name), bytes: bytes.to_owned() };
    let config = side(CONFIG_FILE, CONFIG);
    let beside = Beside {
        config: Some((ConfigJson::parse(&config.path, &config.bytes)?, config)),
        preprocessor: Some(side(PREPROCESSOR_FILE, PREPROCESSOR)),
        ..Beside::default()
    };
    let graph = Graph {
        path: PathBuf::from(NAME),
        sha256: hex(&Sha256::digest(MODEL)),
        model: decode(Bytes::from_static(MODEL))?,
    };
    let mut spec = assemble(found, &graph, &beside, choices)?;
    if spec.recipe_source == RecipeSource::PreprocessorConfig.as_str() {
        spec.recipe_source = RecipeSource::BuiltIn.as_str();
    }
    Ok(Opened { spec, source: ModelSource::Memory(Bytes::from_static(MODEL)), more_files: Vec::new() })
}
