//! Request body -> image bytes, under bounds: bytes of one body, bytes of all bodies, time, number of images.
//!
//! What a body holds follows from its content type (multipart, JSON, else raw). What an *image* is, its bytes decide:
//! a JPEG that is sent as JSON is still taken as a JPEG.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::header;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http_body_util::BodyExt as _;
use prometheus::IntGauge;
use serde::Deserialize;

use super::error::{Problem, ProblemKind};
use super::limits::HttpLimits;

/// After a body turned out too large, this much more of it is read and thrown away, so that a client that is still
/// sending gets to read the answer instead of a reset connection.
const DISCARD_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// And for at most this long.
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Padding is optional: browsers' and Python's encoders write it, URL-minded ones do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The images of one request. A part can be wrong by itself while its neighbours are fine.
#[derive(Debug)]
pub(super) enum Upload {
    /// One image, to be answered by itself.
    One(Encoded),
    /// Several, to be answered as a list.
    Many(Vec<Encoded>),
}

/// One image as it was sent.
#[derive(Debug)]
pub(super) enum Encoded {
    /// The file's bytes.
    Raw(Bytes),
    /// The file's bytes in base64.
    Base64(String),
}

impl Encoded {
    /// The file's bytes. Base64 costs time in proportion to its size: call this where computing is allowed.
    pub(super) fn into_bytes(self) -> Result<Bytes, Problem> {
        match self {
            Self::Raw(bytes) => Ok(bytes),
            Self::Base64(text) => decode_base64(&text),
        }
    }

    /// Base64 has to be decoded before the image can be.
    pub(super) fn is_base64(&self) -> bool {
        matches!(self, Self::Base64(_))
    }
}

fn decode_base64(text: &str) -> Result<Bytes, Problem> {
    // `data:image/jpeg;base64,...` is what a browser's FileReader gives.
    let payload = match text.split_once(";base64,") {
        Some((scheme, payload)) if scheme.starts_with("data:") => payload,
        _ => text,
    };
    // The base64 tool wraps lines.
    let unwrapped: String;
    let payload = if payload.bytes().any(|byte| byte.is_ascii_whitespace()) {
        unwrapped = payload.split_ascii_whitespace().collect();
        &unwrapped
    } else {
        payload
    };
    BASE64
        .decode(payload)
        .map(Bytes::from)
        .map_err(|error| Problem::new(ProblemKind::BadBase64, format!("\"image\" is not base64: {error}")))
}

/// The bytes of all uploads in memory, under one bound.
#[derive(Debug, Clone)]
pub(super) struct UploadMemory {
    held: Arc<AtomicU64>,
    max: u64,
    gauge: IntGauge,
}

/// One upload's share of the memory. Dropping it gives the share back.
#[derive(Debug)]
pub(super) struct UploadShare {
    memory: UploadMemory,
    bytes: u64,
}

impl UploadMemory {
    pub(super) fn new(max: u64, gauge: IntGauge) -> Self {
        Self { held: Arc::default(), max, gauge }
    }

    /// An empty share that grows with its upload.
    pub(super) fn share(&self) -> UploadShare {
        UploadShare { memory: self.clone(), bytes: 0 }
    }

    fn show(&self) {
        self.gauge.set(i64::try_from(self.held.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
    }
}

impl UploadShare {
    fn grow(&mut self, bytes: u64) -> Result<(), Problem> {
        let memory = &self.memory;
        let fits = |held: u64| held.checked_add(bytes).filter(|&sum| sum <= memory.max);
        memory.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| {
            Problem::overloaded(format!(
                "all uploads together may hold {} bytes of memory, and this one does not fit now; try again later",
                memory.max
            ))
        })?;
        self.bytes += bytes;
        self.memory.show();
        Ok(())
    }
}

impl Drop for UploadShare {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.memory.show();
    }
}

/// Reads the whole body of `request` and finds its images. The share must live as long as the images do.
pub(super) async fn receive(
    request: Request,
    limits: &HttpLimits,
    memory: &UploadMemory,
) -> Result<(Upload, UploadShare), Problem> {
    let form = Form::of(&request);
    let mut share = memory.share();
    let (parts, body) = request.into_parts();
    let read = read_body(body, limits.body_bytes_max, &mut share);
    let bytes = tokio::time::timeout(limits.body_timeout, read).await.map_err(|_| {
        Problem::new(ProblemKind::BodyTimeout, format!("the body did not arrive within {:?}", limits.body_timeout))
    })??;
    if bytes.is_empty() {
        return Err(Problem::new(
            ProblemKind::EmptyBody,
            "send an image as the body, for example: curl --data-binary @cat.jpg",
        ));
    }
    let upload = match form {
        Form::Multipart => multipart(Request::from_parts(parts, Body::from(bytes)), limits.request_images_max).await?,
        Form::Json if !looks_like_an_image(&bytes) => json(bytes, limits.request_images_max).await?,
        Form::Json | Form::Raw => Upload::One(Encoded::Raw(bytes)),
    };
    Ok((upload, share))
}

/// What the content type says about the body as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Multipart,
    Json,
    Raw,
}

impl Form {
    fn of(request: &Request) -> Self {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("multipart/form-data") {
            Self::Multipart
        } else if essence.eq_ignore_ascii_case("application/json") {
            Self::Json
        } else {
            Self::Raw
        }
    }
}

