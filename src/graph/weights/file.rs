//! A safetensors file: its header is read and checked at once, a tensor's numbers when they are asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

/// Longest header that is read, in bytes. That of ResNet-152 has a tenth of a megabyte.
pub const HEADER_BYTES_MAX: u64 = 4 << 20;

/// The header's length, in front of it.
const LEN_BYTES: u64 = 8;

/// Why a weights file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refuses.
    #[error("read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is another kind of file.
    #[error("read {}: it is {found}, not a safetensors file{advice}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: &'static str,
        /// How to get a safetensors file, where that is known.
        advice: &'static str,
    },
    /// The header claims to be longer than any ResNet's.
    #[error(
        "read {}: its header claims {found} bytes; at most {HEADER_BYTES_MAX} are read; it is damaged, or no safetensors file",
        path.display()
    )]
    HeaderTooLong {
        /// The file.
        path: PathBuf,
        /// What it claims.
        found: u64,
    },
    /// The header is no JSON, or its offsets and shapes contradict each other.
    #[error("read {}: its header is broken: {cause}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Where and why.
        cause: serde_json::Error,
    },
    /// The file ends too early or too late.
    #[error("read {}: it has {found} bytes where its header says {expected}; download it again", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes on the disk.
        found: u64,
        /// Bytes it should have.
        expected: u64,
    },
    /// A tensor is of a type that no ResNet has been published in.
    #[error("read {}: tensor {name} is {found}; f32, f16, bf16 and f64 can be converted", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: Dtype,
    },
}

/// An open weights file whose header is consistent with itself and with the file's length.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    file: File,
    /// Where the numbers begin.
    data: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

impl WeightsFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// Where the file cannot be read, is something else, or contradicts itself.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let failed = |cause| FileError::Read { path: path.to_owned(), cause };
        let mut file = File::open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        let mut start = Vec::with_capacity(64);
        file.by_ref().take(64).read_to_end(&mut start).map_err(failed)?;
        if let Some((found, advice)) = sniff(&start) {
            return Err(FileError::Format { path: path.to_owned(), found, advice });
        }
        let Some(len) = start.first_chunk::<8>().map(|len| u64::from_le_bytes(*len)) else {
            return Err(FileError::Length { path: path.to_owned(), found, expected: LEN_BYTES });
        };
        if len > HEADER_BYTES_MAX {
            return Err(FileError::HeaderTooLong { path: path.to_owned(), found: len });
        }
        let data = LEN_BYTES + len;
        if found < data {
            return Err(FileError::Length { path: path.to_owned(), found, expected: data });
        }
        file.seek(SeekFrom::Start(LEN_BYTES)).map_err(failed)?;
        let mut header = Vec::new();
        file.by_ref().take(len).read_to_end(&mut header).map_err(failed)?;
        // Deserialising checks that shapes, types and offsets agree and that the offsets leave no gap.
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|cause| FileError::Header { path: path.to_owned(), cause })?;
        let expected = data.saturating_add(header.data_len() as u64);
        if found != expected {
            return Err(FileError::Length { path: path.to_owned(), found, expected });
        }
        let tensors = header.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Self { path: path.to_owned(), file, data, tensors })
    }

    /// Names and shapes, in the order of the names.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, info)| (name.as_str(), info.shape.as_slice()))
    }

    /// A tensor's shape, if there is such a tensor.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|info| info.shape.as_slice())
    }

    /// A tensor's numbers as f32: f16 and bf16 widened, f64 rounded.
    ///
    /// # Errors
    /// Where there is no such tensor, its type is another one, or the file cannot be read.
    pub fn read(&mut self, name: &str) -> Result<Vec<f32>, FileError> {
        let failed = |cause| FileError::Read { path: self.path.clone(), cause };
        let Some(TensorInfo { dtype, data_offsets: (from, to), .. }) = self.tensors.get(name) else {
            return Err(failed(io::Error::new(io::ErrorKind::NotFound, format!("no tensor {name}"))));
        };
        self.file.seek(SeekFrom::Start(self.data + *from as u64)).map_err(failed)?;
        // The header was held against the file's length: no more than the file has is allocated.
        let mut bytes = vec![0; to - from];
        self.file.read_exact(&mut bytes).map_err(failed)?;
        Ok(match dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect(),
            Dtype::F16 => bytes.as_chunks().0.iter().map(|&value| f16::from_le_bytes(value).to_f32()).collect(),
            Dtype::BF16 => bytes.as_chunks().0.iter().map(|&value| bf16::from_le_bytes(value).to_f32()).collect(),
            Dtype::F64 => bytes.as_chunks().0.iter().map(|&value| f64::from_le_bytes(value) as f32).collect(),
            &found => return Err(FileError::Dtype { path: self.path.clone(), name: name.to_owned(), found }),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What a file that is given by mistake looks like, and what to do about it.
fn sniff(start: &[u8]) -> Option<(&'static str, &'static str)> {
    let text = start.trim_ascii_start();
    if start.starts_with(b"version https://git-lfs") {
        Some(("a Git LFS pointer", "; fetch the file itself with `git lfs pull`"))
    } else if start.starts_with(b"PK\x03\x04") || start.starts_with(b"\x80\x02") {
        let advice = "; load it with PyTorch and save it with safetensors.torch.save_file";
        Some(("a PyTorch checkpoint", advice))
    } else if start.starts_with(b"\x89HDF") {
        Some(("an HDF5 file", ""))
    } else if text.starts_with(b"<") {
        Some(("a web page", "; download it again"))
    } else if start.is_empty() {
        Some(("empty", "; download it again"))
    } else {
        None
    }
}
