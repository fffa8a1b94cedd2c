//! Vertex AI's routes, wherever the platform puts them.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::huggingface::{native, sentence};
use crate::support::{TestServer, photo, png, send};

#[tokio::test(flavor = "multi_thread")]
async fn predictions_have_the_fields_of_its_image_classifiers() {
    let server = TestServer::start(&["--vertex-predict-route", "/predict", "--vertex-health-route", "/healthz"]).await;
    assert_eq!(server.get("/healthz").await.json, json!({ "status": "Healthy" }));
    let cat = photo("cat.jpg");
    let (labels, scores): (Vec<_>, Vec<_>) = native(&server, &cat).await.into_iter().unzip();
    let text = BASE64_STANDARD.encode(&cat);
    let with = |parameters: Value| {
        let instances =
            json!([{ "content": text, "mimeType": "image/jpeg" }, { "b64": BASE64_STANDARD.encode(png(9, 9)) }]);
        server.post("/predict").json(&json!({ "instances": instances, "parameters": parameters }))
    };
    let answer = send(with(Value::Null)).await;
    let predictions = answer.json["predictions"].as_array().unwrap_or_else(|| panic!("{}", answer.json));
    assert_eq!(predictions.len(), 2);
    assert_eq!(predictions[0]["displayNames"], json!(labels));
    assert_eq!(predictions[0]["confidences"], json!(scores));
    assert_eq!(predictions[0]["ids"].as_array().unwrap().len(), 5);
    let two = send(with(json!({ "maxPredictions": 2 }))).await;
    assert_eq!(two.json["predictions"][0]["displayNames"], json!(labels[..2]));
    let sure = send(with(json!({ "confidenceThreshold": scores[0] }))).await;
    assert_eq!(sure.json["predictions"][0]["displayNames"], json!(labels[..1]));
    assert!(sentence(&send(with(json!({ "confidenceThreshold": 2 }))).await, 400).contains("0 to 1"));
    assert!(sentence(&send(with(json!({ "maxPredictions": 0 }))).await, 400).contains("at least 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_that_fails_fails_the_request() {
    let server = TestServer::start(&["--vertex-predict-route", "/predict"]).await;
    let body = json!({ "instances": [BASE64_STANDARD.encode(png(9, 9)), "aGk="] });
    let answer = send(server.post("/predict").json(&body)).await;
    assert!(sentence(&answer, 400).starts_with("image 1: "));
    sentence(&send(server.post("/predict").body("{\"inputs\": 1}")).await, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_that_are_taken_keep_their_other_methods_and_metrics() {
    let server = TestServer::start(&["--vertex-predict-route", "/", "--vertex-health-route", "/health/ready"]).await;
    let body = json!({ "instances": [BASE64_STANDARD.encode(photo("cat.jpg"))] });
    let answer = send(server.post("/").json(&body)).await;
    assert_eq!(answer.json["predictions"][0]["displayNames"][0], "cat");
    assert!(answer.header("server-timing").contains("infer;dur="));
    assert_eq!(server.get("/").await.json["name"], "residual");
    assert_eq!(server.get("/health/ready").await.json["status"], "Healthy");
    assert_eq!(server.classify(photo("cat.jpg")).await.label(), "cat");
    let page = server.client.get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let counted = |route: &str| {
        page.lines()
            .filter(|line| line.starts_with("residual_requests_total") && line.contains(&format!("route=\"{route}\"")))
            .count()
    };
    // POST of the model that answered, and GET of the index.
    assert_eq!((counted("/"), counted("/api/v1/classify"), counted("unknown")), (2, 1, 0), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_path_may_be_both_routes() {
    let path = "/v1/endpoints/12/deployedModels/34:predict";
    let server = TestServer::start(&["--vertex-predict-route", path]).await;
    assert_eq!(server.get(path).await.status, 200);
    let body = json!({ "instances": [BASE64_STANDARD.encode(png(9, 9))] });
    assert_eq!(send(server.post(path).json(&body)).await.status, 200);
    let described = server.get("/openapi.json").await;
    assert!(described.json["paths"][path]["post"].is_object());
    for flags in [vec!["--vertex-predict-route", path, "--apis", "v2"], vec![]] {
        let off = TestServer::start(&flags).await;
        assert_eq!(send(off.post(path).json(&body)).await.status, 404);
    }
}
