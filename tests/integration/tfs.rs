//! KServe v1 and TensorFlow Serving: rows, columns, status, metadata.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::huggingface::sentence;
use crate::support::{Answer, TestServer, photo, png, send};

const PREDICT: &str = "/v1/models/resnet20-cifar10:predict";

async fn predict(server: &TestServer, body: Value) -> Answer {
    send(server.post(PREDICT).json(&body)).await
}

/// One image of the built-in model's input, `[3,32,32]`.
fn tensor(value: f64) -> Value {
    json!(vec![vec![vec![value; 32]; 32]; 3])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrapping_of_a_photo_gives_the_scores_of_the_native_route() {
    let server = TestServer::start(&[]).await;
    let cat = photo("cat.jpg");
    let expected = server.classify(cat.clone()).await.json["predictions"].clone();
    let text = BASE64_STANDARD.encode(&cat);
    let b64 = json!({ "b64": text });
    for instance in [
        json!(text),
        b64.clone(),
        json!({ "image": b64 }),
        json!({ "image": text }),
        json!({ "image_bytes": b64, "key": "1" }),
        json!({ "whatever": b64, "more": [1, { "x": null }] }),
        json!([text]),
        json!([b64]),
    ] {
        let answer = predict(&server, json!({ "instances": [instance] })).await;
        assert_eq!(answer.status, 200, "{instance:.80}: {}", answer.json);
        let prediction = &answer.json["predictions"][0];
        assert_eq!(prediction["predictions"], expected);
        assert_eq!(prediction["classes"], expected[0]["index"]);
        assert_eq!((&prediction["label"], &prediction["score"]), (&expected[0]["label"], &expected[0]["score"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_one_request_are_answered_in_order_and_share_a_batch() {
    let server = TestServer::start(&["--batch-images-max", "3", "--batch-delay", "9s", "--instances", "1"]).await;
    let text = BASE64_STANDARD.encode(photo("cat.jpg"));
    let instances = json!([{ "b64": BASE64_STANDARD.encode(png(9, 9)) }, tensor(0.5), { "b64": text }]);
    let body = json!({ "instances": instances, "parameters": { "top_k": 2 } });
    let answer = predict(&server, body).await;
    let predictions = answer.json["predictions"].as_array().unwrap_or_else(|| panic!("{}", answer.json));
    assert_eq!(predictions.len(), 3);
    assert_eq!(predictions[0]["predictions"].as_array().unwrap().len(), 2);
    assert_eq!(predictions[1].as_array().unwrap().len(), 10);
    assert_eq!(predictions[2]["label"], "cat");
    assert!(answer.header("server-timing").contains("batch;desc=\"3\""), "{:?}", answer.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_answered_with_columns() {
    let server = TestServer::start(&[]).await;
    let b64 = json!({ "b64": BASE64_STANDARD.encode(photo("cat.jpg")) });
    let expected = server.classify(photo("cat.jpg")).await.json["predictions"][0].clone();
    for inputs in [json!([b64, b64]), json!({ "image": [b64, b64] }), json!({ "input": [[b64], [b64]] })] {
        let answer = predict(&server, json!({ "inputs": inputs })).await;
        let outputs = &answer.json["outputs"];
        assert_eq!(outputs["label"], json!([["cat"], ["cat"]]), "{}", answer.json);
        assert_eq!(outputs["class_index"], json!([[expected["index"]], [expected["index"]]]));
        let best = usize::try_from(expected["index"].as_u64().unwrap()).unwrap();
        assert_eq!(outputs["probabilities"][1][best], expected["score"]);
    }
    let one = predict(&server, json!({ "inputs": b64 })).await;
    assert_eq!(one.json["outputs"]["label"], "cat");
    assert_eq!(one.json["outputs"]["probabilities"].as_array().unwrap().len(), 10);
    let tensors = predict(&server, json!({ "inputs": { "input": [tensor(0.0), tensor(0.5)] } })).await;
    assert_eq!(tensors.json["outputs"].as_array().unwrap().len(), 2, "{}", tensors.json);
    assert_eq!(tensors.json["outputs"][0].as_array().unwrap().len(), 10);
    let rows = predict(&server, json!({ "instances": [tensor(0.0), tensor(0.5)] })).await;
    assert_eq!(rows.json["predictions"], tensors.json["outputs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_told_with_its_place() {
    let server = TestServer::start(&["--request-images-max", "2"]).await;
    let refused = async |body: &str, status: u16, says: &str| {
        let answer = send(server.post(PREDICT).body(body.to_owned())).await;
        let found = sentence(&answer, status);
        assert!(found.contains(says), "{body:.80}: {found}");
    };
    let tensor_with =
        |from: &str, to: &str| json!({ "instances": [tensor(0.5), tensor(0.5)] }).to_string().replacen(from, to, 1);
    refused("", 400, "send an image").await;
    refused("[]", 400, "expected an object").await;
    refused("{}", 400, "it has no image").await;
    refused(r#"{"instances": []}"#, 400, "is empty").await;
    refused(r#"{"instances": 3}"#, 400, "a list of images").await;
    refused(r#"{"instances": "aGk="}"#, 400, "a list of images").await;
    refused(r#"{"instances": [3]}"#, 400, "an image in base64").await;
    refused(r#"{"instances": [{}]}"#, 400, "image 0: the object holds no image").await;
    refused(r#"{"instances": [{"image": "aGk=", "data": "aGk="}]}"#, 400, "several images").await;
    refused(r#"{"instances": ["aGk="]}"#, 400, "not an image").await;
    refused(r#"{"instances": ["*"]}"#, 400, "image 0: the image is not base64").await;
    refused(r#"{"instances": ["", "", ""]}"#, 413, "more than 2 images").await;
    refused(r#"{"instances": ["aGk="], "inputs": ["aGk="]}"#, 400, "and before it").await;
    refused(r#"{"instances": ["aGk="], "signature_name": "other"}"#, 400, "serving_default").await;
    refused(r#"{"inputs": {"picture": ["aGk="]}}"#, 400, "no input \"picture\"").await;
    refused(r#"{"instances": [[1, 2, 3]]}"#, 400, "image 0: a number stands in 1 lists").await;
    refused(r#"{"instances": [[[[[1]]]]]}"#, 400, "more than 3 lists").await;
    refused(r#"{"instances": [["aGk=", "aGk="]]}"#, 400, "several photos").await;
    refused(&tensor_with("0.5,", ""), 400, "image 0: dimension 2 has 31 values, expected 32").await;
    refused(&tensor_with("0.5,", "0.5,0.5,"), 400, "more than 32 values").await;
    refused(&tensor_with("0.5", "NaN"), 400, "not the JSON").await;
    refused(&tensor_with("0.5", "1e400"), 400, "out of range").await;
    refused(&tensor_with("0.5", "1e39"), 400, "image 0: a value is inf").await;
    refused(&tensor_with("0.5", "\"0.5\""), 400, "a text among the numbers").await;
    refused(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)), 400, "not the JSON").await;
    let answer =
        send(server.post("/v1/models/resnet20-cifar10:predict?top_k=11").body(r#"{"instances":["aGk="]}"#)).await;
    assert!(sentence(&answer, 400).contains("from 1 to 10"));
    assert_eq!(server.metric("residual_upload_memory_bytes").await.to_bits(), 0.0f64.to_bits());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_of_millions_of_numbers_ends_at_its_bound_and_keeps_no_memory() {
    let server = TestServer::start(&["--body-bytes-max", "64MiB"]).await;
    let numbers = "0,".repeat(20 << 20);
    for body in [
        format!("{{\"instances\": [[[[{numbers}0]]]]}}"),
        format!("{{\"instances\": [{numbers}0]}}"),
        format!("{{\"ignored\": [{numbers}0], \"instances\": [[{numbers}"),
    ] {
        let answer = send(server.post(PREDICT).body(body)).await;
        assert!(answer.status == 400 || answer.status == 413, "{}", answer.json);
        assert!(answer.json["error"].is_string());
    }
    server.until_metric("residual_upload_memory_bytes", 0.0).await;
    assert_eq!(server.classify(photo("cat.jpg")).await.label(), "cat");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_metadata_serve_both_kinds_of_clients() {
    let server = TestServer::start(&[]).await;
    assert_eq!(server.get("/").await.json["status"], "alive");
    assert_eq!(server.get("/v1/models").await.json, json!({ "models": ["resnet20-cifar10"] }));
    for path in ["", "/versions/1", "/versions/0"] {
        let status = server.get(&format!("/v1/models/resnet20-cifar10{path}")).await;
        assert_eq!(
            status.json,
            json!({
                "name": "resnet20-cifar10",
                "ready": true,
                "model_version_status": [
                    { "version": "1", "state": "AVAILABLE", "status": { "error_code": "OK", "error_message": "" } }
                ],
            })
        );
        let metadata = server.get(&format!("/v1/models/resnet20-cifar10{path}/metadata")).await;
        assert_eq!(metadata.json["modelSpec"]["version"], "1");
        let definition = &metadata.json["metadata"]["signature_def"]["signatureDef"]["serving_default"];
        let (_, input) = definition["inputs"].as_object().unwrap().iter().next().unwrap();
        assert_eq!(input["dtype"], "DT_FLOAT");
        let sizes: Vec<&str> =
            input["tensorShape"]["dim"].as_array().unwrap().iter().map(|dim| dim["size"].as_str().unwrap()).collect();
        assert_eq!(sizes, ["-1", "3", "32", "32"]);
        assert_eq!(metadata.json["metadata"]["signature_def"]["signature_def"]["serving_default"], *definition);
        assert_eq!(input["tensor_shape"], input["tensorShape"]);
    }
    let image = server.get("/v1/models/resnet20-cifar10_image/metadata").await;
    let definition = &image.json["metadata"]["signature_def"]["signature_def"]["serving_default"];
    assert_eq!(definition["inputs"]["image"]["dtype"], "DT_STRING");
    assert_eq!(definition["outputs"].as_object().unwrap().len(), 3);
    for path in ["/v1/models/x", "/v1/models/resnet20-cifar10/versions/7", "/v1/models/x/metadata"] {
        sentence(&server.get(path).await, 404);
    }
    sentence(&send(server.post("/v1/models/x:predict").body("{}")).await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_both_faces_answer_alike_and_other_verbs_are_refused() {
    let server = TestServer::start(&[]).await;
    let body = json!({ "instances": [BASE64_STANDARD.encode(photo("cat.jpg"))] });
    let expected = predict(&server, body.clone()).await.json;
    for path in [
        "/v1/models/resnet20-cifar10/versions/1:predict",
        "/v1/models/resnet20-cifar10/versions/0:predict",
        "/v1/models/resnet20-cifar10_image:predict",
        "/v1/models/resnet20-cifar10%3Apredict",
    ] {
        let answer = send(server.post(path).json(&body)).await;
        assert_eq!(answer.json, expected, "{path}");
    }
    for verb in ["explain", "classify", "regress"] {
        let answer = send(server.post(&format!("/v1/models/resnet20-cifar10:{verb}")).json(&body)).await;
        assert!(sentence(&answer, 501).contains(":predict"));
    }
    let wrong = server.get(PREDICT).await;
    assert_eq!((wrong.status.as_u16(), wrong.header("allow")), (405, "POST"));
    let off = TestServer::start(&["--apis", "v2"]).await;
    assert_eq!(send(off.post(PREDICT).json(&body)).await.status, 404);
    assert_eq!(off.get("/v1/models").await.status, 404);
}
