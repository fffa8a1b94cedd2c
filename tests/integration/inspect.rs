//! `residual inspect`, as a person and as a script use it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::root;

fn inspect(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_residual"));
    // Neither the runtime nor a cache is needed.
    command.arg("inspect").args(arguments).current_dir(root()).env_clear().output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn built_in() -> String {
    root().join("models/resnet20-cifar10").to_str().unwrap().to_owned()
}

#[test]
fn a_person_learns_at_one_look_which_shortcuts_have_weights() {
    let output = inspect(&[&built_in()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    insta::assert_snapshot!(text(&output.stdout).replace(root().to_str().unwrap(), "[root]"));
    assert!(output.stderr.is_empty());
}

#[test]
fn a_program_reads_json() {
    let output = inspect(&["--json", &built_in()]);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["name"], "ResNet-20 (CIFAR)");
    assert_eq!(summary["is_resnet"], true);
    assert!(summary["parameters"].is_u64() && summary["macs"].is_u64());
    let kinds: Vec<&str> = summary["stages"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|stage| stage["blocks"].as_array().unwrap())
        .map(|block| block["shortcut"]["kind"].as_str().unwrap())
        .collect();
    let (keep, project) = ("identity", "projection");
    assert_eq!(kinds, [keep, keep, keep, project, keep, keep, project, keep, keep]);
    assert_eq!(summary["shortcuts"]["identity"], 7);
    assert_eq!(summary["shortcut_option"], "B");
    assert_eq!(summary["batch_norm"], "folded");
    assert_eq!(summary["quantisation"]["format"], "none");
}

#[test]
fn the_size_is_height_by_width() {
    let output = inspect(&["--json", "--size", "64x32", &built_in()]);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["input_size"]["height"], 64);
    assert_eq!(summary["input_size"]["width"], 32);
    assert_eq!(summary["stages"][0]["height"], 64);
    for size in ["0", "32x", "x32", "32x32x3", "-1", "16385"] {
        let output = inspect(&["--size", size, &built_in()]);
        assert_eq!(output.status.code(), Some(2), "{size}");
    }
}

#[test]
fn models_that_are_no_resnet_are_described_all_the_same() {
    let output = inspect(&["tests/models/two-outputs"]);
    assert!(output.status.success());
    let page = text(&output.stdout);
    assert!(page.starts_with("network without convolutions"), "{page}");
    assert!(page.contains("GlobalAveragePool") || page.contains("ReduceMean"), "{page}");
}

#[test]
fn a_file_that_is_no_model_is_an_error_that_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let error = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        refusal(&path)
    };
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4e8f\nsize 46820737\n";
    assert!(error("lfs.onnx", lfs).contains("git lfs pull"));
    assert!(error("page.onnx", b"<!DOCTYPE html><title>Sign in").contains("HTML"));
    assert!(error("empty.onnx", b"").contains("it is empty"));
    let whole = std::fs::read(root().join("models/resnet20-cifar10/model.onnx")).unwrap();
    assert!(error("cut.onnx", &whole[..500_000]).contains("cut short"));
    assert!(refusal(&folder.path().join("missing.onnx")).contains("missing.onnx"));
    std::fs::create_dir(folder.path().join("bare")).unwrap();
    assert!(refusal(&folder.path().join("bare")).contains("onnx/model.onnx"));
}

/// The one line of an error.
fn refusal(path: &Path) -> String {
    let output = inspect(&[path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let error = text(&output.stderr);
    assert!(error.starts_with("error: ") && error.lines().count() == 1, "{error}");
    error
}
