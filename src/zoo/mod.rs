//! Where models come from: the built-in one, and model directories. Fills a [`ModelSpec`] and runs nothing.

mod builtin;
pub mod catalog;
mod huggingface;
pub mod pull;

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::pipeline::ModelSpec;
use crate::pipeline::infer::ModelSource;
use crate::pipeline::preprocess::RecipeError;

/// The name in `--model` that means the model inside the binary.
pub const BUILTIN: &str = "builtin";

/// Files of a model directory.
const MODEL_FILE: &str = "model.onnx";
const CONFIG_FILE: &str = "config.json";
const PREPROCESSOR_FILE: &str = "preprocessor_config.json";

/// Why a model cannot be opened. Every text names the file and what to change.
#[derive(Debug, thiserror::Error)]
pub enum ZooError {
    /// Nothing is at the path.
    #[error("open model {}: no such directory; give a model directory, or `--model {BUILTIN}`", path.display())]
    Missing {
        /// The path given.
        path: PathBuf,
    },
    /// The path is a file.
    #[error(
        "open model {}: it is a file; give the directory that holds {MODEL_FILE}, {CONFIG_FILE} and {PREPROCESSOR_FILE}",
        path.display()
    )]
    NotADirectory {
        /// The path given.
        path: PathBuf,
    },
    /// A file of the directory cannot be read.
    #[error(
        "read {}: {cause}; a model directory holds {MODEL_FILE}, {CONFIG_FILE} and {PREPROCESSOR_FILE}",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A file of the directory is no JSON, or lacks what is needed.
    #[error("read {}: {cause}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        cause: serde_json::Error,
    },
    /// A file says something that is not supported or makes no sense.
    #[error("read {}: {found}; expected {expected}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What it could say.
        expected: String,
    },
    /// The numbers in the preprocessor file are no recipe.
    #[error("read {}: {cause}", path.display())]
    Recipe {
        /// The file.
        path: PathBuf,
        /// Which number.
        cause: RecipeError,
    },
}

/// Opens the model that `--model` names: `builtin` or a directory.
///
/// # Errors
/// [`ZooError`].
pub fn open(model: &str) -> Result<ModelSpec, ZooError> {
    if model == BUILTIN { builtin::open() } else { open_directory(Path::new(model)) }
}

/// Opens a directory with `model.onnx`, `config.json` (labels) and `preprocessor_config.json` (recipe).
fn open_directory(directory: &Path) -> Result<ModelSpec, ZooError> {
    match directory.metadata() {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(ZooError::NotADirectory { path: directory.to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ZooError::Missing { path: directory.to_owned() });
        }
        Err(cause) => return Err(ZooError::Read { path: directory.to_owned(), cause }),
    }
    let read = |name: &str| {
        let path = directory.join(name);
        std::fs::read(&path).map_err(|cause| ZooError::Read { path, cause })
    };
    let model = directory.join(MODEL_FILE);
    let sha256 = sha256_of_file(&model).map_err(|cause| ZooError::Read { path: model.clone(), cause })?;
    let labels = huggingface::labels(&directory.join(CONFIG_FILE), &read(CONFIG_FILE)?)?;
    let (recipe, sample_shape) = huggingface::recipe(&directory.join(PREPROCESSOR_FILE), &read(PREPROCESSOR_FILE)?)?;
    Ok(ModelSpec {
        name: name_of(directory),
        version: "1".to_owned(),
        source: ModelSource::File(model),
        origin: directory.display().to_string(),
        sha256,
        recipe,
        sample_shape,
        recipe_source: PREPROCESSOR_FILE.to_owned(),
        labels,
    })
}

/// The directory's own name, also where it was given as `.` or `models/resnet/`.
fn name_of(directory: &Path) -> String {
    let full = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    full.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn sha256_of_file(path: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut HashWriter(&mut hasher))?;
    Ok(hex(&hasher.finalize()))
}

/// Feeds a hasher from `io::copy`, so that a model of any size is read in small pieces.
struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_opened_like_the_model_inside_the_binary() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/resnet20-cifar10");
        let (inside, outside) = (open(BUILTIN).unwrap(), open(directory.to_str().unwrap()).unwrap());
        assert_eq!(inside.recipe, outside.recipe);
        assert_eq!(inside.labels, outside.labels);
        assert_eq!(inside.sha256, outside.sha256);
        assert_eq!(inside.name, outside.name);
    }

    #[test]
    fn the_built_in_model_is_the_one_its_card_describes() {
        let card = include_str!("../../models/resnet20-cifar10/README.md");
        assert!(card.contains(&open(BUILTIN).unwrap().sha256), "the card has another sha256");
    }

    #[test]
    fn errors_name_the_file_and_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        let text = |model: &str| open(model).unwrap_err().to_string();
        assert!(
            text(&format!("{path}/none")).ends_with("no such directory; give a model directory, or `--model builtin`")
        );
        std::fs::write(folder.path().join("a.onnx"), b"x").unwrap();
        assert!(text(&format!("{path}/a.onnx")).contains("it is a file; give the directory"));
        assert!(text(&path).starts_with(&format!("read {path}/model.onnx: No such file")));
        std::fs::write(folder.path().join("model.onnx"), b"x").unwrap();
        std::fs::write(folder.path().join("config.json"), b"{\"id2label\": 3}").unwrap();
        assert!(text(&path).starts_with(&format!("read {path}/config.json: invalid type")));
    }
}
