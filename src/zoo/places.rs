//! Where models are on disk: every layout that is understood, seen by names alone. No file is opened here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use super::{BUILTIN, Version, ZooError};

/// The model's own name in every layout.
const MODEL_STEM: &str = "model";
/// What a model's file may be.
const MODEL_EXTENSIONS: [&str; 2] = ["onnx", "safetensors"];
/// Formats of other tools, and the way to one that is read.
const FOREIGN: [&str; 9] = ["pt", "pth", "bin", "ckpt", "h5", "keras", "pb", "tflite", "engine"];
/// Files of one directory that are looked at. A model directory has a dozen.
const ENTRIES_MAX: usize = 4096;

/// What one `--model` asks for: `builtin`, a path, or a path with a name for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The name clients will use; without one the place gives it.
    pub name: Option<String>,
    /// Where the model is.
    pub place: Place,
}

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Inside the binary.
    Builtin,
    /// A file or a directory.
    Path(PathBuf),
}

impl Wanted {
    /// The model inside the binary.
    #[must_use]
    pub fn builtin() -> Self {
        Self { name: None, place: Place::Builtin }
    }
}

impl FromStr for Wanted {
    type Err = String;

    /// `builtin`, `PATH` or `NAME=PATH`. A path whose first part looks like a name and an equals sign is written
    /// `./a=b`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, place) = match text.split_once('=') {
            Some((name, place)) if is_name(name) => (Some(name.to_owned()), place),
            Some(_) | None => (None, text),
        };
        if place.is_empty() {
            return Err("no path; write PATH or NAME=PATH".to_owned());
        }
        let place = if place == BUILTIN { Place::Builtin } else { Place::Path(PathBuf::from(place)) };
        Ok(Self { name, place })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}=")?;
        }
        match &self.place {
            Place::Builtin => f.write_str(BUILTIN),
            Place::Path(path) => path.display().fmt(f),
        }
    }
}

/// Names stand in URLs, metrics and logs.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// One version of one model that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The name clients ask for.
    pub name: String,
    /// Which of the model's versions this is.
    pub version: Version,
    /// Its files.
    pub files: Files,
}

/// The files of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// Inside the binary.
    Builtin,
    /// On disk.
    Disk {
        /// The graph or the weights.
        model: PathBuf,
        /// Directories in which labels, recipes and `residual.toml` are looked up, the nearest first.
        beside: Vec<PathBuf>,
    },
}

impl Files {
    /// The nearest file beside the model with one of these names, tried in their order.
    #[must_use]
    pub(super) fn side(&self, names: &[&str]) -> Option<PathBuf> {
        let Self::Disk { beside, .. } = self else { return None };
        names
            .iter()
            .flat_map(|name| beside.iter().map(move |directory| directory.join(name)))
            .find(|path| path.is_file())
    }
}

/// What is in a repository.
#[derive(Debug, Default)]
pub struct Listing {
    /// Every version of every model, by name and then from the oldest version to the newest.
    pub found: Vec<Found>,
    /// Models that are there and cannot be told apart or named, each with its name.
    pub broken: Vec<(String, ZooError)>,
    /// Entries that hold no model.
    pub skipped: Vec<PathBuf>,
}

/// Finds all that is asked for: the models named one by one, and those of a repository.
///
/// # Errors
/// [`ZooError`] if a named model is not there, the repository cannot be read or is empty, or a name is taken twice.
pub fn find(repository: Option<&Path>, wanted: &[Wanted]) -> Result<Listing, ZooError> {
    let mut listing = Listing::default();
    for Wanted { name, place } in wanted {
        let found = match place {
            Place::Builtin => vec![builtin(name.as_deref())],
            Place::Path(path) => find_one(path, name.as_deref())?,
        };
        listing.add(found)?;
    }
    if let Some(directory) = repository {
        find_all(directory, &mut listing)?;
    }
    listing.found.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(listing)
}

fn builtin(name: Option<&str>) -> Found {
    let name = name.unwrap_or(super::builtin::NAME).to_owned();
    Found { name, version: Version::first(), files: Files::Builtin }
}

