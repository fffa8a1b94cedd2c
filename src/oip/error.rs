//! Why a call got no answer: a kind that each wire has a status for, and a sentence.

use crate::models::{LoadError, NotServed};
use crate::pipeline::batch::BatchError;
use crate::pipeline::infer::InferError;
use crate::pipeline::{ClassifyError, Failure};
use crate::telemetry::Ended;

/// Longest sentence. It may quote what a client sent.
pub const MESSAGE_BYTES_MAX: usize = 400;

/// What kind of error it is. Each wire maps these to its own statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request itself is wrong; sent again it fails again.
    InvalidArgument,
    /// The request is larger than the settings allow.
    TooLarge,
    /// No such model, version or tensor.
    NotFound,
    /// The server does not let clients do this.
    Forbidden,
    /// The call exists, this use of it does not.
    Unsupported,
    /// A model could not be loaded from its files.
    LoadFailed,
    /// The server cannot answer now; the same request may succeed soon, here or elsewhere.
    Unavailable,
    /// The answer would be too late.
    DeadlineExceeded,
    /// The server failed.
    Internal,
}

/// Why a call got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OipError {
    /// What kind of error.
    pub kind: ErrorKind,
    /// The stable code that metrics and logs count it under; the same as in the native API.
    pub code: &'static str,
    /// What was found, what is allowed, what to do. Safe to show.
    pub message: String,
    /// What only the log should say.
    pub cause: Option<String>,
}

impl OipError {
    /// An error with a sentence.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: shortened(message.into()), cause: None }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, "bad_tensor", message)
    }

    /// The first models are still loading.
    pub(super) fn not_ready() -> Self {
        Self::new(ErrorKind::Unavailable, "not_ready", "no model is loaded, or the first are still loading")
    }

    pub(super) fn shutting_down() -> Self {
        let code = Failure::ShuttingDown.code();
        Self::new(ErrorKind::Unavailable, code, "the server is shutting down; ask another one")
    }

    /// How a request to a model ends that has this error, for the model's statistics.
    pub(super) fn ended(&self) -> Ended {
        match self.kind {
            ErrorKind::Unavailable | ErrorKind::DeadlineExceeded => Ended::Rejected,
            ErrorKind::Internal => Ended::ModelFailed,
            ErrorKind::InvalidArgument
            | ErrorKind::TooLarge
            | ErrorKind::NotFound
            | ErrorKind::Forbidden
            | ErrorKind::Unsupported
            | ErrorKind::LoadFailed => Ended::Refused,
        }
    }

    /// The same, about one image of several.
    pub(super) fn of_image(self, index: usize, images: usize) -> Self {
        if images == 1 { self } else { Self { message: format!("image {index}: {}", self.message), ..self } }
    }

    fn because(self, cause: impl std::fmt::Display) -> Self {
        Self { cause: Some(cause.to_string()), ..self }
    }

    /// What went wrong with a photo, or with a tensor that a client prepared.
    pub(super) fn of_run(error: &ClassifyError) -> Self {
        let failure = error.failure();
        let code = failure.code();
        match failure {
            Failure::EmptyImage
            | Failure::NotAnImage
            | Failure::UnsupportedImage
            | Failure::BrokenImage
            | Failure::PreprocessFailed => Self::new(ErrorKind::InvalidArgument, code, error.to_string()),
            Failure::ImageTooLarge => Self::new(ErrorKind::TooLarge, code, error.to_string()),
            Failure::Overloaded => Self::new(ErrorKind::Unavailable, code, error.to_string()),
            Failure::ShuttingDown => Self::shutting_down(),
            Failure::DeadlineExceeded => {
                Self::new(ErrorKind::DeadlineExceeded, code, "no answer was ready within the time limit of the request")
            }
            Failure::InferenceFailed => {
                let message = "the model failed on this input; the server's log says why";
                Self::new(ErrorKind::Internal, code, message).because(error)
            }
        }
    }

    /// As [`OipError::of_run`] for a tensor. What it makes of the scores is the client's doing: no photo has such values.
    pub(super) fn of_tensor(error: &ClassifyError) -> Self {
        match error {
            ClassifyError::Infer(not_finite @ InferError::NotFinite { .. }) => {
                Self::invalid(format!("{not_finite}; the values of the input are too large for this model"))
            }
            other => Self::of_run(other),
        }
    }
}

impl From<BatchError> for OipError {
    fn from(error: BatchError) -> Self {
        Self::of_run(&error.into())
    }
}

impl From<NotServed> for OipError {
    fn from(error: NotServed) -> Self {
        let (kind, code) = match error {
            NotServed::Nothing => return Self::not_ready(),
            NotServed::Empty => (ErrorKind::Unavailable, "model_unavailable"),
            NotServed::NameNeeded { .. } => (ErrorKind::InvalidArgument, "model_needed"),
            NotServed::UnknownModel { .. } => (ErrorKind::NotFound, "unknown_model"),
            NotServed::UnknownVersion { .. } => (ErrorKind::NotFound, "unknown_version"),
            NotServed::Unavailable { .. } => (ErrorKind::Unavailable, "model_unavailable"),
        };
        Self::new(kind, code, error.to_string())
    }
}

impl From<LoadError> for OipError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Unknown { .. } => Self::new(ErrorKind::NotFound, "unknown_model", error.to_string()),
            LoadError::Stopping => Self::shutting_down(),
            // The reason may name paths of the server; the log has it already.
            _ => Self::new(
                ErrorKind::LoadFailed,
                "load_failed",
                "the model could not be loaded; the server's log says why; what was served before is served on",
            ),
        }
    }
}

/// A sentence may quote what the client sent, and that may be a whole photo in the wrong field. Keeps both ends: what is
/// expected usually stands last.
#[must_use]
pub fn shortened(message: String) -> String {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message;
    }
    let half = MESSAGE_BYTES_MAX / 2;
    let (head, tail) = (message.floor_char_boundary(half), message.ceil_char_boundary(message.len() - half));
    format!("{} [...] {}", &message[..head], &message[tail..])
}
