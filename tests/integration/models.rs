//! Model directories, with graphs so small that anyone can tell the right answer (`tests/models/make.py`).

use std::time::Instant;

use reqwest::multipart::{Form, Part};

use crate::support::{TestServer, root, send, solid_png};

fn model(name: &str) -> String {
    root().join("tests/models").join(name).to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_served_by_its_own_name_labels_and_recipe() {
    let server = TestServer::start(&["--model", &model("colours")]).await;
    for (name, rgb) in [("red", [250, 10, 10]), ("green", [0, 200, 0]), ("blue", [0, 0, 9])] {
        let answer = server.classify(solid_png(40, 30, rgb)).await;
        assert_eq!((answer.json["model"].as_str(), answer.label()), (Some("colours"), name));
        assert_eq!(answer.json["predictions"].as_array().unwrap().len(), 3, "five are the default, three there are");
    }
    // Logits are (2v/255 - 1): for pure red softmax(1, -1, -1).
    let red = server.classify(solid_png(8, 8, [255, 0, 0])).await;
    let expected = 1f64.exp() / (1f64.exp() + 2.0 * (-1f64).exp());
    assert!((red.json["predictions"][0]["score"].as_f64().unwrap() - expected).abs() < 1e-6, "{}", red.json);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_that_fits_the_labels_is_the_one() {
    let server = TestServer::start(&["--model", &model("two-outputs")]).await;
    assert_eq!(server.classify(solid_png(4, 4, [0, 255, 0])).await.label(), "green");
    assert_eq!(server.get("/api/v1/models/two-outputs").await.json["contract"]["output"], "logits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_the_graph_fixes_to_one_is_served_one_by_one() {
    let server = TestServer::start(&["--model", &model("fixed-batch"), "--workers", "1"]).await;
    let (red, blue) =
        tokio::join!(server.classify(solid_png(4, 4, [255, 0, 0])), server.classify(solid_png(4, 4, [0, 0, 255])),);
    assert_eq!((red.label(), blue.label()), ("red", "blue"));
    let details = server.get("/api/v1/models/fixed-batch").await;
    assert_eq!(details.json["execution"]["batch_images_max"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nan_is_an_error_for_its_image_and_the_log_says_why() {
    let server = TestServer::start(&["--model", &model("nan")]).await;
    let (light, dark) = (solid_png(4, 4, [255, 200, 200]), solid_png(4, 4, [0, 0, 0]));
    assert_eq!(server.classify(light.clone()).await.label(), "red");
    let answer = server.classify(dark.clone()).await;
    assert!(answer.assert_problem(500, "inference_failed").contains("log says why"));
    let part = |bytes| Part::bytes(bytes).file_name("x.png");
    let form = Form::new().part("a", part(dark)).part("b", part(light));
    let answer = send(server.post("/api/v1/classify").multipart(form)).await;
    assert_eq!(answer.json["results"][0]["error"]["code"], "inference_failed");
    assert_eq!(answer.json["results"][1]["predictions"][0]["label"], "red");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_that_would_be_served_wrong_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().to_str().unwrap().to_owned();
    for file in ["config.json", "preprocessor_config.json"] {
        std::fs::copy(root().join("tests/models/colours").join(file), folder.path().join(file)).unwrap();
    }
    std::fs::write(folder.path().join("model.onnx"), "version https://git-lfs.github.com/spec/v1").unwrap();
    let labels = tempfile::tempdir().unwrap();
    for file in ["model.onnx", "preprocessor_config.json"] {
        std::fs::copy(root().join("tests/models/colours").join(file), labels.path().join(file)).unwrap();
    }
    std::fs::write(labels.path().join("config.json"), r#"{"id2label":{"0":"a","1":"b"}}"#).unwrap();
    for (model, expected) in [
        (model("softmax"), "probabilities"),
        (broken, "load model"),
        (labels.path().to_str().unwrap().to_owned(), "one score for each label"),
    ] {
        let server = residual::serve::Server::bind(&crate::support::settings(&["--model", &model])).await.unwrap();
        let error = format!("{:#}", server.load(Instant::now()).await.unwrap_err());
        assert!(error.contains(expected), "{model}: {error}");
    }
}
