//! TorchServe's inference API.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::huggingface::native;
use crate::support::{Answer, TestServer, photo, png, send};

const PREDICT: &str = "/predictions/resnet20-cifar10";

fn assert_error(answer: &Answer, code: u16, name: &str) {
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (code, &json!(code)), "{}", answer.json);
    assert_eq!(answer.json["type"], name, "{}", answer.json);
    assert!(!answer.json["message"].as_str().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_photo_gives_the_scores_of_the_native_route() {
    let server = TestServer::start(&[]).await;
    let cat = photo("cat.jpg");
    let expected: Value = native(&server, &cat).await.into_iter().collect::<serde_json::Map<_, _>>().into();
    let text = BASE64_STANDARD.encode(&cat);
    for request in [
        server.post(PREDICT).body(cat.clone()),
        server.client.put(server.url(PREDICT)).body(cat.clone()),
        server.post("/predictions/resnet20-cifar10/1").body(cat.clone()),
        server.client.put(server.url("/predictions/resnet20-cifar10/1")).body(cat.clone()),
        server.post(PREDICT).multipart(Form::new().part("data", Part::bytes(cat.clone()))),
        server
            .post(PREDICT)
            .multipart(Form::new().text("token", "x").part("data", Part::bytes(cat.clone()).file_name("cat.jpg"))),
        server.post(PREDICT).json(&json!({ "data": text })),
        server.post(PREDICT).json(&json!({ "body": { "b64": text } })),
        server.post(PREDICT).header("content-type", "text/plain").body(text.clone()),
    ] {
        let answer = send(request).await;
        assert_eq!(answer.json, expected);
    }
    let raw = server.post(PREDICT).body(cat.clone()).send().await.unwrap().text().await.unwrap();
    assert!(raw.starts_with("{\"cat\":"), "best first: {raw}");
    let form = Form::new().part("data", Part::bytes(cat)).part("data", Part::bytes(png(9, 9)));
    let several = send(server.post(PREDICT).multipart(form)).await;
    assert_eq!(several.json[0], expected);
    assert_eq!(several.json.as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_the_names_of_its_exceptions() {
    let server = TestServer::start(&["--body-bytes-max", "1MiB"]).await;
    let body = |body: &'static str| server.post(PREDICT).body(body);
    assert_error(&send(server.post("/predictions/x").body("x")).await, 404, "ModelNotFoundException");
    let version = server.post("/predictions/resnet20-cifar10/7").body("x");
    assert_error(&send(version).await, 404, "ModelVersionNotFoundException");
    assert_error(&send(body("")).await, 400, "BadRequestException");
    assert_error(&send(body("no image")).await, 400, "BadRequestException");
    assert_error(&send(body("{\"data\": 1}")).await, 400, "BadRequestException");
    let large = server.post(PREDICT).body(vec![0; (1 << 20) + 1]);
    assert_error(&send(large).await, 413, "TooLongFrameException");
    let form = server.post(PREDICT).multipart(Form::new().text("other", "x"));
    assert_error(&send(form).await, 400, "BadRequestException");
    assert_error(&server.get(PREDICT).await, 405, "MethodNotAllowedException");
    assert_error(&server.get("/predictions/a/b/c").await, 404, "ResourceNotFoundException");
}

#[tokio::test(flavor = "multi_thread")]
async fn ping_tells_readiness_and_goes_with_its_apis() {
    let server = TestServer::bind(&[]).await;
    let answer = server.get("/ping").await;
    assert_eq!((answer.status.as_u16(), &answer.json), (503, &json!({ "status": "Unhealthy" })));
    let starting = send(server.post(PREDICT).body("x")).await;
    assert_error(&starting, 503, "ServiceUnavailableException");
    assert_eq!(starting.header("retry-after"), "1");
    server.load().await;
    let answer = server.get("/ping").await;
    assert_eq!((answer.status.as_u16(), &answer.json), (200, &json!({ "status": "Healthy" })));
    for (apis, ping, predict) in [("torchserve", 200, 200), ("sagemaker", 200, 404), ("v2", 404, 404)] {
        let server = TestServer::start(&["--apis", apis]).await;
        assert_eq!(server.get("/ping").await.status, ping, "{apis}");
        assert_eq!(send(server.post(PREDICT).body(png(9, 9))).await.status, predict, "{apis}");
    }
}
