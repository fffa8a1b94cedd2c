//! Weights in files beside the model: which parts of which files a model refers to, and whether it may.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::check::{claimed, is_external, tensors};
use super::proto::{ModelProto, TensorProto};
use super::{GraphError, Printable};

/// Where the data of one tensor lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalTensor {
    /// Name of the tensor.
    pub tensor: String,
    /// Path of the file below the model's directory, as the model writes it; never absolute, never with `..`.
    pub location: String,
    /// Bytes before the data.
    pub offset: u64,
    /// Bytes of the data, where the model says so or its dimensions tell.
    pub length: Option<u64>,
}

/// A file that holds data of a model, as [`check_external`] found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalFile {
    /// The path as the model writes it.
    pub location: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// The parts of other files that `model` refers to, in the order of its tensors. Nothing is looked up: see
/// [`check_external`].
///
/// # Errors
/// [`GraphError::External`] for a path that leaves the model's directory, and for numbers that are none or contradict the
/// tensor. A model that [`decode`](super::decode) gave has none of these faults.
pub fn external_data(model: &ModelProto) -> Result<Vec<ExternalTensor>, GraphError> {
    let graph = model.graph.iter().flat_map(tensors);
    let functions =
        model.functions.iter().flat_map(|function| function.node.iter().flat_map(super::check::node_tensors));
    graph.chain(functions).filter(|tensor| is_external(tensor)).map(reference).collect()
}

/// Checks that every file that `model` refers to is there, lies where it may, and is long enough. `path` is that of the
/// model.
///
/// A file may lie below the directory of `path`, or below that of the file behind it where `path` is a symbolic link:
/// that is how the cache of Hugging Face keeps both.
///
/// # Errors
/// [`GraphError::InFile`] around what is wrong with the first such file.
pub fn check_external(path: &Path, model: &ModelProto) -> Result<Vec<ExternalFile>, GraphError> {
    check_files(path, model).map_err(|error| error.in_file(path))
}

fn check_files(path: &Path, model: &ModelProto) -> Result<Vec<ExternalFile>, GraphError> {
    let parts = external_data(model)?;
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let real = path.canonicalize().map_err(GraphError::Io)?;
    let homes = [directory.canonicalize().map_err(GraphError::Io)?, real.parent().unwrap_or(&real).to_owned()];
    let mut files: Vec<ExternalFile> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for part in &parts {
        let fault = |what: String| fault(&part.tensor, &part.location, what);
        let index = match known.get(part.location.as_str()) {
            Some(index) => *index,
            None => {
                let absent =
                    |cause| fault(format!("{cause}; it belongs beside the model: copy or download it there as well"));
                let path = directory.join(&part.location).canonicalize().map_err(absent)?;
                if !homes.iter().any(|home| path.starts_with(home)) {
                    return Err(fault(
                        "a symbolic link leads out of the model's directory; put the file itself there".to_owned(),
                    ));
                }
                let meta = path.metadata().map_err(absent)?;
                if !meta.is_file() {
                    return Err(fault("that is no regular file".to_owned()));
                }
                known.insert(&part.location, files.len());
                files.push(ExternalFile { location: part.location.clone(), path, bytes: meta.len() });
                files.len() - 1
            }
        };
        let bytes = files[index].bytes;
        // Both were held against overflow when the reference was read.
        let end = part.offset.saturating_add(part.length.unwrap_or(0));
        if end > bytes {
            let (from, to) = (part.offset, end);
            return Err(fault(format!(
                "its bytes are {from} to {to}, the file has {bytes}; it is cut short or belongs to another model: copy or \
                 download it again"
            )));
        }
    }
    Ok(files)
}

/// Reads where the data of `tensor` lie.
pub(super) fn reference(tensor: &TensorProto) -> Result<ExternalTensor, GraphError> {
    let name = tensor.name.as_deref().unwrap_or_default();
    let entry = |wanted: &str| {
        let mut entries = tensor.external_data.iter();
        entries.find(|entry| entry.key.as_deref() == Some(wanted)).and_then(|entry| entry.value.as_deref())
    };
    let location = entry("location").unwrap_or_default();
    let fault = |what: String| fault(name, location, what);
    check_location(location).map_err(fault)?;
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(fault(format!("its {key} is {:?}, a number of bytes expected", Printable(text).to_string()))),
        },
    };
    let offset = number("offset")?.unwrap_or(0);
    let (_, bytes) = claimed(tensor)?;
    let length = match (number("length")?, bytes) {
        (Some(length), Some(bytes)) if length != bytes => {
            return Err(fault(format!("its length is {length} bytes, its dimensions need {bytes}")));
        }
        (length, bytes) => length.or(bytes),
    };
    if offset.checked_add(length.unwrap_or(0)).is_none() {
        return Err(fault(format!("its offset is {offset}, beyond any file")));
    }
    Ok(ExternalTensor { tensor: name.to_owned(), location: location.to_owned(), offset, length })
}

/// Says what is wrong with a path that a model gives, by its text alone. Backslashes and drives count as well: the same
/// file may be opened on Windows.
fn check_location(location: &str) -> Result<(), String> {
    let advice = "the data of a model lie in its own directory; export the model again";
    if location.is_empty() {
        return Err(format!("no location is given; {advice}"));
    }
    if location.chars().any(char::is_control) {
        return Err(format!("a path with control characters; {advice}"));
    }
    let has_drive = location.as_bytes().get(1) == Some(&b':');
    let is_absolute = location.starts_with(['/', '\\']) || has_drive;
    let climbs = location.split(['/', '\\']).any(|part| part == "..");
    let is_plain =
        Path::new(location).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if is_absolute || climbs || !is_plain {
        return Err(format!("a path that leaves the model's directory; {advice}"));
    }
    Ok(())
}

fn fault(tensor: &str, location: &str, what: String) -> GraphError {
    GraphError::External { tensor: tensor.to_owned(), location: location.to_owned(), what }
}
