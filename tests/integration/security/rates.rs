//! How often, and on how many connections, one client may ask.

use residual::grpc::proto::ServerMetadataRequest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{KEY, Secret, with};
use crate::grpc::client::{Connection, INFER, MODEL, STREAM, framed, pieces, whole};
use crate::support::{PATIENCE, TestServer, photo, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_above_its_rate_is_told_when_to_come_back() {
    let server = TestServer::start(&["--rate-limit", "2/h"]).await;
    assert_eq!(server.classify(photo("cat.jpg")).await.label(), "cat");
    let answer = server.classify(photo("cat.jpg")).await;
    let detail = answer.assert_problem(429, "rate_limited");
    assert!(detail.contains("1 at once, and 2/h after that"), "{detail}");
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1700..=1800).contains(&wait), "{wait}");
    for (path, shape) in [("/v2/models/x/infer", "error"), ("/invocations", "error"), ("/predictions/x", "message")] {
        let answer = send(server.post(path).body("x")).await;
        assert_eq!(answer.status, 429, "{path}");
        assert!(answer.json[shape].as_str().unwrap().contains("try again in"), "{path}: {}", answer.json);
    }
    // Probes and collectors are never too many.
    for path in ["/health/live", "/health/ready", "/v2/health/ready", "/metrics"].repeat(3) {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    server
        .until_metric(r#"residual_requests_total{model="",outcome="rate_limited",route="/api/v1/classify"}"#, 1.0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_may_come_at_once() {
    let server = TestServer::bind(&["--rate-limit", "1/h", "--rate-limit-burst", "5"]).await;
    let mut statuses = Vec::new();
    for _ in 0..7 {
        statuses.push(server.get("/api/v1/nothing").await.status.as_u16());
    }
    assert_eq!(statuses, [404, 404, 404, 404, 404, 429, 429]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_has_its_own_rate() {
    const OTHER: &str = "another-key-of-24-chars-";
    let (_secret, file) = Secret::keys(&format!("{KEY}\n{OTHER}\n"));
    let server = TestServer::bind(&["--rate-limit", "1/h", "--api-keys-file", &file]).await;
    let ask = |key| with(server.client.get(server.url("/api/v1/nothing")), key);
    assert_eq!((ask(KEY).await.status.as_u16(), ask(KEY).await.status.as_u16()), (404, 429));
    assert_eq!(ask(OTHER).await.status, 404, "another key from the same address");
    // Guesses are held to the address that they come from.
    assert_eq!(ask("a-guess-of-24-characters").await.status, 401);
    assert_eq!(ask("a-guess-of-24-characters").await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_behind_a_trusted_proxy_are_told_apart() {
    let behind = async |server: &TestServer, client: &str| {
        send(server.client.get(server.url("/api/v1/nothing")).header("x-forwarded-for", client)).await.status.as_u16()
    };
    let trusting = TestServer::bind(&["--rate-limit", "1/h", "--trusted-proxy", "127.0.0.0/8"]).await;
    assert_eq!(behind(&trusting, "203.0.113.1").await, 404);
    assert_eq!(behind(&trusting, "203.0.113.2").await, 404);
    assert_eq!(behind(&trusting, "10.0.0.1, 203.0.113.1").await, 429, "what it claims to be does not help");
    let other = TestServer::bind(&["--rate-limit", "1/h"]).await;
    assert_eq!(behind(&other, "203.0.113.1").await, 404);
    assert_eq!(behind(&other, "203.0.113.2").await, 429, "nobody is believed unasked");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_has_the_same_rate_and_a_stream_is_no_way_around() {
    let server = TestServer::start(&["--rate-limit", "1/h", "--rate-limit-burst", "3"]).await;
    let (mut connection, _) = Connection::open(server.grpc_address()).await;
    let request = residual::grpc::proto::ModelInferRequest { model_name: MODEL.to_owned(), ..Default::default() };
    let message = framed(&prost::Message::encode_to_vec(&request));
    // One for the stream, and one for each of its messages: the third is too many.
    let (code, text) = connection.status(STREAM, &[], pieces(vec![message; 3])).await;
    assert_eq!(code, tonic::Code::ResourceExhausted, "{text}");
    let metadata = "/inference.GRPCInferenceService/ServerMetadata";
    let answer = connection.call(metadata, &[], whole(&ServerMetadataRequest {})).await;
    assert_eq!(answer.headers()["residual-code"], "rate_limited");
    let wait: i64 = answer.headers()["grpc-retry-pushback-ms"].to_str().unwrap().parse().unwrap();
    assert!((3_500_000..=3_600_001).contains(&wait), "{wait}");
    assert_eq!(connection.call(INFER, &[], whole(&request)).await.headers()["residual-code"], "rate_limited");
    let health = connection.status("/grpc.health.v1.Health/Check", &[], whole(&ServerMetadataRequest {})).await;
    assert_eq!(health.0, tonic::Code::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_cannot_hold_every_place() {
    let server = TestServer::bind(&["--connections-per-client", "2", "--admin-port", "0"]).await;
    let ask = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(ask).await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        held.push(stream);
    }
    let mut third = TcpStream::connect(server.address()).await.unwrap();
    let mut nothing = Vec::new();
    // Closed without an answer; what was sent may come back as a reset.
    let _ = third.write_all(ask).await;
    let _ = tokio::time::timeout(PATIENCE, third.read_to_end(&mut nothing)).await.expect("the server closes it");
    assert_eq!(nothing, b"");
    let page = server.client.get(server.admin_url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains(r#"residual_connections_refused_total{reason="client_full"} 1"#), "{page}");
    held.clear();
    // The places come back as soon as the server has seen the two go.
    let again = async {
        while server.client.get(server.url("/health/live")).send().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}
