//! Model directories, with graphs so small that anyone can tell the right answer (`tests/models/make.py`).

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use prost::Message as _;
use reqwest::multipart::{Form, Part};
use residual::graph::proto::{DimensionValue, ModelProto, TypeValue};
use serde_json::{Value, json};

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

/// What ONNX Runtime's own Python package answers, beside each model.
fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(root().join("tests/models/expected.json")).unwrap()).unwrap()
}

/// Every model of `tests/models/make.py` that can be served: NHWC, f16 and u8 inputs, softmax inside, several outputs,
/// fixed batches.
#[tokio::test(flavor = "multi_thread")]
async fn every_model_answers_what_onnx_runtime_in_python_does() {
    let expected = expected();
    for (name, colours) in expected.as_object().unwrap() {
        let flags = ["--model", &model(name), "--instances", "1", "--batch-images-max", "6", "--batch-delay", "20ms"];
        let server = TestServer::start(&flags).await;
        let colours = colours.as_array().unwrap();
        let picture = |colour: &Value| {
            let rgb = [0, 1, 2].map(|channel| u8::try_from(colour["rgb"][channel].as_u64().unwrap()).unwrap());
            solid_png(4, 4, rgb)
        };
        for colour in colours {
            let answer = server.classify(picture(colour)).await;
            assert_predictions(name, &answer.json["predictions"], &colour["predictions"]);
        }
        // Together, so that they share a batch where the model takes one.
        let form = colours.iter().enumerate().fold(Form::new(), |form, (index, colour)| {
            form.part(index.to_string(), Part::bytes(picture(colour)).file_name("x.png"))
        });
        let answer = send(server.post("/api/v1/classify").multipart(form)).await;
        for (colour, result) in colours.iter().zip(answer.json["results"].as_array().unwrap()) {
            assert_predictions(name, &result["predictions"], &colour["predictions"]);
        }
        // Several instances run the graph as the first one optimised it, on weights that they are lent.
        let server = TestServer::start(&["--model", &model(name), "--instances", "3"]).await;
        let metadata = server.get(&format!("/api/v1/models/{name}")).await;
        assert_eq!(metadata.json["execution"]["shared_weights"], json!(true), "{name}");
        for colour in colours {
            let answer = server.classify(picture(colour)).await;
            assert_predictions(name, &answer.json["predictions"], &colour["predictions"]);
        }
    }
}

