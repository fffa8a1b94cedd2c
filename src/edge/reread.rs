//! Small files that are read again while the server runs, and what was made of them: keys, certificates. Contents are
//! compared, not times and sizes: a secret may be swapped by a link, twice within one tick of a file system's clock.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use sha2::{Digest as _, Sha256};

/// A file of keys or certificates is a few kilobytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A file, and what was in it.
#[derive(Debug)]
pub struct SmallFile {
    /// Where.
    pub path: PathBuf,
    /// What it holds, or why that cannot be said.
    pub contents: Result<Vec<u8>, String>,
}

/// Files and what was last made of them.
#[derive(Debug)]
pub struct Reread<T, E> {
    paths: Vec<PathBuf>,
    parse: fn(&[SmallFile]) -> Result<T, E>,
    current: RwLock<Arc<T>>,
    history: Mutex<History>,
}

/// Digest of all contents.
type Print = [u8; 32];

#[derive(Debug)]
struct History {
    /// What is in use.
    taken: Print,
    /// What was seen last and could not be used.
    broken: Option<Print>,
    /// What was last complained about.
    told: Option<Print>,
}

/// What a look at the files found.
#[derive(Debug)]
pub enum Looked<T, E> {
    /// Nothing new.
    Same,
    /// This is in use from now on.
    Changed(Arc<T>),
    /// What is there now cannot be used; what was in use still is. Said once.
    Broken(E),
}

impl<T, E> Reread<T, E> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// What `parse` says.
    pub fn open(paths: Vec<PathBuf>, parse: fn(&[SmallFile]) -> Result<T, E>) -> Result<Self, E> {
        let files = read(&paths);
        let current = parse(&files)?;
        let history = History { taken: print(&files), broken: None, told: None };
        Ok(Self { paths, parse, current: RwLock::new(Arc::new(current)), history: Mutex::new(history) })
    }

    /// What is in use.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again. Whoever replaces two of them does so one after the other, or writes one in parts: what cannot
    /// be used has to be there in two looks before it is called broken, or in one that is `at_once`.
    pub fn look(&self, at_once: bool) -> Looked<T, E> {
        // Before the files are read: of two looks at once, the one that reads first must not be the one that counts.
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let files = read(&self.paths);
        let seen = print(&files);
        if seen == history.taken {
            (history.broken, history.told) = (None, None);
            return Looked::Same;
        }
        match (self.parse)(&files) {
            Ok(new) => {
                let new = Arc::new(new);
                *history = History { taken: seen, broken: None, told: None };
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
                Looked::Changed(new)
            }
            Err(error) => {
                let settled = history.broken == Some(seen);
                history.broken = Some(seen);
                if at_once || (settled && history.told != Some(seen)) {
                    history.told = Some(seen);
                    Looked::Broken(error)
                } else {
                    Looked::Same
                }
            }
        }
    }
}

fn read(paths: &[PathBuf]) -> Vec<SmallFile> {
    let contents = |path: &PathBuf| SmallFile { path: path.clone(), contents: read_one(path) };
    paths.iter().map(contents).collect()
}

fn read_one(path: &Path) -> Result<Vec<u8>, String> {
    // Opening a pipe that nobody writes to would wait for ever.
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let mut contents = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut contents).map_err(|error| error.to_string())?;
    if contents.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes, which is the most that is read"));
    }
    Ok(contents)
}

fn print(files: &[SmallFile]) -> Print {
    let mut all = Sha256::new();
    for file in files {
        let (sort, contents) = match &file.contents {
            Ok(contents) => (0, contents.as_slice()),
            Err(error) => (1, error.as_bytes()),
        };
        all.update([sort]);
        all.update((contents.len() as u64).to_le_bytes());
        all.update(contents);
    }
    all.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(files: &[SmallFile]) -> Result<u32, String> {
        let contents = files[0].contents.clone()?;
        String::from_utf8_lossy(&contents).parse().map_err(|_| "no number".to_owned())
    }

    #[test]
    fn what_changed_is_used_and_what_broke_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        std::fs::write(&path, "1").unwrap();
        let reread = Reread::open(vec![path.clone()], number).unwrap();
        assert!(matches!(reread.look(false), Looked::Same));
        std::fs::write(&path, "2").unwrap();
        assert!(matches!(reread.look(false), Looked::Changed(two) if *two == 2));

        std::fs::write(&path, "x").unwrap();
        assert!(matches!(reread.look(false), Looked::Same), "it may be half written");
        assert!(matches!(reread.look(false), Looked::Broken(_)));
        assert!(matches!(reread.look(false), Looked::Same), "it was told");
        assert!(matches!(reread.look(true), Looked::Broken(_)), "somebody asked");
        assert_eq!(*reread.current(), 2);

        std::fs::remove_file(&path).unwrap();
        assert!(matches!(reread.look(false), Looked::Same));
        assert!(matches!(reread.look(false), Looked::Broken(error) if error.contains("No such file")));
        std::fs::write(&path, "2").unwrap();
        assert!(matches!(reread.look(false), Looked::Same));
        assert_eq!(*reread.current(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn a_swapped_link_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("a"), "1").unwrap();
        std::fs::write(at("b"), "2").unwrap();
        std::os::unix::fs::symlink(at("a"), at("current")).unwrap();
        let reread = Reread::open(vec![at("current")], number).unwrap();
        // As Kubernetes does: a new link over the old one.
        std::os::unix::fs::symlink(at("b"), at("next")).unwrap();
        std::fs::rename(at("next"), at("current")).unwrap();
        assert!(matches!(reread.look(false), Looked::Changed(two) if *two == 2));
    }

    #[test]
    fn a_directory_or_a_giant_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_one(dir.path()).unwrap_err(), "it is no regular file");
        let path = dir.path().join("giant");
        std::fs::File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(read_one(&path).unwrap_err().contains("1048576 bytes"));
    }
}
