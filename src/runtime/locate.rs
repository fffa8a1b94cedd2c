//! The search: places in their order, what stands at each, and the first that is fit for use.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::cache::Entry;
use super::library::{check_machine, inspect, is_library_name};
use super::receipt::{Damage, Depth};
use super::version::version_in_name;
use super::{Flavour, RuntimeError, Search, Unfit, Version};

/// Where a library was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Given by the user, with `--ort-lib` or `ORT_DYLIB_PATH`.
    Explicit,
    /// In the folder of the running program.
    BesideExecutable,
    /// Fetched earlier.
    Cache(Flavour),
    /// On the system's library path.
    System,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Explicit => f.write_str("given"),
            Self::BesideExecutable => f.write_str("beside executable"),
            Self::Cache(flavour) => write!(f, "cache: {flavour}"),
            Self::System => f.write_str("system"),
        }
    }
}

/// A library fit for use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The file to load, as an absolute path.
    pub library: PathBuf,
    /// Its version; unknown only for a file the user gave that does not say.
    pub version: Option<Version>,
    /// Where it was.
    pub source: Source,
    /// The OpenVINO plugin to register; present exactly when [`Flavour::Openvino`] was asked for.
    pub provider_plugin: Option<PathBuf>,
    /// Libraries to open before a CUDA or TensorRT session is made, first to last; a bare name is the loader's to find.
    /// Empty for the other flavours, and for a library that was not fetched by this program.
    pub preload: Vec<PathBuf>,
}

/// One line of `residual runtime list`: a place and what stands there.
#[derive(Debug)]
pub struct Candidate {
    /// The kind of place.
    pub source: Source,
    /// The library, or the folder it would be installed to.
    pub path: PathBuf,
    /// As far as it is known.
    pub version: Option<Version>,
    /// Whether it can be used.
    pub state: State,
    /// Whether [`find`] returns it as the library.
    pub chosen: bool,
}

/// Whether something can be used.
#[derive(Debug)]
pub enum State {
    /// It can.
    Ready,
    /// It is not there, and a command would fetch it.
    NotInstalled,
    /// It is there and cannot be used.
    Unfit(Unfit),
    /// It was fetched, and has changed since.
    Damaged(Damage),
}

/// Looks for a library without fetching one. The first place in the order that has a fit one wins.
///
/// # Errors
/// A file given by the user that is unfit, and a damaged cache, are errors: the user meant that one.
pub fn find(search: &Search) -> Result<Option<Found>, RuntimeError> {
    find_library(search)?.map_or(Ok(None), |found| complete(search, found))
}

/// Adds to a library what else the flavour needs; nothing if its plugin is not there.
pub(crate) fn complete(search: &Search, found: Found) -> Result<Option<Found>, RuntimeError> {
    match search.flavour {
        Flavour::Cpu => Ok(Some(found)),
        Flavour::Cuda | Flavour::CudaLibraries => {
            let preload = super::cuda::preload(search, &found.library)?;
            Ok(Some(Found { preload, ..found }))
        }
        Flavour::Openvino => {
            let plugin = openvino_plugin(search)?;
            Ok(plugin.map(|plugin| Found { provider_plugin: Some(plugin), ..found }))
        }
    }
}

/// The first fit library, without a plugin.
pub(crate) fn find_library(search: &Search) -> Result<Option<Found>, RuntimeError> {
    for place in places(search) {
        let Candidate { source, path, version, state, .. } = look(search, place, Depth::Quick);
        match state {
            State::Ready => {
                return Ok(Some(Found { library: path, version, source, provider_plugin: None, preload: Vec::new() }));
            }
            State::NotInstalled => {}
            State::Damaged(damage) => {
                return Err(RuntimeError::Damaged { flavour: search.flavour.library(), folder: path, damage });
            }
            State::Unfit(why) if source == Source::Explicit => return Err(RuntimeError::GivenUnfit { path, why }),
            // A place that is looked at first holds a library for other providers, as containers for CPUs do.
            State::Unfit(why @ Unfit::WithoutCuda) => {
                tracing::debug!(path = %path.display(), %source, "passed over an ONNX Runtime library: {why}");
            }
            State::Unfit(why) => {
                tracing::warn!(path = %path.display(), %source, "passed over an ONNX Runtime library: {why}");
            }
        }
    }
    Ok(None)
}

