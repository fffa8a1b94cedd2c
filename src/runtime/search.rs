//! Everything a search depends on, read from the environment once, so that the search itself is a function of its
//! input.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::cache::Cache;
use super::{Flavour, RuntimeError};

/// Where to look for ONNX Runtime, and what may be done when it is not there.
#[derive(Clone, Debug)]
pub struct Search {
    /// The one file to use (`--ort-lib`, `ORT_DYLIB_PATH`). If it is unfit that is an error, never a reason to look
    /// further.
    pub ort_lib: Option<PathBuf>,
    /// What is needed.
    pub flavour: Flavour,
    /// Forbids fetching.
    pub offline: bool,
    /// The folder that fetched libraries live in; without one nothing can be fetched.
    pub cache_dir: Option<PathBuf>,
    /// The interpreter whose pip fetches wheels: a name to be found in `PATH`, or a path.
    pub python: PathBuf,
    /// The folder of the running program.
    pub executable_dir: Option<PathBuf>,
    /// The folders that the system's loader would search, first to last.
    pub system_dirs: Vec<PathBuf>,
}

impl Search {
    /// A search for the CPU library as the environment describes it: `ORT_DYLIB_PATH`, `RESIDUAL_CACHE_DIR`,
    /// `RESIDUAL_PYTHON`, `RESIDUAL_OFFLINE`, `LD_LIBRARY_PATH`. An empty variable counts as unset. Command-line flags
    /// are laid over it field by field.
    pub fn from_environment() -> Self {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let executable = env::current_exe().and_then(|path| path.canonicalize()).ok();
        Self {
            ort_lib: variable("ORT_DYLIB_PATH").map(PathBuf::from),
            flavour: Flavour::Cpu,
            offline: variable("RESIDUAL_OFFLINE").is_some_and(|value| is_yes(&value)),
            cache_dir: variable("RESIDUAL_CACHE_DIR").map(PathBuf::from).or_else(user_cache),
            python: variable("RESIDUAL_PYTHON").unwrap_or_else(|| "python3".into()).into(),
            executable_dir: executable.as_deref().and_then(Path::parent).map(Path::to_path_buf),
            system_dirs: system_dirs(variable(LOADER_PATH).as_deref()),
        }
    }

    pub(crate) fn cache(&self) -> Result<Cache, RuntimeError> {
        self.cache_dir.as_deref().map(Cache::below).ok_or(RuntimeError::NoCacheFolder)
    }

    /// The cache folder as messages name it.
    pub(crate) fn cache_name(&self) -> String {
        self.cache().map_or_else(|_| "a cache folder".into(), |cache| cache.root().display().to_string())
    }
}

/// `residual/` in the user's cache folder: `$XDG_CACHE_HOME`, else `~/.cache`.
fn user_cache() -> Option<PathBuf> {
    use etcetera::BaseStrategy as _;
    etcetera::choose_base_strategy().ok().map(|user| user.cache_dir().join("residual"))
}

const LOADER_PATH: &str = if cfg!(target_vendor = "apple") { "DYLD_LIBRARY_PATH" } else { "LD_LIBRARY_PATH" };

/// Anything but a no is a yes: who sets the variable means something by it.
fn is_yes(value: &OsStr) -> bool {
    let value = value.to_string_lossy().to_lowercase();
    !matches!(value.as_str(), "0" | "false" | "no" | "off" | "n" | "f")
}

/// The loader's own path, then the folders it is configured with, then those it knows by itself.
fn system_dirs(loader_path: Option<&OsStr>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = loader_path.into_iter().flat_map(env::split_paths).collect();
    folders.extend(configured_dirs(Path::new("/etc/ld.so.conf.d")));
    let arch = env::consts::ARCH;
    let known = [
        "/usr/local/lib".into(),
        format!("/lib/{arch}-linux-gnu"),
        format!("/usr/lib/{arch}-linux-gnu"),
        "/lib64".into(),
        "/usr/lib64".into(),
        "/lib".into(),
        "/usr/lib".into(),
        "/opt/homebrew/lib".into(),
    ];
    folders.extend(known.map(PathBuf::from));
    // An empty entry in a loader path means the working folder, which a server had better not load code from.
    folders.retain(|folder| folder.is_absolute());
    let mut seen = std::collections::HashSet::new();
    folders.retain(|folder| seen.insert(folder.clone()));
    folders
}

/// The folders named in ld.so.conf.d, in the order in which ldconfig reads its files. Reading them is enough:
/// ldconfig's cache is a binary format that is no one's contract, and running ldconfig needs it to be installed.
fn configured_dirs(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    files
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| {
            text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(PathBuf::from).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loader_path_comes_first_and_relative_entries_do_not_count() {
        let folders = system_dirs(Some(OsStr::new("/opt/ort::lib:/opt/ort:/usr/lib")));
        assert_eq!(folders[..2], [PathBuf::from("/opt/ort"), PathBuf::from("/usr/lib")]);
        assert_eq!(folders.iter().filter(|folder| *folder == Path::new("/usr/lib")).count(), 1);
    }

    #[test]
    fn loader_configuration_is_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b.conf"), "/b\n").unwrap();
        fs::write(folder.path().join("a.conf"), "# a comment\n  /a1\n/a2\ninclude x\n").unwrap();
        fs::write(folder.path().join("c.txt"), "/c\n").unwrap();
        assert_eq!(configured_dirs(folder.path()), ["/a1", "/a2", "/b"].map(PathBuf::from));
        assert!(configured_dirs(&folder.path().join("none")).is_empty());
    }

    #[test]
    fn offline_may_be_switched_off_by_variable() {
        assert!(is_yes(OsStr::new("1")) && is_yes(OsStr::new("true")));
        assert!(!is_yes(OsStr::new("0")) && !is_yes(OsStr::new("False")));
    }
}
