//! Fetching a flavour: one process at a time, whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::bundle::Bundle;
use super::cache::{self, Cache, Entry, Lock};
use super::library::{check_machine, inspect};
use super::locate::{Found, complete, find_library};
use super::receipt::{self, Depth, FileRecord, Origin, RECEIPT_FILE, Receipt};
use super::room::{Room, check_room};
use super::wheel::Wheel;
use super::{Flavour, RUNTIME_VERSION, RuntimeError, Search, pip};

/// How much longer than pip may take another process is given to unpack and check what it fetched.
const UNPACK_MAX: Duration = Duration::from_secs(5 * 60);

/// Whether to fetch what is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Only if it is missing or damaged.
    IfNeeded,
    /// In any case.
    Always,
}

/// What [`install`] did.
#[derive(Clone, Debug)]
pub struct Installed {
    /// What it installed.
    pub flavour: Flavour,
    /// The version of the library or plugin.
    pub version: String,
    /// The file to load: the library, or for OpenVINO the plugin.
    pub library: PathBuf,
    /// All files of the flavour together.
    pub bytes: u64,
    /// How long it took, waiting for another process included.
    pub elapsed: Duration,
    /// Whether this call fetched it; otherwise it was there, or another process brought it.
    pub fetched: bool,
}

/// Looks for a library, and fetches the CPU one if there is none. What it fetches, and where to, goes to `progress`.
///
/// OpenVINO and CUDA are large and only used by name, so they are never fetched unasked; that is what
/// `residual runtime install` is for.
///
/// # Errors
/// As [`super::find`] and [`install`]; [`RuntimeError::NotInstalled`] for the other flavours.
pub fn find_or_install(search: &Search, progress: &dyn Fn(&str)) -> Result<Found, RuntimeError> {
    let fetchable = search.flavour.library() == Flavour::Cpu && !search.offline;
    let found = match find_library(search) {
        Err(RuntimeError::Damaged { flavour, folder, damage }) if fetchable => {
            let folder = folder.display();
            tracing::warn!(%folder, "the cached ONNX Runtime is damaged and is fetched again: {damage}");
            install(search, flavour, Refresh::IfNeeded, progress)?;
            find_library(search)?
        }
        Ok(None) if fetchable => {
            install(search, Flavour::Cpu, Refresh::IfNeeded, progress)?;
            find_library(search)?
        }
        found => found?,
    };
    let found = found.map(|found| complete(search, found)).transpose()?.flatten();
    found.ok_or_else(|| match search.flavour {
        Flavour::Cpu => RuntimeError::Offline { cache: search.cache_name() },
        flavour @ (Flavour::Openvino | Flavour::Cuda | Flavour::CudaLibraries) => {
            RuntimeError::NotInstalled { flavour, cache: search.cache_name() }
        }
    })
}

/// Fetches a flavour into the cache.
///
/// # Errors
/// Everything that can go wrong with pip, the wheels and the cache folder; the cache is then as it was before.
pub fn install(
    search: &Search,
    flavour: Flavour,
    refresh: Refresh,
    progress: &dyn Fn(&str),
) -> Result<Installed, RuntimeError> {
    let start = Instant::now();
    let cache = search.cache()?;
    let done = |entry: &Entry, fetched| Installed {
        flavour,
        version: entry.receipt.version.clone(),
        library: entry.library(),
        bytes: entry.receipt.bytes(),
        elapsed: start.elapsed(),
        fetched,
    };

    if let Some(entry) = present(&cache, flavour, refresh) {
        return Ok(done(&entry, false));
    }
    if search.offline {
        return Err(RuntimeError::FetchForbidden { flavour, cache: search.cache_name() });
    }
    let bundle = Bundle::for_host(flavour)?;
    let wait_max = UNPACK_MAX + bundle.wheels.iter().map(pip::fetch_max).sum::<Duration>();
    let waiting = || progress(&format!("waiting for another process that installs {flavour}"));
    let lock = cache.lock(flavour, wait_max, waiting)?;
    // Another process may have brought it while this one waited.
    if let Some(entry) = present(&cache, flavour, refresh) {
        return Ok(done(&entry, false));
    }
    cache.clear_stale(flavour, &lock)?;
    let room = Room::of(bundle.wheels);
    check_room(&cache, room)?;
    let folder = cache.folder(flavour);
    progress(&format!(
        "fetching the {flavour} flavour of ONNX Runtime ({}, {:.0} MB) to {}",
        match bundle.wheels {
            [wheel] => wheel.requirement(),
            wheels => format!("{} wheels", wheels.len()),
        },
        room.fetched_bytes as f64 / 1e6,
        folder.display()
    ));
    let receipt = fetch(search, bundle, &cache, &lock, progress)?;
    Ok(done(&Entry { folder, receipt }, true))
}

