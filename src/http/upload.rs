//! Request body -> image bytes, under bounds: bytes of one body, bytes of all bodies, time, number of images.
//!
//! What a body holds follows from its content type (multipart, JSON, else raw). What an *image* is, its bytes decide:
//! a JPEG that is sent as JSON is still taken as a JPEG. `forms.rs` takes the forms apart.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt as _;

use super::error::{Problem, ProblemKind};
use super::forms::{self, Form, Upload};
use super::limits::HttpLimits;
use crate::edge::{UploadMemory, UploadShare};
use crate::pipeline::PreparePool;

/// Beside an early refusal, this much of the body is still read and thrown away, so that a client that is sending gets
/// to read the answer instead of a reset connection.
const DISCARD_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// And for at most this long.
const DISCARD_TIME: Duration = Duration::from_secs(5);
/// A body's buffer grows from here, doubling. Most photos of the size that models see fit at once.
const BUFFER_BYTES_MIN: usize = 64 * 1024;

/// A request's images, and what goes with them.
#[derive(Debug)]
pub(super) struct Received {
    /// The images.
    pub upload: Upload,
    /// Must live as long as the images do.
    pub share: UploadShare,
    /// When the answer is too late, counted from the end of the body.
    pub deadline: Instant,
}

/// Reads the whole body of `request` and finds its images.
pub(super) async fn receive(
    request: Request,
    limits: &HttpLimits,
    memory: &UploadMemory,
    pool: &PreparePool,
) -> Result<Received, Problem> {
    let form = Form::of(request.headers());
    let Whole { bytes, mut share, deadline } = plain(request, limits, memory).await?;
    let images_max = limits.request_images_max;
    let form = match form {
        Form::Raw => return Ok(Received { upload: Upload::One(Ok(bytes)), share, deadline }),
        Form::Json if forms::looks_like_an_image(&bytes) => {
            return Ok(Received { upload: Upload::One(Ok(bytes)), share, deadline });
        }
        Form::Json | Form::Multipart(_) => form,
    };
    // The parts are copies of the body.
    share.grow(bytes.len() as u64)?;
    // A form of 20 MB takes milliseconds to take apart, too long for an async thread.
    let (upload, share) = pool.run(deadline, move || (form.images(bytes, images_max), share)).await?;
    Ok(Received { upload: upload?, share, deadline })
}

/// Reads a body that must not be empty and not be encoded.
pub(super) async fn plain(request: Request, limits: &HttpLimits, memory: &UploadMemory) -> Result<Whole, Problem> {
    if let Some(encoding) = unsupported_encoding(request.headers()) {
        refuse(request);
        return Err(Problem::new(
            ProblemKind::UnsupportedEncoding,
            format!("the content encoding is {encoding}; send the image as it is, photos hardly compress further"),
        ));
    }
    let whole = whole(request, limits, memory).await?;
    if whole.bytes.is_empty() {
        return Err(Problem::new(
            ProblemKind::EmptyBody,
            "the body is empty; send an image, for example with curl --data-binary @cat.jpg, or the JSON that this route takes",
        ));
    }
    Ok(whole)
}

/// One body, as it came.
#[derive(Debug)]
pub(super) struct Whole {
    /// Its bytes.
    pub bytes: Bytes,
    /// Must live as long as they do.
    pub share: UploadShare,
    /// When the answer is too late, counted from the end of the body.
    pub deadline: Instant,
}

/// Reads the whole body of `request`, whatever it holds.
pub(super) async fn whole(request: Request, limits: &HttpLimits, memory: &UploadMemory) -> Result<Whole, Problem> {
    let refusal = Refusal::of(request.headers());
    let mut share = memory.share();
    let read = read_body(request.into_body(), limits.body_bytes_max, &mut share, refusal);
    let bytes = tokio::time::timeout(limits.body_timeout, read).await.map_err(|_| {
        Problem::new(ProblemKind::BodyTimeout, format!("the body did not arrive within {:?}", limits.body_timeout))
    })??;
    Ok(Whole { bytes, share, deadline: Instant::now() + limits.request_timeout })
}

/// The content encoding, if there is one. Images are compressed already, and a body that grows when it is unpacked would
/// need bounds of its own.
fn unsupported_encoding(headers: &HeaderMap) -> Option<String> {
    let encoding = headers.get(header::CONTENT_ENCODING)?.to_str().unwrap_or("not printable").trim();
    (!encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity")).then(|| encoding.to_owned())
}

/// What to do with the rest of a body that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Read it and throw it away: the client is sending already.
    Discard,
    /// Leave it: the client asked first (`Expect: 100-continue`) and reading would tell it to go on.
    Leave,
}

