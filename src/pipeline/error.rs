//! Why an image got no classes: the errors of all stages under one roof, and the stable codes that others see.

use super::batch::BatchError;
use super::decode::DecodeError;
use super::decode::budget::BudgetError;
use super::infer::InferError;
use super::preprocess::PreprocessError;
use crate::telemetry::Ended;

/// Why an image got no classes.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClassifyError {
    /// The upload is no image that can be decoded.
    #[error("decode image: {0}")]
    Decode(#[from] DecodeError),
    /// The image needs more memory than all decodes together may hold.
    #[error("decode image: {0}")]
    Memory(BudgetError),
    /// The image does not fit the recipe.
    #[error("preprocess image: {0}")]
    Preprocess(#[from] PreprocessError),
    /// The batch stage refused it.
    #[error(transparent)]
    Batch(BatchError),
    /// The model failed.
    #[error("infer: {0}")]
    Infer(#[from] InferError),
    /// The deadline passed.
    #[error("no answer within the request's time limit")]
    Late,
    /// A thread that worked on the image panicked.
    #[error("a worker dropped the image without an answer")]
    Lost,
}

impl From<BatchError> for ClassifyError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Late => Self::Late,
            BatchError::Overloaded { .. } | BatchError::Behind { .. } | BatchError::Closed => Self::Batch(error),
        }
    }
}

impl From<BudgetError> for ClassifyError {
    fn from(error: BudgetError) -> Self {
        match error {
            BudgetError::TimedOut { .. } => Self::Late,
            BudgetError::TooLarge { .. } => Self::Memory(error),
        }
    }
}

/// What kind of failure an image met: the stable codes that clients, metrics and `residual classify --json` show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The image has no bytes.
    EmptyImage,
    /// The bytes are no image.
    NotAnImage,
    /// An image of a kind that is not decoded here.
    UnsupportedImage,
    /// Too many pixels, or too much memory to decode.
    ImageTooLarge,
    /// Damaged or cut short.
    BrokenImage,
    /// The picture does not fit the recipe.
    PreprocessFailed,
    /// No place in the queue.
    Overloaded,
    /// The server stops.
    ShuttingDown,
    /// The deadline passed.
    DeadlineExceeded,
    /// The model failed.
    InferenceFailed,
}

impl Failure {
    /// How a request ends that fails so, for its model's statistics.
    #[must_use]
    pub fn ended(self) -> Ended {
        match self {
            Self::Overloaded | Self::ShuttingDown | Self::DeadlineExceeded => Ended::Rejected,
            Self::InferenceFailed => Ended::ModelFailed,
            Self::EmptyImage
            | Self::NotAnImage
            | Self::UnsupportedImage
            | Self::ImageTooLarge
            | Self::BrokenImage
            | Self::PreprocessFailed => Ended::Refused,
        }
    }

    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::EmptyImage => "empty_image",
            Self::NotAnImage => "not_an_image",
            Self::UnsupportedImage => "unsupported_image",
            Self::ImageTooLarge => "image_too_large",
            Self::BrokenImage => "broken_image",
            Self::PreprocessFailed => "preprocess_failed",
            Self::Overloaded => "overloaded",
            Self::ShuttingDown => "shutting_down",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::InferenceFailed => "inference_failed",
        }
    }
}

impl ClassifyError {
    /// What kind of failure this is.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Decode(error) => match error {
                DecodeError::Empty => Failure::EmptyImage,
                DecodeError::NotAnImage { .. } => Failure::NotAnImage,
                DecodeError::UnsupportedFormat { .. } | DecodeError::UnsupportedFeature { .. } => {
                    Failure::UnsupportedImage
                }
                DecodeError::TooWide { .. } | DecodeError::TooTall { .. } | DecodeError::TooManyPixels { .. } => {
                    Failure::ImageTooLarge
                }
                DecodeError::Broken { .. } => Failure::BrokenImage,
            },
            Self::Memory(_) => Failure::ImageTooLarge,
            Self::Preprocess(_) => Failure::PreprocessFailed,
            Self::Batch(BatchError::Overloaded { .. } | BatchError::Behind { .. }) => Failure::Overloaded,
            Self::Batch(BatchError::Closed) => Failure::ShuttingDown,
            Self::Batch(BatchError::Late) | Self::Late => Failure::DeadlineExceeded,
            Self::Infer(_) | Self::Lost => Failure::InferenceFailed,
        }
    }

    /// The stable code of its kind.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.failure().code()
    }
}
