//! Any bytes are a request that is answered, and forms are taken apart without loss.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;

pub use super::compat::items;
use super::error::{Problem, ProblemKind};
use super::forms::{self, Form, Upload};
use super::limits::HttpLimits;
pub use super::oip::fuzzing::tensors;
use super::{App, MultiModel, Side, VertexRoutes, router};
use crate::apis::Apis;
use crate::edge::{REQUEST_ID, Shared, UploadMemory};
use crate::models::fakes;
use crate::oip::{Oip, OipLimits};
use crate::pipeline::PreparePool;
use crate::pipeline::decode::budget::MemoryBudget;
use crate::pipeline::decode::{DecodeLimits, DecodeOptions};
use crate::shutdown::{Lifecycle, Phase};
use crate::telemetry::{Metrics, RequestLog, Tracer};

const BODY_BYTES_MAX: u64 = 64 << 10;
const IMAGES_MAX: usize = 4;

/// A server, but for its sockets.
struct Server {
    runtime: Runtime,
    router: Router,
    pool: PreparePool,
    uploads: UploadMemory,
}

thread_local! {
    static SERVER: Server = Server::new();
}

impl Server {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(2).build();
        let limits = DecodeLimits { width_max: 512, height_max: 512, pixels_max: 1 << 16 };
        let options = DecodeOptions { limits, ..DecodeOptions::default() };
        let pool = PreparePool::new(1, Arc::new(MemoryBudget::new(16 << 20)), options);
        let uploads = UploadMemory::new(1 << 20);
        let lifecycle = Lifecycle::new();
        lifecycle.advance(Phase::Ready);
        let (phases, metrics) = (lifecycle.phases(), Metrics::new());
        let models = fakes::models(&pool, &metrics);
        let timeout = Duration::from_secs(10);
        let oip_limits = OipLimits {
            request_images_max: IMAGES_MAX,
            request_bytes_max: BODY_BYTES_MAX,
            request_timeout: timeout,
            model_control: crate::oip::ModelControl::Here,
        };
        let limits = HttpLimits {
            body_bytes_max: BODY_BYTES_MAX,
            request_images_max: IMAGES_MAX,
            body_timeout: timeout,
            request_timeout: timeout,
        };
        let oip = Oip::new(models.clone(), phases.clone(), pool.clone(), oip_limits);
        let (tracer, log) = (Tracer::default(), RequestLog::new(0));
        let shared = Shared { uploads: uploads.clone(), phases, metrics, tracer, log };
        let root = MultiModel { root: "/nonexistent".into() };
        let vertex = VertexRoutes { predict: "/vertex".to_owned(), health: "/vertex/health".to_owned() };
        let app =
            App::new(Apis::all(), oip, models, limits, pool.clone(), shared).on_platform(Some(root), Some(vertex));
        Self { runtime: runtime.expect("an async runtime"), router: router(&app, Side::Everything), pool, uploads }
    }

    /// Answers, and waits until nothing of the request is left: work for a caller that has its answer may still end.
    fn answer(&self, request: Request) -> (StatusCode, HeaderMap, Bytes) {
        self.runtime.block_on(async {
            let answer = self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
            let (head, body) = answer.into_parts();
            let body = body.collect().await.expect("an answer from memory").to_bytes();
            for _ in 0..10_000 {
                if (self.uploads.held_bytes(), self.pool.memory_bytes()) == (0, 0) {
                    return (head.status, head.headers, body);
                }
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            panic!("{} bytes of uploads and {} of decodes stay", self.uploads.held_bytes(), self.pool.memory_bytes());
        })
    }
}

/// Reads `data` as `METHOD target`, lines of headers, an empty line and a body, and asks a whole server with two models that
/// compute nothing. Whatever it is, the server answers, blames itself for nothing, says which request it was, writes JSON
/// that is JSON, and holds nothing of it any more. True for an answer that is no error.
pub fn request(data: &[u8]) -> bool {
    let Some(request) = read_request(data) else { return false };
    let (status, headers, body) = SERVER.with(|server| server.answer(request));
    let text = String::from_utf8_lossy(&body);
    assert!(
        !status.is_server_error() || status == StatusCode::NOT_IMPLEMENTED || status == StatusCode::SERVICE_UNAVAILABLE,
        "{status}: {text}"
    );
    assert!(headers.contains_key(REQUEST_ID), "{status}: {text}");
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_json = ["application/json", "application/problem+json"].contains(&content_type);
    if is_json && !headers.contains_key(header::CONTENT_ENCODING) {
        let parsed = serde_json::from_slice::<Value>(&body);
        assert!(parsed.is_ok(), "{status}: {:?}: {text}", parsed.err());
    }
    status.is_success()
}

fn read_request(data: &[u8]) -> Option<Request> {
    let at = data.windows(2).position(|pair| pair == b"\n\n")?;
    let mut lines = data[..at].split(|&byte| byte == b'\n');
    let line = lines.next()?;
    let space = line.iter().position(|&byte| byte == b' ')?;
    let mut request = Request::new(Body::from(data[at + 2..].to_vec()));
    *request.method_mut() = Method::from_bytes(&line[..space]).ok()?;
    *request.uri_mut() = Uri::try_from(&line[space + 1..]).ok().filter(|uri| uri.path().starts_with('/'))?;
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some(request)
}

