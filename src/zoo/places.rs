//! Where models are on disk: every layout that is understood, seen by names alone. No file is opened here.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use super::{BUILTIN, CONFIG_FILE, PREPROCESSOR_FILE, Version, ZooError, labels};

/// The model's own name in every layout.
const MODEL_STEM: &str = "model";
/// What a person says about a model.
pub(super) const MANIFEST_FILE: &str = "residual.toml";
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

/// Whether this can be a model's name: names stand in URLs, metrics and logs.
#[must_use]
pub fn is_name(text: &str) -> bool {
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
    /// The nearest file beside the model with one of these names; in one directory, the first of them.
    #[must_use]
    pub(super) fn side(&self, names: &[&str]) -> Option<PathBuf> {
        self.sides(names).find(|path| path.is_file())
    }

    /// Every place in which a file with one of these names would be looked up, the first choice first.
    fn sides<'a>(&'a self, names: &'a [&'a str]) -> impl Iterator<Item = PathBuf> + 'a {
        let beside: &[PathBuf] = match self {
            Self::Disk { beside, .. } => beside,
            Self::Builtin => &[],
        };
        beside.iter().flat_map(move |directory| names.iter().map(move |name| directory.join(name)))
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
/// [`ZooError`] if the repository cannot be read or is empty, or a name is taken twice. What is wrong with one model stands
/// in [`Listing::broken`].
pub fn find(repository: Option<&Path>, wanted: &[Wanted]) -> Result<Listing, ZooError> {
    let mut listing = Listing::default();
    for Wanted { name, place } in wanted {
        let found = match place {
            Place::Builtin => Ok(vec![builtin(name.as_deref())]),
            Place::Path(path) => find_one(path, name.as_deref()),
        };
        match (found, place) {
            (Ok(found), _) => listing.add(found)?,
            (Err(error), Place::Path(path)) => {
                listing.broken.push((name.clone().unwrap_or_else(|| name_of(path)), error));
            }
            (Err(error), Place::Builtin) => return Err(error),
        }
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
    // Taken apart, a model's own directory would be served under the names of its versions, without its labels.
    if is_one_model(directory)? {
        return Err(ZooError::NotARepository { path: directory.to_owned() });
    }
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
    Ok(())
}

/// A directory with versions, with an `onnx` folder, or with one model file and what belongs to it.
fn is_one_model(directory: &Path) -> Result<bool, ZooError> {
    let entries = entries(directory)?;
    let is_version = |entry: &&PathBuf| {
        let name = entry.file_name().and_then(OsStr::to_str);
        entry.is_dir() && name.is_some_and(|name| Version::of_folder(name).is_some())
    };
    if entries.iter().filter(is_version).any(|version| in_directory(version).is_ok()) {
        return Ok(true);
    }
    let described = [MANIFEST_FILE, CONFIG_FILE, PREPROCESSOR_FILE].iter().any(|name| directory.join(name).is_file());
    let models = entries.iter().filter(|entry| entry.is_file() && has_extension(entry, &MODEL_EXTENSIONS)).count();
    Ok(described && (models == 1 || in_directory(&directory.join("onnx")).is_ok()))
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
            Err(ZooError::NoModel { .. } | ZooError::ForeignFormat { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if found.is_empty() {
        let (model, mut beside) = in_directory(&snapshot(path).unwrap_or_else(|| path.to_owned()))?;
        beside.extend(above(path));
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
        files: Files::Disk {
            model: path.to_owned(),
            beside: std::iter::once(parent.to_owned()).chain(above(parent)).collect(),
        },
    }
}

/// The directory around `directory`, where that is an inner part of a layout (`onnx/`, `1/`, `model.onnx/`) and what
/// describes the model lies outside of it.
fn above(directory: &Path) -> Option<PathBuf> {
    let full = full(directory);
    let name = full.file_name()?.to_str()?;
    let inner = is_inner(name) || MODEL_EXTENSIONS.iter().any(|extension| name == format!("{MODEL_STEM}.{extension}"));
    full.parent().filter(|_| inner).map(Path::to_owned)
}

/// Names of folders inside a model's own.
fn is_inner(name: &str) -> bool {
    name == "onnx" || Version::of_folder(name).is_some()
}

/// With the names of its parents. Links keep their own names, which people chose; `..` has none.
fn full(path: &Path) -> PathBuf {
    let full = if path.file_name().is_some() { std::path::absolute(path) } else { path.canonicalize() };
    full.unwrap_or_else(|_| path.to_owned())
}

/// The name a path gives: a directory's own name, a file's without its extension; but for `resnet/1`, `resnet/1/model.onnx` and
/// `resnet/onnx/model.onnx` it is `resnet`.
fn name_of(path: &Path) -> String {
    let full = full(path);
    let is_file = has_extension(&full, &MODEL_EXTENSIONS) && !full.is_dir();
    let mut parts = full.components().rev().filter_map(|part| match part {
        std::path::Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    let own = parts.next().unwrap_or_else(|| MODEL_STEM.to_owned());
    let stem = match own.rsplit_once('.') {
        Some((stem, _)) if is_file => stem.to_owned(),
        Some(_) | None => own,
    };
    if (is_file && stem == MODEL_STEM) || (!is_file && is_inner(&stem)) {
        return parts.find(|part| !is_inner(part)).unwrap_or(stem);
    }
    // models--microsoft--resnet-50 is how the Hugging Face cache writes microsoft/resnet-50.
    match stem.strip_prefix("models--").and_then(|rest| rest.rsplit_once("--")) {
        Some((_, name)) if !is_file => name.to_owned(),
        Some(_) | None => stem,
    }
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
    for (n, entry) in std::fs::read_dir(directory).map_err(failed)?.enumerate() {
        if n == ENTRIES_MAX {
            return Err(ZooError::TooManyEntries { path: directory.to_owned(), max: ENTRIES_MAX });
        }
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

/// What the files of a model looked like, to notice that they have changed: size, time and inode of each file that opening
/// the model reads, or would read if it were there. Contents are not read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint(Vec<(PathBuf, Option<Seen>)>);

/// What tells one state of a file from another.
type Seen = (u64, Option<SystemTime>, u64);

/// Takes the fingerprint of a model's files. `more` are those that only the open model names: weights in files of their
/// own, labels that `residual.toml` points to.
#[must_use]
pub fn fingerprint(files: &Files, more: &[PathBuf]) -> Fingerprint {
    let Files::Disk { model, .. } = files else { return Fingerprint::default() };
    let manifests = manifests(model);
    let names: Vec<&str> =
        manifests.iter().map(String::as_str).chain([CONFIG_FILE, PREPROCESSOR_FILE]).chain(labels::FILES).collect();
    let paths = std::iter::once(model.clone()).chain(files.sides(&names)).chain(more.iter().cloned());
    let seen = |path: PathBuf| {
        let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file);
        let seen = metadata.map(|metadata| (metadata.len(), metadata.modified().ok(), inode(&metadata)));
        (path, seen)
    };
    Fingerprint(paths.map(seen).collect())
}

/// The names that a model's `residual.toml` may have, the more particular first.
pub(super) fn manifests(model: &Path) -> [String; 2] {
    let stem = model.file_stem().unwrap_or_default().to_string_lossy();
    [format!("{stem}.{MANIFEST_FILE}"), MANIFEST_FILE.to_owned()]
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