/// Looks for the OpenVINO plugin: beside a library given by the user, beside the executable, in the cache.
///
/// # Errors
/// A damaged cache.
pub fn openvino_plugin(search: &Search) -> Result<Option<PathBuf>, RuntimeError> {
    const FILE: &str = "libonnxruntime_providers_openvino_plugin.so";
    let given_dir = search.ort_lib.as_deref().and_then(Path::parent);
    for folder in given_dir.into_iter().chain(search.executable_dir.as_deref()) {
        let path = super::absolute(folder.join(FILE));
        match check_machine(&path) {
            Ok(()) => return Ok(Some(path)),
            Err(Unfit::Missing) => {}
            Err(why) => tracing::warn!(path = %path.display(), "passed over an OpenVINO plugin: {why}"),
        }
    }
    let Ok(cache) = search.cache() else { return Ok(None) };
    let flavour = Flavour::Openvino;
    match cache.open(flavour, Depth::Quick) {
        Ok(entry) => Ok(entry.as_ref().map(Entry::library)),
        Err(damage) => Err(RuntimeError::Damaged { flavour, folder: cache.folder(flavour), damage }),
    }
}

/// Every place and what stands there, in the order of the search, the flavours not searched for behind them.
pub fn candidates(search: &Search, depth: Depth) -> Vec<Candidate> {
    let mut searched: Vec<Candidate> = places(search).map(|place| look(search, place, depth)).collect();
    // The first that does not make `find_library` go on; it is taken if it is fit, and an error if not.
    let goes_on = |candidate: &Candidate| match candidate.state {
        State::NotInstalled => true,
        State::Unfit(_) => candidate.source != Source::Explicit,
        State::Ready | State::Damaged(_) => false,
    };
    if let Some(last) = searched.iter_mut().find(|candidate| !goes_on(candidate)) {
        last.chosen = matches!(last.state, State::Ready);
    }
    let others = Flavour::ALL.into_iter().filter(|flavour| *flavour != search.flavour.library());
    let others =
        others.filter(|_| search.cache_dir.is_some()).map(|flavour| look(search, Place::Cache(flavour), depth));
    searched.into_iter().chain(others).collect()
}

/// Where a library may be.
enum Place {
    File(Source, PathBuf),
    Cache(Flavour),
}

/// The places in the order of the search. A search ends at a given file, fit or not, so what follows it is for listing
/// only; nothing is read before it is asked for.
fn places(search: &Search) -> impl Iterator<Item = Place> + '_ {
    let given = search.ort_lib.iter().map(|path| Place::File(Source::Explicit, super::absolute(path.clone())));
    let beside = search.executable_dir.iter().flat_map(|folder| libraries_in(folder));
    let cache = search.cache_dir.iter().map(|_| Place::Cache(search.flavour.library()));
    // /lib is a link to /usr/lib on most systems, so one file turns up in both.
    let mut seen = HashSet::new();
    let system = search.system_dirs.iter().flat_map(|folder| libraries_in(folder));
    given
        .chain(beside.map(|path| Place::File(Source::BesideExecutable, path)))
        .chain(cache)
        .chain(system.filter(move |path| seen.insert(path.clone())).map(|path| Place::File(Source::System, path)))
}

