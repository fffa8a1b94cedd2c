//! The one place that knows status codes: every error of every stage becomes an RFC 9457 problem document here.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::middleware::Report;
use crate::edge::UploadsFull;
use crate::models::NotServed;
use crate::oip::{ErrorKind, OipError, shortened};
use crate::pipeline::batch::BatchError;
use crate::pipeline::{ClassifyError, Failure};

/// Seconds after which a client that met an overload may try again. The queue holds seconds of work, not minutes.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Every kind of problem a client can meet. The code is stable; the sentence may get better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is its code; the table below says status and title")]
pub enum ProblemKind {
    EmptyBody,
    BadQuery,
    BadTopK,
    BadJson,
    BadBase64,
    BadMultipart,
    BodyIncomplete,
    UnsupportedEncoding,
    ModelNeeded,
    UnknownModel,
    UnknownVersion,
    ModelUnavailable,
    NotFound,
    MethodNotAllowed,
    BodyTimeout,
    BodyTooLarge,
    TooManyImages,
    BadTensor,
    BadParameter,
    ActivationImpossible,
    NotOffered,
    NotAcceptable,
    BadModelPath,
    AlreadyLoaded,
    NotEnoughMemory,
    LoadFailed,
    NotReady,
    Unhealthy,
    Unauthorized,
    RateLimited,
    /// The pipeline's own kinds.
    Failed(Failure),
    /// Those of the Open Inference Protocol, with their code.
    Oip(ErrorKind, &'static str),
}

impl ProblemKind {
    /// Status, stable code and title. Read as a table; `docs/API.md` repeats it for clients.
    fn row(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::EmptyBody => (S::BAD_REQUEST, "empty_body", "The request has no body"),
            Self::BadQuery => (S::BAD_REQUEST, "bad_query", "A query parameter is not understood"),
            Self::BadTopK => (S::BAD_REQUEST, "bad_top_k", "top_k is out of range"),
            Self::BadJson => (S::BAD_REQUEST, "bad_json", "The JSON body is not understood"),
            Self::BadBase64 => (S::BAD_REQUEST, "bad_base64", "The image is not valid base64"),
            Self::BadMultipart => (S::BAD_REQUEST, "bad_multipart", "The multipart body is broken"),
            Self::BodyIncomplete => (S::BAD_REQUEST, "body_incomplete", "The body ended early"),
            Self::UnsupportedEncoding => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_encoding",
                "The body is encoded in a way that is not supported",
            ),
            Self::ModelNeeded => (S::BAD_REQUEST, "model_needed", "The request must name a model"),
            Self::UnknownModel => (S::NOT_FOUND, "unknown_model", "No such model"),
            Self::UnknownVersion => (S::NOT_FOUND, "unknown_version", "No such version of the model"),
            Self::ModelUnavailable => (S::SERVICE_UNAVAILABLE, "model_unavailable", "The model cannot answer now"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "No such route"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed", "The route has another method"),
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "body_timeout", "The body came too slowly"),
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large", "The body has too many bytes"),
            Self::TooManyImages => (S::PAYLOAD_TOO_LARGE, "too_many_images", "The request has too many images"),
            Self::BadTensor => (S::BAD_REQUEST, "bad_tensor", "The tensor does not fit the model"),
            Self::BadParameter => (S::BAD_REQUEST, "bad_parameter", "A parameter is out of range"),
            Self::ActivationImpossible => {
                (S::UNPROCESSABLE_ENTITY, "activation_impossible", "The graph has applied another function already")
            }
            Self::NotOffered => (S::NOT_IMPLEMENTED, "not_offered", "This call is not offered"),
            Self::NotAcceptable => (S::NOT_ACCEPTABLE, "not_acceptable", "There is no answer of that type"),
            Self::BadModelPath => (S::BAD_REQUEST, "bad_model_path", "The model cannot be loaded from there"),
            Self::AlreadyLoaded => (S::CONFLICT, "already_loaded", "A model of this name is loaded"),
            Self::NotEnoughMemory => (S::INSUFFICIENT_STORAGE, "not_enough_memory", "The model does not fit"),
            Self::LoadFailed => (S::UNPROCESSABLE_ENTITY, "load_failed", "The model could not be loaded"),
            Self::NotReady => (S::SERVICE_UNAVAILABLE, "not_ready", "The server is starting"),
            Self::Unhealthy => (S::SERVICE_UNAVAILABLE, "unhealthy", "A model does not answer"),
            Self::Unauthorized => (S::UNAUTHORIZED, "unauthorized", "The request needs an API key"),
            Self::RateLimited => (S::TOO_MANY_REQUESTS, "rate_limited", "The client asks too often"),
            Self::Failed(failure) => {
                let (status, title) = Self::failed(failure);
                (status, failure.code(), title)
            }
            Self::Oip(kind, code) => {
                let (status, title) = Self::oip(kind);
                (status, code, title)
            }
        }
    }

    fn failed(failure: Failure) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match failure {
            Failure::EmptyImage => (S::BAD_REQUEST, "The image has no bytes"),
            Failure::NotAnImage => (S::UNSUPPORTED_MEDIA_TYPE, "The bytes are no image"),
            Failure::UnsupportedImage => (S::UNSUPPORTED_MEDIA_TYPE, "This kind of image is not supported"),
            Failure::ImageTooLarge => (S::PAYLOAD_TOO_LARGE, "The image is too large"),
            Failure::BrokenImage => (S::UNPROCESSABLE_ENTITY, "The image cannot be decoded"),
            Failure::PreprocessFailed => (S::UNPROCESSABLE_ENTITY, "The image does not fit the model's recipe"),
            Failure::Overloaded => (S::SERVICE_UNAVAILABLE, "The server is busy"),
            Failure::ShuttingDown => (S::SERVICE_UNAVAILABLE, "The server is shutting down"),
            Failure::DeadlineExceeded => (S::GATEWAY_TIMEOUT, "The answer would be too late"),
            Failure::InferenceFailed => (S::INTERNAL_SERVER_ERROR, "The model could not compute an answer"),
        }
    }

    fn oip(kind: ErrorKind) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match kind {
            ErrorKind::InvalidArgument => (S::BAD_REQUEST, "The request is not understood"),
            ErrorKind::TooLarge => (S::PAYLOAD_TOO_LARGE, "The request is too large"),
            ErrorKind::NotFound => (S::NOT_FOUND, "No such thing"),
            ErrorKind::Forbidden => (S::FORBIDDEN, "Clients may not do this here"),
            ErrorKind::Unsupported => (S::BAD_REQUEST, "This use of the call is not offered"),
            ErrorKind::LoadFailed => (S::UNPROCESSABLE_ENTITY, "The model could not be loaded"),
            ErrorKind::Unavailable => (S::SERVICE_UNAVAILABLE, "The server cannot answer now"),
            ErrorKind::DeadlineExceeded => (S::GATEWAY_TIMEOUT, "The answer would be too late"),
            ErrorKind::Internal => (S::INTERNAL_SERVER_ERROR, "The server failed"),
        }
    }

    /// The status it is answered with.
    pub(super) fn status(self) -> StatusCode {
        self.row().0
    }

    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.row().1
    }

    /// In a few words, the same each time.
    pub(super) fn title(self) -> &'static str {
        self.row().2
    }

    /// A client may try the same request again soon.
    fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::NotReady
                | Self::Unhealthy
                | Self::ModelUnavailable
                | Self::Failed(Failure::Overloaded | Failure::ShuttingDown)
                | Self::Oip(ErrorKind::Unavailable, _)
        )
    }
}

