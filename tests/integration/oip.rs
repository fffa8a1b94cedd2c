//! The Open Inference Protocol over HTTP, from outside. tests/clients/ has the clients that people use; here is what they
//! would not send.

use std::fmt::Write as _;

use base64::Engine as _;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, TestServer, photo, png, read, send};

const TENSOR: &str = "/v2/models/resnet20-cifar10/infer";
const IMAGE: &str = "/v2/models/resnet20-cifar10_image/infer";
const HEADER_LENGTH: &str = "inference-header-content-length";
/// Values of one sample of the built-in model.
const SAMPLE: usize = 3 * 32 * 32;

fn values(images: usize) -> Vec<f32> {
    (0..images * SAMPLE).map(|n| f32::from(u16::try_from(n % 251).unwrap()) / 125.0 - 1.0).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn input(images: usize, more: &Value) -> Value {
    let mut input = json!({ "name": "input", "datatype": "FP32", "shape": [images, 3, 32, 32] });
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "inputs": [input] })
}

fn behind(json: &Value, bytes: &[u8]) -> (usize, Vec<u8>) {
    let mut body = serde_json::to_vec(json).unwrap();
    let len = body.len();
    body.extend_from_slice(bytes);
    (len, body)
}

/// Checks that this is the protocol's error.
fn error(answer: &Answer, status: u16) -> &str {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.json);
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(!answer.header("x-request-id").is_empty());
    answer.json["error"].as_str().unwrap_or_else(|| panic!("no error in {}", answer.json))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_and_its_models_tell() {
    let server = TestServer::start(&["--instances", "1", "--intra-op-threads", "1"]).await;
    let mut told = String::new();
    for path in [
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models",
        "/v2/models/resnet20-cifar10",
        "/v2/models/resnet20-cifar10_image/versions/1",
        "/v2/models/resnet20-cifar10/ready",
        "/v2/models/resnet20-cifar10/config",
        "/v2/models/resnet20-cifar10_image/config",
        "/v2/models/nobody",
        "/v2/models/nobody/ready",
        "/v2/models/resnet20-cifar10/versions/7",
        "/v2/nothing",
    ] {
        let answer = server.get(path).await;
        writeln!(told, "{path}\n    {} {}", answer.status.as_u16(), answer.json).unwrap();
    }
    insta::assert_snapshot!(told.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tensor_gives_the_same_as_numbers_and_as_bytes_whatever_its_company() {
    let server = TestServer::start(&[]).await;
    let all = values(3);
    let flat = send(server.post(TENSOR).json(&input(3, &json!({ "data": all })))).await;
    assert_eq!(flat.json["outputs"][0]["shape"], json!([3, 10]), "{}", flat.json);
    let nested: Vec<_> = all.chunks(SAMPLE).map(|image| image.chunks(32).collect::<Vec<_>>()).collect();
    let nested = send(server.post(TENSOR).json(&input(3, &json!({ "data": nested })))).await;
    assert_eq!(flat.json["outputs"], nested.json["outputs"]);
    let size = json!({ "parameters": { "binary_data_size": all.len() * 4 } });
    let (len, body) = behind(&input(3, &size), &bytes(&all));
    let binary = send(server.post(TENSOR).header(HEADER_LENGTH, len).body(body)).await;
    assert_eq!(flat.json["outputs"], binary.json["outputs"]);
    // As OpenVINO Model Server takes it: the rest of the body is the only input.
    let (len, body) = behind(&input(3, &json!({})), &bytes(&all));
    let rest = send(server.post(TENSOR).header(HEADER_LENGTH, len).body(body)).await;
    assert_eq!(flat.json["outputs"], rest.json["outputs"]);
    // Alone, and with the answer as bytes.
    let raw = server.post(TENSOR).header(HEADER_LENGTH, 0).body(bytes(&all[SAMPLE..2 * SAMPLE])).send().await.unwrap();
    let json_len: usize = raw.headers()[HEADER_LENGTH].to_str().unwrap().parse().unwrap();
    let raw = raw.bytes().await.unwrap();
    let logits: Vec<f32> =
        raw[json_len..].chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    let second =
        flat.json["outputs"][0]["data"].as_array().unwrap()[10..20].iter().map(|value| value.as_f64().unwrap());
    assert_eq!(logits.len(), 10);
    for (alone, among) in logits.into_iter().zip(second) {
        assert!((f64::from(alone) - among).abs() < 1e-4, "{alone} {among}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_gets_the_scores_of_the_native_api() {
    let server = TestServer::start(&[]).await;
    let (cat, coffee) = (photo("cat.jpg"), photo("coffee.jpg"));
    let base64 = |bytes: &[u8]| base64::prelude::BASE64_STANDARD.encode(bytes);
    let body = json!({
        "id": "two photos",
        "parameters": { "mine": 1, "timeout": 0 },
        "inputs": [{ "name": "image", "datatype": "BYTES", "shape": [2, 1], "data": [base64(&cat), base64(&coffee)] }],
    });
    let answer = send(server.post(IMAGE).json(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.json);
    assert_eq!((&answer.json["id"], &answer.json["parameters"]), (&json!("two photos"), &json!({ "mine": 1 })));
    let outputs = &answer.json["outputs"];
    assert_eq!(outputs[2]["data"], json!(["cat", "automobile"]));
    for (index, photo) in [cat.clone(), coffee].into_iter().enumerate() {
        let native = send(server.post("/api/v1/classify?top_k=10").body(photo)).await;
        assert_eq!(outputs[1]["data"][index], native.json["predictions"][0]["index"]);
        for prediction in native.json["predictions"].as_array().unwrap() {
            let class = usize::try_from(prediction["index"].as_u64().unwrap()).unwrap();
            assert_eq!(outputs[0]["data"][index * 10 + class], prediction["score"], "photo {index}, class {class}");
        }
    }
    let raw = server.post(IMAGE).header(HEADER_LENGTH, "0").body(cat).send().await.unwrap();
    assert!(raw.bytes().await.unwrap().ends_with(b"\x03\0\0\0cat"));
}

#[tokio::test(flavor = "multi_thread")]
async fn classification_ranks_the_outputs_values_and_names_them() {
    let server = TestServer::start(&[]).await;
    let of = async |name: &str, path: &str, input: Value, classes: i64| {
        let mut body = input;
        body["outputs"] = json!([{ "name": name, "parameters": { "classification": classes } }]);
        send(server.post(path).json(&body)).await
    };
    let answer = of("logits", TENSOR, input(2, &json!({ "data": values(2) })), 3).await;
    let output = &answer.json["outputs"][0];
    assert_eq!((&output["datatype"], &output["shape"]), (&json!("BYTES"), &json!([2, 3])), "{}", answer.json);
    let ranked: Vec<f64> = output["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap().split(':').next().unwrap().parse().unwrap())
        .collect();
    assert!(ranked[..3].is_sorted_by(|a, b| a >= b) && ranked[3..].is_sorted_by(|a, b| a >= b), "{ranked:?}");
    let cat = base64::prelude::BASE64_STANDARD.encode(photo("cat.jpg"));
    let image = json!({ "inputs": [{ "name": "image", "datatype": "BYTES", "shape": [1], "data": [cat] }] });
    let answer = of("probabilities", IMAGE, image.clone(), 2).await;
    let best = answer.json["outputs"][0]["data"][0].as_str().unwrap();
    assert!(best.starts_with("0.97") && best.ends_with(":3:cat") && best.len() == "0.972339:3:cat".len(), "{best}");
    let answer = of("label", IMAGE, image.clone(), 2).await;
    assert!(error(&answer, 400).contains("probabilities"), "{}", answer.json);
    let answer = of("logits", TENSOR, input(1, &json!({ "data": values(1) })), 1_000_000).await;
    assert_eq!(answer.json["outputs"][0]["shape"], json!([1, 10]));
    let answer = of("logits", TENSOR, input(1, &json!({ "data": values(1) })), -1).await;
    assert!(error(&answer, 400).contains("from 1 to 10"), "{}", answer.json);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_said_and_nothing_stays_behind() {
    let server = TestServer::start(&["--request-images-max", "4"]).await;
    let one = || values(1);
    let (mut nan, mut huge) = (one(), one());
    nan[7] = f32::NAN;
    huge.fill(f32::MAX);
    let size = |size: Value| json!({ "parameters": { "binary_data_size": size } });
    let data = |more: Value| {
        let mut body = input(1, &json!({ "data": one() }));
        body["inputs"][0].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        behind(&body, &[]).1
    };
    let binary = |images, claimed: usize, bytes: &[u8]| {
        let (len, body) = behind(&input(images, &size(claimed.into())), bytes);
        (len.to_string(), body)
    };
    let json_only = |body: Vec<u8>| (body.len().to_string(), body);
    for (what, (header, body), status, says) in [
        ("another type", json_only(data(json!({ "datatype": "FP64" }))), 400, "is FP64, expected FP32"),
        ("no type", json_only(data(json!({ "datatype": "FLOAT" }))), 400, "there is no datatype \"FLOAT\""),
        ("another shape", json_only(data(json!({ "shape": [1, 32, 32, 3] }))), 400, "expected [-1, 3, 32, 32]"),
        ("fewer dimensions", json_only(data(json!({ "shape": [3, 32, 32] }))), 400, "expected [-1, 3, 32, 32]"),
        ("a negative shape", json_only(data(json!({ "shape": [-1, 3, 32, 32] }))), 400, "which no tensor can have"),
        ("a huge shape", json_only(data(json!({ "shape": [i64::MAX, i64::MAX, 2, 2] }))), 400, "no tensor can have"),
        ("an empty batch", json_only(data(json!({ "shape": [0, 3, 32, 32], "data": [] }))), 400, "the batch is 0"),
        ("another name", json_only(data(json!({ "name": "data" }))), 400, "takes one input, \"input\""),
        ("too few values", json_only(data(json!({ "data": [1, 2] }))), 400, "has 2 value(s), the shape says 3072"),
        ("text for numbers", json_only(data(json!({ "data": ["x"] }))), 400, "a text where a number was expected"),
        ("a timeout in words", json_only(behind(&json!({ "parameters": { "timeout": "soon" }, "inputs": input(1, &json!({ "data": one() }))["inputs"] }), &[]).1), 400, "microseconds"),
        ("shared memory", json_only(data(json!({ "parameters": { "shared_memory_region": "r" } }))), 400, "shared memory"),
        ("no inputs", json_only(b"{\"inputs\": []}".to_vec()), 400, "the request has none"),
        ("no JSON", json_only(b"hello".to_vec()), 400, "JSON"),
        ("no object", json_only(b"[]".to_vec()), 400, "JSON"),
        ("NaN", binary(1, SAMPLE * 4, &bytes(&nan)), 400, "a value is NaN"),
        ("an overflow", binary(1, SAMPLE * 4, &bytes(&huge)), 400, "too large for this model"),
        ("fewer bytes than claimed", binary(1, SAMPLE * 4, &[0; 100]), 400, "claims 12288 bytes, 100 are left"),
        ("more bytes than claimed", binary(1, 8, &[0; 100]), 400, "92 bytes are left"),
        ("bytes of another shape", binary(2, SAMPLE * 4, &bytes(&one())), 400, "is 24576 bytes"),
        ("too many images", binary(5, 5 * SAMPLE * 4, &bytes(&values(5))), 413, "at most 4 are allowed"),
        ("a header past the body", ("99999999".to_owned(), data(json!({}))), 400, "the body has"),
        ("a negative header", ("-1".to_owned(), data(json!({}))), 400, "it is the number of bytes of JSON"),
        ("a header in words", ("ten".to_owned(), data(json!({}))), 400, "it is the number of bytes of JSON"),
        ("a raw tensor that is short", ("0".to_owned(), vec![0; 100]), 400, "is 12288 bytes"),
    ] {
        let answer = send(server.post(TENSOR).header(HEADER_LENGTH, header).body(body)).await;
        assert!(error(&answer, status).contains(says), "{what}: {}", answer.json);
    }
    for (what, body, says) in [
        ("no photo", b"text".to_vec(), "decode image"),
        ("half a photo", photo("cat.jpg")[..2000].to_vec(), "decode image"),
        ("nothing", Vec::new(), "decode image"),
    ] {
        let answer = read(server.post(IMAGE).header(HEADER_LENGTH, "0").body(body).send().await.unwrap()).await;
        assert!(
            answer.json["error"].as_str().unwrap().contains(says) && answer.status.is_client_error(),
            "{what}: {}",
            answer.json
        );
    }
    let two = json!({ "inputs": [{ "name": "image", "datatype": "BYTES", "shape": [2], "data": [
        base64::prelude::BASE64_STANDARD.encode(png(4, 4)), base64::prelude::BASE64_STANDARD.encode("text") ] }] });
    let answer = send(server.post(IMAGE).json(&two)).await;
    assert!(answer.json["error"].as_str().unwrap().starts_with("image 1: "), "{}", answer.json);
    assert_eq!(server.classify(photo("cat.jpg")).await.label(), "cat");
    server.until_metric("residual_upload_memory_bytes", 0.0).await;
    server.until_metric("residual_queue_images{model=\"resnet20-cifar10\",version=\"1\"}", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_unpacks_past_the_bound_is_refused_before_it_is_held() {
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use std::io::Write as _;
    let server = TestServer::start(&["--body-bytes-max", "1MiB"]).await;
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let answer = send(server.post(TENSOR).header("content-encoding", "gzip").body(gzip(&vec![b' '; 64 << 20]))).await;
    assert!(error(&answer, 413).contains("1048576"), "{}", answer.json);
    let good = serde_json::to_vec(&input(1, &json!({ "data": values(1) }))).unwrap();
    let cut = gzip(&good)[..100].to_vec();
    let answer = send(server.post(TENSOR).header("content-encoding", "gzip").body(cut)).await;
    assert!(error(&answer, 400).contains("compressed body is broken"), "{}", answer.json);
    let answer = send(server.post(TENSOR).header("content-encoding", "br").body("x")).await;
    assert!(error(&answer, 415).contains("gzip or deflate"), "{}", answer.json);
    let mut deflate = ZlibEncoder::new(Vec::new(), Compression::fast());
    deflate.write_all(&good).unwrap();
    let plain = send(server.post(TENSOR).body(good.clone())).await;
    for (name, packed) in [("gzip", gzip(&good)), ("deflate", deflate.finish().unwrap())] {
        let answer = send(server.post(TENSOR).header("content-encoding", name).body(packed)).await;
        assert_eq!(answer.json, plain.json, "{name}");
    }
    server.until_metric("residual_upload_memory_bytes", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_and_go_by_name() {
    let server = TestServer::start(&[]).await;
    let control = async |what: &str, body: &'static str| {
        send(server.post(&format!("/v2/repository/models/{what}")).body(body)).await
    };
    let index = send(server.post("/v2/repository/index")).await;
    let names: Vec<_> = index.json.as_array().unwrap().iter().map(|entry| (&entry["name"], &entry["state"])).collect();
    assert_eq!(
        names,
        [(&json!("resnet20-cifar10"), &json!("READY")), (&json!("resnet20-cifar10_image"), &json!("READY"))]
    );
    assert_eq!(control("resnet20-cifar10/unload", r#"{"parameters":{"unload_dependents":false}}"#).await.status, 200);
    assert_eq!(server.get("/v2/models/resnet20-cifar10/ready").await.status, 503);
    let refused = send(server.post(TENSOR).json(&input(1, &json!({ "data": values(1) })))).await;
    assert!(error(&refused, 503).contains("it was unloaded"), "{}", refused.json);
    error(&server.get("/v2/models/nobody").await, 404);
    assert!(
        server.classify(photo("cat.jpg")).await.assert_problem(503, "model_unavailable").contains("it was unloaded")
    );
    assert_eq!(server.get("/ping").await.status, 503);
    let index = send(server.post("/v2/repository/index")).await;
    let unloaded =
        json!([{ "name": "resnet20-cifar10", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded" }]);
    assert_eq!(index.json, unloaded);
    assert_eq!(control("resnet20-cifar10/unload", "").await.status, 200, "it is as was asked for");
    assert_eq!(control("resnet20-cifar10/load", "{}").await.status, 200);
    assert_eq!(
        server.get("/v2/models/resnet20-cifar10/ready").await.json,
        json!({ "name": "resnet20-cifar10", "ready": true })
    );
    assert_eq!(server.get("/ping").await.status, 200);
    error(&control("nobody/load", "").await, 404);
    error(&control("nobody/unload", "").await, 404);
    assert!(error(&control("resnet20-cifar10_image/unload", "").await, 400).contains("photo side"));
    let with_files = control("resnet20-cifar10/load", r#"{"parameters":{"config":"{}"}}"#).await;
    assert!(error(&with_files, 400).contains("\"config\" is not offered"), "{}", with_files.json);
    error(&control("resnet20-cifar10/load", "[").await, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_load_models_is_told_how_it_could_be_allowed() {
    let server = TestServer::start(&["--model-control", "off"]).await;
    let answer = send(server.post("/v2/repository/models/resnet20-cifar10/unload")).await;
    assert!(error(&answer, 403).contains("--model-control on"), "{}", answer.json);
    assert_eq!(server.get("/v2/models/resnet20-cifar10/ready").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_count_requests_images_and_runs() {
    let server = TestServer::start(&[]).await;
    assert_eq!(send(server.post(TENSOR).json(&input(3, &json!({ "data": values(3) })))).await.status, 200);
    assert_eq!(server.classify(photo("cat.jpg")).await.status, 200);
    assert_eq!(send(server.post(TENSOR).json(&input(1, &json!({ "data": [1] })))).await.status, 400);
    let stats = server.get("/v2/models/resnet20-cifar10/stats").await.json;
    let model = &stats["model_stats"][0];
    let sums = &model["inference_stats"];
    assert_eq!((&model["version"], &model["inference_count"]), (&json!("1"), &json!(4)), "{stats}");
    assert_eq!((&sums["success"]["count"], &sums["queue"]["count"]), (&json!(2), &json!(4)), "{stats}");
    let runs: u64 = model["batch_stats"]
        .as_array()
        .unwrap()
        .iter()
        .map(|batch| batch["compute_infer"]["count"].as_u64().unwrap())
        .sum();
    assert_eq!(model["execution_count"], runs, "{stats}");
    assert_eq!(server.get("/v2/models/stats").await.json["model_stats"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_switched_off_has_no_routes() {
    let server = TestServer::start(&["--apis", "none"]).await;
    for path in ["/v2", "/v2/health/ready", "/v2/models/resnet20-cifar10"] {
        assert_eq!(server.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(server.classify(photo("cat.jpg")).await.label(), "cat");
}

/// No photo makes scores infinite by itself: that is the model's fault, whoever asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_photo_that_the_model_fails_on_is_the_servers_fault_on_every_api() {
    let server = TestServer::start(&["--model", "tests/models/nan"]).await;
    let cat = photo("cat.jpg");
    let instances = json!({ "instances": [{ "b64": base64::prelude::BASE64_STANDARD.encode(&cat) }] });
    for request in [
        server.post("/api/v1/classify").body(cat.clone()),
        server.post("/v2/models/nan_image/infer").header(HEADER_LENGTH, "0").body(cat.clone()),
        server.post("/").body(cat.clone()),
        server.post("/v1/models/nan:predict").json(&instances),
        server.post("/invocations").body(cat.clone()),
        server.post("/predictions/nan").body(cat),
    ] {
        let answer = send(request).await;
        assert_eq!(answer.status, 500, "{}", answer.json);
        assert!(answer.json.to_string().contains("the server's log says why"), "{}", answer.json);
    }
}