/// The flavour as it lies in the cache, unless it is to be fetched anyway.
pub(crate) fn present(cache: &Cache, flavour: Flavour, refresh: Refresh) -> Option<Entry> {
    match refresh {
        Refresh::IfNeeded => cache.open(flavour, Depth::Full).ok().flatten(),
        Refresh::Always => None,
    }
}

/// Brings the wheels one after the other, unpacks them, checks what came out and puts it in place.
fn fetch(
    search: &Search,
    bundle: Bundle,
    cache: &Cache,
    lock: &Lock,
    progress: &dyn Fn(&str),
) -> Result<Receipt, RuntimeError> {
    let partial = Partial::create(cache.partial(bundle.flavour))?;
    let finished = partial.path.join("finished");
    fs::create_dir(&finished).map_err(RuntimeError::io("create", &finished))?;
    let (mut origins, mut files) = (Vec::new(), Vec::new());
    for (index, wheel) in bundle.wheels.iter().enumerate() {
        if bundle.wheels.len() > 1 {
            let (number, len) = (index + 1, bundle.wheels.len());
            let megabytes = wheel.bytes as f64 / 1e6;
            progress(&format!("fetching {number} of {len}: {}, {megabytes:.0} MB", wheel.requirement()));
        }
        let download = partial.path.join(wheel.package);
        fs::create_dir(&download).map_err(RuntimeError::io("create", &download))?;
        let file = pip::download(&search.python, wheel, &download)?;
        files.extend(wheel.unpack(&file, &finished)?);
        check(bundle.flavour, wheel, &file, &finished.join(wheel.library))?;
        origins.push(origin(wheel, &file)?);
        // The next one may need the room.
        fs::remove_dir_all(&download).map_err(RuntimeError::io("remove", &download))?;
    }
    files.sort();
    let receipt = write_receipt(bundle, origins, files, &finished)?;
    cache::sync_folder(&finished)?;
    cache.publish(bundle.flavour, &finished, lock)?;
    Ok(receipt)
}

/// Looks at the unpacked library as a search would look at any other.
fn check(flavour: Flavour, wheel: &Wheel, file: &Path, library: &Path) -> Result<(), RuntimeError> {
    let why = match flavour {
        Flavour::Openvino | Flavour::CudaLibraries => check_machine(library).err().map(|unfit| unfit.to_string()),
        Flavour::Cpu | Flavour::Cuda => match inspect(library) {
            Ok(Some(version)) if version != RUNTIME_VERSION => {
                Some(format!("it is version {version}, expected {RUNTIME_VERSION}"))
            }
            Ok(_) => None,
            Err(unfit) => Some(unfit.to_string()),
        },
    };
    why.map_or(Ok(()), |why| {
        Err(RuntimeError::BadWheel { file: file_name(file), why: format!("{}: {why}", wheel.library) })
    })
}

fn file_name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn origin(wheel: &Wheel, file: &Path) -> Result<Origin, RuntimeError> {
    let wheel_sha256 =
        File::open(file).and_then(|mut file| receipt::hash(&mut file)).map_err(RuntimeError::io("read", file))?;
    Ok(Origin { package: wheel.package.into(), version: wheel.version.into(), wheel: file_name(file), wheel_sha256 })
}