/// One problem: what kind, a sentence that is safe to show, and the cause that only the log sees.
#[derive(Debug)]
pub struct Problem {
    kind: ProblemKind,
    detail: String,
    cause: Option<String>,
    /// What its kind alone does not say: the methods there are, when to come back, how to show a key.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// The body of a problem, RFC 9457 section 3.1, with `code` as the extension that programs match on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ProblemBody {
    /// `urn:residual:problem:` and the code.
    r#type: String,
    /// The kind in a few words, the same each time.
    title: &'static str,
    /// The status of the answer, or what it would be if this were all of it.
    status: u16,
    /// The kind, for programs: stable.
    code: &'static str,
    /// What was found, what is allowed, and what to do.
    detail: String,
}

impl Problem {
    /// A problem with a sentence that says what was found, what is allowed and what to do.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: shortened(detail.into()), cause: None, header: None }
    }

    /// No room now.
    pub(super) fn overloaded(detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::Failed(Failure::Overloaded), detail)
    }

    /// The drain has begun.
    pub(super) fn shutting_down() -> Self {
        Self::new(ProblemKind::Failed(Failure::ShuttingDown), "the server is shutting down; ask another one")
    }

    /// The route has another method.
    pub(super) fn method_not_allowed(detail: String, allow: &str) -> Self {
        let header = HeaderValue::try_from(allow).ok().map(|allow| Box::new((header::ALLOW, allow)));
        Self { header, ..Self::new(ProblemKind::MethodNotAllowed, detail) }
    }

    /// The same with a header that goes with it.
    pub(super) fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some(Box::new((name, value))), ..self }
    }

    /// Attaches what the log should say and the client should not see.
    #[must_use]
    fn because(mut self, cause: impl std::fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// What the log should say and the client should not see.
    pub(super) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The document, for use inside another one (one image of several).
    #[must_use]
    pub fn into_body(self) -> ProblemBody {
        let (status, code, title) = self.kind.row();
        ProblemBody {
            r#type: format!("urn:residual:problem:{code}"),
            title,
            status: status.as_u16(),
            code,
            detail: self.detail,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        let (kind, cause, header) = (self.kind, self.cause.take(), self.header.take());
        let mut response = respond(kind, cause, header, self.into_body());
        let problem = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, problem);
        response
    }
}

