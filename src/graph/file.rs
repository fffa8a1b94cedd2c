//! From a path or bytes to a model that has been checked. What the model means is left to others.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;

use super::proto::ModelProto;
use super::{GraphError, check, scan, sniff};

/// Most bytes of a file: protobuf's own bound on one message, which ONNX Runtime keeps too.
pub const FILE_BYTES_MAX: u64 = i32::MAX as u64;
/// Bytes that are read before the kind of a file is known.
const HEAD_BYTES: u64 = 4096;

/// An ONNX file that was read and checked.
#[derive(Debug, Clone)]
pub struct OnnxFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// The bytes of the file.
    pub bytes: Bytes,
    /// The model; its weights are views into `bytes`.
    pub model: ModelProto,
}

impl OnnxFile {
    /// Reads the model at `path`. External data need not be there: see [`check_external`](super::check_external).
    ///
    /// # Errors
    /// [`GraphError::InFile`] around the reason.
    pub fn open(path: &Path) -> Result<Self, GraphError> {
        let read = || {
            let bytes = read(path)?;
            let model = decode(bytes.clone())?;
            Ok(Self { path: path.to_owned(), bytes, model })
        };
        read().map_err(|error: GraphError| error.in_file(path))
    }
}

/// Reads a whole file of at most [`FILE_BYTES_MAX`], unless its head says that it is no model.
fn read(path: &Path) -> Result<Bytes, GraphError> {
    // Before opening: that of a pipe waits for a writer.
    if !std::fs::metadata(path).map_err(GraphError::Io)?.is_file() {
        return Err(GraphError::NotAFile);
    }
    let mut file = File::open(path).map_err(GraphError::Io)?;
    let len = file.metadata().map_err(GraphError::Io)?.len();
    let mut bytes = Vec::new();
    file.by_ref().take(HEAD_BYTES).read_to_end(&mut bytes).map_err(GraphError::Io)?;
    sniff::sniff(&bytes)?;
    if len > FILE_BYTES_MAX {
        return Err(GraphError::TooLarge { found: len, max: FILE_BYTES_MAX });
    }
    // One byte more than was announced: a file that grows meanwhile is seen to be too large.
    bytes.reserve_exact(usize::try_from(len).unwrap_or(0).saturating_sub(bytes.len()));
    file.take(FILE_BYTES_MAX + 1 - bytes.len() as u64).read_to_end(&mut bytes).map_err(GraphError::Io)?;
    Ok(Bytes::from(bytes))
}

