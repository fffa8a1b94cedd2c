//! Clients that are slow, silent or many.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{PATIENCE, TestServer, png};

async fn talk(server: &TestServer, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset instead of an orderly end is fine for a client that misbehaved.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server ends it");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_never_ends_is_cut_off() {
    let server = TestServer::start(&["--header-timeout", "100ms"]).await;
    let mut stream = talk(&server, b"GET /health/live HTTP/1.1\r\nx-slow: ").await;
    assert_eq!(rest(&mut stream).await, "");
    server.until_metric("residual_connections", 1.0).await; // the metrics client's own
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_without_bound_is_refused() {
    let server = TestServer::start(&[]).await;
    let mut request = b"GET /health/live HTTP/1.1\r\nx-long: ".to_vec();
    request.resize(64 * 1024, b'a');
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    // The server may close before it has read everything.
    let _ = stream.write_all(&request).await;
    let answer = rest(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(server.get("/health/live").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_ends_gets_408() {
    let server = TestServer::start(&["--body-timeout", "100ms"]).await;
    let head = b"POST /api/v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf";
    let answer = rest(&mut talk(&server, head).await).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"body_timeout\""), "{answer}");
    server.until_metric("residual_upload_memory_bytes", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_above_the_bound_waits_for_a_place() {
    let server = TestServer::start(&["--connections-max", "1"]).await;
    let mut first = talk(&server, b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut start = [0; 12];
    first.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    let mut second = talk(&server, b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    // Many answers on the first connection, and still none on the second.
    for _ in 0..100 {
        first.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        first.readable().await.unwrap();
        let _ = first.try_read(&mut [0; 4096]);
    }
    let nothing = second.try_read(&mut [0; 1]);
    assert!(nothing.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    drop(first);
    assert!(rest(&mut second).await.starts_with("HTTP/1.1 200 "));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_loses_its_place() {
    let server = TestServer::start(&["--write-timeout", "500ms", "--header-timeout", "1h"]).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1024).unwrap();
    let mut stream = socket.connect(server.address()).await.unwrap();
    // Far more than the buffers between the two can hold: it goes on until the server reads no more, and ends with the
    // connection.
    let ask = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000_000);
    let asked = tokio::time::timeout(PATIENCE, stream.write_all(&ask)).await.expect("the server gives up");
    assert!(asked.is_err());
    server.until_metric("residual_connections", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_refusal_reaches_a_client_that_is_still_sending() {
    let server = TestServer::start(&["--upload-memory-max", "20MiB"]).await;
    let large = vec![0u8; 8 * 1024 * 1024];
    let post = |path: &str| crate::support::send(server.post(path).body(large.clone()));
    post("/api/v1/classify?top_k=0").await.assert_problem(400, "bad_top_k");
    post("/api/v1/nothing").await.assert_problem(404, "not_found");
    post("/health/live").await.assert_problem(405, "method_not_allowed");
    let loading = TestServer::bind(&[]).await;
    let answer = crate::support::send(loading.post("/api/v1/classify").body(large.clone())).await;
    answer.assert_problem(503, "not_ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_refusal_does_not_wait_for_the_body() {
    let server = TestServer::start(&[]).await;
    let mut stream = talk(&server, b"POST /api/v1/nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n").await;
    let mut start = [0; 12];
    // No byte of the body was sent, and none will be until the answer is here.
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 404");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_is_refused_without_sending() {
    let server = TestServer::start(&[]).await;
    let head = "POST /api/v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: 30000000\r\nexpect: 100-continue\r\n\r\n";
    let answer = rest(&mut talk(&server, head.as_bytes()).await).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "no 100 before it: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_above_their_memory_get_503_and_the_memory_comes_back() {
    let server = TestServer::start(&["--body-bytes-max", "1KiB", "--upload-memory-max", "1KiB"]).await;
    let held = talk(
        &server,
        &[b"POST /api/v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n".as_slice(), &[0; 990]].concat(),
    )
    .await;
    // Charged at once for what was announced.
    server.until_metric("residual_upload_memory_bytes", 1000.0).await;
    let answer = server.classify(png(4, 4)).await;
    assert!(answer.assert_problem(503, "overloaded").contains("1024 bytes"));
    assert_eq!(answer.header("retry-after"), "1");
    drop(held);
    server.until_metric("residual_upload_memory_bytes", 0.0).await;
    assert_eq!(server.classify(png(4, 4)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_one_connection_are_answered_in_turn() {
    let server = TestServer::start(&[]).await;
    let twice = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\nGET /health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = rest(&mut talk(&server, twice).await).await;
    let (live, ready) = (answer.find("\"live\"").unwrap(), answer.find("\"ready\"").unwrap());
    assert!(live < ready);
}