/// Reads the first line of `data` as a content type and the rest as a body of the native API. Multipart: what comes out is
/// in the body, and goes through another form unchanged. JSON: what a tree of values holds comes out, and nothing else. True for a form.
pub fn forms(data: &[u8]) -> bool {
    let (line, body) = data.split_at(data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len()));
    let body = Bytes::copy_from_slice(body.get(1..).unwrap_or_default());
    let Ok(content_type) = HeaderValue::from_bytes(line) else { return false };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, content_type.clone());
    let form = Form::of(&headers);
    let upload = form.clone().images(body.clone(), IMAGES_MAX);
    let is_form = upload.is_ok();
    match form {
        Form::Raw => assert!(matches!(upload, Ok(Upload::One(Ok(image))) if image == body)),
        Form::Json => json(&body, upload),
        Form::Multipart(_) => {
            let images = match upload {
                Ok(Upload::One(image)) => vec![image.expect("a part has nothing to be wrong")],
                Ok(Upload::Many(images)) => {
                    images.into_iter().map(|image| image.expect("a part has nothing to be wrong")).collect()
                }
                Err(problem) => {
                    multipart_problem(&problem);
                    return false;
                }
            };
            multipart(&body, &images);
            match forms::parts_named("data", content_type, body.clone(), IMAGES_MAX) {
                Ok(images) => multipart(&body, &images),
                Err(problem) => multipart_problem(&problem),
            }
        }
    }
    is_form
}

fn multipart_problem(problem: &Problem) {
    let expected = [ProblemKind::BadMultipart, ProblemKind::EmptyBody, ProblemKind::TooManyImages];
    assert!(expected.contains(&problem.kind()), "{problem:?}");
}

fn multipart(body: &Bytes, images: &[Bytes]) {
    assert!((1..=IMAGES_MAX).contains(&images.len()));
    assert!(images.iter().map(Bytes::len).sum::<usize>() <= body.len());
    let is_part = |part: &[u8], whole: &[u8]| part.is_empty() || whole.windows(part.len()).any(|at| at == part);
    const BOUNDARY: &str = "the-other-form";
    let mut again = Vec::new();
    for image in images {
        assert!(is_part(image, body), "a part that was not in the body");
        if is_part(BOUNDARY.as_bytes(), image) {
            return;
        }
        let head = "content-disposition: form-data; name=\"data\"; filename=\"a\"";
        again.extend_from_slice(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").as_bytes());
        again.extend_from_slice(image);
        again.extend_from_slice(b"\r\n");
    }
    again.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    let content_type = HeaderValue::try_from(format!("multipart/form-data; boundary={BOUNDARY}"));
    let content_type = content_type.expect("a boundary of letters");
    let read = forms::parts_named("data", content_type, again.into(), IMAGES_MAX);
    assert_eq!(read.expect("a form as clients write it"), images);
}

fn json(body: &Bytes, upload: Result<Upload, Problem>) {
    let tree = serde_json::from_slice::<Value>(body).ok();
    let only = tree.as_ref().and_then(Value::as_object).filter(|object| object.len() == 1);
    let (image, images) = (only.and_then(|only| only.get("image")), only.and_then(|only| only.get("images")));
    match upload {
        Ok(Upload::One(read)) => same_image(image.and_then(Value::as_str).expect("an image in the tree"), read),
        Ok(Upload::Many(read)) => {
            let images = images.and_then(Value::as_array).expect("images in the tree");
            assert!(images.len() == read.len() && (1..=IMAGES_MAX).contains(&read.len()));
            for (text, read) in images.iter().zip(read) {
                same_image(text.as_str().expect("a text"), read);
            }
        }
        Err(problem) if problem.kind() == ProblemKind::TooManyImages => {
            // The rest of the body was not read.
        }
        Err(problem) => {
            assert_eq!(problem.kind(), ProblemKind::BadJson);
            let texts = images.and_then(Value::as_array).is_some_and(|images| {
                !images.is_empty() && images.len() <= IMAGES_MAX && images.iter().all(Value::is_string)
            });
            // A tree keeps the last of several members of one name.
            let twice = format!("{problem:?}").contains("duplicate field");
            assert!(twice || !(texts || image.is_some_and(Value::is_string)), "{problem:?}");
        }
    }
}

fn same_image(text: &str, read: Result<Bytes, Problem>) {
    match read {
        Ok(read) => assert_eq!(read, base64_by_hand(text)),
        Err(problem) => assert_eq!(problem.kind(), ProblemKind::BadBase64),
    }
}

/// Six bits a character, and whatever is none of the alphabet left out: right where the text is valid.
pub(super) fn base64_by_hand(text: &str) -> Vec<u8> {
    let payload = match text.split_once(";base64,") {
        Some((scheme, payload)) if scheme.starts_with("data:") => payload,
        _ => text,
    };
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for byte in payload.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}
