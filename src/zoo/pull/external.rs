//! The files beside an ONNX file that hold its weights, as the file names them.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::error::PullError;
use super::receipt::RECEIPT_FILE;
use super::{CONFIG_FILE, MODEL_FILE, PREPROCESSOR_FILE, RECIPE_FILE};
use crate::graph::{GraphError, decode, external_data};
use crate::zoo::Version;

/// Files of external data at most. Exporters write one, or one a tensor.
const FILES_MAX: usize = 4096;
/// Ends of names that say how a model is served, or that are models: a file of weights has none of them.
const STEERING: [&str; 5] = [".toml", ".json", ".txt", ".onnx", ".safetensors"];

/// Names of the external data in `model`, each once.
///
/// # Errors
/// [`PullError::NotOnnx`] for what cannot be read or served, [`PullError::UnsafePath`] for a name that leads out of the
/// folder or to a file that means something there. `file` is how messages call the model.
pub(super) fn names(file: &str, model: Bytes) -> Result<BTreeSet<String>, PullError> {
    let not_onnx = |why: String| PullError::NotOnnx { file: file.to_owned(), why };
    let unsafe_path = |name: String| PullError::UnsafePath { file: file.to_owned(), name };
    let read = || external_data(&decode(model)?);
    let parts = read().map_err(|error| match error {
        GraphError::External { location, .. } if !is_safe(&location) => unsafe_path(location),
        error => not_onnx(error.to_string()),
    })?;
    let found: BTreeSet<String> = parts.into_iter().map(|part| part.location).collect();
    if found.len() > FILES_MAX {
        return Err(not_onnx(format!("its weights lie in {} files, at most {FILES_MAX} are allowed", found.len())));
    }
    match found.iter().find(|name| !is_safe(name)) {
        Some(name) => Err(unsafe_path(name.clone())),
        None => Ok(found),
    }
}

/// A plain path below the model's folder, to no file that is written there anyway or that would be taken for another
/// model, a newer version of this one, its recipe or its labels.
fn is_safe(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.');
    let ours = [MODEL_FILE, CONFIG_FILE, PREPROCESSOR_FILE, RECIPE_FILE, RECEIPT_FILE];
    let lower = name.to_ascii_lowercase();
    let first = lower.split('/').next().unwrap_or_default();
    // A file may be called like a number: old exports of torch have tensors of such names, and a file for each.
    let in_version = lower.split_once('/').is_some_and(|(folder, _)| Version::of_folder(folder).is_some());
    name.split('/').all(plain)
        && !in_version
        && !ours.contains(&first)
        && !STEERING.iter().any(|end| lower.ends_with(end))
        && !name.contains(|c: char| c == '\\' || c == ':' || c.is_control())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::graph::NODES_MAX;
    use crate::graph::proto::{
        AttributeProto, DataLocation, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
    };

    fn tensor(name: &str, location: &str) -> TensorProto {
        let entry =
            |key: &str, value: &str| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
        TensorProto {
            name: Some(name.into()),
            data_location: Some(DataLocation::External as i32),
            external_data: vec![entry("offset", "0"), entry("location", location)],
            ..TensorProto::default()
        }
    }

    fn tensors(locations: &[&str]) -> Vec<TensorProto> {
        locations.iter().enumerate().map(|(index, location)| tensor(&index.to_string(), location)).collect()
    }

    fn of_graph(graph: GraphProto) -> Bytes {
        ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec().into()
    }

    fn model(initializers: &[&str], constants: &[&str]) -> Bytes {
        let constants = AttributeProto { tensors: tensors(constants), ..AttributeProto::default() };
        of_graph(GraphProto {
            initializer: tensors(initializers),
            node: vec![NodeProto { attribute: vec![constants], ..NodeProto::default() }],
            ..GraphProto::default()
        })
    }

    #[test]
    fn names_come_from_initializers_and_nodes_each_once() {
        let names = names("m", model(&["w.bin", "w.bin", "sub/a.bin"], &["c.bin"])).unwrap();
        assert_eq!(names.iter().collect::<Vec<_>>(), ["c.bin", "sub/a.bin", "w.bin"]);
        let built_in = Bytes::from_static(include_bytes!("../../../models/resnet20-cifar10/model.onnx"));
        assert!(super::names("m", built_in).unwrap().is_empty());
    }

    #[test]
    fn names_that_climb_or_overwrite_are_refused() {
        for name in [
            "../w.bin",
            "/etc/passwd",
            "a/../../w",
            "a//b",
            "",
            ".",
            "a/.hidden",
            "a\\b",
            "c:w",
            "a\nb",
            "model.onnx",
            "Config.json",
            "receipt.json",
            "residual.toml",
            "receipt.json/x",
            "model.residual.toml",
            "labels.TXT",
            "id2label.json",
            "onnx/model.onnx",
            "model.safetensors",
            "1/w.bin",
            "20/model",
        ] {
            let error = names("m", model(&[name], &[])).unwrap_err();
            assert!(matches!(error, PullError::UnsafePath { .. }), "{name:?}: {error}");
        }
    }

    #[test]
    fn names_that_mean_nothing_else_are_let_past() {
        let plain = ["model.onnx.data", "model.onnx_data", "193", "01/w.bin", "onnx/layer1.0.conv1.weight", "w.jsonl"];
        assert_eq!(names("m", model(&plain, &[])).unwrap().len(), plain.len());
    }

    #[test]
    fn what_would_fill_the_memory_is_refused_unread() {
        let bytes = of_graph(GraphProto { node: vec![NodeProto::default(); NODES_MAX + 1], ..GraphProto::default() });
        let error = names("m", bytes).unwrap_err();
        assert!(matches!(error, PullError::NotOnnx { .. }), "{error}");
        assert!(error.to_string().contains("made to exhaust memory"), "{error}");
    }

    #[test]
    fn what_is_no_model_is_told_apart() {
        for bytes in [&b"version https"[..], b"\x08\x08", b"{\"a\": 1}"] {
            let error = names("m", Bytes::from_static(bytes)).unwrap_err();
            assert!(matches!(error, PullError::NotOnnx { .. }), "{error}");
        }
    }
}
