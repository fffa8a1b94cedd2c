//! The main road: images in, classes out, in every form a client may use.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::multipart::{Form, Part};
use serde_json::json;

use crate::support::{TestServer, fixture, photo, png, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_photo_gets_its_classes() {
    let server = TestServer::start(&[]).await;
    let answer = server.classify(photo("cat.jpg")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.label(), "cat");
    assert_eq!(answer.json["predictions"].as_array().unwrap().len(), 5);
    let scores: Vec<f64> =
        answer.json["predictions"].as_array().unwrap().iter().map(|p| p["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores[0] <= 1.0, "{scores:?}");
    insta::assert_json_snapshot!(answer.json, { ".predictions[].score" => "[score]" });
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_its_id_and_its_times() {
    let server = TestServer::start(&[]).await;
    let answer = send(server.post("/api/v1/classify").header("x-request-id", "mine-1").body(png(40, 40))).await;
    assert_eq!(answer.header("x-request-id"), "mine-1");
    let timing = answer.header("server-timing");
    for part in [
        "decode;dur=",
        "preprocess;dur=",
        "queue;dur=",
        "infer;dur=",
        "postprocess;dur=",
        "batch;desc=\"1\"",
        "total;dur=",
    ] {
        assert!(timing.contains(part), "{part} is missing in {timing}");
    }
    let other = server.classify(png(40, 40)).await;
    assert_eq!(other.header("x-request-id").len(), 36);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_image_gets_the_same_classes_in_every_form() {
    let server = TestServer::start(&[]).await;
    let cat = photo("cat.jpg");
    let text = BASE64_STANDARD.encode(&cat);
    let raw = server.classify(cat.clone()).await;
    let post = || server.post("/api/v1/classify");
    for (name, request) in [
        ("form content type", post().header("content-type", "application/x-www-form-urlencoded").body(cat.clone())),
        ("wrong content type", post().header("content-type", "image/png").body(cat.clone())),
        ("said to be json", post().header("content-type", "application/json").body(cat.clone())),
        ("multipart", post().multipart(Form::new().part("image", Part::bytes(cat.clone()).file_name("cat.txt")))),
        ("json", post().json(&json!({ "image": text }))),
        ("data url", post().json(&json!({ "image": format!("data:image/jpeg;base64,{text}") }))),
    ] {
        let answer = send(request).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.json);
        assert_eq!(answer.json, raw.json, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_images_are_answered_in_order_each_for_itself() {
    let server = TestServer::start(&[]).await;
    let part = |bytes: Vec<u8>| Part::bytes(bytes).file_name("x.jpg");
    let form = Form::new()
        .part("a", part(photo("cat.jpg")))
        .part("b", part(b"no image at all".to_vec()))
        .part("c", part(Vec::new()))
        .part("d", part(png(33, 44)));
    let answer = send(server.post("/api/v1/classify?top_k=1").multipart(form)).await;
    assert_eq!(answer.status, 200);
    let results = answer.json["results"].as_array().unwrap();
    assert_eq!(results.len(), 4);
    assert_eq!(results[0]["predictions"][0]["label"], "cat");
    assert_eq!(results[1]["error"]["code"], "not_an_image");
    assert_eq!(results[2]["error"]["code"], "empty_image");
    assert_eq!(results[3]["image"], json!({ "width": 33, "height": 44, "format": "png" }));
    assert_eq!(results[3]["predictions"].as_array().unwrap().len(), 1);
    assert_eq!(answer.json["model"], "resnet20-cifar10");

    let text = BASE64_STANDARD.encode(photo("cat.jpg"));
    let answer = send(server.post("/api/v1/classify").json(&json!({ "images": [text, "*"] }))).await;
    assert_eq!(answer.json["results"][0]["predictions"][0]["label"], "cat");
    assert_eq!(answer.json["results"][1]["error"]["code"], "bad_base64");
}

#[tokio::test(flavor = "multi_thread")]
async fn top_k_is_the_number_of_classes_in_the_answer() {
    let server = TestServer::start(&[]).await;
    for top_k in [1, 2, 10] {
        let answer =
            send(server.post(&format!("/api/v1/classify?top_k={top_k}&model=resnet20-cifar10")).body(png(9, 9))).await;
        assert_eq!(answer.json["predictions"].as_array().unwrap().len(), top_k);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_is_served_by_its_bytes() {
    let server = TestServer::start(&[]).await;
    for (name, format) in [
        ("jpeg-cmyk.jpg", "jpeg"),
        ("jpeg-gray.jpg", "jpeg"),
        ("jpeg-420-progressive.jpg", "jpeg"),
        ("png-gray16.png", "png"),
        ("png-palette8-alpha.png", "png"),
        ("apng-first-in-data.png", "png"),
        ("webp-lossy.webp", "webp"),
        ("gif-animated.gif", "gif"),
        ("bmp-palette8.bmp", "bmp"),
        ("tiff-rgb8-lzw.tif", "tiff"),
    ] {
        let answer = server.classify(fixture(name)).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.json);
        assert_eq!(answer.json["image"]["format"], format, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn extreme_shapes_are_classified() {
    let server = TestServer::start(&[]).await;
    for (width, height) in [(1, 1), (1, 20_000), (20_000, 1), (2, 3)] {
        let answer = server.classify(png(width, height)).await;
        assert_eq!(answer.status, 200, "{width}x{height}: {}", answer.json);
        assert_eq!(answer.json["image"], json!({ "width": width, "height": height, "format": "png" }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exif_orientation_is_a_setting() {
    let turned = fixture("jpeg-orientation-6.jpg");
    let size = |answer: &serde_json::Value| {
        (answer["image"]["width"].as_u64().unwrap(), answer["image"]["height"].as_u64().unwrap())
    };
    let apply = TestServer::start(&[]).await.classify(turned.clone()).await;
    let ignore = TestServer::start(&["--exif-orientation", "ignore"]).await.classify(turned).await;
    let ((width, height), stored) = (size(&apply.json), size(&ignore.json));
    assert_eq!((height, width), stored);
    assert_ne!(width, height, "a square fixture would prove nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_batched_together_and_each_gets_its_own_answer() {
    // A long delay and a batch of exactly three: the third image lets the batch go.
    let server = TestServer::start(&["--batch-images-max", "3", "--batch-delay", "1h", "--instances", "1"]).await;
    let (cat, red, small) =
        tokio::join!(server.classify(photo("cat.jpg")), server.classify(png(50, 60)), server.classify(png(7, 8)),);
    assert_eq!(cat.label(), "cat");
    assert_eq!(red.json["image"]["height"], 60);
    assert_eq!(small.json["image"]["height"], 8);
    for answer in [&cat, &red, &small] {
        assert!(answer.header("server-timing").contains("batch;desc=\"3\""), "{:?}", answer.headers);
    }
    assert!(
        (server.metric("residual_batch_images_count{model=\"resnet20-cifar10\",version=\"1\"}").await - 1.0).abs()
            < f64::EPSILON
    );
}
