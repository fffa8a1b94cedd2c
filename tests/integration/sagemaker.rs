//! SageMaker's container contract, with models that come and go.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::huggingface::{native, sentence};
use crate::support::{Answer, TestServer, photo, png, root, send};

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_is_answered_in_the_form_of_its_request() {
    let server = TestServer::start(&[]).await;
    let cat = photo("cat.jpg");
    let text = BASE64_STANDARD.encode(&cat);
    let expected = native(&server, &cat).await;
    let invoke = || server.post("/invocations");
    let classes = |list: &Value| -> Vec<(String, Value)> {
        let pair = |class: &Value| (class["label"].as_str().unwrap().to_owned(), class["score"].clone());
        list.as_array().unwrap_or_else(|| panic!("{list}")).iter().map(pair).collect()
    };
    assert_eq!(classes(&send(invoke().body(cat.clone())).await.json), expected);
    let typed = invoke().header("content-type", "application/x-image").header("accept", "*/*").body(cat.clone());
    assert_eq!(classes(&send(typed).await.json), expected);
    assert_eq!(classes(&send(invoke().json(&json!({ "inputs": text }))).await.json), expected);
    let rows = send(invoke().json(&json!({ "instances": [{ "b64": text }] }))).await;
    assert_eq!(classes(&rows.json["predictions"][0]["predictions"]), expected);
    let columns = send(invoke().json(&json!({ "inputs": [{ "b64": text }] }))).await;
    assert_eq!(columns.json["outputs"]["label"], json!([["cat"]]));
    let image = send(invoke().json(&json!({ "image": text }))).await;
    assert_eq!(image.json, server.classify(cat.clone()).await.json);
    let images = send(invoke().json(&json!({ "images": [text, text] }))).await;
    assert_eq!(classes(&images.json["results"][1]["predictions"]), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn accept_decides_how_a_bare_photo_is_answered() {
    let server = TestServer::start(&[]).await;
    let cat = photo("cat.jpg");
    let expected = native(&server, &cat).await;
    let accept = async |value: &str| send(server.post("/invocations").header("accept", value).body(cat.clone())).await;
    let verbose = accept("application/json;verbose").await;
    assert_eq!(verbose.json["predicted_label"], "cat");
    assert_eq!(verbose.json["labels"].as_array().unwrap().len(), 10);
    assert!(verbose.json["probabilities"].as_array().unwrap().contains(&expected[0].1));
    let lines = accept("application/jsonlines").await;
    assert_eq!(lines.header("content-type"), "application/jsonlines");
    let text = lines.json.as_str().unwrap();
    let parsed: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((parsed.len(), &parsed[0]), (5, &json!({ "label": "cat", "score": expected[0].1 })));
    let refused = accept("application/x-npy").await;
    assert!(sentence(&refused, 406).contains("application/jsonlines"));
    sentence(&send(server.post("/invocations").body("no image")).await, 415);
    assert_eq!(server.get("/invocations").await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_models_do_not_come_and_go() {
    let server = TestServer::start(&[]).await;
    assert_eq!(server.get("/models").await.status, 404);
    let load = json!({ "model_name": "x", "url": "/opt/ml/models/x" });
    assert_eq!(send(server.post("/models").json(&load)).await.status, 404);
    assert_eq!(send(server.client.delete(server.url("/models/x"))).await.status, 405);
    let off = TestServer::start(&["--apis", "v2", "--sagemaker-multi-model"]).await;
    for path in ["/models", "/invocations"] {
        assert_eq!(send(off.post(path).json(&load)).await.status, 404, "{path}");
    }
}

fn copy_model(name: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(root().join("tests/models").join(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

async fn load(server: &TestServer, name: &str, url: &Path) -> Answer {
    send(server.post("/models").json(&json!({ "model_name": name, "url": url }))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_and_go_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    let (softmax, sigmoid) = (models.join("1f/model"), models.join("2e/model"));
    copy_model("softmax", &softmax);
    copy_model("sigmoid", &sigmoid);
    let server =
        TestServer::start(&["--sagemaker-multi-model", "--sagemaker-models-root", models.to_str().unwrap()]).await;
    let invoke = |name: &str| server.post(&format!("/models/{name}/invoke")).body(photo("cat.jpg"));
    assert_eq!(server.get("/ping").await.status, 200);
    assert_eq!(server.get("/models").await.json, json!({ "models": [] }));
    sentence(&send(invoke("a")).await, 404);
    sentence(&server.get("/models/a").await, 404);
    sentence(&send(server.client.delete(server.url("/models/a"))).await, 404);

    let loaded = load(&server, "a", &softmax).await;
    assert_eq!((loaded.status.as_u16(), &loaded.json), (200, &json!({ "modelName": "a", "modelUrl": softmax })));
    assert!(sentence(&load(&server, "a", &sigmoid).await, 409).contains("\"a\" is loaded"));
    assert_eq!(load(&server, "b", &sigmoid).await.status, 200);
    let listed = server.get("/models").await;
    assert_eq!(
        listed.json["models"],
        json!([{ "modelName": "a", "modelUrl": softmax }, { "modelName": "b", "modelUrl": sigmoid }])
    );
    assert_eq!(server.get("/models?next_page_token=a").await.json["models"][0]["modelName"], "b");
    assert_eq!(server.get("/models/b").await.json["modelUrl"], json!(sigmoid));
    let answer = send(invoke("a")).await;
    assert_eq!(answer.json.as_array().unwrap().len(), 5.min(answer.json.as_array().unwrap().len()), "{}", answer.json);
    assert_eq!(answer.json[0]["label"], send(server.post("/models/a").body(photo("cat.jpg"))).await.json[0]["label"]);

    // A reload looks at them as at all others, and keeps them.
    let changes = server.reload().await;
    assert!(changes.failed.is_empty() && changes.unloaded.is_empty(), "{changes:?}");
    assert_eq!(send(invoke("b")).await.status, 200);
    let deleted = send(server.client.delete(server.url("/models/a"))).await;
    assert_eq!(deleted.status, 200);
    sentence(&send(invoke("a")).await, 404);
    sentence(&server.get("/models/a").await, 404);
    assert_eq!(server.reload().await, residual::models::Changes::default());
    assert_eq!(load(&server, "a", &sigmoid).await.status, 200);
    assert_eq!(send(invoke("a")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_loaded_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    copy_model("softmax", &models.join("good"));
    copy_model("softmax", &folder.path().join("outside"));
    copy_model("softmax", &models.join("broken"));
    std::fs::write(models.join("broken/model.onnx"), b"no graph").unwrap();
    copy_model("softmax", &models.join("huge"));
    // A hole of a petabyte, which no machine has memory for.
    std::fs::File::create(models.join("huge/model.onnx.data")).unwrap().set_len(1 << 42).unwrap();
    let server =
        TestServer::start(&["--sagemaker-multi-model", "--sagemaker-models-root", models.to_str().unwrap()]).await;
    assert!(sentence(&load(&server, "x", &models.join("huge")).await, 507).contains("unload other models"));
    assert!(sentence(&load(&server, "x", &models.join("broken")).await, 422).contains("log says why"));
    for outside in [folder.path().join("outside"), models.join("../outside"), models.join("nothing"), models.clone()] {
        assert!(sentence(&load(&server, "x", &outside).await, 400).contains("below"), "{}", outside.display());
    }
    assert!(sentence(&load(&server, "a/b", &models.join("good")).await, 400).contains("letters"));
    sentence(&send(server.post("/models").body("{}")).await, 400);
    assert_eq!(server.get("/models").await.json, json!({ "models": [] }));
    assert!(server.models().rows().is_empty());
    assert_eq!(load(&server, "x", &models.join("good")).await.status, 200);
    assert_eq!(send(server.post("/models/x/invoke").body(png(9, 9))).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_of_the_settings_stay_beside_those_that_come() {
    let folder = tempfile::tempdir().unwrap();
    copy_model("softmax", &folder.path().join("x"));
    let flags = ["--sagemaker-multi-model", "--sagemaker-models-root", folder.path().to_str().unwrap()];
    let server = TestServer::start(&[&flags[..], &["--model", "own=builtin"]].concat()).await;
    sentence(&load(&server, "own", &folder.path().join("x")).await, 409);
    assert_eq!(load(&server, "x", &folder.path().join("x")).await.status, 200);
    assert_eq!(send(server.post("/models/own/invoke").body(photo("cat.jpg"))).await.json[0]["label"], "cat");
    sentence(&send(server.client.delete(server.url("/models/own"))).await, 404);
    assert_eq!(send(server.post("/invocations").body(photo("cat.jpg"))).await.json[0]["label"], "cat");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_open_inference_protocol_travels_in_a_type_of_its_own() {
    let server = TestServer::start(&[]).await;
    let metadata = server.get("/v2/models/resnet20-cifar10").await;
    let name = &metadata.json["inputs"][0]["name"];
    let raw: Vec<u8> = std::iter::repeat_n(0.5f32.to_le_bytes(), 3 * 32 * 32).flatten().collect();
    let input = json!({
        "name": name, "shape": [1, 3, 32, 32], "datatype": "FP32", "parameters": { "binary_data_size": raw.len() },
    });
    let document = json!({ "inputs": [input], "parameters": { "binary_data_output": true } }).to_string();
    let body = [document.as_bytes(), &raw].concat();
    let ask = |path: &str, name: &str, value: String| server.post(path).header(name, value).body(body.clone()).send();
    let expected =
        ask("/v2/models/resnet20-cifar10/infer", "inference-header-content-length", document.len().to_string());
    let expected = expected.await.unwrap();
    let length = expected.headers()["inference-header-content-length"].to_str().unwrap().to_owned();
    let media_type = "application/vnd.sagemaker-triton.binary+json";
    let found = ask("/invocations", "content-type", format!("{media_type};json-header-size={}", document.len()));
    let found = found.await.unwrap();
    assert_eq!(found.status(), 200);
    assert_eq!(found.headers()["content-type"].to_str().unwrap(), format!("{media_type};json-header-size={length}"));
    assert!(found.bytes().await.unwrap().ends_with(&expected.bytes().await.unwrap()[length.parse().unwrap()..]));
    for size in ["x", "-1", "100000000"] {
        let header = format!("{media_type};json-header-size={size}");
        let answer = send(server.post("/invocations").header("content-type", header).body(body.clone())).await;
        sentence(&answer, 400);
    }
}