impl Refusal {
    fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(header::EXPECT) { Self::Leave } else { Self::Discard }
    }
}

/// Refuses `request` before its body was looked at: reads the body away where the client is sending it already.
pub(super) fn refuse(request: Request) {
    match Refusal::of(request.headers()) {
        Refusal::Discard => discard(request.into_body()),
        Refusal::Leave => {}
    }
}

/// Copies the body into one buffer and charges that buffer's capacity. hyper's own chunks are not kept: each may hold on
/// to a read buffer of 8 KiB up to 400 KiB, however few bytes it carries, and does not tell how many, so it could not be
/// charged; and hyper would have to take a new one. Decoders want contiguous bytes, and bodies worth sparing a copy come in
/// several chunks. The copy costs 3 to 7 microseconds for a photo of 110 KiB, half a percent of decoding it at most.
async fn read_body(body: Body, bytes_max: u64, share: &mut UploadShare, refusal: Refusal) -> Result<Bytes, Problem> {
    let too_large = |found: String| {
        Problem::new(
            ProblemKind::BodyTooLarge,
            format!(
                "the body has {found} bytes, at most {bytes_max} are allowed; send a smaller image, or several requests"
            ),
        )
    };
    let announced = http_body::Body::size_hint(&body).exact();
    let mut body = body;
    if let Some(bytes) = announced.filter(|&bytes| bytes > bytes_max) {
        if refusal == Refusal::Discard {
            discard(body);
        }
        return Err(too_large(bytes.to_string()));
    }
    let mut buffer = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let found = buffer.len();
            Problem::new(ProblemKind::BodyIncomplete, format!("the body ended after {found} bytes: {error}"))
        })?;
        let Ok(chunk) = frame.into_data() else { continue };
        let len = buffer.len() + chunk.len();
        if len as u64 > bytes_max {
            discard(body);
            return Err(too_large(format!("more than {bytes_max}")));
        }
        if len > buffer.capacity()
            && let Err(problem) = grow(&mut buffer, len, announced, bytes_max, share)
        {
            discard(body);
            return Err(problem);
        }
        buffer.extend_from_slice(&chunk);
    }
    Ok(buffer.into())
}

/// Makes room for `len` bytes: at once for all that was announced, up to a first step; then by doubling.
fn grow(
    buffer: &mut Vec<u8>,
    len: usize,
    announced: Option<u64>,
    bytes_max: u64,
    share: &mut UploadShare,
) -> Result<(), Problem> {
    let most = usize::try_from(announced.unwrap_or(bytes_max)).unwrap_or(usize::MAX);
    let capacity = len.max(buffer.capacity() * 2).max(BUFFER_BYTES_MIN).min(most.max(len));
    share.grow((capacity - buffer.capacity()) as u64)?;
    buffer.reserve_exact(capacity - buffer.len());
    Ok(())
}

/// Reads the rest of a body away beside the answer, which does not wait for it.
fn discard(mut body: Body) {
    let read = async move {
        let mut left = DISCARD_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let len = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(len) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Ends with the body, at its bound, or after its time: then the client lost its chance to read the answer.
    tokio::spawn(tokio::time::timeout(DISCARD_TIME, read));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_in_single_bytes_is_charged_for_what_it_holds() {
        let memory = UploadMemory::new(1 << 20);
        let mut share = memory.share();
        let bytes: Vec<u8> = (0..100_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let single = bytes.iter().map(|&byte| Ok::<_, std::io::Error>(Bytes::from(vec![byte]))).collect::<Vec<_>>();
        let body = Body::from_stream(futures_util::stream::iter(single));
        let read = read_body(body, 200_000, &mut share, Refusal::Discard).await.unwrap();
        assert_eq!(read, bytes);
        assert!((100_000..=200_000).contains(&memory.held_bytes()), "{}", memory.held_bytes());
    }

    #[tokio::test]
    async fn a_body_with_a_length_takes_no_more_than_that() {
        let memory = UploadMemory::new(1 << 20);
        let mut share = memory.share();
        let read = read_body(Body::from(vec![7; 70_000]), 200_000, &mut share, Refusal::Discard).await.unwrap();
        assert_eq!((read.len(), memory.held_bytes()), (70_000, 70_000));
    }
}