impl Listing {
    fn add(&mut self, found: Vec<Found>) -> Result<(), ZooError> {
        let Some(name) = found.first().map(|found| found.name.clone()) else { return Ok(()) };
        if let Some(other) = self.found.iter().find(|other| other.name == name) {
            return Err(ZooError::NameTaken { name, first: origin(&other.files), second: origin(&found[0].files) });
        }
        self.found.extend(found);
        Ok(())
    }
}

/// Where files are, for people.
pub(super) fn origin(files: &Files) -> String {
    match files {
        Files::Builtin => "built in".to_owned(),
        Files::Disk { model, .. } => model.display().to_string(),
    }
}

/// Every model in a repository: each directory and each model file in it.
fn find_all(directory: &Path, listing: &mut Listing) -> Result<(), ZooError> {
    let before = listing.found.len() + listing.broken.len();
    for entry in entries(directory)? {
        let model = if entry.is_dir() {
            find_one(&entry, None)
        } else if has_extension(&entry, &MODEL_EXTENSIONS) {
            Ok(vec![of_file(&entry, None)])
        } else {
            continue;
        };
        match model {
            Ok(found) => listing.add(found)?,
            Err(ZooError::NoModel { .. }) => listing.skipped.push(entry),
            Err(error) => listing.broken.push((name_of(&entry), error)),
        }
    }
    if listing.found.len() + listing.broken.len() == before {
        return Err(ZooError::EmptyRepository { path: directory.to_owned() });
    }
    // A model's own directory looks like a repository with one file in it, and would be served without its recipe.
    let is_model =
        |found: &Found| matches!(&found.files, Files::Disk { model, .. } if model.parent() == Some(directory));
    let stands_alone = listing.found.iter().filter(|found| is_model(found)).count() == 1;
    if stands_alone && (directory.join("config.json").is_file() || directory.join("residual.toml").is_file()) {
        return Err(ZooError::NotARepository { path: directory.to_owned() });
    }
    Ok(())
}

