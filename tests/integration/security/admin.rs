//! The port of the operators.

use residual::grpc::proto::RepositoryModelUnloadRequest;

use super::{KEY, Secret, with};
use crate::grpc::client::{Connection, whole};
use crate::support::{TestServer, photo, send};

const UNLOAD: &str = "/v2/repository/models/resnet20-cifar10/unload";
const LOAD: &str = "/v2/repository/models/resnet20-cifar10/load";

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_ask_is_on_their_port_alone() {
    let server = TestServer::start(&["--admin-port", "0"]).await;
    server.get("/metrics").await.assert_problem(404, "not_found");
    for path in [LOAD, UNLOAD] {
        assert_eq!(send(server.post(path)).await.status, 404, "{path}");
    }
    assert_eq!(send(server.post("/v2/repository/index")).await.status, 200, "looking is not changing");
    let index = server.get("/").await.json.to_string();
    assert!(!index.contains("/metrics") && !index.contains("/unload"), "{index}");
    let on_admin = async |path: &str| send(server.client.get(server.admin_url(path))).await;
    for path in ["/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/metrics", "/openapi.json"] {
        assert_eq!(on_admin(path).await.status, 200, "{path}");
    }
    for path in ["/", "/api/v1/models", "/v2/models/resnet20-cifar10", "/ping"] {
        on_admin(path).await;
        assert_eq!(on_admin(path).await.status, 404, "{path}");
    }
    let answer = send(server.client.post(server.admin_url("/api/v1/classify")).body(photo("cat.jpg"))).await;
    answer.assert_problem(404, "not_found");
    assert_eq!(server.get("/health/ready").await.status, 200, "health is on both");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_changed_from_there_and_nowhere_else() {
    let server = TestServer::start(&["--admin-port", "0"]).await;
    let (mut connection, _) = Connection::open(server.grpc_address()).await;
    let unload = RepositoryModelUnloadRequest { model_name: "resnet20-cifar10".to_owned(), ..Default::default() };
    let path = "/inference.GRPCInferenceService/RepositoryModelUnload";
    let (code, message) = connection.status(path, &[], whole(&unload)).await;
    assert_eq!(code, tonic::Code::PermissionDenied);
    assert!(message.contains("--admin-port"), "{message}");
    assert_eq!(server.classify(photo("cat.jpg")).await.label(), "cat");

    assert_eq!(send(server.client.post(server.admin_url(UNLOAD))).await.status, 200);
    server.classify(photo("cat.jpg")).await.assert_problem(503, "model_unavailable");
    assert_eq!(send(server.client.post(server.admin_url(LOAD))).await.status, 200);
    assert_eq!(server.classify(photo("cat.jpg")).await.label(), "cat");
    let counted = r#"residual_requests_total{model="",outcome="ok",route="/v2/repository/models/{name}/unload"} 1"#;
    let page = server.client.get(server.admin_url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains(counted), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_from_elsewhere_changes_nothing() {
    let server = TestServer::start(&[]).await;
    // As a page's form sends it: without asking first.
    let from = |origin: String| send(server.post(UNLOAD).header("origin", origin).header("content-type", "text/plain"));
    for origin in ["https://evil.example", "null"] {
        let refused = from(origin.to_owned()).await;
        assert_eq!(refused.status, 403, "{origin}");
        assert!(refused.json["error"].as_str().unwrap().contains("--cors-origin"), "{}", refused.json);
    }
    assert_eq!(server.classify(photo("cat.jpg")).await.label(), "cat");
    assert_eq!(from(server.url("")).await.status, 200, "the page of its own description may");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_change_models_there_follows_from_where_it_listens() {
    let beyond = TestServer::start(&["--admin-port", "0", "--admin-host", "0.0.0.0"]).await;
    let refused = send(beyond.client.post(beyond.admin_url(UNLOAD))).await;
    assert_eq!(refused.status, 403);
    assert!(refused.json["error"].as_str().unwrap().contains("--model-control on"), "{}", refused.json);
    let flags = ["--admin-port", "0", "--admin-host", "0.0.0.0", "--model-control", "on"];
    let on = TestServer::start(&flags).await;
    assert_eq!(send(on.client.post(on.admin_url(UNLOAD))).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_metrics_are_open_there_and_changing_models_is_not() {
    let (_secret, file) = Secret::keys(KEY);
    let server = TestServer::start(&["--admin-port", "0", "--api-keys-file", &file, "--rate-limit", "1/h"]).await;
    for _ in 0..3 {
        assert_eq!(send(server.client.get(server.admin_url("/metrics"))).await.status, 200);
    }
    assert_eq!(send(server.client.post(server.admin_url(UNLOAD))).await.status, 401);
    for path in [UNLOAD, LOAD, UNLOAD] {
        assert_eq!(with(server.client.post(server.admin_url(path)), KEY).await.status, 200, "no rate holds operators");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_get_in_while_clients_hold_every_place() {
    let server = TestServer::start(&["--admin-port", "0", "--connections-max", "2"]).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET /health/live HTTP/1.1\r\n").await.unwrap();
        held.push(stream);
    }
    // The client may take a second connection while its first one is on its way back to it.
    let page = server.client.get(server.admin_url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("residual_connections "), "{page}");
    assert_eq!(send(server.client.get(server.admin_url("/health/ready"))).await.status, 200);
}