fn looks_like_an_image(bytes: &[u8]) -> bool {
    // A JSON document begins with '{' or white space (RFC 8259); no image format does.
    !bytes.first().is_some_and(|byte| byte.is_ascii_whitespace() || b"{[\"".contains(byte))
        && crate::pipeline::decode::sniff(bytes).is_some()
}

async fn read_body(body: Body, bytes_max: u64, share: &mut UploadShare) -> Result<Bytes, Problem> {
    let too_large = |found: String| {
        Problem::new(
            ProblemKind::BodyTooLarge,
            format!("the body has {found} bytes, at most {bytes_max} are allowed; send a smaller image"),
        )
    };
    let announced = http_body::Body::size_hint(&body).exact();
    let mut body = body;
    if let Some(bytes) = announced.filter(|&bytes| bytes > bytes_max) {
        discard(body).await;
        return Err(too_large(bytes.to_string()));
    }
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut len = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::new(ProblemKind::BodyIncomplete, format!("the body ended after {len} bytes: {error}"))
        })?;
        let Ok(chunk) = frame.into_data() else { continue };
        len += chunk.len() as u64;
        if len > bytes_max {
            discard(body).await;
            return Err(too_large(format!("more than {bytes_max}")));
        }
        share.grow(chunk.len() as u64)?;
        chunks.push(chunk);
    }
    Ok(match <[Bytes; 1]>::try_from(chunks) {
        Ok([whole]) => whole,
        Err(chunks) => chunks.concat().into(),
    })
}

async fn discard(mut body: Body) {
    let read = async {
        let mut left = DISCARD_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let len = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(len) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Either the client stopped sending or it lost its chance.
    let _ = tokio::time::timeout(DISCARD_TIME, read).await;
}

async fn multipart(request: Request, images_max: usize) -> Result<Upload, Problem> {
    let broken = |error: &dyn std::fmt::Display| {
        Problem::new(ProblemKind::BadMultipart, format!("the multipart body is broken: {error}"))
    };
    let mut form = Multipart::from_request(request, &()).await.map_err(|error| broken(&error.body_text()))?;
    let mut images = Vec::new();
    while let Some(part) = form.next_field().await.map_err(|error| broken(&error.body_text()))? {
        if images.len() == images_max {
            return Err(too_many_images(&format!("more than {images_max}"), images_max));
        }
        images.push(Encoded::Raw(part.bytes().await.map_err(|error| broken(&error.body_text()))?));
    }
    match <[Encoded; 1]>::try_from(images) {
        Ok([one]) => Ok(Upload::One(one)),
        Err(images) if images.is_empty() => Err(Problem::new(
            ProblemKind::EmptyBody,
            "the multipart body has no parts; send one part for each image: curl -F image=@cat.jpg",
        )),
        Err(images) => Ok(Upload::Many(images)),
    }
}

/// The JSON forms: one image or a list of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonUpload {
    image: Option<String>,
    images: Option<Vec<String>>,
}

async fn json(bytes: Bytes, images_max: usize) -> Result<Upload, Problem> {
    let bad =
        |detail: String| Problem::new(ProblemKind::BadJson, format!("{detail}; send {{\"image\": \"<base64>\"}}"));
    // A body may be 20 MB of base64: parsing that takes milliseconds, too long for an async thread.
    let parsed = tokio::task::spawn_blocking(move || serde_json::from_slice::<JsonUpload>(&bytes)).await;
    let upload = match parsed {
        Ok(result) => result.map_err(|error| bad(format!("the body is not the JSON that is expected: {error}")))?,
        Err(_) => return Err(bad("the body could not be parsed".to_owned())),
    };
    match (upload.image, upload.images) {
        (Some(image), None) => Ok(Upload::One(Encoded::Base64(image))),
        (None, Some(images)) if images.is_empty() => Err(bad("\"images\" is empty".to_owned())),
        (None, Some(images)) if images.len() > images_max => {
            Err(too_many_images(&images.len().to_string(), images_max))
        }
        (None, Some(images)) => Ok(Upload::Many(images.into_iter().map(Encoded::Base64).collect())),
        (Some(_), Some(_)) => Err(bad("the body has both \"image\" and \"images\"".to_owned())),
        (None, None) => Err(bad("the body has no \"image\"".to_owned())),
    }
}

fn too_many_images(found: &str, images_max: usize) -> Problem {
    Problem::new(
        ProblemKind::TooManyImages,
        format!("the request has {found} images, at most {images_max} are allowed; send several requests"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Failure;

    #[test]
    fn base64_is_taken_with_and_without_padding_scheme_and_line_breaks() {
        for text in ["aGVsbG8=", "aGVsbG8", "data:image/png;base64,aGVsbG8=", "aGVs\nbG8=\n"] {
            assert_eq!(decode_base64(text).unwrap(), "hello", "{text:?}");
        }
        assert_eq!(decode_base64("aGVs*G8=").unwrap_err().kind(), ProblemKind::BadBase64);
    }

    #[test]
    fn upload_memory_is_never_above_its_bound_and_comes_back() {
        let memory = UploadMemory::new(10, IntGauge::new("g", "g").unwrap());
        let (mut a, mut b) = (memory.share(), memory.share());
        a.grow(6).unwrap();
        b.grow(4).unwrap();
        assert_eq!(b.grow(1).unwrap_err().kind(), ProblemKind::Failed(Failure::Overloaded));
        drop(a);
        b.grow(6).unwrap();
        drop(b);
        assert_eq!(memory.held.load(Ordering::Relaxed), 0);
    }
}
