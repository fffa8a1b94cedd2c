//! Where models come from and what their files say: fills a [`ModelSpec`] and runs nothing.
//!
//! [`find`] sees the layouts, [`open`] reads the files of one version.

mod builtin;
pub mod catalog;
mod choice;
mod config_json;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod imagenet;
mod labels;
mod manifest;
mod places;
pub mod pull;
pub mod recipe;
pub mod signature;
mod version;
mod weights;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

pub use choice::PresetChoice;
pub use labels::LabelSource;
pub use places::{Files, Fingerprint, Found, Listing, Place, Wanted, find, fingerprint, is_name};
pub use version::Version;
pub use weights::square_size;

use crate::graph::proto::ModelProto;
use crate::graph::{GraphError, OnnxFile, check_external, interface, summarise};
use crate::pipeline::ModelSpec;
use crate::pipeline::infer::ModelSource;
use config_json::ConfigJson;
use manifest::Manifest;
use recipe::{Evidence, Preset, RecipeFileError, RecipeSource, Resolved};
use signature::{Known, SignatureError};

/// The word in `--model` that means the model inside the binary.
pub const BUILTIN: &str = "builtin";

/// Files of Hugging Face and timm.
const CONFIG_FILE: &str = "config.json";
const PREPROCESSOR_FILE: &str = "preprocessor_config.json";
/// Largest text file that is read beside a model. Lists of 21,841 classes stay below 2 MB.
const SIDE_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why a model cannot be found or opened. Every text names the file and what to change.
#[derive(Debug, thiserror::Error)]
pub enum ZooError {
    /// Nothing is at the path.
    #[error(
        "open model {}: nothing is there; give a model file or directory, or `--model {BUILTIN}`{}", path.display(),
        pull_hint(path)
    )]
    Missing {
        /// The path given.
        path: PathBuf,
    },
    /// The place has nothing that could be a model.
    #[error(
        "{} holds no model; it needs a model.onnx, onnx/model.onnx, model.safetensors or VERSION/model.onnx, or name an \
         .onnx file", path.display()
    )]
    NoModel {
        /// The directory or file.
        path: PathBuf,
    },
    /// Weights or graphs of another tool.
    #[error(
        "{} is of a format that is not read; export the model as ONNX, or save its weights as .safetensors for `residual \
         convert`", path.display()
    )]
    ForeignFormat {
        /// The file.
        path: PathBuf,
    },
    /// Nothing tells which of several files is meant.
    #[error(
        "{} holds several models ({}); name one: --model NAME={}", path.display(), file_names(models),
        models[0].display()
    )]
    SeveralModels {
        /// The directory.
        path: PathBuf,
        /// The models in it, at least two.
        models: Vec<PathBuf>,
    },
    /// A repository without a model.
    #[error("no model in the repository {}; put model directories or .onnx files into it", path.display())]
    EmptyRepository {
        /// The repository.
        path: PathBuf,
    },
    /// `--models` was given what `--model` takes.
    #[error("{0} is a model's own directory and no repository; give it as --model {0}", path.display())]
    NotARepository {
        /// The directory.
        path: PathBuf,
    },
    /// A directory with far more entries than models.
    #[error("{} has more than {max} entries; keep models in a directory of their own", path.display())]
    TooManyEntries {
        /// The directory.
        path: PathBuf,
        /// Entries it may have.
        max: usize,
    },
    /// Two models want the same name.
    #[error("two models are called {name:?}: {first} and {second}; rename one with --model NAME=PATH")]
    NameTaken {
        /// The name.
        name: String,
        /// Where the first is.
        first: String,
        /// Where the second is.
        second: String,
    },
    /// A file or directory cannot be read.
    #[error("read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A text file beside a model is far too large to be what its name says.
    #[error("read {}: {bytes} bytes are more than the {SIDE_FILE_BYTES_MAX} that such a file may have", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A JSON file is none, or lacks what is needed.
    #[error("read {}: {cause}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        cause: serde_json::Error,
    },
    /// `residual.toml` is no TOML, or says what it cannot.
    #[error("read {}: {}", path.display(), cause.to_string().trim_end())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Where and why.
        cause: Box<toml::de::Error>,
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
    /// What tells the recipe cannot be understood.
    #[error(transparent)]
    Recipe(#[from] RecipeFileError),
    /// The model's file is no ONNX file that is served, or its weights are missing.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The weights are no ResNet's.
    #[error("{}", of_weights(path, &cause.to_string()))]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The graph takes or returns something else than an image classifier.
    #[error("serve model {}: {cause}", path.display())]
    Signature {
        /// The file.
        path: PathBuf,
        /// What it takes or returns.
        cause: SignatureError,
    },
    /// Names and classes do not match.
    #[error(
        "{} names {labels} classes, but the model {model} has {classes}; give one name for each, in the order of its \
         output", path.display()
    )]
    LabelCount {
        /// The file with the names.
        path: PathBuf,
        /// Names in it.
        labels: usize,
        /// The model.
        model: String,
        /// Its classes.
        classes: usize,
    },
}