/// `expected`: `[[index, score], ...]`, best first; where scores are equal the order may differ.
fn assert_predictions(model: &str, found: &Value, expected: &Value) {
    // Half precision rounds scores to 2^-11; else ONNX Runtime computes both.
    let tolerance = if model == "half" { 1e-3 } else { 1e-5 };
    let (found, expected) = (found.as_array().unwrap(), expected.as_array().unwrap());
    assert_eq!(found.len(), expected.len(), "{model}: {found:?}");
    for (place, expected) in expected.iter().enumerate() {
        let score = expected[1].as_f64().unwrap();
        let off = |prediction: &Value| (prediction["score"].as_f64().unwrap() - score).abs();
        assert!(off(&found[place]) < tolerance, "{model}: {found:?}, expected {expected} in place {place}");
        let same = found.iter().find(|prediction| prediction["index"] == expected[0]);
        // The last place may have gone to another class of the same score.
        assert!(same.map_or(place + 1 == found.len(), |same| off(same) < tolerance), "{model}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_says_how_a_graph_is_fed_and_read() {
    for (name, pointer, expected) in [
        ("colours", "/contract/input/layout", json!("nchw")),
        ("colours", "/contract/batch", json!({"kind": "free"})),
        (
            "nhwc",
            "/contract/input",
            json!({"name": "image", "shape": [-1, 4, 4, 3], "layout": "nhwc", "element": "f32"}),
        ),
        ("nhwc-open", "/contract/input/layout", json!("nhwc")),
        ("half", "/contract/input/element", json!("f16")),
        ("half", "/contract/output/element", json!("f16")),
        ("bytes", "/contract/input/element", json!("u8")),
        ("bytes", "/recipe/rescale", json!(1.0)),
        ("bytes", "/recipe/mean", json!([0.0, 0.0, 0.0])),
        ("old-ir", "/contract/input/name", json!("image")),
        ("softmax", "/contract/output/scores", json!("probabilities")),
        ("softmax", "/contract/output/scores_source", json!("graph")),
        ("log-softmax", "/contract/output/scores", json!("log_probabilities")),
        ("sigmoid", "/contract/output/scores", json!("multi_label_probabilities")),
        ("multi-label", "/contract/output/scores", json!("multi_label_logits")),
        ("multi-label", "/contract/output/scores_source", json!("setting")),
        ("decomposed-softmax", "/contract/output/scores", json!("probabilities")),
        ("decomposed-softmax", "/contract/output/scores_source", json!("run")),
        ("logits-of-an-unknown-operator", "/contract/output/scores_source", json!("assumed")),
        ("two-outputs", "/contract/output/name", json!("logits")),
        ("features-beside-logits", "/contract/output/name", json!("logits")),
        ("softmax-beside-logits", "/contract/output/name", json!("logits")),
        ("background", "/contract/output/name", json!("softmax_tensor:0")),
        ("background", "/contract/output/background", json!(true)),
        ("background", "/contract/output/classes", json!(1000)),
        ("fixed-batch", "/contract/batch", json!({"kind": "freed", "from": 1})),
        ("fixed-batch", "/execution/batch_images_max", json!(6)),
        ("fixed-batch-reshape", "/contract/batch", json!({"kind": "freed", "from": 1})),
        ("fixed-batch-external", "/contract/batch", json!({"kind": "freed", "from": 1})),
        ("fixed-batch-4", "/contract/batch", json!({"kind": "freed", "from": 4})),
        ("traced-batch", "/contract/batch", json!({"kind": "freed", "from": 1})),
        ("traced-batch-baked", "/execution/batch_images_max", json!(1)),
        ("fixed-batch-baked", "/execution/batch_images_max", json!(1)),
        ("fixed-batch-4-baked", "/execution/batch_images_max", json!(4)),
        ("fixed-batch-mixed", "/execution/batch_images_max", json!(1)),
        ("dynamically-quantised", "/execution/batch_images_max", json!(1)),
    ] {
        let server = TestServer::start(&["--model", &model(name), "--instances", "1", "--batch-images-max", "6"]).await;
        let details = server.get(&format!("/api/v1/models/{name}")).await;
        assert_eq!(details.json.pointer(pointer), Some(&expected), "{name}: {}", details.json);
    }
}

/// Hugging Face keeps files under their hashes and models as links to them.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn weights_behind_links_are_found_when_the_graph_was_changed() {
    let (source, cache) = (root().join("tests/models/fixed-batch-external"), tempfile::tempdir().unwrap());
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshot"));
    std::fs::create_dir(&blobs).unwrap();
    std::fs::create_dir(&snapshot).unwrap();
    for (hash, file) in ["config.json", "preprocessor_config.json", "model.onnx", "model.onnx.data"].iter().enumerate()
    {
        std::fs::copy(source.join(file), blobs.join(hash.to_string())).unwrap();
        std::os::unix::fs::symlink(format!("../blobs/{hash}"), snapshot.join(file)).unwrap();
    }
    let server = TestServer::start(&["--model", snapshot.to_str().unwrap(), "--instances", "1"]).await;
    let batch = &server.get("/api/v1/models/snapshot").await.json["contract"]["batch"];
    assert_eq!(*batch, json!({"kind": "freed", "from": 1}));
    assert_eq!(server.classify(solid_png(4, 4, [0, 0, 255])).await.label(), "blue");
}

/// A copy of a model whose input and outputs fix a batch of `images`.
fn with_fixed_batch(name: &str, images: i64, folder: &Path) -> String {
    let target = folder.join(name);
    std::fs::create_dir(&target).unwrap();
    for file in std::fs::read_dir(model(name)).unwrap().map(|entry| entry.unwrap().path()) {
        std::fs::copy(&file, target.join(file.file_name().unwrap())).unwrap();
    }
    let path = target.join("model.onnx");
    let mut file = ModelProto::decode(&std::fs::read(&path).unwrap()[..]).unwrap();
    let graph = file.graph.as_mut().unwrap();
    for value in graph.input.iter_mut().chain(&mut graph.output) {
        let Some(TypeValue::Tensor(tensor)) = &mut value.r#type.as_mut().unwrap().value else { panic!("a tensor") };
        tensor.shape.as_mut().unwrap().dim[0].value = Some(DimensionValue::Value(images));
    }
    std::fs::write(&path, file.encode_to_vec()).unwrap();
    target.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_batch_that_mixes_its_images_runs_each_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = with_fixed_batch("fixed-batch-mixed", 4, folder.path());
    let server = TestServer::start(&["--model", &path, "--batch-delay", "20ms"]).await;
    let metadata = server.get("/api/v1/models/fixed-batch-mixed").await.json;
    assert_eq!(metadata["contract"]["batch"]["images"], json!(4), "{metadata}");
    assert_eq!((&metadata["contract"]["mixes"], &metadata["execution"]["batch_images_max"]), (&json!(true), &json!(1)));
    let pictures = [[250, 10, 10], [0, 200, 0], [0, 0, 9]].map(|rgb| solid_png(4, 4, rgb));
    let form = pictures.iter().enumerate().fold(Form::new(), |form, (index, picture)| {
        form.part(index.to_string(), Part::bytes(picture.clone()).file_name("x.png"))
    });
    let together = send(server.post("/api/v1/classify").multipart(form)).await;
    for (index, picture) in pictures.into_iter().enumerate() {
        let alone = server.classify(picture).await;
        assert_eq!(together.json["results"][index]["predictions"], alone.json["predictions"], "image {index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_cannot_be_made_free_says_why() {
    for (name, images, why) in [
        ("fixed-batch-baked", 1, "joins the images with a constant of a fixed batch"),
        ("traced-batch-baked", 1, "joins the images with a constant of a fixed batch"),
        ("fixed-batch-4-baked", 4, "joins the images with a constant of a fixed batch"),
        ("fixed-batch-mixed", 1, "in a batch of 2, scores of image 0 are"),
        ("dynamically-quantised", 1, "in a batch of 2, scores of image 1 are"),
    ] {
        let server = TestServer::start(&["--model", &model(name), "--instances", "1", "--batch-images-max", "6"]).await;
        let batch = &server.get(&format!("/api/v1/models/{name}")).await.json["contract"]["batch"];
        assert_eq!(
            (batch["kind"].as_str(), batch["images"].as_i64()),
            (Some("fixed"), Some(images)),
            "{name}: {batch}"
        );
        assert!(batch["why"].as_str().unwrap().contains(why), "{name}: {batch}");
    }
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
        (model("softmax-of-the-batch"), "Softmax over axis 0"),
        (model("two-heads"), "choose one with name = under [output] in residual.toml"),
        (model("gray"), "grey images"),
        (model("clipped-sigmoid"), "scores = \"multi_label_probabilities\" under [output] in residual.toml"),
        (model("dropout-in-training"), "call model.eval() first"),
        (model("batch-norm-in-training"), "call model.eval() first"),
        (broken, "Git LFS pointer"),
        (labels.path().to_str().unwrap().to_owned(), "config.json names 2 classes, but the model"),
        (climbing_weights(folder.path()), "../model.onnx.data"),
    ] {
        let server = residual::serve::Server::bind(&crate::support::settings(&["--model", &model])).await.unwrap();
        let error = format!("{:#}", server.load(Instant::now()).await.unwrap_err());
        assert!(error.contains(expected), "{model}: {error}");
    }
}

/// What the server says of a model until it is ready.
fn log(model: &Path) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_residual"))
        .args(["--http-port", "0", "--instances", "1", "--model", model.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = Vec::new();
    // A server that gives up ends its log.
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        seen.push(line);
        if seen.last().is_some_and(|line| line.contains("ready at http://")) {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    seen.join("\n")
}

#[test]
fn what_nobody_tells_is_said_at_the_start() {
    let warns = |log: &str, of: &str| log.lines().any(|line| line.contains("WARN") && line.contains(of));
    let told = tempfile::tempdir().unwrap();
    let with = |name: &str, toml: &str| {
        for file in ["model.onnx", "config.json", "preprocessor_config.json"] {
            std::fs::copy(root().join("tests/models").join(name).join(file), told.path().join(file)).unwrap();
        }
        std::fs::write(told.path().join("residual.toml"), toml).unwrap();
        log(told.path())
    };
    for (name, warning, toml) in [
        ("logits-of-an-unknown-operator", "they are taken for logits", "[output]\nscores = \"logits\""),
        ("normalises-itself", "the graph normalises by itself", "[recipe]\nmean = [0, 0, 0]\nstd = [1, 1, 1]"),
    ] {
        let seen = log(Path::new(&model(name)));
        assert!(warns(&seen, warning), "{name}: {seen}");
        let seen = with(name, toml);
        assert!(seen.contains("ready at") && !warns(&seen, warning), "{name}: {seen}");
    }
    let seen = log(Path::new(&model("colours")));
    assert!(seen.contains("ready at") && !seen.contains("WARN") && !seen.contains("the batch stays"), "{seen}");
    assert!(log(Path::new(&model("dynamically-quantised"))).contains("the batch stays as it is"));
}

/// A model whose weights lie outside its directory, where the file to read is really there.
fn climbing_weights(folder: &Path) -> String {
    let (source, target) = (root().join("tests/models/fixed-batch-external"), folder.join("climbing"));
    std::fs::create_dir(&target).unwrap();
    for file in ["config.json", "preprocessor_config.json"] {
        std::fs::copy(source.join(file), target.join(file)).unwrap();
    }
    std::fs::copy(source.join("model.onnx.data"), folder.join("model.onnx.data")).unwrap();
    let mut file = ModelProto::decode(&std::fs::read(source.join("model.onnx")).unwrap()[..]).unwrap();
    let outside =
        file.graph.iter_mut().flat_map(|graph| &mut graph.initializer).flat_map(|tensor| &mut tensor.external_data);
    outside
        .filter(|entry| entry.key() == "location")
        .for_each(|entry| entry.value = Some("../model.onnx.data".to_owned()));
    std::fs::write(target.join("model.onnx"), file.encode_to_vec()).unwrap();
    target.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_the_runtime_throws_on_fails_alone_and_makes_no_server_unready() {
    let server = TestServer::start(&["--model", &model("throws-on-white")]).await;
    let (white, red) = (solid_png(4, 4, [255, 255, 255]), solid_png(4, 4, [255, 0, 0]));
    let part = |bytes: &Vec<u8>| Part::bytes(bytes.clone()).file_name("x.png");
    // All of a form may well be one batch.
    for _ in 0..4 {
        let form = (0..8).fold(Form::new(), |form, n| form.part("image", part(if n % 2 == 0 { &red } else { &white })));
        let answer = send(server.post("/api/v1/classify").multipart(form)).await;
        for n in 0..8 {
            let result = &answer.json["results"][n];
            match n % 2 {
                0 => assert_eq!(result["predictions"][0]["label"], "red", "{n}: {}", answer.json),
                _ => assert_eq!(result["error"]["code"], "inference_failed", "{n}: {}", answer.json),
            }
        }
    }
    // More failed runs than make a model ill, if its own picture failed as well.
    for _ in 0..12 {
        server.classify(white.clone()).await.assert_problem(500, "inference_failed");
    }
    server.watched(server.until_metric("residual_model_healthy{model=\"throws-on-white\",version=\"1\"}", 1.0)).await;
    assert_eq!(server.get("/health/ready").await.status, 200);
    assert_eq!(server.classify(red).await.label(), "red");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_hangs_is_stopped_and_the_model_answers_again() {
    let model = model("hangs-on-white");
    let server = TestServer::start(&["--model", &model, "--request-timeout", "1s", "--stuck-after", "1500ms"]).await;
    let (white, red) = (solid_png(4, 4, [255, 255, 255]), solid_png(4, 4, [255, 0, 0]));
    assert_eq!(server.classify(red.clone()).await.label(), "red");
    server
        .watched(async {
            // Nobody waits for ever: the caller leaves at its deadline, and the run ends soon after.
            server.classify(white.clone()).await.assert_problem(504, "deadline_exceeded");
            let answered = async {
                loop {
                    let answer = server.classify(red.clone()).await;
                    if answer.status == 200 {
                        return answer;
                    }
                }
            };
            assert_eq!(answered.await.label(), "red");
        })
        .await;
    assert_eq!(server.get("/health/live").await.status, 200);
}