/// One model: a file, or a directory in one of the layouts, with all its versions.
fn find_one(path: &Path, name: Option<&str>) -> Result<Vec<Found>, ZooError> {
    let metadata = path.metadata().map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => ZooError::Missing { path: path.to_owned() },
        _ => ZooError::Read { path: path.to_owned(), cause },
    })?;
    if !metadata.is_dir() {
        if !has_extension(path, &MODEL_EXTENSIONS) {
            return Err(not_a_model(path));
        }
        return Ok(vec![of_file(path, name)]);
    }
    let name = name.map_or_else(|| name_of(path), str::to_owned);
    let versions: Vec<(Version, PathBuf)> = entries(path)?
        .into_iter()
        .filter(|entry| entry.is_dir())
        .filter_map(|entry| Some((Version::of_folder(entry.file_name()?.to_str()?)?, entry)))
        .collect();
    let mut found = Vec::new();
    for (version, folder) in versions {
        match in_directory(&folder) {
            Ok((model, mut beside)) => {
                beside.push(path.to_owned());
                found.push(Found { name: name.clone(), version, files: Files::Disk { model, beside } });
            }
            // A folder that is just being filled, or one for another server.
            Err(ZooError::NoModel { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if found.is_empty() {
        let (model, beside) = in_directory(&snapshot(path).unwrap_or_else(|| path.to_owned()))?;
        found.push(Found { name, version: Version::first(), files: Files::Disk { model, beside } });
    }
    Ok(found)
}

/// The one model in a directory: `model.onnx`, `onnx/model.onnx`, the only `.onnx`, then the same for `.safetensors`.
fn in_directory(directory: &Path) -> Result<(PathBuf, Vec<PathBuf>), ZooError> {
    for extension in MODEL_EXTENSIONS {
        let named = format!("{MODEL_STEM}.{extension}");
        for folder in [directory.to_owned(), directory.join("onnx"), directory.join(&named)] {
            let beside = if folder == directory {
                vec![directory.to_owned()]
            } else {
                vec![folder.clone(), directory.to_owned()]
            };
            if folder.join(&named).is_file() {
                return Ok((folder.join(&named), beside));
            }
            let mut models = match folder.is_dir() {
                true => entries(&folder)?,
                false => Vec::new(),
            };
            models.retain(|path| path.is_file() && has_extension(path, &[extension]));
            match models.len() {
                0 => {}
                1 => return Ok((models.remove(0), beside)),
                _ => return Err(ZooError::SeveralModels { path: folder, models }),
            }
        }
    }
    Err(not_a_model(directory))
}

/// The current snapshot, where `directory` is one of the Hugging Face cache: `refs/main` names it.
fn snapshot(directory: &Path) -> Option<PathBuf> {
    let revision = std::fs::read_to_string(directory.join("refs/main")).ok()?;
    let is_hash = revision.trim().chars().all(|c| c.is_ascii_hexdigit());
    Some(directory.join("snapshots").join(revision.trim())).filter(|path| is_hash && path.is_dir())
}

fn of_file(path: &Path, name: Option<&str>) -> Found {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = name.map_or_else(|| name_of(path), str::to_owned);
    Found {
        name,
        version: Version::first(),
        files: Files::Disk { model: path.to_owned(), beside: vec![parent.to_owned()] },
    }
}

/// The name a path gives: a directory's own name, a file's without its extension; but for `resnet/1/model.onnx` and
/// `resnet/onnx/model.onnx` it is `resnet`.
fn name_of(path: &Path) -> String {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let is_file = has_extension(&full, &MODEL_EXTENSIONS) && !full.is_dir();
    let mut parts = full.components().rev().filter_map(|part| match part {
        std::path::Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    let own = parts.next().unwrap_or_else(|| MODEL_STEM.to_owned());
    if !is_file {
        // models--microsoft--resnet-50 is how the Hugging Face cache writes microsoft/resnet-50.
        return match own.strip_prefix("models--").and_then(|rest| rest.rsplit_once("--")) {
            Some((_, name)) => name.to_owned(),
            None => own,
        };
    }
    let stem = own.rsplit_once('.').map_or(own.as_str(), |(stem, _)| stem).to_owned();
    if stem != MODEL_STEM {
        return stem;
    }
    parts.find(|part| part != "onnx" && Version::of_folder(part).is_none()).unwrap_or(stem)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|found| extensions.iter().any(|extension| found.eq_ignore_ascii_case(extension)))
}

/// What is in a directory, by name, without what is hidden.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, ZooError> {
    let failed = |cause: std::io::Error| match cause.kind() {
        std::io::ErrorKind::NotFound => ZooError::Missing { path: directory.to_owned() },
        _ => ZooError::Read { path: directory.to_owned(), cause },
    };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)?.take(ENTRIES_MAX) {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            entries.push(entry.path());
        }
    }
    entries.sort();
    Ok(entries)
}

/// Weights without a graph.
pub(super) fn is_weights(path: &Path) -> bool {
    has_extension(path, &["safetensors"])
}

/// The error for a place without a model; it tells apart what belongs to another tool.
fn not_a_model(path: &Path) -> ZooError {
    let foreign = |path: &Path| has_extension(path, &FOREIGN);
    let found = if path.is_dir() {
        entries(path).unwrap_or_default().into_iter().find(|entry| foreign(entry))
    } else {
        Some(path.to_owned()).filter(|path| foreign(path))
    };
    match found {
        Some(file) => ZooError::ForeignFormat { path: file },
        None => ZooError::NoModel { path: path.to_owned() },
    }
}

/// What the files of a model looked like, to notice that they have changed: every file beside the model with its size,
/// time and inode. Contents are not read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint(Vec<(PathBuf, u64, Option<SystemTime>, u64)>);

/// Takes the fingerprint of a model's files.
#[must_use]
pub fn fingerprint(files: &Files) -> Fingerprint {
    let Files::Disk { model, beside } = files else { return Fingerprint::default() };
    let neighbours = beside.iter().flat_map(|directory| entries(directory).unwrap_or_default());
    // Other models in the same directory are no part of this one.
    let paths = neighbours.filter(|path| path == model || !has_extension(path, &MODEL_EXTENSIONS));
    let mut seen: Vec<_> = paths
        .filter_map(|path| {
            let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
            Some((path, metadata.len(), metadata.modified().ok(), inode(&metadata)))
        })
        .collect();
    seen.sort();
    Fingerprint(seen)
}

#[cfg(unix)]
fn inode(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_metadata: &std::fs::Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests;
