//! What a pull left in a folder, written beside it, so that a later one can tell whether it is still there.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::hex;
use super::error::PullError;

/// Its name in the folder.
pub(super) const RECEIPT_FILE: &str = "receipt.json";

/// Where the files of a folder came from, and what they are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Receipt {
    /// The hub's repository.
    pub repository: String,
    /// What was asked for: a branch, a tag or a commit.
    pub revision: String,
    /// The commit that it was, where the hub says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The file of the repository that the model was made from.
    pub source: String,
    /// Its SHA-256.
    pub sha256: String,
    /// The licence, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// The files, `residual.toml` left out: that one is the user's to change.
    pub files: Vec<Record>,
}

/// A file of the folder.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Record {
    /// Its path below the folder.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

impl Receipt {
    /// Reads the folder's receipt; nothing if there is none that can be read.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(RECEIPT_FILE)).ok()?).ok()
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), PullError> {
        let path = folder.join(RECEIPT_FILE);
        let text = serde_json::to_string_pretty(self).expect("a receipt is strings and numbers");
        write_synced(&path, &(text + "\n"))
    }

    /// Whether every file is what it was, read to the last byte.
    pub(super) fn holds(&self, folder: &Path) -> bool {
        self.files.iter().all(|record| {
            let path = folder.join(&record.path);
            let same_size = path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == record.bytes);
            same_size && hash_of_file(&path).is_ok_and(|hash| hash == record.sha256)
        })
    }

    /// The size of all files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|record| record.bytes).sum()
    }
}

/// Writes a small file so that it survives a power cut.
pub(super) fn write_synced(path: &Path, text: &str) -> Result<(), PullError> {
    File::create(path)
        .and_then(|mut file| {
            io::Write::write_all(&mut file, text.as_bytes())?;
            file.sync_all()
        })
        .map_err(PullError::io("write", path))
}

pub(super) fn hash_of_file(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    hash_into(&mut hasher, &mut File::open(path)?)?;
    Ok(hex(&hasher.finalize()))
}

/// Feeds everything that is left to read to `hasher`.
pub(super) fn hash_into(hasher: &mut Sha256, file: &mut File) -> io::Result<u64> {
    let mut block = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        match file.read(&mut block)? {
            0 => return Ok(bytes),
            len => {
                hasher.update(&block[..len]);
                bytes += len as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_believed_only_if_every_byte_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.onnx");
        std::fs::write(&file, b"abc").unwrap();
        let record = Record { path: "model.onnx".into(), bytes: 3, sha256: hash_of_file(&file).unwrap() };
        assert!(record.sha256.starts_with("ba7816bf"), "the example of FIPS 180-2");
        let receipt = Receipt {
            repository: "a/b".into(),
            revision: "main".into(),
            commit: None,
            source: "m.onnx".into(),
            sha256: record.sha256.clone(),
            licence: None,
            files: vec![record],
        };
        assert_eq!(Receipt::read(folder.path()), None);
        receipt.write(folder.path()).unwrap();
        assert_eq!(Receipt::read(folder.path()), Some(receipt.clone()));
        assert!(receipt.holds(folder.path()));
        for damaged in [&b"abd"[..], b"ab", b"abcd"] {
            std::fs::write(&file, damaged).unwrap();
            assert!(!receipt.holds(folder.path()), "{damaged:?}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(!receipt.holds(folder.path()));
    }
}
