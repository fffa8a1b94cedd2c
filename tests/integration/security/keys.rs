//! Keys: who needs one, where, and what happens to their file.

use futures_util::stream;
use residual::grpc::proto::{ServerLiveRequest, ServerMetadataRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{KEY, Secret, with};
use crate::grpc::client::{Connection, INFER, whole};
use crate::support::{TestServer, photo, send, settings};

#[tokio::test(flavor = "multi_thread")]
async fn every_api_asks_for_a_key_in_its_own_words() {
    let (_secret, file) = Secret::keys(&format!("# ours\napp: {KEY}\n"));
    let server = TestServer::start(&["--api-keys-file", &file]).await;
    let cat = photo("cat.jpg");
    let answer = server.classify(cat.clone()).await;
    assert!(answer.assert_problem(401, "unauthorized").contains("Authorization: Bearer KEY"));
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    assert_eq!(answer.header("cache-control"), "no-store");
    for (path, shape) in [
        ("/v2/models/resnet20-cifar10/infer", "error"),
        ("/v1/models/resnet20-cifar10:predict", "error"),
        ("/models/resnet20-cifar10", "error"),
        ("/invocations", "error"),
        ("/predictions/resnet20-cifar10", "message"),
        ("/no/such/path", "detail"),
    ] {
        let answer = send(server.post(path).body(cat.clone())).await;
        assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, "Bearer"), "{path}");
        assert!(answer.json[shape].as_str().unwrap().contains("no API key"), "{path}: {}", answer.json);
    }
    assert_eq!(with(server.post("/api/v1/classify").body(cat.clone()), KEY).await.label(), "cat");
    for wrong in ["a-key-of-24-characters-y", "app", "", "a b"] {
        let answer = with(server.post("/api/v1/classify").body(cat.clone()), wrong).await;
        answer.assert_problem(401, "unauthorized");
        assert!(!answer.json.to_string().contains("24-characters"), "no key is repeated: {}", answer.json);
    }
    let refused = r#"residual_requests_total{model="",outcome="unauthorized",route="/api/v1/classify"}"#;
    let page = server.client.get(server.url("/metrics")).bearer_auth(KEY).send().await.unwrap().text().await.unwrap();
    assert!(page.contains(&format!("{refused} 5")), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_the_description_are_open_and_nothing_else_is() {
    let (_secret, file) = Secret::keys(KEY);
    let flags = ["--vertex-predict-route", "/predict", "--vertex-health-route", "/well", "--api-keys-file", &file];
    let server = TestServer::start(&flags).await;
    for path in ["/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/ping", "/well", "/docs"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
        let head = server.client.head(server.url(path)).send().await.unwrap();
        assert_eq!(head.status(), 200, "HEAD {path}");
    }
    for path in ["/", "/metrics", "/api/v1/models", "/v2", "/v2/models/stats", "/v1/models", "/nothing"] {
        assert_eq!(server.get(path).await.status, 401, "{path}");
    }
    assert_eq!(send(server.post("/health/live")).await.status, 401, "only reading is open");
    assert_eq!(send(server.post("/predict").body("{}")).await.status, 401);
    assert_eq!(with(server.post("/predict").body("{}"), KEY).await.status, 400);
    assert_eq!(with(server.client.get(server.url("/metrics")), KEY).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_says_which_calls_need_a_key() {
    let (_secret, file) = Secret::keys(KEY);
    let server = TestServer::bind(&["--api-keys-file", &file]).await;
    let document = server.get("/openapi.json").await.json;
    assert_eq!(document["components"]["securitySchemes"]["key"]["scheme"], "bearer");
    assert_eq!(document["security"], serde_json::json!([{ "key": [] }]));
    assert_eq!(document["paths"]["/health/live"]["get"]["security"], serde_json::json!([]));
    assert!(document["paths"]["/api/v1/classify"]["post"]["security"].is_null());
    let open = TestServer::bind(&[]).await;
    assert!(open.get("/openapi.json").await.json["security"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_comes_before_the_body_and_leaves_the_connection_usable() {
    let (_secret, file) = Secret::keys(KEY);
    let server = TestServer::start(&["--api-keys-file", &file]).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(b"POST /api/v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    // No byte of the body was sent, and none will be until the answer is here.
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 401");
    stream.write_all(b"12345GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("HTTP/1.1 200 OK") && rest.contains("live"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_asks_for_the_same_keys() {
    let (_secret, file) = Secret::keys(KEY);
    let server = TestServer::start(&["--api-keys-file", &file]).await;
    let (mut connection, _) = Connection::open(server.grpc_address()).await;
    const METADATA: &str = "/inference.GRPCInferenceService/ServerMetadata";
    let right = format!("bearer {KEY}");
    let (code, message) = connection.status(METADATA, &[], whole(&ServerMetadataRequest {})).await;
    assert_eq!(code, tonic::Code::Unauthenticated);
    assert!(message.contains("no API key"), "{message}");
    for (path, headers, code) in [
        (METADATA, &[("authorization", right.as_str())][..], tonic::Code::Ok),
        (METADATA, &[("authorization", "Bearer a-key-of-24-characters-y")], tonic::Code::Unauthenticated),
        ("/inference.GRPCInferenceService/ServerLive", &[], tonic::Code::Ok),
        ("/inference.GRPCInferenceService/ServerReady", &[], tonic::Code::Ok),
        ("/grpc.health.v1.Health/Check", &[], tonic::Code::Ok),
        ("/no.such.Service/Call", &[], tonic::Code::Unauthenticated),
        ("/no.such.Service/Call", &[("authorization", right.as_str())], tonic::Code::Unimplemented),
    ] {
        assert_eq!(connection.status(path, headers, whole(&ServerLiveRequest {})).await.0, code, "{path} {headers:?}");
    }
    // Refused before the message has come.
    let refused = connection.call(INFER, &[], stream::pending()).await;
    assert_eq!(refused.headers()["grpc-status"], "16");
    assert_eq!(refused.headers()["residual-code"], "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_and_go_while_the_server_runs() {
    const NEXT: &str = "the-next-key-of-24-chars";
    let (secret, file) = Secret::keys(KEY);
    let server = TestServer::start(&["--api-keys-file", &file]).await;
    let ask = |key| with(server.client.get(server.url("/api/v1/models")), key);
    assert_eq!((ask(KEY).await.status.as_u16(), ask(NEXT).await.status.as_u16()), (200, 401));
    secret.put("keys", &format!("{KEY}\n{NEXT}\n"));
    server.reload().await;
    assert_eq!((ask(KEY).await.status.as_u16(), ask(NEXT).await.status.as_u16()), (200, 200));
    secret.put("keys", NEXT);
    server.reload().await;
    assert_eq!((ask(KEY).await.status.as_u16(), ask(NEXT).await.status.as_u16()), (401, 200));
    for broken in ["", "# none\n", "short\n"] {
        secret.put("keys", broken);
        server.reload().await;
        assert_eq!((ask(KEY).await.status.as_u16(), ask(NEXT).await.status.as_u16()), (401, 200), "{broken:?}");
    }
    std::fs::remove_file(secret.path("keys")).unwrap();
    server.reload().await;
    assert_eq!((ask(KEY).await.status.as_u16(), ask(NEXT).await.status.as_u16()), (401, 200), "the file is gone");
}

#[tokio::test]
async fn a_file_without_a_good_key_is_no_start() {
    for (text, says) in [("", "it has no key"), ("0123456789abcde", "15 characters, at least 16"), ("a b c", "line 1")]
    {
        let (_secret, file) = Secret::keys(text);
        let error = residual::serve::Server::bind(&settings(&["--api-keys-file", &file])).await.unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(&file) && error.contains(says), "{error}");
    }
}