/// Somebody who writes a name of the catalogue where a path belongs wants that model.
fn pull_hint(path: &Path) -> String {
    let known = path.to_str().and_then(|name| catalog::find(name).ok());
    known.map(|entry| format!("; `residual pull {}` fetches a model of this name", entry.name)).unwrap_or_default()
}

/// Some causes name the file themselves.
fn of_weights(path: &Path, cause: &str) -> String {
    if cause.starts_with("read ") { cause.to_owned() } else { format!("read {}: {cause}", path.display()) }
}

fn file_names(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap_or_default().to_string_lossy()).collect();
    names.join(", ")
}

/// What settings choose for a model, over everything its files say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choices {
    /// The recipe.
    pub preset: Option<Preset>,
}

/// A model that is ready to be started: what is known of it, and its graph.
#[derive(Debug)]
pub struct Opened {
    /// What is known.
    pub spec: ModelSpec,
    /// The graph; not needed any more once sessions are loaded.
    pub source: ModelSource,
    /// Files that were read beside those that every model may have: weights outside the graph, labels elsewhere.
    pub more_files: Vec<PathBuf>,
}

/// Opens one version of a model: reads its files and decides how it is to be served.
///
/// # Errors
/// [`ZooError`].
pub fn open(found: &Found, choices: &Choices) -> Result<Opened, ZooError> {
    let Files::Disk { model, .. } = &found.files else { return builtin::open(found, choices) };
    let beside = Beside::read(&found.files)?;
    if places::is_weights(model) {
        return weights::open(found, model, &beside, choices);
    }
    let file = OnnxFile::open(model)?;
    let external = check_external(model, &file.model)?;
    let sha256 = hex(&Sha256::digest(&file.bytes));
    let graph = Graph { path: model.clone(), sha256, model: file.model };
    Ok(Opened {
        spec: assemble(found, &graph, &beside, choices)?,
        source: ModelSource::File(model.clone()),
        more_files: external.into_iter().map(|file| file.path).chain(beside.labels_file()).collect(),
    })
}

/// Finds the newest version of a model.
///
/// # Errors
/// [`ZooError`].
pub fn find_newest(wanted: &Wanted) -> Result<Found, ZooError> {
    let Listing { mut found, broken, .. } = find(None, std::slice::from_ref(wanted))?;
    match broken.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(found.pop().expect("what is wanted is found or broken")),
    }
}

/// Opens the newest version of a model.
///
/// # Errors
/// [`ZooError`].
pub fn open_newest(wanted: &Wanted, choices: &Choices) -> Result<Opened, ZooError> {
    open(&find_newest(wanted)?, choices)
}

/// A graph that was read, and not yet understood.
struct Graph {
    /// Its file, for errors.
    path: PathBuf,
    /// Of its file.
    sha256: String,
    model: ModelProto,
}

/// What lies beside a model, read and not yet understood.
#[derive(Default)]
struct Beside {
    manifest: Option<Manifest>,
    config: Option<(ConfigJson, SideFile)>,
    preprocessor: Option<SideFile>,
}

/// A small file beside a model.
struct SideFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl SideFile {
    fn read(path: PathBuf) -> Result<Self, ZooError> {
        let bytes = read(&path)?;
        Ok(Self { path, bytes })
    }

    fn evidence(&self) -> (&Path, &[u8]) {
        (&self.path, &self.bytes)
    }
}

impl Beside {
    fn read(files: &Files) -> Result<Self, ZooError> {
        let manifest = manifest::open(files)?;
        let side = |name: &str| files.side(&[name]).map(SideFile::read).transpose();
        let config = match side(CONFIG_FILE)? {
            Some(file) => Some((ConfigJson::parse(&file.path, &file.bytes)?, file)),
            None => None,
        };
        Ok(Self { manifest, config, preprocessor: side(PREPROCESSOR_FILE)? })
    }

    fn labels_file(&self) -> Option<PathBuf> {
        self.manifest.as_ref().and_then(Manifest::labels_file)
    }

    /// All that tells the recipe, but for what is in the graph.
    fn evidence<'a>(&'a self, choices: &Choices) -> Evidence<'a> {
        Evidence {
            explicit: choices.preset,
            residual: self.manifest.as_ref().map(|manifest| (manifest.path.as_path(), &manifest.recipe)),
            preprocessor: self.preprocessor.as_ref().map(SideFile::evidence),
            config: self.config.as_ref().map(|(_, file)| file.evidence()),
            ..Evidence::default()
        }
    }
}

