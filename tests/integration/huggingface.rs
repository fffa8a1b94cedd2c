//! Hugging Face's image classification, as its client sends it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::support::{Answer, TestServer, photo, png, send};

/// What the native API says of a photo, as `label` and `score`.
pub(crate) async fn native(server: &TestServer, image: &[u8]) -> Vec<(String, Value)> {
    let answer = server.classify(image.to_vec()).await;
    let classes = answer.json["predictions"].as_array().unwrap().clone();
    classes.into_iter().map(|class| (class["label"].as_str().unwrap().to_owned(), class["score"].clone())).collect()
}

/// Checks an error of the form `{"error": sentence}` and returns the sentence.
pub(crate) fn sentence(answer: &Answer, status: u16) -> &str {
    assert_eq!(answer.status, status, "{}", answer.json);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json.as_object().unwrap().len(), 1, "{}", answer.json);
    answer.json["error"].as_str().unwrap()
}

fn pairs(list: &Value) -> Vec<(String, Value)> {
    let pair = |class: &Value| (class["label"].as_str().unwrap().to_owned(), class["score"].clone());
    list.as_array().unwrap().iter().map(pair).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_and_form_gives_the_scores_of_the_native_route() {
    let server = TestServer::start(&[]).await;
    let cat = photo("cat.jpg");
    let expected = native(&server, &cat).await;
    let text = BASE64_STANDARD.encode(&cat);
    for path in [
        "/",
        "/models/resnet20-cifar10",
        "/models/someone/resnet20-cifar10",
        "/models/someone%2Fresnet20-cifar10",
        "/pipeline/image-classification/someone/resnet20-cifar10",
        "/hf-inference/models/someone/resnet20-cifar10",
    ] {
        for request in [
            server.post(path).body(cat.clone()),
            server.post(path).header("content-type", "image/png").body(cat.clone()),
            server.post(path).json(&json!({ "inputs": text })),
            server.post(path).body(json!({ "inputs": format!("data:image/jpeg;base64,{text}") }).to_string()),
        ] {
            let answer = send(request).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.json);
            assert_eq!(pairs(&answer.json), expected, "{path}");
        }
    }
    let several = send(server.post("/").json(&json!({ "inputs": [text, BASE64_STANDARD.encode(png(9, 9))] }))).await;
    assert_eq!(pairs(&several.json[0]), expected);
    assert_eq!(several.json.as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_choose_how_many_classes_and_which_function() {
    let server = TestServer::start(&[]).await;
    let text = BASE64_STANDARD.encode(photo("cat.jpg"));
    let with = |parameters: Value| server.post("/").json(&json!({ "inputs": text, "parameters": parameters }));
    for (top_k, expected) in [(1, 1), (10, 10), (1000, 10)] {
        assert_eq!(send(with(json!({ "top_k": top_k }))).await.json.as_array().unwrap().len(), expected);
    }
    let softmax = send(with(json!({ "function_to_apply": "softmax", "top_k": 10 }))).await;
    let scores: Vec<f64> = pairs(&softmax.json).iter().map(|(_, score)| score.as_f64().unwrap()).collect();
    assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-4);
    let none = send(with(json!({ "function_to_apply": "none", "top_k": 10 }))).await;
    let logits: Vec<f64> = pairs(&none.json).iter().map(|(_, score)| score.as_f64().unwrap()).collect();
    assert!(logits[0] > 1.0 && logits[9] < 0.0, "{logits:?}");
    let sigmoid = send(with(json!({ "function_to_apply": "sigmoid", "top_k": 1 }))).await;
    let score = sigmoid.json[0]["score"].as_f64().unwrap();
    assert!((score - 1.0 / (1.0 + (-logits[0]).exp())).abs() < 1e-5);
    assert!(sentence(&send(with(json!({ "top_k": 0 }))).await, 400).contains("at least 1"));
    for top_k in [json!("x"), json!(-1), json!(1.5), json!(1e12)] {
        assert!(sentence(&send(with(json!({ "top_k": top_k }))).await, 400).contains("top_k"), "{top_k}");
    }
    assert_eq!(send(with(json!({ "top_k": 2.0 }))).await.json.as_array().unwrap().len(), 2);
    assert!(sentence(&send(with(json!({ "function_to_apply": "relu" }))).await, 400).contains("softmax"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_the_graph_has_closed_off_is_refused() {
    let server = TestServer::start(&["--model", "tests/models/softmax"]).await;
    let text = BASE64_STANDARD.encode(photo("cat.jpg"));
    let with = |name: &str| json!({ "inputs": text, "parameters": { "function_to_apply": name } });
    let refused = send(server.post("/").json(&with("sigmoid"))).await;
    assert!(sentence(&refused, 422).contains("nothing undoes"));
    assert_eq!(send(server.post("/").json(&with("softmax"))).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_classified_is_told_in_one_sentence() {
    let server = TestServer::start(&["--body-bytes-max", "1MiB"]).await;
    let refused = async |body: Vec<u8>, status| sentence(&send(server.post("/").body(body)).await, status).to_owned();
    assert!(refused(Vec::new(), 400).await.contains("send an image"));
    refused(b"no image".to_vec(), 415).await;
    refused(photo("cat.jpg")[..4000].to_vec(), 422).await;
    refused(vec![b'x'; (1 << 20) + 1], 413).await;
    assert!(refused(b"{\"inputs\": 3}".to_vec(), 400).await.contains("send {\"inputs\""));
    assert!(refused(b"{\"inputs\": []}".to_vec(), 400).await.contains("empty"));
    assert!(refused(b"{\"inputs\": \"*\"}".to_vec(), 400).await.contains("not base64"));
    assert!(refused(b"{\"inputs\": \"http://a/b.jpg\"}".to_vec(), 400).await.contains("fetches nothing"));
    let unknown = send(server.post("/models/microsoft/resnet-50").body(png(9, 9))).await;
    assert!(sentence(&unknown, 404).contains("this server has \"resnet20-cifar10\""));
    let wrong = send(server.client.get(server.url("/models/a/b"))).await;
    assert_eq!((wrong.status.as_u16(), wrong.header("allow")), (405, "POST"));
    assert!(!wrong.json["error"].as_str().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_ready_says_when_to_come_back() {
    let server = TestServer::bind(&[]).await;
    let answer = send(server.post("/").body(png(9, 9))).await;
    sentence(&answer, 503);
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_switched_off_is_not_there() {
    let server = TestServer::start(&["--apis", "none"]).await;
    for path in ["/models/resnet20-cifar10", "/pipeline/image-classification/x", "/hf-inference/models/x"] {
        assert_eq!(send(server.post(path).body(png(9, 9))).await.status, 404, "{path}");
    }
    assert_eq!(send(server.post("/").body(png(9, 9))).await.status, 405);
    assert_eq!(server.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_name_the_model_and_the_outcome() {
    let server = TestServer::start(&[]).await;
    send(server.post("/models/a/resnet20-cifar10").body(png(9, 9))).await;
    send(server.post("/models/a/resnet20-cifar10").body("no image")).await;
    let page = server.client.get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
    for outcome in ["ok", "not_an_image"] {
        let found = page.lines().any(|line| {
            line.starts_with("residual_requests_total")
                && line.contains("route=\"/models/{*path}\"")
                && line.contains("model=\"resnet20-cifar10\"")
                && line.contains(&format!("\"{outcome}\""))
        });
        assert!(found, "{outcome}: {page}");
    }
}
