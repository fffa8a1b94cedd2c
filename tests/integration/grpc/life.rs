//! From the first moment to the last, and what stands around the calls.

use futures_util::StreamExt as _;
use residual::edge::Drained;
use residual::grpc::proto::{ModelInferRequest, ServerLiveRequest, ServerReadyRequest};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::client::{Connection, INFER, STREAM, client, origin, photos, pieces, samples, stalling};
use crate::support::{TestServer, photo};

const QUEUE: &str = "residual_queue_images{model=\"resnet20-cifar10\",version=\"1\"}";

async fn health(connection: &Connection, service: &str) -> Result<ServingStatus, tonic::Status> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let mut client = HealthClient::with_origin(connection.clone(), origin());
    client.check(request).await.map(|answer| answer.into_inner().status())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_servers_life() {
    let server = TestServer::bind(&["--drain-delay", "1h"]).await;
    let (connection, _) = Connection::open(server.grpc_address()).await;
    let mut calls = client(server.grpc_address()).await;
    let request = HealthCheckRequest { service: String::new() };
    let watch = HealthClient::with_origin(connection.clone(), origin()).watch(request).await.unwrap();
    let mut watch = watch.into_inner().map(|answer| answer.map(|answer| answer.status()));
    assert_eq!(watch.next().await.unwrap().unwrap(), ServingStatus::NotServing);
    assert!(calls.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(!calls.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    assert_eq!(calls.model_infer(samples(&[0.5])).await.unwrap_err().code(), Code::Unavailable);
    server.load().await;
    assert_eq!(watch.next().await.unwrap().unwrap(), ServingStatus::Serving);
    for service in ["", "inference.GRPCInferenceService"] {
        assert_eq!(health(&connection, service).await.unwrap(), ServingStatus::Serving, "{service:?}");
    }
    assert_eq!(health(&connection, "other").await.unwrap_err().code(), Code::NotFound);
    let (server, _) = server.into_parts();
    let drain = tokio::spawn(server.drain());
    assert_eq!(watch.next().await.unwrap().unwrap(), ServingStatus::NotServing);
    assert_eq!(health(&connection, "").await.unwrap(), ServingStatus::NotServing);
    // While a balancer looks away, calls are still answered.
    calls.model_infer(samples(&[0.5])).await.unwrap();
    drain.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_answers_what_is_in_flight_and_ends_the_rest() {
    let flags = ["--batch-delay", "1h", "--batch-images-max", "2", "--request-timeout", "2s"];
    let server = TestServer::start(&flags).await;
    let address = server.grpc_address();
    let (mut connection, ended) = Connection::open(address).await;
    let mut waiting = client(address).await;
    let in_flight = tokio::spawn(async move { waiting.model_infer(samples(&[0.5])).await });
    server.until_metric(QUEUE, 1.0).await;
    let silent = connection.call(STREAM, &[], stalling([])).await;
    let mut late = client(address).await;
    let (server, _) = server.into_parts();
    let drain = tokio::spawn(server.drain());
    // A stream that waits for its client ends.
    let trailers = http_body_util::BodyExt::collect(silent.into_body()).await.unwrap().trailers().cloned().unwrap();
    assert_eq!(trailers["grpc-status"], "14");
    let refused = late.model_infer(samples(&[0.5])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    // New connections are told why.
    let refused = client(address).await.model_infer(samples(&[0.5])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.message(), "the server is shutting down; ask another one");
    let (probe, _) = Connection::open(address).await;
    assert_eq!(health(&probe, "").await.unwrap(), ServingStatus::NotServing);
    // What was in flight waits for company until its own deadline, and is answered then.
    assert_eq!(in_flight.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(drain.await.unwrap(), Drained::All);
    ended.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_describes_every_service() {
    let server = TestServer::start(&[]).await;
    let (connection, _) = Connection::open(server.grpc_address()).await;
    let mut client = ServerReflectionClient::with_origin(connection, origin());
    let ask = |message_request| ServerReflectionRequest { host: String::new(), message_request: Some(message_request) };
    let symbol = "inference.GRPCInferenceService.ModelInfer".to_owned();
    let requests = vec![
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(symbol)),
        ask(MessageRequest::FileByFilename("model_config.proto".to_owned())),
    ];
    let answers = client.server_reflection_info(futures_util::stream::iter(requests)).await.unwrap().into_inner();
    let answers: Vec<ServerReflectionResponse> = answers.map(Result::unwrap).collect().await;
    let Some(MessageResponse::ListServicesResponse(services)) = &answers[0].message_response else {
        panic!("{:?}", answers[0]);
    };
    let names: Vec<&str> = services.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["inference.GRPCInferenceService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    for answer in &answers[1..] {
        assert!(matches!(answer.message_response, Some(MessageResponse::FileDescriptorResponse(_))), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_its_id_and_is_counted() {
    let server = TestServer::start(&[]).await;
    let mut client = client(server.grpc_address()).await;
    let mut request = tonic::Request::new(samples(&[0.5]));
    request.metadata_mut().insert("x-request-id", "mine-1".parse().unwrap());
    let answer = client.model_infer(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "mine-1");
    let timing = answer.metadata().get("server-timing").unwrap().to_str().unwrap();
    assert!(timing.contains("infer;dur=") && timing.contains("total;dur="), "{timing}");
    let other = client.model_infer(ModelInferRequest::default()).await.unwrap_err();
    assert_eq!(other.metadata().get("x-request-id").unwrap().len(), 36);
    let counted = |model: &str, outcome: &str, route: &str| {
        format!("residual_requests_total{{model=\"{model}\",outcome=\"{outcome}\",route=\"{route}\"}}")
    };
    server.until_metric(&counted("resnet20-cifar10", "ok", INFER), 1.0).await;
    server.until_metric(&counted("", "unknown_model", INFER), 1.0).await;
    // Both faces of a model are the model, as over HTTP.
    client.model_infer(photos(&[&photo("cat.jpg")])).await.unwrap();
    server.until_metric(&counted("resnet20-cifar10", "ok", INFER), 2.0).await;
    let (mut connection, _) = Connection::open(server.grpc_address()).await;
    let path = "/inference.GRPCInferenceService/SystemSharedMemoryStatus";
    let (code, text) = connection.status(path, &[], pieces([vec![0; 5]])).await;
    assert_eq!(code, Code::Unimplemented);
    assert!(text.contains("SystemSharedMemoryStatus"), "{text}");
    // Strangers cannot make the metrics grow.
    server.until_metric(&counted("", "not_found", "unknown"), 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_api_there_is_no_port() {
    let server = TestServer::start(&["--apis", "v2", "--grpc-port", "1"]).await;
    let (server, _) = server.into_parts();
    assert_eq!(server.grpc_address(), None);
    assert_eq!(server.drain().await, Drained::All);
}
