//! What lies around a model, seen through the server: recipes and labels with their sources, and files that lie.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::convert::prepared;
use crate::support::{TestServer, photo, root, settings, solid_png};

/// `tests/models/colours`, without the files beside the graph.
fn bare(folder: &Path) -> String {
    let path = folder.join("mine.onnx");
    fs::copy(root().join("tests/models/colours/model.onnx"), &path).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn details(flags: &[&str], name: &str) -> Value {
    TestServer::start(flags).await.get(&format!("/api/v1/models/{name}")).await.json
}

async fn refusal(model: &Path) -> String {
    let server = residual::serve::Server::bind(&settings(&["--model", model.to_str().unwrap()])).await.unwrap();
    format!("{:#}", server.load(std::time::Instant::now()).await.unwrap_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipe_is_taken_from_the_strongest_voice_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let model = bare(folder.path());
    let beside = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();

    let seen = details(&["--model", &model], "mine").await;
    assert_eq!(seen["recipe_source"], "assumed", "{seen}");
    // Brought to the 4x4 pixels that the graph takes.
    assert_eq!(seen["recipe"]["crop"]["width"], 4);

    fs::copy(
        root().join("tests/models/colours/preprocessor_config.json"),
        folder.path().join("preprocessor_config.json"),
    )
    .unwrap();
    let seen = details(&["--model", &model], "mine").await;
    assert_eq!(seen["recipe_source"], "preprocessor_config.json");

    beside("residual.toml", "preset = \"cifar10\"\n[recipe]\nchannel_order = \"bgr\"\n");
    let seen = details(&["--model", &model], "mine").await;
    assert_eq!((&seen["recipe_source"], &seen["recipe"]["channel_order"]), (&"residual.toml".into(), &"bgr".into()));

    let seen = details(&["--model", &model, "--preset", "mine=timm-a1", "--preset", "mlperf"], "mine").await;
    assert_eq!((&seen["recipe_source"], &seen["recipe"]["filter"]), (&"setting".into(), &"bicubic".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_taken_from_the_strongest_voice_and_say_which() {
    let folder = tempfile::tempdir().unwrap();
    let model = bare(folder.path());
    let beside = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let labels = async || {
        let seen = details(&["--model", &model], "mine").await;
        (seen["label_source"].as_str().unwrap().to_owned(), seen["classes"][0]["label"].as_str().unwrap().to_owned())
    };
    let said = |source: &str, label: &str| (source.to_owned(), label.to_owned());
    assert_eq!(labels().await, said("index", "0"));
    beside("synset.txt", "n00000001 one\nn00000002 two\nn00000003 three\n");
    assert_eq!(labels().await, said("synset.txt", "one"));
    beside("labels.txt", "uno\ndos\ntres\n");
    assert_eq!(labels().await, said("labels.txt", "uno"));
    beside("config.json", r#"{"id2label": {"0": "eins", "1": "zwei", "2": "drei"}}"#);
    assert_eq!(labels().await, said("config.json", "eins"));
    beside("residual.toml", "labels = [\"un\", \"deux\", \"trois\"]\n");
    assert_eq!(labels().await, said("residual.toml", "un"));
    beside("mine.residual.toml", "labels = \"labels.txt\"\n");
    assert_eq!(labels().await, said("labels.txt", "uno"));
    beside("mine.residual.toml", "labels = [\"only one\"]\n");
    let text = refusal(Path::new(&model)).await;
    assert!(text.contains("mine.residual.toml names 1 classes, but the model mine has 3"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_the_scores_contradict_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = bare(folder.path());
    fs::write(folder.path().join("residual.toml"), "[output]\nscores = \"probabilities\"\n").unwrap();
    let text = refusal(Path::new(&model)).await;
    assert!(text.contains("values outside of 0..=1") && text.contains("write \"logits\""), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_without_labels_and_with_1000_classes_knows_imagenet() {
    let folder = tempfile::tempdir().unwrap();
    crate::synth::synth(folder.path(), &["resnet18", "--size", "32"]);
    fs::remove_file(folder.path().join("residual.toml")).unwrap();
    let server = TestServer::start(&["--model", &format!("big={}", folder.path().display())]).await;
    let seen = server.get("/api/v1/models/big").await.json;
    assert_eq!((&seen["label_source"], &seen["recipe_source"]), (&"imagenet-1k".into(), &"assumed".into()));
    assert_eq!(seen["classes"][134]["label"], "crane");
    let answer = server.classify(photo("cat.jpg")).await;
    assert_eq!((answer.status.as_u16(), answer.json["predictions"].as_array().unwrap().len()), (200, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_served_as_the_graph_that_they_convert_to() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, _) = prepared(folder.path());
    let graph = folder.path().join("folded");
    let [weights, graph] = [weights, graph].map(|path| path.to_str().unwrap().to_owned());
    let preset = ["--preset", "cifar10"];
    let from_weights = TestServer::start(&[&["--model", &weights][..], &preset].concat()).await;
    let from_graph = TestServer::start(&[&["--model", &graph][..], &preset].concat()).await;
    let (one, other) = (from_weights.classify(photo("cat.jpg")).await, from_graph.classify(photo("cat.jpg")).await);
    assert_eq!(one.json["predictions"], other.json["predictions"]);
    let seen = from_weights.get("/api/v1/models/weights/graph").await.json;
    assert_eq!((&seen["name"], &seen["shortcuts"]["projection"]), (&"ResNet-20 (CIFAR)".into(), &2.into()), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_graph_route_says_what_inspect_says() {
    let server = TestServer::start(&[]).await;
    let route = server.get("/api/v1/models/resnet20-cifar10/graph").await.json;
    let output =
        crate::cli::run(&["inspect", root().join("models/resnet20-cifar10/model.onnx").to_str().unwrap(), "--json"]);
    assert_eq!(route, serde_json::from_slice::<Value>(&output.stdout).unwrap());
    assert_eq!(server.get("/api/v1/models/resnet20-cifar10/versions/1/graph").await.json, route);
    server.get("/api/v1/models/nothing/graph").await.assert_problem(404, "unknown_model");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_lies_keeps_the_server_from_starting_and_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let honest = fs::read(root().join("models/resnet20-cifar10/model.onnx")).unwrap();
    for (bytes, expected) in [
        (honest[..honest.len() / 2].to_vec(), "m.onnx"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n".to_vec(), "Git LFS"),
        (b"<!DOCTYPE html><html></html>".to_vec(), "HTML"),
        (Vec::new(), "empty"),
        ((0..9999u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(), "m.onnx"),
    ] {
        fs::write(&path, &bytes).unwrap();
        let text = refusal(&path).await;
        assert!(text.contains(expected) && text.starts_with("read "), "{text}");
    }
    fs::write(&path, &honest).unwrap();
    fs::write(folder.path().join("residual.toml"), "presett = \"cifar10\"").unwrap();
    let text = refusal(&path).await;
    assert!(text.contains("residual.toml") && text.contains("presett"), "{text}");
    let text = refusal(Path::new("resnet50")).await;
    assert!(text.contains("`residual pull resnet50-v1-12` fetches"), "{text}");
    // The server of a good model still starts in the same process.
    fs::remove_file(folder.path().join("residual.toml")).unwrap();
    let server = TestServer::start(&["--model", path.to_str().unwrap(), "--preset", "cifar10"]).await;
    assert_eq!(server.classify(solid_png(8, 8, [0, 0, 255])).await.status, 200);
}
