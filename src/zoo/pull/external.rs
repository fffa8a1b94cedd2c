//! The files beside an ONNX file that hold its weights, as the file names them.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;

use super::error::PullError;
use super::receipt::RECEIPT_FILE;
use super::{CONFIG_FILE, MODEL_FILE, PREPROCESSOR_FILE, RECIPE_FILE};
use crate::graph::proto::{AttributeProto, DataLocation, GraphProto, ModelProto, NodeProto, TensorProto};

/// Files of external data at most. Exporters write one, or one a tensor.
const FILES_MAX: usize = 4096;

/// Names of the external data in `model`, each once.
///
/// # Errors
/// [`PullError::NotOnnx`] for what cannot be read, [`PullError::UnsafePath`] for a name that leads out of the folder or
/// onto another file of it. `file` is how messages call the model.
pub(super) fn names(file: &str, model: Bytes) -> Result<BTreeSet<String>, PullError> {
    let not_onnx = |why: String| PullError::NotOnnx { file: file.to_owned(), why };
    let model = ModelProto::decode(model).map_err(|error| not_onnx(error.to_string()))?;
    let graph = model.graph.as_ref().ok_or_else(|| not_onnx("it holds no graph".to_owned()))?;
    let mut found = BTreeSet::new();
    visit_graph(graph, &mut found);
    model.functions.iter().flat_map(|function| &function.node).for_each(|node| visit_node(node, &mut found));
    if found.len() > FILES_MAX {
        return Err(not_onnx(format!("its weights lie in {} files, at most {FILES_MAX} are allowed", found.len())));
    }
    match found.iter().find(|name| !is_safe(name)) {
        Some(name) => Err(PullError::UnsafePath { file: file.to_owned(), name: name.clone() }),
        None => Ok(found),
    }
}

// The recursion is bounded: prost refuses messages nested deeper than a hundred.
fn visit_graph(graph: &GraphProto, found: &mut BTreeSet<String>) {
    graph.initializer.iter().for_each(|tensor| visit_tensor(tensor, found));
    for sparse in &graph.sparse_initializer {
        sparse.values.iter().chain(&sparse.indices).for_each(|tensor| visit_tensor(tensor, found));
    }
    graph.node.iter().for_each(|node| visit_node(node, found));
}

fn visit_node(node: &NodeProto, found: &mut BTreeSet<String>) {
    for AttributeProto { t, tensors, g, graphs, sparse_tensor, sparse_tensors, .. } in &node.attribute {
        t.iter().chain(tensors).for_each(|tensor| visit_tensor(tensor, found));
        for sparse in sparse_tensor.iter().chain(sparse_tensors) {
            sparse.values.iter().chain(&sparse.indices).for_each(|tensor| visit_tensor(tensor, found));
        }
        g.iter().chain(graphs).for_each(|graph| visit_graph(graph, found));
    }
}

fn visit_tensor(tensor: &TensorProto, found: &mut BTreeSet<String>) {
    if tensor.data_location == Some(DataLocation::External as i32) {
        let location = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some("location"));
        found.extend(location.and_then(|entry| entry.value.clone()));
    }
}

/// A plain path below the model's folder, to no file that is written there anyway.
fn is_safe(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.');
    let ours = [MODEL_FILE, CONFIG_FILE, PREPROCESSOR_FILE, RECIPE_FILE, RECEIPT_FILE];
    let first = name.split('/').next().unwrap_or_default();
    name.split('/').all(plain)
        && !ours.iter().any(|own| first.eq_ignore_ascii_case(own))
        && !name.contains(|c: char| c == '\\' || c == ':' || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::proto::StringStringEntryProto;

    fn tensor(location: &str) -> TensorProto {
        let entry =
            |key: &str, value: &str| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
        TensorProto {
            data_location: Some(DataLocation::External as i32),
            external_data: vec![entry("offset", "0"), entry("location", location)],
            ..TensorProto::default()
        }
    }

    fn model(initializers: &[&str], constants: &[&str]) -> Bytes {
        let body =
            GraphProto { initializer: constants.iter().map(|name| tensor(name)).collect(), ..GraphProto::default() };
        let branch = AttributeProto { g: Some(body), ..AttributeProto::default() };
        let graph = GraphProto {
            initializer: initializers.iter().map(|name| tensor(name)).chain([TensorProto::default()]).collect(),
            node: vec![NodeProto { attribute: vec![branch], ..NodeProto::default() }],
            ..GraphProto::default()
        };
        ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec().into()
    }

    #[test]
    fn names_come_from_initializers_and_branches_each_once() {
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
        ] {
            let error = names("m", model(&[name], &[])).unwrap_err();
            assert!(matches!(error, PullError::UnsafePath { .. }), "{name:?}: {error}");
        }
    }

    #[test]
    fn what_is_no_model_is_told_apart() {
        for bytes in [&b"version https"[..], b"\x08\x08", b"{\"a\": 1}"] {
            let error = names("m", Bytes::from_static(bytes)).unwrap_err();
            assert!(matches!(error, PullError::NotOnnx { .. }), "{error}");
        }
    }
}