/// Decides, from everything that was read: labels that are known -> recipe for the graph's input -> signature for the
/// recipe's samples -> a label for each class.
fn assemble(found: &Found, graph: &Graph, beside: &Beside, choices: &Choices) -> Result<ModelSpec, ZooError> {
    let Beside { manifest, config, .. } = beside;
    let named = config.as_ref().map(|(config, file)| (file.path.as_path(), config));
    let setting = manifest.as_ref().and_then(|manifest| Some((manifest.path.as_path(), manifest.labels.as_ref()?)));
    let labels = labels::known(&found.files, setting, named)?;
    let multi_label = named.map_or(Ok(false), |(path, config)| config.is_multi_label(path))?;

    let interface = interface(&graph.model);
    let overrides = manifest.as_ref().map(|manifest| manifest.signature.clone()).unwrap_or_default();
    let resolved = recipe::resolve(&Evidence {
        metadata: Some(&metadata(&graph.model)),
        catalog: catalog::by_sha256(&graph.sha256).and_then(|entry| entry.preset.as_deref()?.parse().ok()),
        input_size: signature::image_size(&interface, &overrides),
        ..beside.evidence(choices)
    })?;
    let keys = manifest.as_ref().map(|manifest| &manifest.recipe.recipe);
    let twice = signature::normalises_twice(&interface, &resolved, keys);
    let Resolved { recipe, sample_shape, source: recipe_source, notes } = resolved;
    // What is assumed may cost accuracy that nobody would notice; the rest only tells who decided.
    let (mut warnings, notes) =
        if recipe_source == RecipeSource::Assumed { (notes, Vec::new()) } else { (Vec::new(), notes) };
    warnings.extend(twice.then(|| NORMALISES_TWICE.to_owned()));
    let known = Known { sample: sample_shape, labels: labels.as_ref().map(|labels| labels.names.len()), multi_label };
    let decide = |known| signature::signature(&interface, known, &overrides);
    let signature = decide(known).or_else(|cause| match decide(Known { labels: None, ..known }) {
        // It fits but for the labels: `complete` says how many there should be, and in which file.
        Ok(signature) if known.labels.is_some() => Ok(signature),
        Ok(_) | Err(_) => Err(ZooError::Signature { path: graph.path.clone(), cause }),
    })?;
    let (labels, label_source) = labels::complete(labels, signature.output.classes, &found.name)?;
    Ok(ModelSpec {
        name: found.name.clone(),
        version: found.version.to_string(),
        signature,
        origin: places::origin(&found.files),
        sha256: graph.sha256.clone(),
        summary: Arc::new(summarise(&graph.model, None)),
        recipe,
        sample_shape,
        recipe_source: recipe_source.as_str(),
        labels,
        label_source: label_source.to_string(),
        warnings,
        notes,
    })
}

const NORMALISES_TWICE: &str = "the graph normalises by itself, and its recipe does so before; where that is once too \
    often, say under [recipe] in residual.toml what the recipe should do: mean = [0, 0, 0], std = [1, 1, 1], and rescale = \
    1.0 if the graph takes 0 to 255";

/// The key-value pairs that exporters leave in a file.
fn metadata(model: &ModelProto) -> BTreeMap<String, String> {
    model.metadata_props.iter().map(|entry| (entry.key().to_owned(), entry.value().to_owned())).collect()
}

/// A text file beside a model.
fn read(path: &Path) -> Result<Vec<u8>, ZooError> {
    let failed = |cause: std::io::Error| ZooError::Read { path: path.to_owned(), cause };
    let bytes = path.metadata().map_err(failed)?.len();
    if bytes > SIDE_FILE_BYTES_MAX {
        return Err(ZooError::TooLarge { path: path.to_owned(), bytes });
    }
    std::fs::read(path).map_err(failed)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_one(wanted: &str) -> Result<ModelSpec, ZooError> {
        open_newest(&wanted.parse().unwrap(), &Choices::default()).map(|opened| opened.spec)
    }

    #[test]
    fn a_directory_is_opened_like_the_model_inside_the_binary() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/resnet20-cifar10");
        let (inside, outside) = (open_one(BUILTIN).unwrap(), open_one(directory.to_str().unwrap()).unwrap());
        assert_eq!(inside.recipe, outside.recipe);
        assert_eq!(inside.labels, outside.labels);
        assert_eq!(inside.sha256, outside.sha256);
        assert_eq!(inside.name, outside.name);
    }

    #[test]
    fn the_built_in_model_is_the_one_its_card_describes() {
        let card = include_str!("../../models/resnet20-cifar10/README.md");
        assert!(card.contains(&open_one(BUILTIN).unwrap().sha256), "the card has another sha256");
    }

    #[test]
    fn errors_name_the_file_and_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        let text = |model: &str| open_one(model).unwrap_err().to_string();
        assert!(text(&format!("{path}/none")).ends_with("give a model file or directory, or `--model builtin`"));
        std::fs::write(folder.path().join("model.onnx"), b"x").unwrap();
        assert!(text(&path).starts_with(&format!("read {path}/model.onnx: ")));
        std::fs::write(folder.path().join("model.onnx"), builtin::MODEL).unwrap();
        std::fs::write(folder.path().join("config.json"), b"{\"id2label\": 3}").unwrap();
        assert!(text(&path).starts_with(&format!("read {path}/config.json: invalid type")));
        std::fs::write(folder.path().join("residual.toml"), b"lables = \"x\"").unwrap();
        assert!(text(&path).starts_with(&format!("read {path}/residual.toml: TOML parse error at line 1")));
    }
}
