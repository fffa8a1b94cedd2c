//! The one place that knows gRPC's status codes: every error of every stage becomes a status here.

use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::edge::UploadsFull;
use crate::guard::Refused;
use crate::oip::{ErrorKind, OipError, shortened};

/// Metadata beside a status: the stable code, as in the native API. The status says what to do, the code what happened.
pub(super) const ERROR_CODE: &str = "residual-code";
/// Metadata that tells a client's own retries when to come back, as gRPC's retry design (A6) has it.
const RETRY_AFTER: &str = "grpc-retry-pushback-ms";
/// The queue holds seconds of work, not minutes.
const RETRY_AFTER_MS: i64 = 1000;
/// The code of an overload, under which the operator is told.
pub(super) const OVERLOADED: &str = "overloaded";
/// The code of a call that ends with the server.
pub(super) const SHUTTING_DOWN: &str = "shutting_down";
/// The code of a call whose answer would come too late.
const DEADLINE_EXCEEDED: &str = "deadline_exceeded";

/// Why a message never came to its call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    #[error(
        "the message has {found} bytes, at most {max} are allowed; send less at once, or raise --grpc-message-bytes-max"
    )]
    TooLarge { found: u64, max: u64 },
    #[error(
        "unpacked, the message has more than {max} bytes, which is the most that is allowed; send less at once, or raise --grpc-message-bytes-max"
    )]
    UnpackedTooLarge { max: u64 },
    #[error("the request has more than {max} tensors and parameters; a model takes one tensor")]
    TooManyParts { max: usize },
    #[error("a second message came; this call takes one")]
    Second,
    #[error("the message is no message of this call: {0}")]
    Broken(String),
    #[error(transparent)]
    UploadsFull(#[from] UploadsFull),
    #[error("the message did not arrive within {0:?}")]
    Late(Duration),
    #[error("nothing came on the stream for {0:?}; open another one when there is more to ask")]
    Silent(Duration),
    #[error("the message ended after {found} of {len} bytes")]
    Cut { found: usize, len: usize },
    #[error("the call ended early: {0}")]
    Reset(String),
    #[error("the message cannot be unpacked: {0}")]
    BadPacking(String),
    #[error("messages are packed with {0:?}; send them as they are, or with gzip or deflate")]
    Encoding(String),
    #[error("the server is shutting down; ask another one")]
    ShuttingDown,
    #[error("no thread came free to read the message within {0:?}")]
    NoThread(Duration),
}

/// No call of this path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no call {0:?} here; reflection lists those there are")]
pub(super) struct UnknownMethod(pub String);

/// Too many calls are open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} calls of this kind are open, which is the most that is allowed; try again later")]
pub(super) struct TooManyCalls(pub usize);

impl From<MessageError> for Status {
    fn from(error: MessageError) -> Self {
        use MessageError as E;
        let (status, code) = match &error {
            E::TooLarge { .. } | E::UnpackedTooLarge { .. } => (Code::ResourceExhausted, "body_too_large"),
            E::TooManyParts { .. } => (Code::InvalidArgument, "bad_tensor"),
            E::Second | E::Broken(_) | E::BadPacking(_) => (Code::InvalidArgument, "bad_message"),
            E::UploadsFull(_) | E::NoThread(_) => (Code::ResourceExhausted, OVERLOADED),
            E::Late(_) => (Code::DeadlineExceeded, "body_timeout"),
            E::Silent(_) => (Code::DeadlineExceeded, "stream_timeout"),
            E::Cut { .. } => (Code::InvalidArgument, "body_incomplete"),
            E::Reset(_) => (Code::Cancelled, "body_incomplete"),
            E::Encoding(_) => (Code::Unimplemented, "unsupported_encoding"),
            E::ShuttingDown => (Code::Unavailable, SHUTTING_DOWN),
        };
        coded(status, code, error.to_string())
    }
}

impl From<UnknownMethod> for Status {
    fn from(error: UnknownMethod) -> Self {
        coded(Code::Unimplemented, "not_found", error.to_string())
    }
}

impl From<TooManyCalls> for Status {
    fn from(error: TooManyCalls) -> Self {
        coded(Code::ResourceExhausted, OVERLOADED, error.to_string())
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::NoKey | Refused::Malformed | Refused::WrongKey => {
                coded(Code::Unauthenticated, "unauthorized", message)
            }
            Refused::TooFast { retry_after, .. } => {
                let mut status = coded(Code::ResourceExhausted, "rate_limited", message);
                // Rounded up: a client that is told too little only comes back in vain.
                let wait = i64::try_from(retry_after.as_millis() + 1).unwrap_or(i64::MAX);
                status.metadata_mut().insert(RETRY_AFTER, MetadataValue::from(wait));
                status
            }
        }
    }
}

/// An error of the protocol.
pub(super) fn of_oip(error: &OipError) -> Status {
    let status = match error.kind {
        ErrorKind::InvalidArgument | ErrorKind::TooLarge => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Forbidden => Code::PermissionDenied,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::LoadFailed => Code::FailedPrecondition,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::Internal => Code::Internal,
    };
    coded(status, error.code, error.message.clone())
}

/// A service of that name is not here.
pub(super) fn unknown_service(name: &str) -> Status {
    coded(Code::NotFound, "not_found", format!("there is no service {name:?} here; reflection lists those there are"))
}

/// A call without the message that it takes.
pub(super) fn no_request() -> Status {
    coded(Code::InvalidArgument, "body_incomplete", "the call ended without a request; send one")
}

/// The client's own time is over.
pub(super) fn deadline_exceeded() -> Status {
    coded(Code::DeadlineExceeded, DEADLINE_EXCEEDED, "the call's deadline has passed")
}

/// The call ends because the server does.
pub(super) fn shutting_down() -> Status {
    MessageError::ShuttingDown.into()
}

/// What metrics call a status that no code of ours stands beside: the name in gRPC's list.
pub(super) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => DEADLINE_EXCEEDED,
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// The name of a status as gRPC itself writes it.
pub(super) fn shouted(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The statuses for which OpenTelemetry's conventions blame the server.
pub(super) fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn coded(status: Code, code: &'static str, message: impl Into<String>) -> Status {
    // It may quote what a client sent, and clients refuse heads above 8 or 16 KiB.
    let mut status = Status::new(status, shortened(message.into()));
    status.metadata_mut().insert(ERROR_CODE, MetadataValue::from_static(code));
    if code == OVERLOADED {
        status.metadata_mut().insert(RETRY_AFTER, MetadataValue::from(RETRY_AFTER_MS));
    }
    status
}
