//! Why a file is no ONNX model that can be read. Each text says what was found, what is allowed and what to do.

use std::io;
use std::path::{Path, PathBuf};

use super::Printable;

/// Why a file cannot be read as an ONNX model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// What follows is about this file.
    #[error("read {}: {cause}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: Box<GraphError>,
    },
    /// The system refused.
    #[error("{0}")]
    Io(io::Error),
    /// A directory, a pipe, a device.
    #[error("it is no regular file; give the path of an .onnx file")]
    NotAFile,
    /// Larger than protobuf allows a message to be.
    #[error(
        "it has {found} bytes, at most {max} allowed; models beyond that keep their weights in an external file \
         (onnx.save_model with save_as_external_data=True)"
    )]
    TooLarge {
        /// Bytes found.
        found: u64,
        /// Most bytes allowed.
        max: u64,
    },
    /// No bytes at all.
    #[error("it is empty, an ONNX model expected; copy or download it again")]
    Empty,
    /// The stand-in that Git keeps for a large file.
    #[error(
        "it is a Git LFS pointer of {found} bytes, not the model{size}; fetch the file itself with `git lfs pull` in \
         the clone, or download it from where the model is published"
    )]
    LfsPointer {
        /// Size of the pointer.
        found: usize,
        /// Size of the file that is meant, as the pointer tells it: empty, or a part of a sentence.
        size: String,
    },
    /// Another kind of file, known by its first bytes.
    #[error("it is {kind}, not an ONNX model; {advice}")]
    OtherFormat {
        /// What it is, with its article.
        kind: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// No protobuf message, or one that is no model.
    #[error("it is no ONNX model: {what}; the file is damaged, cut short or of another kind")]
    Broken {
        /// What was found, and where.
        what: String,
    },
    /// More than is allowed of something that costs memory or time.
    #[error("it has more than {max} {what}, which no ResNet needs; the file is damaged or made to exhaust memory")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many are allowed.
        max: usize,
    },
    /// Tiny fields that would fill the memory.
    #[error(
        "decoding it would take more than {max} bytes beyond its own size, which no ResNet needs; the file is damaged \
         or made to exhaust memory"
    )]
    Amplified {
        /// Most bytes allowed.
        max: usize,
    },
    /// Messages inside messages.
    #[error("its messages are nested more than {max} deep; the file is damaged or made to exhaust the stack")]
    TooDeep {
        /// Depth allowed.
        max: usize,
    },
    /// A tensor that contradicts itself.
    #[error("tensor {}: {what}; export the model again", Printable(name))]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// What was found, and what was expected.
        what: String,
    },
    /// A graph that cannot be run.
    #[error("{what}; export the model again")]
    Graph {
        /// What was found.
        what: String,
    },
    /// External data that may not or cannot be read.
    #[error("tensor {} keeps its data in {}: {what}", Printable(tensor), Printable(location))]
    External {
        /// Name of the tensor.
        tensor: String,
        /// The file as the model names it.
        location: String,
        /// What is wrong with that, and what to do.
        what: String,
    },
}

impl GraphError {
    /// The same error about `path`.
    #[must_use]
    pub fn in_file(self, path: &Path) -> Self {
        match self {
            Self::InFile { .. } => self,
            cause => Self::InFile { path: path.to_owned(), cause: Box::new(cause) },
        }
    }
}
