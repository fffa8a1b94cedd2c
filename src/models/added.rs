//! Models that clients add while the server runs, beside those of the settings: served, looked after and reloaded like them,
//! and removed by name.

use std::path::{Path, PathBuf};

use super::work::Work;
use super::{Changes, LoadError, Models};
use crate::machine::memory;
use crate::zoo::{Place, Wanted, is_name};

/// What loading takes at its height, for each byte of a model's files: the file as it is read, the runtime's copy, and the
/// copy that its kernels compute on.
const BYTES_PER_FILE_BYTE: u64 = 3;
/// And beside them, for the runs' own tensors and the threads.
const BYTES_BESIDE: u64 = 64 * 1024 * 1024;
/// Files of one model that are weighed. A model directory has a dozen.
const FILES_MAX: usize = 4096;

/// Longest name that a client may choose.
const NAME_LEN_MAX: usize = 128;

/// Why a model was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// A model of this name is served.
    #[error("a model {name:?} is loaded; unload it first, or give this one another name")]
    Taken {
        /// The name.
        name: String,
    },
    /// No name for a model.
    #[error("the name is {name:?}; it must be at most {NAME_LEN_MAX} letters, digits, '.', '_' and '-'")]
    Name {
        /// The name.
        name: String,
    },
    /// It is not where clients may load from.
    #[error("the url is {url:?}; it must be a file or a directory below {}", root.display())]
    Outside {
        /// What the client asked for.
        url: String,
        /// Where it may be.
        root: PathBuf,
    },
    /// It would not fit.
    #[error(
        "the model's files have {file_bytes} bytes, for which loading may take {needed_bytes}, and {free_bytes} bytes of memory \
         are free; unload other models first"
    )]
    Memory {
        /// Size of its files.
        file_bytes: u64,
        /// What loading may take.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// The server stops.
    #[error("the server is shutting down")]
    Stopping,
    /// It cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl Models {
    /// Serves the model at `url` as `name` until it is removed; reloads keep it. Its place must lie below `root`. Whether it
    /// fits is decided before it is loaded, by the size of its files and the memory that is free. Blocks.
    ///
    /// # Errors
    /// [`AddError`]; then nothing has changed.
    pub fn add(&self, name: &str, url: &str, root: &Path) -> Result<(), AddError> {
        if !is_name(name) || name.len() > NAME_LEN_MAX {
            return Err(AddError::Name { name: name.to_owned() });
        }
        let mut work = self.lock();
        let work = work.as_mut().filter(|_| !self.is_stopping()).ok_or(AddError::Stopping)?;
        if work.names(name) || self.rows().iter().any(|row| row.name == name) {
            return Err(AddError::Taken { name: name.to_owned() });
        }
        let path = below(url, root)?;
        fits(weigh(&path), memory::available_bytes())?;
        work.add(self, name, path)?;
        self.publish(|roster| drop(roster.added.insert(name.to_owned(), url.to_owned())));
        Ok(())
    }

    /// Stops serving a model that was added. Requests in flight are answered. Blocks while another change runs.
    ///
    /// # Errors
    /// [`LoadError::Unknown`] if no model of this name was added.
    pub fn remove(&self, name: &str) -> Result<(), LoadError> {
        let mut work = self.lock();
        let work = work.as_mut().filter(|_| self.roster().added.contains_key(name));
        let work = work.ok_or_else(|| LoadError::unknown(name))?;
        work.remove(self, name);
        Ok(())
    }

    /// Name and place of every model that was added, by name.
    #[must_use]
    pub fn added(&self) -> Vec<(String, String)> {
        self.roster().added.iter().map(|(name, url)| (name.clone(), url.clone())).collect()
    }
}

impl Work {
    /// The settings name such a model, whether it could be loaded or not.
    fn names(&self, name: &str) -> bool {
        self.source.wanted.iter().any(|wanted| wanted.name.as_deref() == Some(name))
    }

    fn add(&mut self, models: &Models, name: &str, path: PathBuf) -> Result<(), LoadError> {
        self.source.wanted.push(Wanted { name: Some(name.to_owned()), place: Place::Path(path) });
        self.load(models, name).map(drop).inspect_err(|_| drop(self.remove(models, name)))
    }

    /// Forgets a model that was added, with all that was counted of it: clients choose such names, and they must not fill the
    /// page of metrics.
    pub(super) fn remove(&mut self, models: &Models, name: &str) -> Changes {
        models.publish(|roster| drop(roster.added.remove(name)));
        self.source.wanted.retain(|wanted| wanted.name.as_deref() != Some(name));
        let changes = self.forget_model(models, name);
        self.starter.metrics.forget_series(name);
        changes
    }
}

/// The place that a client means, with every link followed, if it lies below `root`.
fn below(url: &str, root: &Path) -> Result<PathBuf, AddError> {
    let outside = || AddError::Outside { url: url.to_owned(), root: root.to_owned() };
    let real_root = root.canonicalize().map_err(|_| outside())?;
    // Whatever is wrong with a path outside is nothing that a client may learn.
    let path = Path::new(url).canonicalize().map_err(|_| outside())?;
    if Path::new(url).is_absolute() && path.starts_with(&real_root) && path != real_root {
        Ok(path)
    } else {
        Err(outside())
    }
}

/// Bytes of all files of a model.
fn weigh(path: &Path) -> u64 {
    let files = walkdir::WalkDir::new(path).follow_links(true).into_iter().take(FILES_MAX).filter_map(Result::ok);
    files.filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
}

fn fits(file_bytes: u64, free_bytes: Option<u64>) -> Result<(), AddError> {
    let needed_bytes = file_bytes.saturating_mul(BYTES_PER_FILE_BYTE).saturating_add(BYTES_BESIDE);
    match free_bytes {
        Some(free_bytes) if needed_bytes > free_bytes => Err(AddError::Memory { file_bytes, needed_bytes, free_bytes }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_fits_if_three_times_its_files_and_a_rest_are_free() {
        let free = 300 + BYTES_BESIDE;
        assert!(fits(100, Some(free)).is_ok());
        assert!(matches!(fits(101, Some(free)), Err(AddError::Memory { file_bytes: 101, .. })));
        assert!(fits(u64::MAX, Some(u64::MAX - 1)).is_err());
        assert!(fits(u64::MAX, None).is_ok(), "where the system does not tell, loading shows");
    }

    #[test]
    fn places_lie_below_the_root_whatever_links_and_dots_say() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("models"), folder.path().join("outside"));
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        let of = |path: PathBuf| below(path.to_str().unwrap(), &root);
        assert_eq!(of(root.join("a")).unwrap(), root.join("a").canonicalize().unwrap());
        for bad in [root.clone(), outside.clone(), root.join("../outside"), root.join("link"), root.join("b")] {
            assert!(matches!(of(bad.clone()), Err(AddError::Outside { .. })), "{}", bad.display());
        }
        assert!(below("a", &root).is_err());
        assert!(below("s3://bucket/a", &root).is_err());
    }
}