impl Problem {
    /// The answer of an API with a shape of its own: `body` as JSON in place of the document. Status, headers, and what log
    /// and metrics say stay the same.
    pub(super) fn into_response_with(self, body: impl Serialize) -> Response {
        respond(self.kind, self.cause, self.header, body)
    }
}

/// An error of the Open Inference Protocol, and of all APIs that say no more.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct V2Error {
    /// What was found, what is allowed, what to do.
    error: String,
}

impl Problem {
    /// The answer of such an API.
    pub(super) fn into_v2(self) -> Response {
        let body = V2Error { error: self.detail.clone() };
        self.into_response_with(body)
    }

    /// The same of an API that knows fewer statuses: a body that is no image, or does not fit, is simply a wrong request.
    pub(super) fn into_plain(self) -> Response {
        let status = plain(self.kind.status());
        let mut response = self.into_v2();
        *response.status_mut() = status;
        response
    }

    /// The answer of TorchServe.
    pub(super) fn into_torchserve(self) -> Response {
        let (status, r#type) = self.exception();
        let body = TorchServeError { code: status.as_u16(), r#type, message: self.detail.clone() };
        let mut response = self.into_response_with(body);
        *response.status_mut() = status;
        response
    }

    /// The answer to a probe that reads `status` alone.
    pub(super) fn into_unhealthy(self) -> Response {
        self.into_response_with(Ping { status: "Unhealthy" })
    }

    /// The exception that TorchServe's frontend would have met. Its own image handler makes a failed prediction (503) of a
    /// photo that is none; here that is the request's fault.
    fn exception(&self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        let status = plain(self.kind.status());
        let name = match (self.kind, status) {
            (ProblemKind::UnknownModel, _) => "ModelNotFoundException",
            (ProblemKind::UnknownVersion, _) => "ModelVersionNotFoundException",
            (_, S::NOT_FOUND) => "ResourceNotFoundException",
            (_, S::METHOD_NOT_ALLOWED) => "MethodNotAllowedException",
            (_, S::REQUEST_TIMEOUT | S::GATEWAY_TIMEOUT) => "RequestTimeoutException",
            (_, S::UNAUTHORIZED) => "InvalidKeyException",
            (_, S::PAYLOAD_TOO_LARGE) => "TooLongFrameException",
            (_, S::SERVICE_UNAVAILABLE | S::TOO_MANY_REQUESTS) => "ServiceUnavailableException",
            (_, status) if status.is_server_error() => "InternalServerException",
            _ => "BadRequestException",
        };
        (status, name)
    }

    /// The same, about one image of several.
    #[must_use]
    pub(super) fn of_item(self, index: usize, items: usize) -> Self {
        if items == 1 { self } else { self.at(index) }
    }

    /// The same, about the image at `index`.
    #[must_use]
    pub(super) fn at(self, index: usize) -> Self {
        Self { detail: format!("image {index}: {}", self.detail), ..self }
    }
}

/// The status of an API that tells apart only whose fault it is.
fn plain(status: StatusCode) -> StatusCode {
    match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        status => status,
    }
}

/// An error of TorchServe.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct TorchServeError {
    /// The status again.
    code: u16,
    /// The simple name of a Java class.
    r#type: &'static str,
    /// What was found, what is allowed, what to do.
    message: String,
}

