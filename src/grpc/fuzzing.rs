//! Any bytes are a call that is answered, and a message holds no more than was charged for it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, header};
use futures_util::{FutureExt as _, stream};
use http_body_util::BodyExt as _;
use prost::Message as _;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;

use super::arrived::Arrived;
use super::proto::ModelInferRequest;
use super::{Grpc, GrpcLimits, router, scan};
use crate::edge::{Shared, UploadMemory};
use crate::oip::{Oip, OipLimits, fakes};
use crate::pipeline::PreparePool;
use crate::pipeline::decode::budget::MemoryBudget;
use crate::pipeline::decode::{DecodeLimits, DecodeOptions};
use crate::shutdown::{Lifecycle, Phase};
use crate::telemetry::{Metrics, RequestLog, Tracer};

const UPLOAD_BYTES_MAX: u64 = 4 << 20;
const MESSAGE_BYTES_MAX: u64 = 64 << 10;

/// Every call with tensors or names, by the digit in front of the input.
const PATHS: [&str; 10] = [
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelStreamInfer",
    "/inference.GRPCInferenceService/ModelMetadata",
    "/inference.GRPCInferenceService/ModelConfig",
    "/inference.GRPCInferenceService/ModelStatistics",
    "/inference.GRPCInferenceService/RepositoryIndex",
    "/inference.GRPCInferenceService/RepositoryModelUnload",
    "/inference.GRPCInferenceService/ModelReady",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

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
        let uploads = UploadMemory::new(UPLOAD_BYTES_MAX);
        let lifecycle = Lifecycle::new();
        lifecycle.advance(Phase::Ready);
        let (phases, metrics) = (lifecycle.phases(), Metrics::new());
        let models = fakes::models(&pool, &metrics);
        let timeout = Duration::from_secs(10);
        let oip_limits = OipLimits {
            request_images_max: 4,
            request_bytes_max: MESSAGE_BYTES_MAX,
            request_timeout: timeout,
            model_control: crate::oip::ModelControl::Here,
        };
        let oip = Oip::new(models, phases.clone(), pool.clone(), oip_limits);
        let limits = GrpcLimits {
            message_bytes_max: MESSAGE_BYTES_MAX,
            calls_max: 16,
            stream_requests_max: 4,
            stream_timeout: timeout,
            body_timeout: timeout,
        };
        let (tracer, log) = (Tracer::default(), RequestLog::new(0));
        let shared = Shared { uploads: uploads.clone(), phases, metrics, tracer, log };
        let router = router(Grpc::new(oip, limits, pool.clone(), shared, crate::guard::Guard::default()));
        Self { runtime: runtime.expect("an async runtime"), router, pool, uploads }
    }
}

/// Reads the first byte of `data` as the method, the second as the encoding of messages, the third as where the body is cut
/// in two, and the rest as the body, heads of messages included. Whatever it is, the call ends with a status, the status is
/// not the server's fault, and nothing of the call is held any more. True for OK.
pub fn call(data: &[u8]) -> bool {
    let &[path, encoding, cut, ref body @ ..] = data else { return false };
    let (first, second) = body.split_at(usize::from(cut).min(body.len()));
    let chunks = [first, second].map(|chunk| Ok::<_, std::convert::Infallible>(Bytes::copy_from_slice(chunk)));
    let mut request = Request::new(Body::from_stream(stream::iter(chunks)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = PATHS[usize::from(path) % PATHS.len()].parse().expect("a path of letters");
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let encoding = [None, Some("gzip"), Some("deflate")][usize::from(encoding) % 3];
    if let Some(encoding) = encoding {
        request.headers_mut().insert("grpc-encoding", HeaderValue::from_static(encoding));
    }
    SERVER.with(|server| {
        server.runtime.block_on(async {
            let answer = server.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
            let (head, body) = answer.into_parts();
            let body = body.collect().await.expect("an answer that ends in a status");
            let status = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
            let status = status.or_else(|| head.headers.get("grpc-status")).expect("a status");
            // UNKNOWN, INTERNAL and DATA_LOSS are the server's fault.
            let is_ours = ["2", "13", "15"].contains(&status.to_str().expect("a number"));
            // Health and reflection are tonic's, which calls a message that cannot be decoded INTERNAL; and so gRPC calls one
            // that says it is packed where the call's head says nothing of it.
            let of_tonic = status == "13" && (usize::from(path) % PATHS.len() >= 8 || encoding.is_none());
            assert!(!is_ours || of_tonic, "{status:?} {head:?}");
            for _ in 0..10_000 {
                if (server.uploads.held_bytes(), server.pool.memory_bytes()) == (0, 0) {
                    return status == "0";
                }
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            panic!("{} bytes of uploads stay", server.uploads.held_bytes());
        })
    })
}

/// Reads `data` as a `ModelInferRequest`. What prost decodes holds no more than the scan foretold, and what the scan refuses
/// is refused. True for a request.
pub fn message(data: &[u8]) -> bool {
    let memory = UploadMemory::new(UPLOAD_BYTES_MAX);
    let pool = PreparePool::new(1, Arc::new(MemoryBudget::new(0)), DecodeOptions::default());
    let arrived = Arrived { message: Bytes::copy_from_slice(data), share: memory.share() };
    let decoded = arrived.decoded(&pool, Duration::ZERO).now_or_never().expect("a small message waits for nothing");
    let foretold = scan::decoded_bytes(data);
    let prost = ModelInferRequest::decode(data).ok();
    if let (Ok(bytes), Some(message)) = (&foretold, &prost) {
        let held = held_bytes(message);
        assert!(held <= *bytes, "{held} bytes are held, {bytes} were foretold");
        let parts = message.inputs.len() + message.outputs.len() + message.raw_input_contents.len();
        assert!(parts <= scan::PARTS_MAX, "{parts} parts");
    }
    let taken = match decoded {
        Ok(decoded) => {
            assert!(foretold.is_ok() && prost.is_some());
            if let Ok((request, _)) = &decoded.request {
                assert_eq!(request.inputs.len(), prost.map_or(0, |message| message.inputs.len()));
            }
            decoded.request.is_ok()
        }
        Err(_) => {
            assert!(foretold.map_or(true, |bytes| bytes > UPLOAD_BYTES_MAX) || prost.is_none());
            false
        }
    };
    assert_eq!(memory.held_bytes(), 0);
    taken
}

/// The memory of values and shapes, with the room that vectors have ahead.
fn held_bytes(message: &ModelInferRequest) -> u64 {
    fn room<T>(values: &Vec<T>) -> usize {
        // The first room that a vector takes is of four to eight values, however few come.
        if values.len() <= 8 { size_of_val(&values[..]) } else { values.capacity() * size_of::<T>() }
    }
    let bytes = message.inputs.iter().map(|input| {
        let contents = input.contents.as_ref().map_or(0, |contents| {
            room(&contents.bool_contents)
                + room(&contents.int_contents)
                + room(&contents.int64_contents)
                + room(&contents.uint_contents)
                + room(&contents.uint64_contents)
                + room(&contents.fp32_contents)
                + room(&contents.fp64_contents)
                + room(&contents.bytes_contents)
        });
        contents + room(&input.shape)
    });
    bytes.sum::<usize>() as u64
}
