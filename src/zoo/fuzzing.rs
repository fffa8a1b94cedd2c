//! Any texts beside a model are understood or refused, and a recipe that is taken can be followed.

use std::path::PathBuf;

use bytes::Bytes;

use super::config_json::ConfigJson;
use super::{Beside, Choices, Files, Found, Graph, SideFile, Version, assemble, manifest};
use crate::graph::decode;
use crate::pipeline::preprocess::{SAMPLE_PIXELS_MAX, preprocess};
use crate::pipeline::{Image, ImageFormat, ImageInfo};

/// Models with three classes: one for pictures of 4x4, one for any size.
const MODELS: [&[u8]; 2] = [
    include_bytes!("../../tests/models/multi-label/model.onnx"),
    include_bytes!("../../tests/models/nhwc-open/model.onnx"),
];
/// Samples up to this many values are computed; larger ones take too long.
const SAMPLE_LEN_MAX: usize = 1 << 16;

thread_local! {
    static GRAPHS: [Graph; 2] = MODELS.map(|bytes| Graph {
        path: PathBuf::from("model.onnx"),
        sha256: "0".repeat(64),
        model: decode(Bytes::from_static(bytes)).expect("a model of the tests"),
    });
}

/// Reads `data` behind its first byte as `residual.toml`, `config.json` and `preprocessor_config.json`, with a NUL between
/// them; an empty one is not there. The first byte chooses the model. What is understood has a label for each class and a
/// recipe that makes finite samples of its shape. True for a model that can be served.
pub fn model_folder(data: &[u8]) -> bool {
    let Some((&choice, texts)) = data.split_first() else { return false };
    let mut texts = texts.split(|&byte| byte == 0);
    let mut next = |name: &str| {
        let bytes = texts.next().filter(|text| !text.is_empty())?.to_vec();
        Some(SideFile { path: PathBuf::from(name), bytes })
    };
    let (toml, config, preprocessor) = (next("residual.toml"), next("config.json"), next("preprocessor_config.json"));
    let Ok(manifest) = toml.map(|file| manifest::parse(&file.path, &file.bytes)).transpose() else { return false };
    let parsed = |file: SideFile| ConfigJson::parse(&file.path, &file.bytes).map(|config| (config, file));
    let Ok(config) = config.map(parsed).transpose() else { return false };
    // Lists of labels in files of their own are not a part of this.
    if manifest.as_ref().is_some_and(|manifest| manifest.labels_file().is_some()) {
        return false;
    }
    let beside = Beside { manifest, config, preprocessor };
    let found = Found {
        name: "model".to_owned(),
        version: Version::first(),
        files: Files::Disk { model: PathBuf::from("model.onnx"), beside: Vec::new() },
    };
    let assembled =
        GRAPHS.with(|graphs| assemble(&found, &graphs[usize::from(choice) % 2], &beside, &Choices::default()));
    let spec = match assembled {
        Ok(spec) => spec,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    assert_eq!(spec.labels.len(), spec.signature.output.classes);
    assert!(spec.sample_shape.len() as u64 <= 3 * SAMPLE_PIXELS_MAX);
    if spec.sample_shape.len() > SAMPLE_LEN_MAX {
        return true;
    }
    let rgb: Vec<u8> = (0..7 * 5 * 3).map(|at| (at * 97 % 256) as u8).collect();
    let image = Image::new(ImageInfo { width: 7, height: 5, format: ImageFormat::Png }, rgb);
    let sample = preprocess(&image, &spec.recipe).expect("a recipe of a fixed size takes any picture");
    assert_eq!(sample.shape(), spec.sample_shape);
    assert!(sample.values().iter().all(|value| value.is_finite()), "{:?}", spec.recipe.steps());
    true
}