/// What a probe is told.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Ping {
    /// `Healthy` or `Unhealthy`.
    pub(super) status: &'static str,
}

fn respond(
    kind: ProblemKind,
    cause: Option<String>,
    extra: Option<Box<(HeaderName, HeaderValue)>>,
    body: impl Serialize,
) -> Response {
    let report = Report { outcome: kind.code(), cause, ..Report::default() };
    let mut response = (kind.status(), Json(body)).into_response();
    let headers = response.headers_mut();
    if kind.is_retryable() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    }
    if kind.code() == Failure::ShuttingDown.code() {
        // The client's next request should go elsewhere.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some((name, value)) = extra.map(|extra| *extra) {
        headers.insert(name, value);
    }
    response.extensions_mut().insert(report);
    response
}

impl From<OipError> for Problem {
    fn from(error: OipError) -> Self {
        let OipError { kind, code, message, cause } = error;
        Self { cause, ..Self::new(ProblemKind::Oip(kind, code), message) }
    }
}

impl From<ClassifyError> for Problem {
    fn from(error: ClassifyError) -> Self {
        let kind = ProblemKind::Failed(error.failure());
        match &error {
            ClassifyError::Decode(decode) => Self::new(kind, decode.to_string()),
            ClassifyError::Memory(budget) => Self::new(kind, budget.to_string()),
            ClassifyError::Preprocess(preprocess) => Self::new(kind, preprocess.to_string()),
            ClassifyError::Batch(batch) => batch.clone().into(),
            ClassifyError::Late => Self::new(
                kind,
                "no answer was ready within the request timeout; try again when the server is less busy",
            ),
            // What exactly failed inside is the operator's business; the log has it under the request id.
            ClassifyError::Infer(_) | ClassifyError::Lost => {
                Self::new(kind, "the model failed on this image; the server's log says why").because(&error)
            }
        }
    }
}

impl From<UploadsFull> for Problem {
    fn from(error: UploadsFull) -> Self {
        Self::overloaded(error.to_string())
    }
}

impl From<NotServed> for Problem {
    fn from(error: NotServed) -> Self {
        let kind = match error {
            NotServed::Nothing => return super::health::not_ready(),
            NotServed::Empty => ProblemKind::ModelUnavailable,
            NotServed::NameNeeded { .. } => ProblemKind::ModelNeeded,
            NotServed::UnknownModel { .. } => ProblemKind::UnknownModel,
            NotServed::UnknownVersion { .. } => ProblemKind::UnknownVersion,
            NotServed::Unavailable { .. } => ProblemKind::ModelUnavailable,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<BatchError> for Problem {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Overloaded { images, images_max } => Self::overloaded(format!(
                "the queue has no room for {images} more image(s), it holds {images_max}; try again later"
            )),
            BatchError::Behind { .. } => Self::overloaded(format!("{error}; try again later")),
            BatchError::Late => ClassifyError::Late.into(),
            BatchError::Closed => Self::shutting_down(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sentence_keeps_its_ends() {
        let problem = Problem::new(ProblemKind::BadJson, format!("found {}; send less", "\u{e9}".repeat(100_000)));
        assert!(problem.detail.len() <= crate::oip::MESSAGE_BYTES_MAX + 10);
        assert!(problem.detail.starts_with("found ") && problem.detail.ends_with("; send less"));
    }
}