/// What stands at a place.
fn look(search: &Search, place: Place, depth: Depth) -> Candidate {
    match place {
        Place::File(source, path) => {
            let is_given = source == Source::Explicit;
            let needs_cuda = search.flavour.library() == Flavour::Cuda && !is_given;
            let state = match inspect(&path) {
                Ok(_) if needs_cuda && !path.with_file_name("libonnxruntime_providers_cuda.so").exists() => {
                    Err(Unfit::WithoutCuda)
                }
                inspected => inspected,
            };
            match state {
                Ok(version) => Candidate { source, path, version, state: State::Ready, chosen: false },
                Err(why) => {
                    let version = match why {
                        Unfit::TooOld { found } => Some(found),
                        _ => version_in_name(&path),
                    };
                    Candidate { source, path, version, state: State::Unfit(why), chosen: false }
                }
            }
        }
        Place::Cache(flavour) => {
            let source = Source::Cache(flavour);
            let nothing = |state| {
                let path = search.cache().map(|cache| cache.folder(flavour)).unwrap_or_default();
                Candidate { source, path, version: None, state, chosen: false }
            };
            match search.cache().map(|cache| cache.open(flavour, depth)) {
                Ok(Ok(Some(entry))) => Candidate {
                    source,
                    path: entry.library(),
                    version: entry.receipt.version.parse().ok(),
                    state: State::Ready,
                    chosen: false,
                },
                Ok(Ok(None)) | Err(_) => nothing(State::NotInstalled),
                Ok(Err(damage)) => nothing(State::Damaged(damage)),
            }
        }
    }
}

