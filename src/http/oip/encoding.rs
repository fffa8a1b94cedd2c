//! Bodies that are compressed on their way: gzip, and deflate, which over HTTP means zlib's format (RFC 9110, 8.4.1).

use std::io::Read;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, header};
use flate2::Compression;
use flate2::read::{GzEncoder, MultiGzDecoder, ZlibDecoder, ZlibEncoder};

use crate::edge::UploadShare;
use crate::http::error::{Problem, ProblemKind};

/// Answers below this size are not worth the time.
const COMPRESS_BYTES_MIN: usize = 1024;
/// What is inflated between two looks at the bounds.
const STEP_BYTES: usize = 64 * 1024;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950.
    Deflate,
}

impl Encoding {
    /// The encoding of a request's body.
    ///
    /// # Errors
    /// [`Problem`] if it is one that is not known.
    pub(super) fn of_request(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(None) };
        let name = value.to_str().unwrap_or("not printable").trim().to_ascii_lowercase();
        match name.as_str() {
            "" | "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "deflate" => Ok(Some(Self::Deflate)),
            _ => Err(Problem::new(
                ProblemKind::UnsupportedEncoding,
                format!("the content encoding is {name:?}; send the body as it is, or with gzip or deflate"),
            )),
        }
    }

    /// The first that the client takes of gzip and deflate.
    pub(super) fn of_answer(headers: &HeaderMap) -> Option<Self> {
        let wanted = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
        let refused = |parameters: &str| {
            let weight = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q="));
            weight.is_some_and(|weight| weight.trim().parse::<f32>().is_ok_and(|weight| weight == 0.0))
        };
        wanted.flat_map(|value| value.split(',')).find_map(|item| {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" if !refused(parameters) => Some(Self::Gzip),
                "deflate" if !refused(parameters) => Some(Self::Deflate),
                _ => None,
            }
        })
    }

    /// The header's value.
    pub(super) fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        })
    }

    /// Unpacks a body into at most `bytes_max` bytes, each charged to `share` before it is held.
    pub(super) fn unpack(self, packed: &[u8], bytes_max: u64, share: &mut UploadShare) -> Result<Bytes, Problem> {
        match self {
            Self::Gzip => read_all(MultiGzDecoder::new(packed), bytes_max, share),
            Self::Deflate => read_all(ZlibDecoder::new(packed), bytes_max, share),
        }
    }

    /// Packs an answer. None where that is not worth it.
    pub(super) fn pack(self, bytes: &[u8]) -> Option<Vec<u8>> {
        if bytes.len() < COMPRESS_BYTES_MIN {
            return None;
        }
        let mut packed = Vec::new();
        // Reading from memory cannot fail.
        let read = match self {
            Self::Gzip => GzEncoder::new(bytes, Compression::fast()).read_to_end(&mut packed),
            Self::Deflate => ZlibEncoder::new(bytes, Compression::fast()).read_to_end(&mut packed),
        };
        read.is_ok().then_some(packed)
    }
}

fn read_all(mut from: impl Read, bytes_max: u64, share: &mut UploadShare) -> Result<Bytes, Problem> {
    let mut bytes = Vec::new();
    loop {
        if bytes.capacity() - bytes.len() < STEP_BYTES {
            // Doubled, and charged before it is there.
            let more = bytes.capacity().max(STEP_BYTES);
            share.grow(more as u64)?;
            bytes.reserve_exact(bytes.capacity() - bytes.len() + more);
        }
        let read = from.by_ref().take(STEP_BYTES as u64).read_to_end(&mut bytes).map_err(|error| {
            Problem::new(ProblemKind::BodyIncomplete, format!("the compressed body is broken: {error}"))
        })?;
        if read == 0 {
            return Ok(bytes.into());
        }
        if bytes.len() as u64 > bytes_max {
            return Err(Problem::new(
                ProblemKind::BodyTooLarge,
                format!("the body unpacks to more than {bytes_max} bytes, which is the most that is allowed"),
            ));
        }
    }
}
