//! The folder in which a model is put together, beside the one it will be in, and the lock on it.
//!
//! ```text
//! <models>/resnet50/         appears whole, by a rename
//! <models>/.resnet50.pull/   on its way, or what an interrupted pull left to go on with
//!   lock                     held by the process that is at it
//!   parts/                   files as they come
//!   ready/                   the finished folder
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::PullError;
use super::receipt::{RECEIPT_FILE, Receipt, write_synced};
use super::{MODEL_FILE, RECIPE_FILE};

/// How often the lock is tried. The standard library has no wait with a limit, and a human is waiting anyway.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// The folder's name where it has to be inside of the target: a target that is a file system of its own.
const INSIDE: &str = ".pull";

/// The right to put a model together, and the place to do it. Goes away when dropped, but for a part to go on with.
pub(super) struct Staging {
    root: PathBuf,
    target: PathBuf,
    /// Whether finished files are worth keeping as well.
    keep: bool,
    _lock: File,
}

impl Staging {
    /// Locks the place for `target`, an absolute path. `waiting` is called once if another process has it.
    pub(super) fn open(target: &Path, wait_max: Duration, waiting: impl FnOnce()) -> Result<Self, PullError> {
        let root = root_for(target)?;
        let lock = root.join("lock");
        let start = Instant::now();
        let mut waiting = Some(waiting);
        loop {
            fs::create_dir_all(&root).map_err(PullError::io("create", &root))?;
            let file = match File::options().write(true).create(true).truncate(false).open(&lock) {
                // Whoever had it removed the folder in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(PullError::io("write", &lock))?,
            };
            match file.try_lock() {
                // Otherwise the one who had it removed this file, and the next one locks another of that name.
                Ok(()) if is_at(&file, &lock) => {
                    let parts = root.join("parts");
                    fs::create_dir_all(&parts).map_err(PullError::io("create", &parts))?;
                    return Ok(Self { root, target: target.to_path_buf(), keep: false, _lock: file });
                }
                Ok(()) => {}
                Err(TryLockError::Error(why)) => return Err(PullError::io("lock", &lock)(why)),
                Err(TryLockError::WouldBlock) if start.elapsed() >= wait_max => {
                    return Err(PullError::Locked { lock, waited: wait_max });
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

    /// Where the file `path` of the model comes in.
    pub(super) fn part(&self, path: &str) -> PathBuf {
        const FLAT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
        self.root.join("parts").join(utf8_percent_encode(path, FLAT).to_string())
    }

    /// Keeps finished files for the next pull as well: what stopped this one may pass.
    pub(super) fn keep(&mut self) {
        self.keep = true;
    }

    /// An empty folder to work in.
    pub(super) fn empty(&self, name: &str) -> Result<PathBuf, PullError> {
        let folder = self.root.join(name);
        remove(&folder)?;
        fs::create_dir(&folder).map_err(PullError::io("create", &folder))?;
        Ok(folder)
    }

    /// Puts the files, with their receipt, into the target: whole by one rename if there was none, otherwise file by
    /// file, the receipt last. Between the first and the last the old receipt does not fit, so that a pull that is
    /// interrupted there is seen to be. What else is in the folder is the user's and stays, a recipe as well.
    pub(super) fn publish(
        &self,
        files: &[(String, PathBuf)],
        recipe: Option<&str>,
        receipt: &Receipt,
    ) -> Result<(), PullError> {
        let ready = self.empty("ready")?;
        for (path, from) in files {
            move_into(&ready, path, from)?;
        }
        if let Some(recipe) = recipe {
            write_synced(&ready.join(RECIPE_FILE), recipe)?;
        }
        receipt.write(&ready)?;
        sync_folder(&ready)?;
        if self.target.exists() {
            self.fill(&ready, files, receipt)?;
        } else {
            fs::rename(&ready, &self.target).map_err(PullError::io("rename the finished folder to", &self.target))?;
        }
        self.target.parent().map_or(Ok(()), sync_folder)
    }

    fn fill(&self, ready: &Path, files: &[(String, PathBuf)], receipt: &Receipt) -> Result<(), PullError> {
        let old = Receipt::read(&self.target);
        // The model comes after all that it needs.
        let (model, others): (Vec<_>, Vec<_>) =
            files.iter().map(|(path, _)| path).partition(|path| *path == MODEL_FILE);
        for path in others {
            move_into(&self.target, path, &ready.join(path))?;
        }
        let recipe = ready.join(RECIPE_FILE);
        if recipe.exists() && !self.target.join(RECIPE_FILE).exists() {
            move_into(&self.target, RECIPE_FILE, &recipe)?;
        }
        for path in model {
            move_into(&self.target, path, &ready.join(path))?;
        }
        move_into(&self.target, RECEIPT_FILE, &ready.join(RECEIPT_FILE))?;
        sync_folder(&self.target)?;
        let kept = |path: &str| receipt.files.iter().any(|record| record.path == path);
        let plain = |path: &str| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        for record in old.iter().flat_map(|old| &old.files).filter(|old| !kept(&old.path) && plain(&old.path)) {
            remove(&self.target.join(&record.path))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let mut parts = fs::read_dir(self.root.join("parts")).into_iter().flatten().flatten().map(|part| part.path());
        let goes_on = parts.any(|path| {
            let is_part = path.extension().is_some_and(|extension| extension == "part");
            let is_note =
                path.extension().is_some_and(|extension| extension == "json") && path.with_extension("").exists();
            (is_part || self.keep && !is_note) && path.metadata().is_ok_and(|metadata| metadata.len() > 0)
        });
        if goes_on {
            return;
        }
        // Out of the way first: from here on another process may begin anew under the old name. What cannot be removed
        // costs disk space and nothing else.
        let mut retired = self.root.clone().into_os_string();
        retired.push(format!("-done-{}", std::process::id()));
        if fs::rename(&self.root, &retired).is_ok() {
            let _ = fs::remove_dir_all(&retired);
        }
    }
}

/// Whether nothing is in the folder but what belongs to pulling, or to the file system.
pub(super) fn is_empty(folder: &Path) -> Result<bool, PullError> {
    for entry in fs::read_dir(folder).map_err(PullError::io("read", folder))? {
        let name = entry.map_err(PullError::io("read", folder))?.file_name();
        if !name.to_string_lossy().starts_with(INSIDE) && name != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn root_for(target: &Path) -> Result<PathBuf, PullError> {
    let bad = || PullError::BadTarget { folder: target.to_path_buf() };
    let (parent, name) = (target.parent().ok_or_else(bad)?, target.file_name().ok_or_else(bad)?);
    if is_mount_point(target, parent) {
        return Ok(target.join(INSIDE));
    }
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(INSIDE);
    Ok(parent.join(hidden))
}

/// Whether nothing can be renamed from beside `folder` into it.
#[cfg(unix)]
fn is_mount_point(folder: &Path, parent: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
    device(folder).is_some_and(|own| device(parent) != Some(own))
}

#[cfg(not(unix))]
fn is_mount_point(_folder: &Path, _parent: &Path) -> bool {
    false
}

/// Whether `path` still names `file`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), path.metadata()) {
        (Ok(held), Ok(named)) => identity(held) == identity(named),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    // Such systems do not remove what is open.
    path.exists()
}

fn move_into(folder: &Path, path: &str, from: &Path) -> Result<(), PullError> {
    let to = folder.join(path);
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(PullError::io("create", parent))?;
    }
    fs::rename(from, &to).map_err(PullError::io("write", &to))
}

/// Makes the names in a folder survive a power cut, as `sync_all` does for the contents of a file.
fn sync_folder(folder: &Path) -> Result<(), PullError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(PullError::io("write", folder))
}

/// Removes a file or a folder with all it holds; nothing there is fine.
fn remove(path: &Path) -> Result<(), PullError> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(PullError::io("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_the_next_finds_a_clean_place() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("m");
        let open = || Staging::open(&target, Duration::ZERO, || {});
        let first = open().unwrap();
        let second = open().err().unwrap();
        assert!(matches!(second, PullError::Locked { .. }), "{second}");
        fs::write(first.part("a/b.bin"), "whole").unwrap();
        drop(first);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "whole files without a part are of no use");
        assert!(!open().unwrap().part("a/b.bin").exists());
    }

    #[test]
    fn parts_stay_and_whole_files_where_it_is_worth_it() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("m");
        let mut staging = Staging::open(&target, Duration::ZERO, || {}).unwrap();
        let whole = staging.part("model.onnx");
        fs::write(&whole, "whole").unwrap();
        staging.keep();
        drop(staging);
        assert!(whole.exists());
        let staging = Staging::open(&target, Duration::ZERO, || {}).unwrap();
        let part = staging.part("w.bin.part");
        fs::write(&part, "a part").unwrap();
        drop(staging);
        assert!(part.exists());
        fs::write(&part, "").unwrap();
        drop(Staging::open(&target, Duration::ZERO, || {}).unwrap());
        assert!(!part.exists(), "nothing to go on with");
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_on_a_file_that_was_replaced_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("lock");
        let held = File::create(&lock).unwrap();
        assert!(is_at(&held, &lock));
        fs::remove_file(&lock).unwrap();
        assert!(!is_at(&held, &lock));
        let _other = File::create(&lock).unwrap();
        assert!(!is_at(&held, &lock), "another file of that name");
    }
}
