//! Everything a client can get wrong, and what it is told.

use std::fmt::Write as _;

use reqwest::multipart::{Form, Part};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{PATIENCE, TestServer, photo, png, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_jpeg_is_broken_and_never_half_an_answer() {
    let server = TestServer::start(&[]).await;
    let whole = photo("cat.jpg");
    for percent in [3, 10, 50, 90, 99] {
        let answer = server.classify(whole[..whole.len() * percent / 100].to_vec()).await;
        let detail = answer.assert_problem(422, "broken_image");
        assert!(detail.contains("JPEG image is broken"), "{percent} %: {detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_at_all_is_an_empty_body() {
    let server = TestServer::start(&[]).await;
    assert!(server.classify("").await.assert_problem(400, "empty_body").contains("curl"));
    let form = Form::new();
    send(server.post("/api/v1/classify").multipart(form)).await.assert_problem(400, "empty_body");
    let form = Form::new().part("image", Part::bytes(Vec::new()).file_name("empty.jpg"));
    send(server.post("/api/v1/classify").multipart(form)).await.assert_problem(400, "empty_image");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_named_jpg_is_not_an_image() {
    let server = TestServer::start(&[]).await;
    let part = Part::bytes(b"dear server, I am a JPEG".to_vec()).file_name("photo.jpg").mime_str("image/jpeg").unwrap();
    let answer = send(server.post("/api/v1/classify").multipart(Form::new().part("image", part))).await;
    assert!(answer.assert_problem(415, "not_an_image").contains("JPEG, PNG, WebP, GIF, BMP and TIFF"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_is_known_but_not_decoded_is_named() {
    let server = TestServer::start(&[]).await;
    let answer = server.classify(&b"\0\0\0\x1cftypheic\0\0\0\0mif1heic"[..]).await;
    assert!(answer.assert_problem(415, "unsupported_image").contains("HEIC"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_of_one_kilobyte_is_refused_by_its_header() {
    let server = TestServer::start(&[]).await;
    let mut bomb = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = b"IHDR".to_vec();
    header.extend([65_535u32.to_be_bytes(), 65_535u32.to_be_bytes()].concat());
    header.extend([8, 2, 0, 0, 0]);
    bomb.extend(13u32.to_be_bytes());
    bomb.extend(&header);
    bomb.extend(crc32(&header).to_be_bytes());
    bomb.resize(1024, 0);
    let answer = server.classify(bomb).await;
    assert!(answer.assert_problem(413, "image_too_large").contains("65535"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pixel_bound_is_a_setting_and_exact() {
    let server = TestServer::start(&["--image-pixels-max", "100"]).await;
    assert_eq!(server.classify(png(10, 10)).await.status, 200);
    let answer = server.classify(png(101, 1)).await;
    assert_eq!(answer.assert_problem(413, "image_too_large"), "101x1 has 101 pixels, at most 100 allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gif_without_frames_is_broken() {
    let server = TestServer::start(&[]).await;
    let gif = b"GIF89a\x02\0\x02\0\x80\0\0\0\0\0\xff\xff\xff;".to_vec();
    server.classify(gif).await.assert_problem(422, "broken_image");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_multipart_body_that_is_cut_is_refused_as_a_whole() {
    let server = TestServer::start(&[]).await;
    let mut body = b"--b\r\ncontent-disposition: form-data; name=\"image\"; filename=\"c.jpg\"\r\n\r\n".to_vec();
    body.extend(&photo("cat.jpg")[..1000]);
    let post = |content_type: &'static str, body: Vec<u8>| {
        send(server.post("/api/v1/classify").header("content-type", content_type).body(body))
    };
    post("multipart/form-data; boundary=b", body.clone()).await.assert_problem(400, "bad_multipart");
    post("multipart/form-data", body).await.assert_problem(400, "bad_multipart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_harms_nobody() {
    let server = TestServer::start(&[]).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream
        .write_all(b"POST /api/v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\nonly this")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    server.until_metric("residual_requests_in_flight", 1.0).await; // the request for the metrics itself
    server.until_metric("residual_upload_memory_bytes", 0.0).await;
    assert_eq!(server.classify(png(8, 8)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_parts_are_too_many() {
    let server = TestServer::start(&["--request-images-max", "4"]).await;
    let form = |parts: usize| {
        (0..parts).fold(Form::new(), |form, n| form.part(format!("i{n}"), Part::bytes(png(4, 4)).file_name("i.png")))
    };
    let answer = send(server.post("/api/v1/classify").multipart(form(4))).await;
    assert_eq!(answer.json["results"].as_array().unwrap().len(), 4);
    for parts in [5, 1000] {
        let answer = send(server.post("/api/v1/classify").multipart(form(parts))).await;
        assert!(answer.assert_problem(413, "too_many_images").contains("at most 4"));
    }
    let images = vec!["aGk="; 5];
    send(server.post("/api/v1/classify").json(&json!({ "images": images })))
        .await
        .assert_problem(413, "too_many_images");
}

#[tokio::test(flavor = "multi_thread")]
async fn top_k_out_of_range_names_the_range() {
    let server = TestServer::start(&[]).await;
    for top_k in ["0", "11", "100000", "-1", "five", "", "1e1"] {
        let answer = send(server.post(&format!("/api/v1/classify?top_k={top_k}")).body(png(4, 4))).await;
        assert!(answer.assert_problem(400, "bad_top_k").contains("from 1 to 10"), "{top_k}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_models_parameters_routes_and_methods_are_named() {
    let server = TestServer::start(&[]).await;
    let answer = send(server.post("/api/v1/classify?model=resnet50").body(png(4, 4))).await;
    assert!(answer.assert_problem(404, "unknown_model").contains("resnet20-cifar10"));
    let answer = send(server.post("/api/v1/classify?topk=3").body(png(4, 4))).await;
    assert!(answer.assert_problem(400, "bad_query").contains("model, version and top_k"));
    let answer = send(server.post("/api/v1/classify?top_k=1&top_k=2").body(png(4, 4))).await;
    assert_eq!(answer.assert_problem(400, "bad_query"), "top_k is given twice");
    server.get("/api/v1/models/resnet50").await.assert_problem(404, "unknown_model");
    server.get("/api/v2/classify").await.assert_problem(404, "not_found");
    let answer = server.get("/api/v1/classify").await;
    answer.assert_problem(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "POST");
    let answer = send(server.client.delete(server.url("/metrics"))).await;
    answer.assert_problem(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "GET, HEAD");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_not_understood_is_explained() {
    let server = TestServer::start(&[]).await;
    for (body, code, hint) in [
        ("{", "bad_json", "EOF"),
        ("{}", "bad_json", "has no \"image\""),
        ("[1]", "bad_json", "expected"),
        ("{\"image\":\"aGk=\",\"topk\":3}", "bad_json", "unknown field `topk`"),
        ("{\"image\":\"aGk=\",\"images\":[]}", "bad_json", "both"),
        ("{\"images\":[]}", "bad_json", "is empty"),
        ("{\"image\":7}", "bad_json", "invalid type"),
        ("{\"image\":\"!!!\"}", "bad_base64", "not base64"),
    ] {
        let request =
            server.post("/api/v1/classify").header("content-type", "application/json; charset=utf-8").body(body);
        let answer = send(request).await;
        assert!(answer.assert_problem(400, code).contains(hint), "{body}: {}", answer.json);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sent_is_not_sent_back_whole() {
    let server = TestServer::start(&[]).await;
    let photo = "A".repeat(1_000_000);
    let body = format!("{{\"{photo}\": 1}}");
    let answer = send(server.post("/api/v1/classify").header("content-type", "application/json").body(body)).await;
    assert!(answer.assert_problem(400, "bad_json").len() < 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_a_form_without_a_file_name_are_passed_over() {
    let server = TestServer::start(&[]).await;
    let file = || Part::bytes(photo("cat.jpg")).file_name("cat.jpg");
    let form = Form::new().text("csrf", "token").part("image", file());
    assert_eq!(send(server.post("/api/v1/classify").multipart(form)).await.label(), "cat");
    let form = Form::new().text("csrf", "token");
    send(server.post("/api/v1/classify").multipart(form)).await.assert_problem(400, "empty_body");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoded_body_is_named_as_such() {
    let server = TestServer::start(&[]).await;
    let post = |encoding| server.post("/api/v1/classify").header("content-encoding", encoding).body(png(4, 4));
    assert!(send(post("gzip")).await.assert_problem(415, "unsupported_encoding").contains("gzip"));
    assert_eq!(send(post("identity")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_bound_is_exact_and_named_also_without_a_length() {
    let server = TestServer::start(&["--body-bytes-max", "2000B"]).await;
    let mut fits = png(4, 4);
    fits.resize(2000, 0);
    assert_eq!(server.classify(fits.clone()).await.status, 200);
    fits.push(0);
    let answer = server.classify(fits.clone()).await;
    assert!(answer.assert_problem(413, "body_too_large").contains("2001 bytes, at most 2000"));
    // The same body in chunks, with no length announced.
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let mut request = String::from(
        "POST /api/v1/classify HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    (0..21).for_each(|_| write!(request, "64\r\n{}\r\n", "x".repeat(100)).unwrap());
    request.push_str("0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("body_too_large"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_still_sending_gets_to_read_that_its_body_is_too_large() {
    let server = TestServer::start(&["--body-bytes-max", "1KiB"]).await;
    let answer = server.classify(vec![0u8; 8 * 1024 * 1024]).await;
    answer.assert_problem(413, "body_too_large");
}

/// CRC-32 as PNG has it (ISO 3309), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}
