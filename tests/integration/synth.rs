//! `residual synth`, from the command line to the classes of a photo.

use std::path::Path;

use prost::Message as _;
use residual::graph::proto::ModelProto;
use serde_json::Value;

use crate::cli::{run, text};
use crate::support::root;

/// Runs `residual synth` and returns what it said.
pub(crate) fn synth(folder: &Path, arguments: &[&str]) -> String {
    let output = run(&[&["synth", "-o", folder.to_str().unwrap()], arguments].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The model in a folder.
pub(crate) fn model(folder: &Path) -> ModelProto {
    ModelProto::decode(std::fs::read(folder.join("model.onnx")).unwrap().as_slice()).unwrap()
}

/// Classifies a photo with the model in `folder`, by the files of the built-in model: they name ten classes.
pub(crate) fn scores(folder: &Path) -> Vec<f64> {
    for name in ["config.json", "preprocessor_config.json"] {
        std::fs::copy(root().join("models/resnet20-cifar10").join(name), folder.join(name)).unwrap();
    }
    let cat = root().join("tests/golden/inputs/cat.jpg");
    let model = folder.to_str().unwrap();
    let output = run(&["classify", "--json", "-k", "10", "--model", model, cat.to_str().unwrap()]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut predictions = line["predictions"].as_array().unwrap().clone();
    predictions.sort_by_key(|prediction| prediction["index"].as_u64());
    predictions.iter().map(|prediction| prediction["score"].as_f64().unwrap()).collect()
}

#[test]
fn a_synthetic_network_classifies_the_same_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str, arguments: &[&str]| {
        let folder = folder.path().join(name);
        synth(&folder, &[&["resnet20"], arguments].concat());
        scores(&folder)
    };
    let folded = of("folded", &[]);
    assert_eq!(folded.len(), 10);
    assert!((folded.iter().sum::<f64>() - 1.0).abs() < 1e-4, "{folded:?}");
    let explicit = of("explicit", &["--batch-norm", "explicit"]);
    let other = of("other", &["--seed", "4", "--shortcut", "c"]);
    let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(apart(&folded, &explicit) < 1e-5, "{folded:?} {explicit:?}");
    assert!(apart(&folded, &other) > 1e-3, "another seed is another network");
}

#[test]
fn the_folder_has_a_model_and_its_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("new");
    let said = synth(&folder, &["resnet18", "--classes", "7", "--size", "64", "--dtype", "f16", "--batch", "2"]);
    assert!(said.starts_with("ResNet-18: 11,180,103 parameters, 7 classes, input f16 [2,3,64,64]\nwrote "), "{said}");
    assert!(said.ends_with(&format!("serve it: residual serve --model {}\n", folder.display())), "{said}");
    let recipe: toml::Table = std::fs::read_to_string(folder.join("residual.toml")).unwrap().parse().unwrap();
    assert_eq!(recipe["preset"].as_str(), Some("torchvision-v1"));
    assert_eq!(recipe["recipe"]["resize"]["shortest_edge"].as_integer(), Some(73));
    assert!(model(&folder).doc_string.unwrap().contains("random weights, seed 0"));

    let again = run(&["synth", "resnet18", "-o", folder.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("residual.toml is there already"), "{}", text(&again.stderr));
    std::fs::write(folder.join("config.json"), "{}").unwrap();
    let forced = run(&["synth", "resnet20", "--force", "-o", folder.to_str().unwrap()]);
    assert!(forced.status.success());
    assert!(text(&forced.stderr).contains("config.json was there before and describes another model"));
    assert!(!std::fs::read_to_string(folder.join("residual.toml")).unwrap().contains("torchvision"));
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = |name: &str, seed: &str| {
        let folder = folder.path().join(name);
        synth(&folder, &["resnet20", "--seed", seed]);
        std::fs::read(folder.join("model.onnx")).unwrap()
    };
    assert_eq!(bytes("a", "5"), bytes("b", "5"));
    assert_ne!(bytes("c", "6"), bytes("a2", "5"));
}

#[test]
fn wrong_arguments_are_told_what_is_allowed() {
    for (arguments, code, expected) in [
        (&["resnet51"][..], 1, "resnet18, 34, 50, 101 or 152"),
        (&["resnet18", "--classes", "0"], 1, "outside 1..=100000"),
        (&["resnet18", "--size", "0"], 2, "1..=3584"),
        (&["resnet18", "--size", "3585"], 2, "1..=3584"),
        (&["resnet18", "--batch", "0"], 2, "1..=4096"),
        (&["resnet50-d", "--shortcut", "a"], 1, "pooled projections"),
        (&["resnet18", "--dtype", "f64"], 2, "f32, f16"),
    ] {
        let output = run(&[&["synth", "-o", "/nonexistent/folder"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    }
}
