//! The cache folder: where each flavour lives, what is in it, and the lock that lets one process install at a time.
//!
//! ```text
//! <cache>/onnxruntime-1.31.1/
//!   cpu/            libraries and receipt.json; appears whole, by a rename
//!   cpu.lock        locked while cpu/ is being replaced; never removed, since removing a lock file breaks the lock
//!   cpu.partial-42/ an install on its way in process 42, or what an interrupted one left; the holder of the lock
//!                   clears it
//!   cpu.retired/    the folder being replaced, for the moment between two renames
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::receipt::{Damage, Depth, Receipt};
use super::{Flavour, RUNTIME_VERSION, RuntimeError, absolute};

/// How often the lock is tried. The standard library has no wait with a limit, and a human is waiting anyway.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// The cache of fetched libraries, for [`RUNTIME_VERSION`].
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// A flavour whose files were compared with their receipt.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) folder: PathBuf,
    pub(crate) receipt: Receipt,
}

impl Entry {
    /// The file to open.
    pub(crate) fn library(&self) -> PathBuf {
        self.folder.join(&self.receipt.library)
    }
}

/// The right to change one flavour's folder; given back when dropped, or when the process ends in any way.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Cache {
    /// The cache inside a folder that may hold other things of ours as well.
    pub(crate) fn below(cache_dir: &Path) -> Self {
        Self { root: absolute(cache_dir.join(format!("onnxruntime-{RUNTIME_VERSION}"))) }
    }

    /// The folder of all flavours.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A flavour's folder.
    pub(crate) fn folder(&self, flavour: Flavour) -> PathBuf {
        self.root.join(flavour.name())
    }

    /// Where this process puts a flavour together. The number keeps a pip that outlived its killed parent from
    /// writing into the folder of the next install.
    pub(crate) fn partial(&self, flavour: Flavour) -> PathBuf {
        self.root.join(format!("{flavour}.partial-{}", std::process::id()))
    }

    /// What a flavour's folder holds; nothing if it was never installed.
    ///
    /// This takes no lock, so that a cache on a read-only file system works. While another process replaces the
    /// folder it may be missing for a moment; `find_or_install` then waits for that process's lock, and finds it
    /// there.
    pub(crate) fn open(&self, flavour: Flavour, depth: Depth) -> Result<Option<Entry>, Damage> {
        let folder = self.folder(flavour);
        if !folder.exists() {
            return Ok(None);
        }
        let receipt = Receipt::read(&folder)?;
        if receipt.flavour != flavour {
            return Err(Damage::NoReceipt(format!("it is for {}, expected {flavour}", receipt.flavour)));
        }
        receipt.verify(&folder, depth)?;
        Ok(Some(Entry { folder, receipt }))
    }

    /// Takes the lock of a flavour, creating the cache folder if need be. `waiting` is called once if another has it.
    pub(crate) fn lock(
        &self,
        flavour: Flavour,
        wait_max: Duration,
        waiting: impl FnOnce(),
    ) -> Result<Lock, RuntimeError> {
        let not_writable = |path: &Path| {
            let folder = path.to_path_buf();
            move |why: io::Error| RuntimeError::CacheNotWritable { folder, why }
        };
        fs::create_dir_all(&self.root).map_err(not_writable(&self.root))?;
        let path = self.root.join(format!("{flavour}.lock"));
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(not_writable(&path))?;

        let mut waiting = Some(waiting);
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::Error(why)) => {
                    return Err(RuntimeError::Io { action: "lock", path, why });
                }
                Err(TryLockError::WouldBlock) if start.elapsed() >= wait_max => {
                    return Err(RuntimeError::Locked { lock: path, waited: wait_max });
                }
                Err(TryLockError::WouldBlock) => {
                    if let Some(waiting) = waiting.take() {
                        waiting();
                    }
                    std::thread::sleep(LOCK_POLL);
                }
            }
        }
    }

    /// Removes what interrupted installs left. The lock says that no one is at it now.
    pub(crate) fn clear_stale(&self, flavour: Flavour, _lock: &Lock) -> Result<(), RuntimeError> {
        let stale = [format!("{flavour}.partial-"), format!("{flavour}.retired")];
        for entry in fs::read_dir(&self.root).map_err(RuntimeError::io("read", &self.root))? {
            let entry = entry.map_err(RuntimeError::io("read", &self.root))?;
            if entry.file_name().to_str().is_some_and(|name| stale.iter().any(|prefix| name.starts_with(prefix))) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Puts a finished folder in place of the flavour's, if there was one. A process that has the old library open
    /// keeps it: the files live on without a name.
    pub(crate) fn publish(&self, flavour: Flavour, finished: &Path, _lock: &Lock) -> Result<(), RuntimeError> {
        let (folder, retired) = (self.folder(flavour), self.retired(flavour));
        match fs::rename(&folder, &retired) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(RuntimeError::io("replace", &folder)(error));
            }
            Ok(()) | Err(_) => {}
        }
        fs::rename(finished, &folder).map_err(RuntimeError::io("rename the finished install to", &folder))?;
        sync_folder(&self.root)?;
        remove(&retired)
    }

    fn retired(&self, flavour: Flavour) -> PathBuf {
        self.root.join(format!("{flavour}.retired"))
    }
}

/// Makes the names in a folder survive a power cut, as `sync_all` does for the contents of a file.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), RuntimeError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(RuntimeError::io("write", folder))
}

/// Removes a file or a folder with all it holds; nothing there is fine.
fn remove(path: &Path) -> Result<(), RuntimeError> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(RuntimeError::io("remove", path))
}