/// The ONNX Runtime libraries in a folder, newest first, each under its real name: `libonnxruntime.so` is most often a
/// link to the file that has the version in its name and the providers beside it.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_library_name))
        .map(|entry| entry.path().canonicalize().unwrap_or_else(|_| entry.path()))
        .collect();
    files.sort_by_key(|path| (std::cmp::Reverse(version_in_name(path)), path.clone()));
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::fakes;
    use super::super::install::{Refresh, install};
    use super::*;

    fn put(path: &Path, version: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, fakes::library(version)).unwrap();
    }

    fn source(search: &Search) -> Option<Source> {
        find(search).unwrap().map(|found| found.source)
    }

    #[test]
    fn first_place_in_the_order_wins() {
        let folder = tempfile::tempdir().unwrap();
        let (mut search, _python) = fakes::search(folder.path());
        assert_eq!(source(&search), None);
        put(&folder.path().join("lib/libonnxruntime.so.1.25.0"), "1.25.0");
        assert_eq!(source(&search), Some(Source::System));
        install(&search, Flavour::Cpu, Refresh::IfNeeded, &|_| {}).unwrap();
        assert_eq!(source(&search), Some(Source::Cache(Flavour::Cpu)));
        put(&folder.path().join("bin/libonnxruntime.so"), "1.26.0");
        assert_eq!(source(&search), Some(Source::BesideExecutable));
        let given = folder.path().join("given.so");
        put(&given, "1.24.0");
        search.ort_lib = Some(given.clone());
        let found = find(&search).unwrap().unwrap();
        assert_eq!((found.library, found.source), (given, Source::Explicit));
        assert_eq!(found.version, "1.24.0".parse().ok());
    }

    #[test]
    fn unfit_given_file_is_an_error_whatever_else_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let (mut search, _python) = fakes::search(folder.path());
        put(&folder.path().join("lib/libonnxruntime.so"), "1.31.1");
        put(&folder.path().join("old.so"), "1.23.0");
        fs::write(folder.path().join("text.so"), "text that is long enough for a header").unwrap();
        for (name, expected) in [("none.so", "no such file"), ("text.so", "not a shared"), ("old.so", "version 1.23.0")]
        {
            search.ort_lib = Some(folder.path().join(name));
            let error = find(&search).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(expected) && error.contains("--ort-lib"), "{error}");
        }
    }

    #[test]
    fn unfit_system_libraries_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let (mut search, _python) = fakes::search(folder.path());
        search.system_dirs = vec![folder.path().join("a"), folder.path().join("b")];
        put(&folder.path().join("a/libonnxruntime.so.1.20.0"), "1.20.0");
        fs::write(folder.path().join("a/libonnxruntime.so.1.99.0"), "nothing").unwrap();
        assert_eq!(find(&search).unwrap(), None);
        put(&folder.path().join("b/libonnxruntime.so.1.30.0"), "1.30.0");
        put(&folder.path().join("b/libonnxruntime.so.1.4.0"), "1.30.0");
        let found = find(&search).unwrap().unwrap();
        assert!(found.library.ends_with("b/libonnxruntime.so.1.30.0"), "newest first, by number: {found:?}");
    }

    #[test]
    fn link_is_followed_to_the_file_with_the_providers() {
        let folder = tempfile::tempdir().unwrap();
        let (search, _python) = fakes::search(folder.path());
        put(&folder.path().join("real/libonnxruntime.so.1.31.1"), "1.31.1");
        fs::create_dir(folder.path().join("lib")).unwrap();
        for name in ["libonnxruntime.so", "libonnxruntime.so.1"] {
            std::os::unix::fs::symlink("../real/libonnxruntime.so.1.31.1", folder.path().join("lib").join(name))
                .unwrap();
        }
        let found = find(&search).unwrap().unwrap();
        assert!(found.library.ends_with("real/libonnxruntime.so.1.31.1"), "{found:?}");
        assert_eq!(libraries_in(&folder.path().join("lib")).len(), 1);
    }

    #[test]
    fn cuda_needs_its_provider_beside_the_library() {
        let folder = tempfile::tempdir().unwrap();
        let (mut search, _python) = fakes::search(folder.path());
        search.flavour = Flavour::Cuda;
        put(&folder.path().join("lib/libonnxruntime.so.1.31.1"), "1.31.1");
        assert_eq!(find(&search).unwrap(), None);
        put(&folder.path().join("lib/libonnxruntime_providers_cuda.so"), "");
        assert_eq!(source(&search), Some(Source::System));
    }

    #[test]
    fn openvino_is_found_only_with_its_plugin() {
        let folder = tempfile::tempdir().unwrap();
        let (mut search, _python) = fakes::search(folder.path());
        search.flavour = Flavour::Openvino;
        put(&folder.path().join("lib/libonnxruntime.so.1.31.1"), "1.31.1");
        assert_eq!(find(&search).unwrap(), None);
        let plugin = folder.path().join("bin/libonnxruntime_providers_openvino_plugin.so");
        put(&plugin, "");
        assert_eq!(find(&search).unwrap().unwrap().provider_plugin, Some(plugin));
        search.flavour = Flavour::Cpu;
        assert_eq!(find(&search).unwrap().unwrap().provider_plugin, None);
    }

    #[test]
    fn exactly_what_find_returns_is_marked() {
        let folder = tempfile::tempdir().unwrap();
        let (mut search, _python) = fakes::search(folder.path());
        let marked = |search: &Search| {
            let listed = candidates(search, Depth::Full);
            let chosen: Vec<_> = listed.into_iter().filter(|candidate| candidate.chosen).collect();
            assert!(chosen.len() <= 1, "{chosen:?}");
            let chosen = chosen.into_iter().next().map(|candidate| candidate.path);
            assert_eq!(chosen, find(search).ok().flatten().map(|found| found.library));
            chosen
        };
        assert_eq!(marked(&search), None);
        put(&folder.path().join("lib/libonnxruntime.so.1.20.0"), "1.20.0");
        assert_eq!(marked(&search), None);
        put(&folder.path().join("lib/libonnxruntime.so.1.25.0"), "1.25.0");
        assert!(marked(&search).unwrap().ends_with("libonnxruntime.so.1.25.0"));
        let cached = install(&search, Flavour::Cpu, Refresh::IfNeeded, &|_| {}).unwrap().library;
        assert_eq!(marked(&search), Some(cached.clone()));
        fs::write(&cached, "half").unwrap();
        assert_eq!(marked(&search), None, "a damaged cache is not passed over");
        search.ort_lib = Some(folder.path().join("none.so"));
        assert_eq!(marked(&search), None, "nor is an unfit given file");
        let absent = candidates(&search, Depth::Quick).into_iter();
        assert_eq!(absent.filter(|candidate| matches!(candidate.state, State::NotInstalled)).count(), 3);
    }
}