fn write_receipt(
    bundle: Bundle,
    mut origins: Vec<Origin>,
    files: Vec<PathBuf>,
    folder: &Path,
) -> Result<Receipt, RuntimeError> {
    let files = files
        .into_iter()
        .map(|path| {
            let whole = folder.join(&path);
            FileRecord::measure(folder, path).map_err(RuntimeError::io("read", &whole))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let main = origins.remove(0);
    let receipt = Receipt {
        flavour: bundle.flavour,
        package: main.package,
        version: main.version,
        wheel: main.wheel,
        wheel_sha256: main.wheel_sha256,
        further: origins,
        library: bundle.main().library.into(),
        files,
    };
    let path = folder.join(RECEIPT_FILE);
    File::create_new(&path)
        .and_then(|mut file| {
            serde_json::to_writer_pretty(&mut file, &receipt)?;
            file.write_all(b"\n")?;
            file.sync_all()
        })
        .map_err(RuntimeError::io("write", &path))?;
    Ok(receipt)
}

/// The folder of an install on its way, gone when the install ends, well or not.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn create(path: PathBuf) -> Result<Self, RuntimeError> {
        fs::create_dir(&path).map_err(RuntimeError::io("create", &path))?;
        Ok(Self { path })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // If this fails the next install removes it, and says so if it cannot.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Barrier;

    use super::super::fakes::{self, FakePython};
    use super::super::locate::{Source, find};
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn missing_library_is_fetched_once_and_then_found() {
        let folder = tempfile::tempdir().unwrap();
        let (search, python) = fakes::search(folder.path());
        let said = RefCell::new(Vec::new());
        let found = find_or_install(&search, &|line| said.borrow_mut().push(line.to_owned())).unwrap();
        assert_eq!(found.source, Source::Cache(Flavour::Cpu));
        assert_eq!(found.version, Some(RUNTIME_VERSION));
        assert!(found.library.starts_with(folder.path().join("cache/onnxruntime-1.31.1/cpu")));
        assert_eq!(find_or_install(&search, &|line| panic!("says nothing: {line}")).unwrap(), found);
        assert_eq!(python.calls(), 1);
        assert_eq!(said.borrow().len(), 1);
        assert_eq!(names(&folder.path().join("cache/onnxruntime-1.31.1")), ["cpu", "cpu.lock"]);
    }

    #[test]
    fn of_two_that_start_at_once_one_fetches() {
        let folder = tempfile::tempdir().unwrap();
        let (search, python) = fakes::search(folder.path());
        let barrier = Barrier::new(2);
        let start = || {
            barrier.wait();
            find_or_install(&search, &|_| {}).unwrap().library
        };
        std::thread::scope(|scope| {
            let (one, other) = (scope.spawn(start), scope.spawn(start));
            assert_eq!(one.join().unwrap(), other.join().unwrap());
        });
        assert_eq!(python.calls(), 1);
    }

    #[test]
    fn truncated_library_is_replaced_and_offline_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (mut search, python) = fakes::search(folder.path());
        let library = find_or_install(&search, &|_| {}).unwrap().library;
        fs::write(&library, b"half").unwrap();
        search.offline = true;
        let error = find_or_install(&search, &|_| {}).unwrap_err().to_string();
        assert!(error.contains("has 4 bytes, expected") && error.contains("install cpu --force"), "{error}");
        search.offline = false;
        assert_eq!(find_or_install(&search, &|_| {}).unwrap().library, library);
        assert_eq!(fs::read(&library).unwrap(), fakes::library("1.31.1"));
        assert_eq!(python.calls(), 2);
    }

    #[test]
    fn leftovers_of_an_interrupted_install_are_not_believed_and_go_away() {
        let folder = tempfile::tempdir().unwrap();
        let (search, _python) = fakes::search(folder.path());
        let root = folder.path().join("cache/onnxruntime-1.31.1");
        for left in ["cpu", "cpu.partial-1/finished", "cpu.retired"] {
            fs::create_dir_all(root.join(left)).unwrap();
            fs::write(root.join(left).join("libonnxruntime.so.1.31.1"), fakes::library("1.31.1")).unwrap();
        }
        assert!(matches!(find(&search), Err(RuntimeError::Damaged { .. })), "a folder without a receipt");
        find_or_install(&search, &|_| {}).unwrap();
        assert_eq!(names(&root), ["cpu", "cpu.lock"]);
    }

    #[test]
    fn failed_install_leaves_the_cache_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (mut search, _python) = fakes::search(folder.path());
        let library = find_or_install(&search, &|_| {}).unwrap().library;
        fs::create_dir(folder.path().join("other")).unwrap();
        search.python = FakePython::running(&folder.path().join("other"), "exit 1").path;
        assert!(install(&search, Flavour::Cpu, Refresh::Always, &|_| {}).is_err());
        assert_eq!(find(&search).unwrap().unwrap().library, library);
        assert_eq!(names(&folder.path().join("cache/onnxruntime-1.31.1")), ["cpu", "cpu.lock"]);
    }

    #[test]
    fn force_fetches_again_and_offline_never_does() {
        let folder = tempfile::tempdir().unwrap();
        let (mut search, python) = fakes::search(folder.path());
        search.offline = true;
        let error = install(&search, Flavour::Cpu, Refresh::IfNeeded, &|_| {}).unwrap_err();
        assert!(matches!(error, RuntimeError::FetchForbidden { .. }), "{error}");
        let error = find_or_install(&search, &|_| {}).unwrap_err().to_string();
        assert!(error.contains("residual runtime install cpu") && error.contains("--ort-lib"), "{error}");
        assert_eq!(python.calls(), 0);
        search.offline = false;
        assert!(install(&search, Flavour::Cpu, Refresh::IfNeeded, &|_| {}).unwrap().fetched);
        assert!(!install(&search, Flavour::Cpu, Refresh::IfNeeded, &|_| {}).unwrap().fetched);
        assert!(install(&search, Flavour::Cpu, Refresh::Always, &|_| {}).unwrap().fetched);
        search.offline = true;
        assert!(!install(&search, Flavour::Cpu, Refresh::IfNeeded, &|_| {}).unwrap().fetched);
        assert_eq!(python.calls(), 2);
    }

    #[test]
    fn flavours_used_by_name_are_never_fetched_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let (mut search, python) = fakes::search(folder.path());
        for (flavour, calls) in [(Flavour::Cuda, 0), (Flavour::Openvino, 1)] {
            search.flavour = flavour;
            let error = find_or_install(&search, &|_| {}).unwrap_err().to_string();
            assert!(error.contains(&flavour.install_command()), "{error}");
            assert_eq!(python.calls(), calls, "the plugin's library is the cpu one, and that may be fetched");
        }
    }

    #[test]
    fn unwritable_cache_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (mut search, _python) = fakes::search(folder.path());
        fs::write(folder.path().join("file"), "").unwrap();
        search.cache_dir = Some(folder.path().join("file/cache"));
        let error = find_or_install(&search, &|_| {}).unwrap_err();
        assert!(matches!(error, RuntimeError::CacheNotWritable { .. }), "{error}");
        assert!(error.to_string().contains("RESIDUAL_CACHE_DIR"), "{error}");
        search.cache_dir = None;
        assert!(matches!(find_or_install(&search, &|_| {}), Err(RuntimeError::NoCacheFolder)));
    }

    #[test]
    fn wheel_with_a_foreign_library_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (mut search, _python) = fakes::search(folder.path());
        let (name, _) = fakes::wheel(Flavour::Cpu);
        let wheel = Bundle::for_host(Flavour::Cpu).unwrap().main();
        for (library, expected) in
            [(fakes::library("1.30.0"), "version 1.30.0"), (b"text".to_vec(), "not a shared library")]
        {
            let bytes = fakes::zip(&[(&format!("onnxruntime/capi/{}", wheel.library), &library)]);
            search.python = FakePython::serving(folder.path(), &name, &bytes).path;
            let error = find_or_install(&search, &|_| {}).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn several_wheels_become_one_folder_with_one_receipt() {
        let folder = tempfile::tempdir().unwrap();
        let (mut search, _python) = fakes::search(folder.path());
        let python = FakePython::serving_all(folder.path(), Flavour::CudaLibraries);
        search.python = python.path.clone();
        let said = RefCell::new(Vec::new());
        let installed = install(&search, Flavour::CudaLibraries, Refresh::IfNeeded, &|line| {
            // While the second wheel is fetched the first one is gone.
            let partial =
                folder.path().join(format!("cache/onnxruntime-1.31.1/cuda-libraries.partial-{}", std::process::id()));
            assert!(!partial.join("nvidia-cuda-runtime").exists(), "{line}");
            said.borrow_mut().push(line.to_owned());
        })
        .unwrap();
        assert_eq!(python.calls(), 5);
        assert_eq!(said.borrow().len(), 6);
        assert!(said.borrow()[0].contains("(5 wheels, 926 MB)"), "{said:?}");
        assert_eq!(said.borrow()[2], "fetching 2 of 5: nvidia-cublas==13.1.0.3, 423 MB");
        assert_eq!(installed.version, "13.0.96");
        assert!(installed.library.ends_with("cuda-libraries/libcudart.so.13"), "{installed:?}");
        let kept = folder.path().join("cache/onnxruntime-1.31.1/cuda-libraries");
        let expected =
            ["libcublas.so.13", "libcudart.so.13", "libcudnn.so.9", "libcurand.so.10", "libnvrtc.so.13", RECEIPT_FILE];
        assert_eq!(names(&kept), expected);
        let receipt = Receipt::read(&kept).unwrap();
        let packages: Vec<_> = receipt.further.iter().map(|origin| origin.package.as_str()).collect();
        assert_eq!(packages, ["nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-cuda-nvrtc", "nvidia-curand"]);
        assert!(receipt.further.iter().all(|origin| origin.wheel_sha256.len() == 64), "{receipt:?}");
        assert!(!install(&search, Flavour::CudaLibraries, Refresh::IfNeeded, &|_| {}).unwrap().fetched);
    }

    #[test]
    fn failure_in_the_middle_of_several_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (mut search, _python) = fakes::search(folder.path());
        search.python = FakePython::serving_all(folder.path(), Flavour::CudaLibraries).path;
        fs::write(folder.path().join("nvidia-cudnn-cu13"), "<html>sign in</html>").unwrap();
        let error = install(&search, Flavour::CudaLibraries, Refresh::IfNeeded, &|_| {}).unwrap_err();
        assert!(error.to_string().contains("nvidia_cudnn_cu13-9.14.0.64"), "{error}");
        assert_eq!(names(&folder.path().join("cache/onnxruntime-1.31.1")), ["cuda-libraries.lock"]);
    }
}
