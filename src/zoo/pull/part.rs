//! A file on its way: `x.part`, which a later process goes on with, and beside it `x.part.json`, which says of what it is
//! a part.

use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::hex;
use super::client::Rest;
use super::error::PullError;
use super::fetch::{Fetched, Remote};
use super::receipt::hash_into;

/// Of what a part is a part.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Note {
    identity: String,
    etag: Option<String>,
}

/// A file on its way.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    note: Note,
    pub(super) bytes: u64,
    hasher: Sha256,
}

impl Part {
    /// A file that cannot grow.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn full() -> Self {
        let path = PathBuf::from("/dev/full");
        let file = File::options().write(true).open(&path).expect("Linux has /dev/full");
        let note = Note { identity: String::new(), etag: None };
        Self { path, file, note, bytes: 0, hasher: Sha256::new() }
    }

    /// Opens what there is of `dest`, and reads it, since a hash cannot be saved.
    pub(super) fn open(dest: &Path, identity: &str) -> Result<Self, PullError> {
        let path = with_suffix(dest, ".part");
        let known =
            fs::read(with_suffix(&path, ".json")).ok().and_then(|json| serde_json::from_slice::<Note>(&json).ok());
        let known = known.filter(|note| note.identity == identity);
        let open = File::options().read(true).write(true).create(true).truncate(known.is_none()).open(&path);
        let mut file = open.map_err(PullError::io("write", &path))?;
        let mut hasher = Sha256::new();
        let bytes = hash_into(&mut hasher, &mut file).map_err(PullError::io("read", &path))?;
        let note = known.unwrap_or_else(|| Note { identity: identity.to_owned(), etag: None });
        Ok(Self { path, file, note, bytes, hasher })
    }

    /// Whether nothing but its name is missing.
    pub(super) fn is_whole(&self, remote: &Remote) -> bool {
        remote.sha256.as_ref().is_some_and(|sha256| *sha256 == self.sha256())
    }

    /// The rest to ask for; nothing if it has to be asked for from the start. Going on is safe if the server can tell
    /// whether it is still the same file, or if the hash of the whole will.
    pub(super) fn rest(&mut self, remote: &Remote) -> Result<Option<Rest>, PullError> {
        let Note { etag, .. } = &self.note;
        let possible = self.bytes > 0
            && (etag.is_some() || remote.sha256.is_some())
            && remote.bytes.is_none_or(|bytes| self.bytes < bytes);
        if possible {
            return Ok(Some(Rest { from: self.bytes, etag: etag.clone() }));
        }
        self.restart(None)?;
        Ok(None)
    }

    /// Begins anew, with the file that has this tag.
    pub(super) fn restart(&mut self, etag: Option<String>) -> Result<(), PullError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(PullError::io("write", &self.path))?;
        self.bytes = 0;
        self.hasher = Sha256::new();
        self.note.etag = etag;
        let note = with_suffix(&self.path, ".json");
        let json = serde_json::to_vec(&self.note).expect("a note is two strings");
        fs::write(&note, json).map_err(|why| full_or(why, &note, 0))
    }

    pub(super) fn append(&mut self, block: &[u8], total: Option<u64>) -> Result<(), PullError> {
        let missing = total.map_or(block.len() as u64, |total| total.saturating_sub(self.bytes));
        self.file.write_all(block).map_err(|why| full_or(why, &self.path, missing))?;
        self.hasher.update(block);
        self.bytes += block.len() as u64;
        Ok(())
    }

    /// Whether the rest fits, before any of it is fetched.
    pub(super) fn check_space(&self, total: Option<u64>) -> Result<(), PullError> {
        let needed = total.map_or(0, |total| total.saturating_sub(self.bytes));
        let folder = self.path.parent().unwrap_or(Path::new("."));
        // A file system that does not answer is not held against it: writing will tell.
        let Ok(space) = rustix::fs::statvfs(folder) else { return Ok(()) };
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if needed > free {
            return Err(PullError::DiskFull { path: self.path.clone(), needed, free: Some(free) });
        }
        Ok(())
    }

    /// The SHA-256 of what is there.
    pub(super) fn sha256(&self) -> String {
        hex(&self.hasher.clone().finalize())
    }

    /// Gives the file its name.
    pub(super) fn finish(self, dest: &Path) -> Result<Fetched, PullError> {
        self.file.sync_all().map_err(|why| full_or(why, &self.path, 0))?;
        fs::rename(&self.path, dest).map_err(PullError::io("rename", &self.path))?;
        // Only says of what the part was one; the next fetch does not need it.
        let _ = fs::remove_file(with_suffix(&self.path, ".json"));
        Ok(Fetched { bytes: self.bytes, sha256: hex(&self.hasher.finalize()) })
    }

    /// Removes it: nothing of it is of any use.
    pub(super) fn discard(&self) {
        // What cannot be removed is found out to be wrong again next time.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(with_suffix(&self.path, ".json"));
    }
}

fn full_or(why: io::Error, path: &Path, needed: u64) -> PullError {
    match why.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            PullError::DiskFull { path: path.to_path_buf(), needed, free: None }
        }
        _ => PullError::io("write", path)(why),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