/// Makes a model of the bytes of a file. The weights stay views into `bytes`; what decoding allocates beside them is
/// bounded by [`EXCESS_BYTES_MAX`](super::EXCESS_BYTES_MAX).
///
/// # Errors
/// Why it is no model, or one that contradicts itself: another kind of file, damaged, beyond a bound, a tensor that
/// claims what it does not hold, a name that nothing writes, a cycle, external data outside the model's directory.
pub fn decode(bytes: Bytes) -> Result<ModelProto, GraphError> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(GraphError::TooLarge { found: bytes.len() as u64, max: FILE_BYTES_MAX });
    }
    sniff::sniff(&bytes)?;
    scan::scan(&bytes)?;
    // The scan has seen to the bounds; what is left are fields of the wrong kind, and text that is not UTF-8.
    let model = ModelProto::decode(bytes).map_err(|cause| GraphError::Broken { what: cause.to_string() })?;
    check::check(&model)?;
    Ok(model)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::graph::proto::{
        GraphProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, ValueInfoProto,
    };
    use crate::graph::{EXCESS_BYTES_MAX, NODES_MAX, check_external, external_data};

    const BUILTIN: &[u8] = include_bytes!("../../models/resnet20-cifar10/model.onnx");

    fn error(bytes: impl Into<Vec<u8>>) -> String {
        decode(Bytes::from(bytes.into())).expect_err("refused").to_string()
    }

    fn named(name: &str) -> ValueInfoProto {
        ValueInfoProto { name: Some(name.to_owned()), ..Default::default() }
    }

    fn node(op: &str, reads: &[&str], writes: &[&str]) -> NodeProto {
        NodeProto {
            op_type: Some(op.to_owned()),
            input: reads.iter().map(|name| (*name).to_owned()).collect(),
            output: writes.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        }
    }

    fn tensor(name: &str, dims: &[i64]) -> TensorProto {
        TensorProto { name: Some(name.to_owned()), dims: dims.to_vec(), data_type: Some(1), ..Default::default() }
    }

    fn external(name: &str, dims: &[i64], entries: &[(&str, &str)]) -> TensorProto {
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
            key: Some((*key).to_owned()),
            value: Some((*value).to_owned()),
        };
        let external_data = entries.iter().map(entry).collect();
        TensorProto { external_data, data_location: Some(1), ..tensor(name, dims) }
    }

    fn model(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
        let graph = GraphProto { node, initializer, input: vec![named("x")], ..Default::default() };
        ModelProto {
            ir_version: Some(8),
            graph: Some(graph),
            opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
            ..Default::default()
        }
    }

    fn refusal(model: &ModelProto) -> String {
        error(model.encode_to_vec())
    }

    #[test]
    fn the_built_in_model_is_read_and_its_weights_are_not_copied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        fs::write(&path, BUILTIN).unwrap();
        let file = OnnxFile::open(&path).unwrap();
        let graph = file.model.graph.unwrap();
        let weights = graph.initializer.iter().find_map(|tensor| tensor.raw_data.as_ref()).unwrap();
        assert!(file.bytes.as_ptr_range().contains(&weights.as_ptr()));
    }

    #[test]
    fn a_file_that_is_no_model_is_named_and_told_what_to_do() {
        let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:4e8f\nsize 46820737\n";
        assert!(error(lfs).contains("Git LFS pointer") && error(lfs).contains("of 46820737 bytes"), "{}", error(lfs));
        assert!(error(lfs).contains("git lfs pull"));
        let mut safetensors = 64_u64.to_le_bytes().to_vec();
        safetensors.extend_from_slice(b"{\"__metadata__\":{}}");
        let cases: [(Vec<u8>, &str); 12] = [
            (Vec::new(), "empty"),
            (b"<!DOCTYPE html><html>".to_vec(), "HTML"),
            (b"\n <html>\xc3".to_vec(), "HTML"),
            (b"{\"error\": \"gone\"}".to_vec(), "JSON"),
            (b"Not Found".to_vec(), "text"),
            (safetensors, "residual convert"),
            (b"PK\x03\x04archive/data.pkl".to_vec(), "torch.onnx.export"),
            (b"\x80\x02ctorch".to_vec(), "pickle"),
            (b"\x1f\x8b\x08\x00".to_vec(), "unpack"),
            (b"\x08\x01\x12\x80\x10\x0a\x10".to_vec(), "tf2onnx"),
            (b"\x0a\x1b\x0a\x05input\x12\x0bPlaceholder".to_vec(), "tf2onnx"),
            (b"\x1c\0\0\0TFL3".to_vec(), "Lite"),
        ];
        for (bytes, expected) in cases {
            let text = error(bytes);
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    #[test]
    fn a_model_that_is_cut_anywhere_is_refused() {
        // Every length near the start, a sample of the rest.
        for len in (1..600).chain((600..BUILTIN.len()).step_by(9973)).chain([BUILTIN.len() - 1]) {
            assert!(decode(Bytes::from_static(&BUILTIN[..len])).is_err(), "{len} bytes were taken for a model");
        }
        assert!(error(&BUILTIN[..1000]).contains("cut short"));
    }

    #[test]
    fn tensors_must_hold_what_they_claim() {
        let case = |tensor: TensorProto| refusal(&model(Vec::new(), vec![tensor]));
        assert!(case(tensor("w", &[1 << 60])).contains("claims 1152921504606846976 elements"));
        assert!(case(tensor("w", &[1 << 58])).contains("need 288230376151711744 values, it carries 0"));
        assert!(case(tensor("w", &[1 << 40, 1 << 40])).contains("more than 64 bits"));
        assert!(case(tensor("w", &[3, -1])).contains("a dimension is -1"));
        let raw = TensorProto { raw_data: Some(Bytes::from_static(&[0; 7])), ..tensor("w\u{1b}[2J", &[2]) };
        let text = case(raw);
        assert!(text.contains("need 8 bytes, it carries 7"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        // An empty tensor claims nothing, whatever its other dimensions.
        assert!(decode(Bytes::from(model(Vec::new(), vec![tensor("w", &[0, 1 << 60])]).encode_to_vec())).is_ok());
    }

    #[test]
    fn graphs_that_cannot_run_are_refused() {
        let ring = vec![node("Add", &["x", "c"], &["a"]), node("Relu", &["a"], &["b"]), node("Relu", &["b"], &["c"])];
        assert!(refusal(&model(ring, Vec::new())).contains("cycle"));
        let own = vec![node("Relu", &["a"], &["a"])];
        assert!(refusal(&model(own, Vec::new())).contains("cycle"));
        let missing = refusal(&model(vec![node("Relu", &["\u{9b}m"], &["a"])], Vec::new()));
        assert!(missing.contains("node Relu reads the tensor \\u{9b}m, which nothing writes"), "{missing}");
        let twice = vec![node("Relu", &["x"], &["a"]), node("Relu", &["x"], &["a"])];
        assert!(refusal(&model(twice, Vec::new())).contains("written twice"));
        let mut unwritten = model(Vec::new(), Vec::new());
        unwritten.graph.as_mut().unwrap().output.push(named("y"));
        assert!(refusal(&unwritten).contains("nothing writes the output y"));
        assert!(refusal(&ModelProto { ir_version: Some(8), ..Default::default() }).contains("no graph"));
        // The order of nodes is no fault.
        let late = vec![node("Relu", &["a"], &["b"]), node("Relu", &["x"], &["a"])];
        assert!(decode(Bytes::from(model(late, Vec::new()).encode_to_vec())).is_ok());
    }

    #[test]
    fn small_fields_cannot_fill_the_memory() {
        // Two bytes each: an empty node, an empty initialiser, an empty attribute.
        let graph = |field: u8, count: usize| {
            let mut bytes = vec![0x08, 0x08, 0x3a];
            prost::encode_length_delimiter(2 * count, &mut bytes).unwrap();
            bytes.extend(std::iter::repeat_n([field << 3 | 2, 0], count).flatten());
            bytes
        };
        assert!(error(graph(1, NODES_MAX + 1)).contains("nodes"));
        assert!(error(graph(5, NODES_MAX + 1)).contains("tensors"));
        assert!(error(graph(11, 4_000_000)).contains(&EXCESS_BYTES_MAX.to_string()));
        let deep = (0..70).fold(Vec::new(), |inner: Vec<u8>, level| {
            // Graph in attribute in node in graph ...
            let tags = [0x0a, 0x32, 0x2a];
            let mut outer = vec![tags[level % 3]];
            prost::encode_length_delimiter(inner.len(), &mut outer).unwrap();
            outer.extend(inner);
            outer
        });
        let mut bytes = vec![0x08, 0x08, 0x3a];
        prost::encode_length_delimiter(deep.len(), &mut bytes).unwrap();
        bytes.extend(deep);
        assert!(error(bytes).contains("nested"));
    }

    #[test]
    fn external_data_stay_in_the_directory_of_the_model() {
        for location in ["/etc/passwd", "../x", "a/../../x", "", "C:\\x", "\\\\host\\x", "a\\..\\..\\x", "a\u{1b}b"] {
            let text = refusal(&model(Vec::new(), vec![external("w", &[2], &[("location", location)])]));
            assert!(text.contains("export the model again"), "{location:?}: {text}");
            assert!(!text.contains('\u{1b}'));
        }
        for (key, value, expected) in [
            ("offset", "-1", "a number of bytes expected"),
            ("offset", "18446744073709551615", "beyond any file"),
            ("length", "9", "its dimensions need 8"),
        ] {
            let tensor = external("w", &[2], &[("location", "w.bin"), (key, value)]);
            assert!(refusal(&model(Vec::new(), vec![tensor])).contains(expected), "{key} {value}");
        }
    }

    #[test]
    fn external_files_are_looked_up_only_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        fs::create_dir_all(home.join("sub")).unwrap();
        let path = home.join("model.onnx");
        let weights = external("w", &[4], &[("location", "sub/w.bin"), ("offset", "16")]);
        fs::write(&path, model(Vec::new(), vec![weights]).encode_to_vec()).unwrap();
        let file = OnnxFile::open(&path).unwrap();
        let parts = external_data(&file.model).unwrap();
        assert_eq!((parts[0].location.as_str(), parts[0].offset, parts[0].length), ("sub/w.bin", 16, Some(16)));

        let check = || check_external(&path, &file.model);
        assert!(check().unwrap_err().to_string().contains("belongs beside the model"));
        fs::write(home.join("sub/w.bin"), [0; 31]).unwrap();
        assert!(check().unwrap_err().to_string().contains("16 to 32, the file has 31"));
        fs::write(home.join("sub/w.bin"), [0; 32]).unwrap();
        assert_eq!(check().unwrap()[0].bytes, 32);
        // A link out of the directory, and one to where the model itself lies.
        fs::rename(home.join("sub/w.bin"), folder.path().join("w.bin")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("w.bin"), home.join("sub/w.bin")).unwrap();
        assert!(check().unwrap_err().to_string().contains("symbolic link"));
        fs::rename(&path, folder.path().join("blob")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("blob"), &path).unwrap();
        assert_eq!(check().unwrap()[0].bytes, 32);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_unread() {
        let folder = tempfile::tempdir().unwrap();
        assert!(OnnxFile::open(folder.path()).unwrap_err().to_string().contains("no regular file"));
        assert!(OnnxFile::open(Path::new("/dev/zero")).unwrap_err().to_string().contains("no regular file"));
        let huge = folder.path().join("huge.onnx");
        fs::write(&huge, &BUILTIN[..64]).unwrap();
        File::options().write(true).open(&huge).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(OnnxFile::open(&huge).unwrap_err().to_string().contains("at most 2147483647 allowed"));
    }
}
