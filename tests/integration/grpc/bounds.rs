//! Clients that send too much, too little, or too slowly.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::client::conn::http2::Builder;
use hyper_util::rt::TokioExecutor;
use prost::Message as _;
use residual::grpc::proto::infer_parameter::ParameterChoice;
use residual::grpc::proto::model_infer_request::InferInputTensor;
use residual::grpc::proto::{InferParameter, ModelInferRequest, ServerLiveRequest, ServerReadyRequest};
use tokio::sync::oneshot;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use super::client::{
    Connection, INFER, MODEL, STREAM, client, framed, photos, pieces, samples, stalling, until, whole,
};
use crate::support::{PATIENCE, TestServer, photo};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const IN_FLIGHT: &str = "residual_requests_in_flight";
const MEMORY: &str = "residual_upload_memory_bytes";
const QUEUE: &str = "residual_queue_images{model=\"resnet20-cifar10\",version=\"1\"}";

/// Asks reflection for its list, in a message of about so many bytes.
fn listing(len: usize) -> Vec<u8> {
    let message_request = Some(MessageRequest::ListServices(String::new()));
    framed(&ServerReflectionRequest { host: "h".repeat(len), message_request }.encode_to_vec())
}

/// A packed message with its head.
fn packed(message: &[u8]) -> Vec<u8> {
    let mut framed = framed(message);
    framed[0] = 1;
    framed
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn outcome(code: &str, model: &str) -> String {
    format!("residual_requests_total{{model=\"{model}\",outcome=\"{code}\",route=\"{INFER}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_may_be_as_large_as_the_settings_say_and_no_larger() {
    let message = samples(&[0.5]).encode_to_vec();
    let exact = message.len().to_string() + "B";
    let server = TestServer::start(&["--grpc-message-bytes-max", &exact]).await;
    let (mut connection, _) = Connection::open(server.grpc_address()).await;
    assert_eq!(connection.status(INFER, &[], pieces([framed(&message)])).await.0, Code::Ok);
    let mut larger = samples(&[0.5]);
    larger.id = "x".to_owned();
    let (code, text) = connection.status(INFER, &[], whole(&larger)).await;
    assert_eq!(code, Code::ResourceExhausted);
    assert!(text.contains(&format!("at most {} are allowed", message.len())), "{text}");
    // A head alone is enough to be refused, and no room is made for what it claims.
    let (code, _) = connection.status(INFER, &[], stalling([vec![0, 255, 255, 255, 255]])).await;
    assert_eq!(code, Code::ResourceExhausted);
    server.until_metric(&outcome("body_too_large", ""), 2.0).await;
    server.until_metric(MEMORY, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_messages_are_unpacked_within_the_same_bound() {
    let server = TestServer::start(&["--grpc-message-bytes-max", "20KiB"]).await;
    let (mut connection, _) = Connection::open(server.grpc_address()).await;
    let message = samples(&[0.5]).encode_to_vec();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(&message).unwrap();
    for (encoding, bytes) in [("gzip", gzip(&message)), ("deflate", zlib.finish().unwrap())] {
        let body = pieces([packed(&bytes)]);
        assert_eq!(connection.status(INFER, &[("grpc-encoding", encoding)], body).await.0, Code::Ok, "{encoding}");
    }
    // An announced packing does not oblige.
    let plain = pieces([framed(&message)]);
    assert_eq!(connection.status(INFER, &[("grpc-encoding", "gzip")], plain).await.0, Code::Ok);
    for (encoding, body, code, says) in [
        ("gzip", packed(&gzip(&vec![0; 1 << 20])), Code::ResourceExhausted, "more than 20480 bytes"),
        ("gzip", packed(b"no gzip"), Code::InvalidArgument, "cannot be unpacked"),
        ("zstd", packed(&message), Code::Unimplemented, "gzip or deflate"),
        ("identity", packed(&message), Code::Internal, ""),
    ] {
        let (found, text) = connection.status(INFER, &[("grpc-encoding", encoding)], pieces([body])).await;
        assert_eq!(found, code, "{encoding}: {text}");
        assert!(text.contains(says), "{text}");
    }
    server.until_metric(MEMORY, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_thousands_of_tensors_is_refused_before_it_grows() {
    let server = TestServer::start(&[]).await;
    let mut client = client(server.grpc_address()).await;
    // Two bytes each on the wire, hundreds in memory.
    let request = ModelInferRequest { inputs: vec![InferInputTensor::default(); 1_000_000], ..Default::default() };
    let refused = client.model_infer(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("more than 256 tensors"), "{}", refused.message());
    server.until_metric(MEMORY, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_message_ends_with_its_time_and_keeps_nothing() {
    let server = TestServer::start(&["--body-timeout", "100ms"]).await;
    let (mut connection, _) = Connection::open(server.grpc_address()).await;
    let message = framed(&samples(&[0.5; 8]).encode_to_vec());
    for (path, first) in [
        (INFER, vec![]),
        (INFER, vec![vec![0]]),
        (INFER, vec![message[..70_000].to_vec()]),
        // Whole, and never ended.
        (INFER, vec![message.clone()]),
        (STREAM, vec![message[..3].to_vec()]),
        (STREAM, vec![message[..70_000].to_vec()]),
        // What came before is answered.
        (STREAM, vec![message.clone(), message[..100].to_vec()]),
        (CHECK, vec![vec![0, 0]]),
    ] {
        let (code, text) = connection.status(path, &[], stalling(first)).await;
        assert_eq!(
            (code, text.as_str()),
            (Code::DeadlineExceeded, "the message did not arrive within 100ms"),
            "{path}"
        );
    }
    server.until_metric(MEMORY, 0.0).await;
    server.until_metric(IN_FLIGHT, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_within_a_message_is_said_to() {
    let server = TestServer::start(&[]).await;
    let (mut connection, _) = Connection::open(server.grpc_address()).await;
    let message = framed(&samples(&[0.5]).encode_to_vec());
    let mut neither = message.clone();
    neither[0] = 2;
    for (path, body, says) in [
        (INFER, Vec::new(), "there is none"),
        (INFER, vec![neither], "its compression flag is 2"),
        (INFER, vec![message[..4].to_vec()], "after 4 of 5 bytes"),
        (INFER, vec![message[..105].to_vec()], "after 100 of"),
        (STREAM, vec![message.clone(), message[..105].to_vec()], "after 100 of"),
        (INFER, vec![message.clone(), message.clone()], "a second message came"),
        (INFER, vec![framed(&[0x2a, 200])], "is no message of this call"),
        (INFER, vec![framed(&[0x0b])], "is no message of this call"),
        // A name that is no text, and one that is a number.
        (INFER, vec![framed(&[0x0a, 1, 0xff])], "not UTF-8"),
        (INFER, vec![framed(&[0x08, 1])], "invalid wire type"),
        ("/inference.GRPCInferenceService/ModelReady", vec![framed(&[0x08, 1])], "invalid wire type"),
    ] {
        let (code, text) = connection.status(path, &[], pieces(body)).await;
        assert_eq!(code, Code::InvalidArgument, "{text}");
        assert!(text.contains(says), "{says}: {text}");
    }
    server.until_metric(MEMORY, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_uploads_share_one_memory_whatever_their_wire() {
    let flags = ["--upload-memory-max", "200KiB", "--body-bytes-max", "100KiB", "--grpc-message-bytes-max", "150KiB"];
    let server = TestServer::start(&flags).await;
    let (mut connection, _) = Connection::open(server.grpc_address()).await;
    let message = framed(&samples(&[0.5; 10]).encode_to_vec());
    let mut other = connection.clone();
    let half = message[..message.len() - 1].to_vec();
    let waiting = tokio::spawn(async move { other.status(INFER, &[], stalling([half])).await });
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    server.until_metric(MEMORY, message.len() as f64).await;
    let (code, text) = connection.status(INFER, &[], pieces([message.clone()])).await;
    assert_eq!(code, Code::ResourceExhausted, "{text}");
    assert!(text.contains("may hold 204800 bytes"), "{text}");
    server.classify(vec![0; 90 * 1024]).await.assert_problem(503, "overloaded");
    server.until_metric(&outcome("overloaded", ""), 1.0).await;
    waiting.abort();
    server.until_metric(MEMORY, 0.0).await;
    server.until_metric(&outcome("client_left", ""), 1.0).await;
    assert_eq!(connection.status(INFER, &[], pieces([message])).await.0, Code::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_calls_are_bounded() {
    let server = TestServer::start(&["--grpc-calls-max", "2"]).await;
    let (mut connection, _) = Connection::open(server.grpc_address()).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let (end, ended) = oneshot::channel();
        open.push((connection.call(STREAM, &[], until([], ended)).await, end));
    }
    let (code, text) = connection.status(INFER, &[], whole(&samples(&[0.5]))).await;
    assert_eq!(code, Code::ResourceExhausted);
    assert!(text.contains("2 calls of this kind are open"), "{text}");
    // Probes have places of their own, and watches.
    assert_eq!(connection.status(CHECK, &[], pieces([vec![0; 5]])).await.0, Code::Ok);
    let mut other = client(server.grpc_address()).await;
    assert!(other.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(other.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let mut watches = Vec::new();
    for _ in 0..2 {
        watches.push(connection.call("/grpc.health.v1.Health/Watch", &[], pieces([vec![0; 5]])).await);
    }
    assert_eq!(connection.status(CHECK, &[], pieces([vec![0; 5]])).await.0, Code::Ok);
    drop(watches);
    drop(open);
    server.until_metric(IN_FLIGHT, 1.0).await;
    assert_eq!(connection.status(INFER, &[], whole(&samples(&[0.5]))).await.0, Code::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_ends_with_its_time() {
    let server = TestServer::start(&["--grpc-stream-timeout", "150ms"]).await;
    let (mut connection, _) = Connection::open(server.grpc_address()).await;
    let message = framed(&samples(&[0.5]).encode_to_vec());
    for (path, first) in [(STREAM, vec![]), (STREAM, vec![message.clone(), message])] {
        let (code, text) = connection.status(path, &[], stalling(first)).await;
        assert_eq!(code, Code::DeadlineExceeded, "{path}: {text}");
        assert!(text.starts_with("nothing came on the stream for 150ms"), "{text}");
    }
    // Reflection comes from elsewhere, and calls such an end a good one.
    assert_eq!(connection.status(REFLECTION, &[], stalling([listing(10)])).await.0, Code::Ok);
    server.until_metric(IN_FLIGHT, 1.0).await;
    server.until_metric(MEMORY, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_still_holds_of_its_messages_is_charged() {
    let server = TestServer::start(&[]).await;
    let (mut connection, _) = Connection::open(server.grpc_address()).await;
    // Nothing stays of tensors once they are answered.
    let tensors = framed(&samples(&[0.5; 8]).encode_to_vec());
    let open = connection.call(STREAM, &[], stalling([tensors])).await;
    let mut answers = open.into_body();
    answers.frame().await.unwrap().unwrap();
    server.until_metric(MEMORY, 0.0).await;
    // Of other messages tonic keeps the room of the largest.
    let (large, small) = (listing(2000), listing(10));
    let charged = large.len();
    let (end, ended) = oneshot::channel();
    let mut other = connection.call(REFLECTION, &[], until([large, small], ended)).await.into_body();
    other.frame().await.unwrap().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    server.until_metric(MEMORY, charged as f64).await;
    drop((end, other, answers));
    server.until_metric(MEMORY, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_quotes_no_more_than_a_client_can_read() {
    let server = TestServer::start(&[]).await;
    let (mut connection, _) = Connection::open(server.grpc_address()).await;
    let service = HealthCheckRequest { service: "s".repeat(500_000) };
    let path = format!("/a.Service/{}", "m".repeat(8_000));
    for (path, body, code) in
        [(CHECK, framed(&service.encode_to_vec()), Code::NotFound), (path.as_str(), vec![0; 5], Code::Unimplemented)]
    {
        let (found, text) = connection.status(path, &[], pieces([body])).await;
        assert_eq!(found, code, "{text}");
        assert!(text.len() < 1024, "{}", text.len());
        assert!(text.contains("[...]") && text.contains("reflection lists"), "{text}");
    }
    // Reflection's own errors quote as well.
    let message_request = Some(MessageRequest::FileContainingSymbol("s".repeat(3000)));
    let symbol = ServerReflectionRequest { host: String::new(), message_request };
    let (code, text) = connection.status(REFLECTION, &[], whole(&symbol)).await;
    assert!(text.len() < 1024, "{code} {}", text.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_reads_no_further_than_it_may_answer_at_once() {
    let flags =
        ["--batch-delay", "1h", "--batch-images-max", "8", "--grpc-stream-requests-max", "3", "--instances", "1"];
    let server = TestServer::start(&flags).await;
    let (mut connection, _) = Connection::open(server.grpc_address()).await;
    let message = framed(&samples(&[0.5]).encode_to_vec());
    let _open = connection.call(STREAM, &[], stalling(vec![message; 6])).await;
    server.until_metric(QUEUE, 3.0).await;
    // One more makes eight if the stream has let five through.
    let mut client = client(server.grpc_address()).await;
    let more = tokio::time::timeout(Duration::from_millis(300), client.model_infer(samples(&[0.5; 4]))).await;
    assert!(more.is_err(), "seven wait for an eighth");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_ahead_is_a_photo_and_not_much_more() {
    let flags = ["--batch-delay", "1h", "--batch-images-max", "8", "--grpc-stream-requests-max", "1"];
    let server = TestServer::start(&flags).await;
    let mut frugal = Builder::new(TokioExecutor::new());
    frugal.max_send_buf_size(16 * 1024);
    let (mut connection, _) = Connection::with(server.grpc_address(), &frugal).await;
    let message = framed(&samples(&[0.5]).encode_to_vec());
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let body = stalling(vec![message; 100]).inspect(move |message| {
        counter.fetch_add(message.len(), Ordering::Relaxed);
    });
    let _open = connection.call(STREAM, &[], body).await;
    server.until_metric(QUEUE, 1.0).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let sent = sent.load(Ordering::Relaxed);
    assert!((114_000..400_000).contains(&sent), "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_at_its_deadline_and_is_skipped() {
    let server = TestServer::start(&["--batch-delay", "1h", "--batch-images-max", "8", "--instances", "1"]).await;
    let mut client = client(server.grpc_address()).await;
    for request in [samples(&[0.5]), photos(&[&photo("cat.jpg")])] {
        let mut timed = tonic::Request::new(request.clone());
        timed.set_timeout(Duration::from_millis(100));
        let late = client.model_infer(timed).await.unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
        // The `timeout` of the protocol says the same in the message.
        let timeout = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(100_000)) };
        let mut timed = request;
        timed.parameters.insert("timeout".to_owned(), timeout);
        let late = client.model_infer(timed).await.unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
    }
    // Eight more make a batch of eight: the four that were late are not in it.
    client.model_infer(samples(&[0.5; 8])).await.unwrap();
    let of = |name: &str| format!("residual_batch_images_{name}{{model=\"{MODEL}\",version=\"1\"}}");
    assert_eq!((server.metric(&of("count")).await, server.metric(&of("sum")).await), (1.0, 8.0));
    // A stream has one deadline for all of it.
    let (mut connection, _) = Connection::open(server.grpc_address()).await;
    let (code, _) = connection.status(STREAM, &[("grpc-timeout", "50m")], stalling([])).await;
    assert_eq!(code, Code::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_is_skipped() {
    let server = TestServer::start(&["--batch-delay", "1h", "--batch-images-max", "2", "--instances", "1"]).await;
    let mut client = client(server.grpc_address()).await;
    {
        let leaving = client.model_infer(samples(&[0.5]));
        tokio::select! {
            _ = leaving => panic!("nothing lets the waiting image go"),
            () = server.until_metric(QUEUE, 1.0) => {}
        }
    }
    server.until_metric(&outcome("client_left", MODEL), 1.0).await;
    // Two more make a batch of two: the one that left is not in it.
    client.model_infer(samples(&[0.5, 0.5])).await.unwrap();
    let of = |name: &str| format!("residual_batch_images_{name}{{model=\"{MODEL}\",version=\"1\"}}");
    assert_eq!((server.metric(&of("count")).await, server.metric(&of("sum")).await), (1.0, 2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_answer_loses_its_connection() {
    let server = TestServer::start(&["--write-timeout", "200ms"]).await;
    let mut shut = Builder::new(TokioExecutor::new());
    shut.initial_stream_window_size(0);
    let (mut connection, ended) = Connection::with(server.grpc_address(), &shut).await;
    let answer = connection.call(INFER, &[], whole(&samples(&[0.5]))).await;
    tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap();
    drop(answer);
    server.until_metric(IN_FLIGHT, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_calls_is_closed_and_one_with_a_call_is_not() {
    let server = TestServer::start(&["--header-timeout", "200ms"]).await;
    let (_idle, idle_ended) = Connection::open(server.grpc_address()).await;
    // A client that connects and says nothing.
    let mut silent = tokio::net::TcpStream::connect(server.grpc_address()).await.unwrap();
    let (mut busy, busy_ended) = Connection::open(server.grpc_address()).await;
    let (end, ended) = oneshot::channel();
    let open = busy.call(STREAM, &[], until([], ended)).await;
    tokio::time::timeout(PATIENCE, idle_ended).await.unwrap().unwrap();
    let mut left = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut left);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert!(!busy_ended.is_finished());
    drop(end);
    http_body_util::BodyExt::collect(open.into_body()).await.unwrap();
    tokio::time::timeout(PATIENCE, busy_ended).await.unwrap().unwrap();
}
