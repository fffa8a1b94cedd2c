//! The receipt that an install leaves beside its files, and the check of the files against it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Flavour, wheel};

/// The receipt's name in a flavour's folder. It is written last, so a folder without one was never whole.
pub(crate) const RECEIPT_FILE: &str = "receipt.json";

/// Far above a real receipt (5 KB), and small enough to read without a thought.
const RECEIPT_BYTES_MAX: u64 = 1 << 20;

/// Files up to this size are hashed whole at every use; of larger ones only the edges are.
///
/// With the SHA instructions of current processors (1.3 GB/s measured) the 29 MB library takes 22 ms, OpenVINO 47 ms
/// this way and 120 ms whole; without them several times as long, at every start. What happens to large files in
/// practice is a download cut short or another version copied over, and both show in the size or the edges; `residual
/// runtime list
/// --verify` hashes everything.
const WHOLE_HASH_BYTES_MAX: u64 = 32 << 20;

/// How much of each end of a larger file is hashed: the front has the ELF header and symbols, the end the section
/// table.
const EDGE_BYTES: u64 = 1 << 20;

/// How much is read at a time.
const BLOCK_BYTES: usize = 256 << 10;

/// How thoroughly files are compared with their receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Sizes, whole hashes of files up to 32 MiB, hashes of the first and last MiB of larger ones.
    Quick,
    /// Sizes and whole hashes.
    Full,
}

/// What a check of a cache folder found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The folder has no receipt that can be read.
    #[error("found no readable {RECEIPT_FILE}: {0}")]
    NoReceipt(String),
    /// A file is gone or cannot be read.
    #[error("cannot read {file}: {why}")]
    Unreadable {
        /// Relative to the flavour's folder.
        file: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A file was cut short or is another.
    #[error("{file} has {found} bytes, expected {expected}")]
    Size {
        /// Relative to the flavour's folder.
        file: PathBuf,
        /// Its size.
        found: u64,
        /// Its size when it was installed.
        expected: u64,
    },
    /// A file was changed.
    #[error("{file} has sha256 {found}, expected {expected}")]
    Content {
        /// Relative to the flavour's folder.
        file: PathBuf,
        /// Its hash, or that of its edges.
        found: String,
        /// The same when it was installed.
        expected: String,
    },
}

/// Where a folder's files came from, and what they were when they arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) flavour: Flavour,
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) wheel: String,
    pub(crate) wheel_sha256: String,
    /// The other wheels of a flavour that needs several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) further: Vec<Origin>,
    /// The file to open: the library, or for OpenVINO the plugin.
    pub(crate) library: PathBuf,
    pub(crate) files: Vec<FileRecord>,
}

/// One wheel of a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) wheel: String,
    pub(crate) wheel_sha256: String,
}

/// One file of a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    /// Of the first and last MiB together; only for files too large to hash whole at each use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) edges_sha256: Option<String>,
}

impl Receipt {
    /// Reads the receipt of a folder.
    pub(crate) fn read(folder: &Path) -> Result<Self, Damage> {
        let no_receipt = |error: &dyn std::fmt::Display| Damage::NoReceipt(error.to_string());
        let mut text = String::new();
        File::open(folder.join(RECEIPT_FILE))
            .and_then(|file| file.take(RECEIPT_BYTES_MAX).read_to_string(&mut text))
            .map_err(|error| no_receipt(&error))?;
        let receipt: Self = serde_json::from_str(&text).map_err(|error| no_receipt(&error))?;
        for path in receipt.files.iter().map(|file| &file.path).chain([&receipt.library]) {
            if !wheel::is_plain_relative(path) {
                return Err(no_receipt(&format!("it names {}, which is outside the folder", path.display())));
            }
        }
        Ok(receipt)
    }

    /// All files together.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Compares the files with the receipt.
    pub(crate) fn verify(&self, folder: &Path, depth: Depth) -> Result<(), Damage> {
        if !self.files.iter().any(|file| file.path == self.library) {
            return Err(Damage::NoReceipt(format!("it lists no {}", self.library.display())));
        }
        self.files.iter().try_for_each(|file| file.verify(folder, depth))
    }
}

impl FileRecord {
    /// Measures a file that was just unpacked.
    pub(crate) fn measure(folder: &Path, path: PathBuf) -> io::Result<Self> {
        let mut file = File::open(folder.join(&path))?;
        let bytes = file.metadata()?.len();
        let sha256 = hash(&mut file)?;
        let edges_sha256 = if bytes > WHOLE_HASH_BYTES_MAX { Some(hash_edges(&mut file)?) } else { None };
        Ok(Self { path, bytes, sha256, edges_sha256 })
    }

