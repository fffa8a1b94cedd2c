//! The CUDA libraries: which ones ONNX Runtime's CUDA provider needs opened before it, in which order, and where they
//! are. Opening them is left to `pipeline::infer`.
//!
//! The provider names its libraries without saying where they are, so that the loader searches the system for them. One
//! that the process has open already is taken instead.

use std::path::{Path, PathBuf};

use super::cache::Cache;
use super::receipt::Depth;
use super::{Flavour, RuntimeError, Search};

/// What is opened of the fetched libraries: each after those that it needs.
///
/// `readelf -d` of the provider lists the first four; it opens cuDNN by name. The others are there since nothing finds
/// them otherwise: NVRTC 13.0 opens its builtins without looking beside itself (compiling a kernel ends with "failed to
/// open libnvrtc-builtins.so.13.0"). `libcudnn_graph` is the part of cuDNN that is always used; opened here, its need
/// of the system's zlib shows at the start and not in the first session.
const FETCHED: [&str; 8] = [
    "libcublasLt.so.13",
    "libcublas.so.13",
    "libcurand.so.10",
    "libcudart.so.13",
    "libnvrtc-builtins.so.13.0",
    "libnvrtc.so.13",
    "libcudnn.so.9",
    "libcudnn_graph.so.9",
];

/// What is opened where the system has them: only names that do not change within CUDA 13 and cuDNN 9.
const FROM_SYSTEM: [&str; 5] =
    ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13", "libcudnn.so.9"];

/// The files to open before a CUDA session is made from `library`, first to last: paths where the libraries are known
/// to be, bare names where the loader has to find them.
///
/// A library that was not fetched by this program may be built for another CUDA, so nothing is opened for it unless it
/// has the libraries beside itself, as in a container image that keeps all in one folder.
///
/// # Errors
/// A damaged cache.
pub(crate) fn preload(search: &Search, library: &Path) -> Result<Vec<PathBuf>, RuntimeError> {
    let inside = |folder: &Path| FETCHED.iter().map(|name| folder.join(name)).collect::<Vec<_>>();
    if let Some(folder) = library.parent().filter(|folder| folder.join(FETCHED[0]).exists()) {
        return Ok(inside(folder).into_iter().filter(|path| path.exists()).collect());
    }
    let is_fetched = search.cache().is_ok_and(|cache| library.starts_with(cache.folder(Flavour::Cuda)));
    if !is_fetched {
        return Ok(Vec::new());
    }
    Ok(match cuda_libraries_folder(search)? {
        Some(folder) => inside(&folder),
        None => FROM_SYSTEM.map(PathBuf::from).into(),
    })
}

/// The folder with the fetched CUDA libraries, if they were fetched.
///
/// # Errors
/// A damaged cache.
pub fn cuda_libraries_folder(search: &Search) -> Result<Option<PathBuf>, RuntimeError> {
    let flavour = Flavour::CudaLibraries;
    let Ok(cache) = search.cache() else { return Ok(None) };
    let opened = Cache::open(&cache, flavour, Depth::Quick);
    let damaged = |damage| RuntimeError::Damaged { flavour, folder: cache.folder(flavour), damage };
    Ok(opened.map_err(damaged)?.map(|entry| entry.folder))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::bundle::{Bundle, Platform};
    use super::super::fakes::{self, FakePython};
    use super::super::install::{Refresh, install};
    use super::super::locate::find;
    use super::*;

    fn cuda_search(folder: &Path) -> Search {
        let (mut search, _python) = fakes::search(folder);
        search.flavour = Flavour::Cuda;
        search.python = FakePython::serving_all(folder, Flavour::Cuda).path;
        install(&search, Flavour::Cuda, Refresh::IfNeeded, &|_| {}).unwrap();
        search
    }

    #[test]
    fn fetched_libraries_are_opened_from_their_folder_and_others_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut search = cuda_search(folder.path());
        let preload = |search: &Search| find(search).unwrap().unwrap().preload;
        assert_eq!(preload(&search), FROM_SYSTEM.map(PathBuf::from));
        search.python = FakePython::serving_all(folder.path(), Flavour::CudaLibraries).path;
        install(&search, Flavour::CudaLibraries, Refresh::IfNeeded, &|_| {}).unwrap();
        let libraries = folder.path().join("cache/onnxruntime-1.31.1/cuda-libraries");
        assert_eq!(preload(&search), FETCHED.map(|name| libraries.join(name)));
        fs::write(libraries.join("libcudnn.so.9"), "half").unwrap();
        let error = find(&search).unwrap_err().to_string();
        assert!(error.contains("residual runtime install cuda-libraries --force"), "{error}");
        search.flavour = Flavour::Cpu;
        let error = find(&search).unwrap();
        assert_eq!(error, None, "the cpu flavour has no use for them");
    }

    #[test]
    fn nothing_is_opened_for_a_library_that_may_be_built_for_another_cuda() {
        let folder = tempfile::tempdir().unwrap();
        let search = cuda_search(folder.path());
        let given = folder.path().join("given/libonnxruntime.so");
        assert_eq!(preload(&search, &given).unwrap(), Vec::<PathBuf>::new());
        fs::create_dir(folder.path().join("given")).unwrap();
        for name in ["libcublasLt.so.13", "libcudnn.so.9"] {
            fs::write(folder.path().join("given").join(name), "").unwrap();
        }
        let expected = ["given/libcublasLt.so.13", "given/libcudnn.so.9"].map(|name| folder.path().join(name));
        assert_eq!(preload(&search, &given).unwrap(), expected);
    }

    #[test]
    fn every_library_that_a_wheel_is_known_by_is_opened() {
        for wheel in Bundle::of(Flavour::CudaLibraries, Platform::LinuxX86).unwrap().wheels {
            assert!(FETCHED.contains(&wheel.library), "{wheel:?}");
        }
        for name in FROM_SYSTEM {
            assert!(FETCHED.contains(&name), "{name}");
        }
    }
}
