//! Any bytes are a model or an error, and so are any bytes weights.

use std::fs::File;
use std::io::{Seek as _, Write as _};

use bytes::Bytes;
use prost::Message as _;
use safetensors::SafeTensors;
use tempfile::NamedTempFile;

use super::build::{BatchNormForm, GraphForm, build};
use super::proto::ModelProto;
use super::weights::{Checkpoint, FileError, Hints, WeightsFile};
use super::{GraphError, decode, edit, external_data, interface, scan, summarise, take_weights};

/// Runs what it is given and returns the most bytes that it held at once, beyond what was held before.
pub type Weigh<'a> = &'a dyn Fn(&mut dyn FnMut()) -> u64;

/// What checking holds beside what was counted: maps of names have room before they have names.
const SLACK_BYTES: u64 = 1 << 20;

/// Reads `data` as an ONNX file. A model that is taken holds no more memory than was counted before it was decoded, is
/// described, survives being written and read again, and is still a model after each of our edits. True for a model.
pub fn model(data: &[u8], weigh: Weigh<'_>) -> bool {
    let bytes = Bytes::copy_from_slice(data);
    let mut decoded = None;
    let held = weigh(&mut || decoded = Some(decode(bytes.clone())));
    if let Ok(excess) = scan::scan(data) {
        let counted = excess as u64 + data.len() as u64 + SLACK_BYTES;
        assert!(held <= counted, "{held} bytes were held, {counted} counted");
    }
    let Some(Ok(mut model)) = decoded else { return false };
    external_data(&model).expect("decoding has checked every reference to external data");
    let summary = summarise(&model, None);
    assert!(summary.stages.iter().flat_map(|stage| &stage.blocks).count() <= data.len());
    serde_json::to_string(&summary).expect("a summary is JSON");
    let _ = summarise(&model, Some((65, 33)));
    let interface = interface(&model);

    let written = model.encode_to_vec();
    if let Some(again) = is_a_model(&written) {
        assert_eq!(again.encode_to_vec(), written);
    }

    for input in &interface.inputs {
        if let Ok(freed) = edit::free_batch(&model, &input.tensor.name) {
            is_a_model(&freed.encode_to_vec());
        }
    }
    let weights = take_weights(&mut model, 16);
    assert!(weights.iter().map(|weight| weight.bytes.len()).sum::<usize>() <= data.len());
    true
}

/// What we wrote is read again, unless its first fields now look like another kind of file: a name of a producer that begins
/// with a line break makes a SavedModel of it.
fn is_a_model(bytes: &[u8]) -> Option<ModelProto> {
    match decode(Bytes::copy_from_slice(bytes)) {
        Ok(model) => Some(model),
        Err(GraphError::OtherFormat { .. }) => None,
        Err(error) => panic!("what was written is not read: {error}"),
    }
}

thread_local! {
    static FILE: NamedTempFile = NamedTempFile::new().expect("a folder for temporary files");
}

/// Reads `data` as a safetensors file. It is taken where the library of that name takes it, with the same tensors; a network
/// that is recognised in it is built, and what is built is a model. True for a network.
pub fn weights(data: &[u8]) -> bool {
    FILE.with(|file| {
        let mut handle: &File = file.as_file();
        handle.rewind().and_then(|()| handle.set_len(0)).expect("a file of our own");
        handle.write_all(data).expect("room for a small file");
        let theirs = SafeTensors::deserialize(data);
        match WeightsFile::open(file.path()) {
            Ok(ours) => same_tensors(ours, &theirs.expect("it was taken")),
            // Other kinds of files are told by their first bytes, which the library takes for the length of a header.
            Err(FileError::Format { .. } | FileError::HeaderTooLong { .. }) => {}
            Err(error) => assert!(theirs.is_err(), "refused: {error}"),
        }
        let Ok(taken) = WeightsFile::open(file.path()) else { return false };
        let mut checkpoint = match Checkpoint::new(taken, Hints::default()) {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return false;
            }
        };
        let form = GraphForm { batch_norm: BatchNormForm::Explicit, ..GraphForm::default() };
        let network = checkpoint.network().clone();
        if let Ok(built) = build(&network, &form, &mut checkpoint) {
            is_a_model(&built.encode_to_vec());
        }
        true
    })
}

fn same_tensors(mut ours: WeightsFile, theirs: &SafeTensors<'_>) {
    let shapes: Vec<(String, Vec<usize>)> =
        ours.shapes().map(|(name, shape)| (name.to_owned(), shape.to_vec())).collect();
    assert_eq!(shapes.len(), theirs.len());
    for (name, shape) in shapes {
        let tensor = theirs.tensor(&name).expect("a tensor of both");
        assert_eq!(tensor.shape(), shape);
        match ours.read(&name) {
            Ok(values) => assert_eq!(values.len(), shape.iter().product::<usize>()),
            Err(FileError::Dtype { found, .. }) => assert_eq!(found, tensor.dtype()),
            Err(error) => panic!("{name}: {error}"),
        }
    }
}