    fn verify(&self, folder: &Path, depth: Depth) -> Result<(), Damage> {
        let unreadable = |error: io::Error| Damage::Unreadable { file: self.path.clone(), why: error.to_string() };
        let mut file = File::open(folder.join(&self.path)).map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?.len();
        if found != self.bytes {
            return Err(Damage::Size { file: self.path.clone(), found, expected: self.bytes });
        }
        let (found, expected) = match (&self.edges_sha256, depth) {
            (Some(edges), Depth::Quick) => (hash_edges(&mut file), edges),
            (Some(_) | None, Depth::Full) | (None, Depth::Quick) => (hash(&mut file), &self.sha256),
        };
        let found = found.map_err(unreadable)?;
        if found == *expected {
            Ok(())
        } else {
            Err(Damage::Content { file: self.path.clone(), found, expected: expected.clone() })
        }
    }
}

/// The sha256 of everything that is left to read, in hexadecimal.
pub(crate) fn hash(file: &mut impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    feed(&mut hasher, file)?;
    Ok(hexadecimal(hasher))
}

/// The sha256 of the first and the last [`EDGE_BYTES`].
fn hash_edges(file: &mut File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    file.seek(SeekFrom::Start(0))?;
    feed(&mut hasher, &mut Read::by_ref(file).take(EDGE_BYTES))?;
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(end.saturating_sub(EDGE_BYTES)))?;
    feed(&mut hasher, file)?;
    Ok(hexadecimal(hasher))
}

fn feed(hasher: &mut Sha256, file: &mut impl Read) -> io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(len) => hasher.update(&block[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn hexadecimal(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn receipt(folder: &Path, bytes: u64) -> Receipt {
        let path = PathBuf::from("libonnxruntime.so.1.31.1");
        File::create(folder.join(&path)).unwrap().set_len(bytes).unwrap();
        Receipt {
            flavour: Flavour::Cpu,
            package: "onnxruntime".into(),
            version: "1.31.1".into(),
            wheel: "some.whl".into(),
            wheel_sha256: String::new(),
            further: Vec::new(),
            library: path.clone(),
            files: vec![FileRecord::measure(folder, path).unwrap()],
        }
    }

    /// Changes one byte of the file without changing its size.
    fn flip(folder: &Path, at: u64) {
        use std::io::Write;
        let mut file = File::options().write(true).open(folder.join("libonnxruntime.so.1.31.1")).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(b"!").unwrap();
    }

    #[test]
    fn hash_is_sha256() {
        // FIPS 180-2, appendix B.1
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(&mut b"abc".as_slice()).unwrap(), expected);
    }

    #[test]
    fn untouched_folder_passes_and_any_change_of_a_small_file_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let receipt = receipt(folder.path(), 1000);
        assert_eq!(receipt.verify(folder.path(), Depth::Quick), Ok(()));
        flip(folder.path(), 500);
        assert!(matches!(receipt.verify(folder.path(), Depth::Quick), Err(Damage::Content { .. })));
        File::create(folder.path().join(&receipt.library)).unwrap();
        assert!(matches!(receipt.verify(folder.path(), Depth::Quick), Err(Damage::Size { found: 0, .. })));
        fs::remove_file(folder.path().join(&receipt.library)).unwrap();
        assert!(matches!(receipt.verify(folder.path(), Depth::Quick), Err(Damage::Unreadable { .. })));
    }

    #[test]
    fn whole_hash_ends_at_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(receipt(folder.path(), WHOLE_HASH_BYTES_MAX).files[0].edges_sha256, None);
        assert!(receipt(folder.path(), WHOLE_HASH_BYTES_MAX + 1).files[0].edges_sha256.is_some());
    }

    #[test]
    fn large_file_is_quickly_checked_at_its_edges_and_fully_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = WHOLE_HASH_BYTES_MAX + 1;
        let receipt = receipt(folder.path(), bytes);
        let quick = || receipt.verify(folder.path(), Depth::Quick);
        flip(folder.path(), bytes / 2);
        assert_eq!(quick(), Ok(()), "the middle is not looked at");
        assert!(matches!(receipt.verify(folder.path(), Depth::Full), Err(Damage::Content { .. })));
        flip(folder.path(), bytes - 1);
        assert!(matches!(quick(), Err(Damage::Content { .. })));
    }

    #[test]
    fn receipt_reads_back_and_may_not_point_outside() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Receipt::read(folder.path()), Err(Damage::NoReceipt(_))));
        let mut receipt = receipt(folder.path(), 3);
        let write = |receipt: &Receipt| {
            fs::write(folder.path().join(RECEIPT_FILE), serde_json::to_string(receipt).unwrap()).unwrap();
        };
        write(&receipt);
        assert_eq!(Receipt::read(folder.path()).unwrap(), receipt);
        receipt.library = "../../lib/libc.so.6".into();
        write(&receipt);
        assert!(matches!(Receipt::read(folder.path()), Err(Damage::NoReceipt(why)) if why.contains("outside")));
    }
}
