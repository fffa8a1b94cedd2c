//! Several models and versions at once, and changes while requests are in flight.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::{Answer, TestServer, root, send, settings, solid_png};

const RED: [u8; 3] = [250, 10, 10];

/// A model directory with the labels `PREFIX red`, `PREFIX green`, `PREFIX blue`.
fn put(directory: &Path, prefix: &str) {
    fs::create_dir_all(directory).unwrap();
    let from = root().join("tests/models/colours");
    for file in ["model.onnx", "preprocessor_config.json"] {
        fs::copy(from.join(file), directory.join(file)).unwrap();
    }
    relabel(directory, prefix);
}

/// Replaces the labels in one step, as deployments do.
fn relabel(directory: &Path, prefix: &str) {
    let labels = ["red", "green", "blue"].map(|colour| format!("{prefix} {colour}"));
    let config = serde_json::json!({ "id2label": { "0": labels[0], "1": labels[1], "2": labels[2] } });
    replace(&directory.join("config.json"), config.to_string().as_bytes());
}

fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::rename(&new, path).unwrap();
}

struct Repository(tempfile::TempDir);

impl Repository {
    /// Directories with their label prefix.
    fn new(models: &[(&str, &str)]) -> Self {
        let repository = Self(tempfile::tempdir().unwrap());
        models.iter().for_each(|(directory, prefix)| put(&repository.path(directory), prefix));
        repository
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    async fn serve(&self, more: &[&str]) -> TestServer {
        TestServer::start(&[&["--models", self.0.path().to_str().unwrap()], more].concat()).await
    }
}

async fn red(server: &TestServer, query: &str) -> Answer {
    send(server.post(&format!("/api/v1/classify{query}")).body(solid_png(8, 8, RED))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_serves_all_its_models_by_name() {
    let repository = Repository::new(&[("a", "A"), ("b", "B")]);
    let server = repository.serve(&[]).await;
    for (name, label) in [("a", "A red"), ("b", "B red")] {
        let answer = red(&server, &format!("?model={name}")).await;
        assert_eq!((answer.json["model"].as_str(), answer.label()), (Some(name), label));
    }
    let detail = red(&server, "").await.assert_problem(400, "model_needed").to_owned();
    assert!(detail.ends_with("name one of \"a\", \"b\""), "{detail}");
    let detail = red(&server, "?model=c").await.assert_problem(404, "unknown_model").to_owned();
    assert!(detail.contains("this server has \"a\", \"b\""), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_is_the_one_that_was_asked_for_or_the_first_that_was_named() {
    let repository = Repository::new(&[("a", "A"), ("b", "B")]);
    let server = repository.serve(&["--default-model", "b"]).await;
    assert_eq!(red(&server, "").await.label(), "B red");
    let named = |name: &str| format!("{name}2={}", repository.path(name).display());
    let server = TestServer::start(&["--model", &named("b"), "--model", &named("a")]).await;
    assert_eq!(red(&server, "").await.label(), "B red");
    assert_eq!(red(&server, "?model=a2").await.label(), "A red");
    let wrong = ["--models", repository.0.path().to_str().unwrap(), "--default-model", "c"];
    let server = residual::serve::Server::bind(&settings(&wrong)).await.unwrap();
    let error = server.load(std::time::Instant::now()).await.unwrap_err();
    assert_eq!(error.to_string(), "the default model is \"c\", but the models are a, b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preset_for_a_model_that_is_not_there_is_refused() {
    let server = residual::serve::Server::bind(&settings(&["--preset", "restnet=mlperf"])).await.unwrap();
    let error = server.load(std::time::Instant::now()).await.unwrap_err().to_string();
    assert_eq!(error, "a preset is set for the model \"restnet\", but the models are resnet20-cifar10");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_version_answers_unless_another_is_asked_for() {
    let repository = Repository::new(&[("m/9", "nine"), ("m/10", "ten")]);
    let server = repository.serve(&[]).await;
    let newest = red(&server, "").await;
    assert_eq!((newest.label(), newest.json["model_version"].as_str()), ("ten red", Some("10")));
    assert_eq!(red(&server, "?model=m&version=9").await.label(), "nine red");
    let detail = red(&server, "?version=11").await.assert_problem(404, "unknown_version").to_owned();
    assert!(detail.ends_with("there is \"9\", \"10\""), "{detail}");
    assert_eq!(server.get("/api/v1/models/m").await.json["version"], "10");
    assert_eq!(server.get("/api/v1/models/m/versions/9").await.json["version"], "9");
    server.get("/api/v1/models/m/versions/x").await.assert_problem(404, "unknown_version");
    insta::assert_json_snapshot!(server.get("/api/v1/models").await.json);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_brings_what_is_new_and_takes_what_is_gone() {
    let repository = Repository::new(&[("m/1", "one"), ("old", "old")]);
    let server = repository.serve(&[]).await;
    put(&repository.path("m/2"), "two");
    put(&repository.path("new"), "new");
    fs::remove_dir_all(repository.path("old")).unwrap();
    let changes = server.reload().await;
    assert_eq!(changes.loaded, ["m version 2", "new version 1"]);
    assert_eq!((changes.unloaded, changes.failed.len()), (vec!["old version 1".to_owned()], 0));
    assert_eq!(red(&server, "?model=m").await.label(), "two red");
    assert_eq!(red(&server, "?model=new").await.label(), "new red");
    red(&server, "?model=old").await.assert_problem(404, "unknown_model");
    assert_eq!(server.reload().await, residual::models::Changes::default(), "nothing has changed since");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_new_version_leaves_the_old_one_serving_and_says_why() {
    let repository = Repository::new(&[("m", "good")]);
    let server = repository.serve(&[]).await;
    let model = fs::read(repository.path("m/model.onnx")).unwrap();
    replace(&repository.path("m/model.onnx"), &model[..model.len() / 2]);
    let changes = server.reload().await;
    assert!(changes.failed.len() == 1 && changes.failed[0].starts_with("m version 1: "), "{changes:?}");
    assert_eq!(red(&server, "").await.label(), "good red");
    let row = &server.get("/api/v1/models").await.json["models"][0];
    assert_eq!((&row["state"], row["problem"].is_string()), (&serde_json::json!("ready"), true), "{row}");

    replace(&repository.path("m/model.onnx"), &model);
    relabel(&repository.path("m"), "better");
    assert_eq!(server.reload().await.replaced, ["m version 1"]);
    assert_eq!(red(&server, "").await.label(), "better red");
    assert!(server.get("/api/v1/models").await.json["models"][0]["problem"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_that_cannot_be_loaded_is_listed_and_the_one_before_answers() {
    let repository = Repository::new(&[("m/1", "one")]);
    let server = repository.serve(&[]).await;
    put(&repository.path("m/2"), "two");
    fs::write(repository.path("m/2/config.json"), r#"{"id2label":{"0":"only one"}}"#).unwrap();
    assert_eq!(server.reload().await.failed.len(), 1);
    assert_eq!(red(&server, "").await.label(), "one red");
    red(&server, "?version=2").await.assert_problem(503, "model_unavailable");
    assert_eq!(server.get("/api/v1/models").await.json["models"][1]["state"], "unavailable");
    // Asked again, it tries again, though no file has changed.
    assert_eq!(server.reload().await.failed.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_outside_the_graph_and_labels_elsewhere_are_noticed() {
    let repository = Repository::new(&[]);
    let (from, to) = (root().join("tests/models/fixed-batch-external"), repository.path("m"));
    fs::create_dir(&to).unwrap();
    for file in ["model.onnx", "model.onnx.data", "preprocessor_config.json"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    fs::write(repository.path("m/residual.toml"), "labels = \"../names\"").unwrap();
    fs::write(repository.path("names"), "one\ntwo\nthree\n").unwrap();
    let server = repository.serve(&[]).await;
    let data = fs::read(from.join("model.onnx.data")).unwrap();
    replace(&to.join("model.onnx.data"), &data);
    assert_eq!(server.reload().await.replaced, ["m version 1"]);
    replace(&repository.path("names"), b"uno\ndos\ntres\n");
    assert_eq!(server.reload().await.replaced, ["m version 1"]);
    fs::write(repository.path("m/server.log"), "a neighbour").unwrap();
    assert_eq!(server.reload().await, residual::models::Changes::default());
    assert_eq!(server.get("/api/v1/models/m").await.json["classes"][0]["label"], "uno");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_loaded_once_the_server_stops() {
    let repository = Repository::new(&[("a", "A")]);
    let server = repository.serve(&[]).await;
    let models = server.models().clone();
    tokio::task::spawn_blocking(move || {
        models.stop();
        assert!(models.get(None, None).is_err());
        assert!(models.load("a").is_err());
        assert!(models.get(None, None).is_err(), "what was being loaded is not published");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_cannot_be_read_changes_nothing() {
    let repository = Repository::new(&[("m", "good")]);
    let server = repository.serve(&[]).await;
    let (here, away) = (repository.path("m"), tempfile::tempdir().unwrap());
    fs::rename(&here, away.path().join("m")).unwrap();
    let changes = server.reload().await;
    assert!(changes.failed[0].starts_with("no model in the repository"), "{changes:?}");
    assert_eq!(red(&server, "").await.label(), "good red");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watch_waits_until_files_are_still() {
    let repository = Repository::new(&[("m", "good")]);
    let server = repository.serve(&[]).await;
    let models = server.models().clone();
    let look = move || {
        let models = models.clone();
        async move { tokio::task::spawn_blocking(move || models.watch()).await.unwrap() }
    };
    let nothing = residual::models::Changes::default();
    assert_eq!(look().await, nothing);
    relabel(&repository.path("m"), "half");
    assert_eq!(look().await, nothing, "just changed");
    relabel(&repository.path("m"), "whole");
    assert_eq!(look().await, nothing, "changed again");
    assert_eq!(look().await.replaced, ["m version 1"]);
    assert_eq!(red(&server, "").await.label(), "whole red");
    replace(&repository.path("m/model.onnx"), b"broken");
    look().await;
    assert_eq!(look().await.failed.len(), 1);
    assert_eq!(look().await, nothing, "a model that is broken is tried once for each change");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_loaded_and_unloaded_by_name() {
    let repository = Repository::new(&[("a", "A"), ("b/1", "one"), ("b/2", "two")]);
    let server = repository.serve(&[]).await;
    let models = server.models().clone();
    tokio::task::spawn_blocking(move || {
        assert_eq!(models.unload("b").unwrap().unloaded, ["b version 1", "b version 2"]);
        assert!(models.get(Some("b"), None).is_err());
        assert_eq!(models.unload("b").unwrap().unloaded, [""; 0], "it is as was asked for");
        assert_eq!(
            models.unload("c").unwrap_err().to_string(),
            "there is no model \"c\" in the places that are served"
        );
        assert_eq!(models.reload().loaded, [""; 0], "it comes back by name only");
        assert_eq!(models.load("b").unwrap().loaded, ["b version 1", "b version 2"]);
        assert_eq!(models.load("b").unwrap().replaced.len(), 2, "also if nothing has changed");
        assert!(models.load("c").is_err());
        assert_eq!(models.get(Some("b"), None).unwrap().spec().version, "2");
    })
    .await
    .unwrap();
    assert_eq!(server.metric("residual_queue_images{model=\"b\",version=\"2\"}").await, 0.0);
    let page = server.client.get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert_eq!(page.matches("residual_model_info{").count(), 3, "one for each engine:\n{page}");
}

/// The issue of a half-loaded model: under load, every answer is the old model's or the new one's, and none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_replaced_fifty_times_under_load_answers_every_request() {
    const REPLACEMENTS: usize = 50;
    let repository = Repository::new(&[("m", "v0")]);
    let server = Arc::new(repository.serve(&["--instances", "1"]).await);
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (server, stop, answered) = (Arc::clone(&server), Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut newest = 0;
                loop {
                    // The last request begins after the last replacement.
                    let last = stop.load(Ordering::Acquire);
                    let answer = red(&server, "").await;
                    assert_eq!(answer.status, 200, "{}", answer.json);
                    let (version, colour) = answer.label().split_once(' ').unwrap();
                    let version: usize = version.strip_prefix('v').unwrap().parse().unwrap();
                    assert!(version >= newest && colour == "red", "{} after v{newest}", answer.json);
                    newest = version;
                    answered.fetch_add(1, Ordering::Relaxed);
                    if last {
                        return newest;
                    }
                }
            })
        })
        .collect();
    for n in 1..=REPLACEMENTS {
        relabel(&repository.path("m"), &format!("v{n}"));
        assert_eq!(server.reload().await.replaced.len(), 1, "replacement {n}");
        let before = answered.load(Ordering::Relaxed);
        while answered.load(Ordering::Relaxed) < before + 8 {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::Release);
    for client in clients {
        assert_eq!(client.await.unwrap(), REPLACEMENTS, "the last answers are the last model's");
    }
    assert!(answered.load(Ordering::Relaxed) >= 8 * REPLACEMENTS);
}
