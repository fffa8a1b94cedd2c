//! `residual convert`, with weights that `synth` made up: their names are torchvision's.

use std::path::{Path, PathBuf};

use residual::graph::proto::GraphProto;
use safetensors::tensor::{Dtype, TensorView};

use crate::cli::{run, text};
use crate::support::root;
use crate::synth::{model, scores, synth};

/// The numbers of a model with explicit batch norms, as a file that PyTorch could have saved.
fn weights(folder: &Path, graph: &GraphProto) -> PathBuf {
    let tensors = graph.initializer.iter().map(|tensor| {
        let shape = tensor.dims.iter().map(|&side| usize::try_from(side).unwrap()).collect();
        (tensor.name.clone().unwrap(), TensorView::new(Dtype::F32, shape, tensor.raw_data.as_ref().unwrap()).unwrap())
    });
    let path = folder.join("weights.safetensors");
    std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    path
}

/// A folder with the weights of a small network, and the graph that `synth` folded for it.
pub(crate) fn prepared(folder: &Path) -> (PathBuf, GraphProto) {
    let options = ["resnet20", "--shortcut", "b"];
    synth(&folder.join("explicit"), &[&options[..], &["--batch-norm", "explicit"]].concat());
    synth(&folder.join("folded"), &options);
    let weights = weights(folder, model(&folder.join("explicit")).graph.as_ref().unwrap());
    (weights, model(&folder.join("folded")).graph.unwrap())
}

fn convert(weights: &Path, output: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let fixed = ["convert", weights.to_str().unwrap(), "-o", output.to_str().unwrap()];
    let output = run(&[&fixed[..], arguments].concat());
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn weights_come_back_as_the_graph_they_were_taken_from() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, expected) = prepared(folder.path());
    let output = folder.path().join("out");
    let (code, said, warned) = convert(&weights, &output, &[]);
    assert_eq!(code, Some(0), "{warned}");
    // Tensors, nodes, input and output: equal to the last bit.
    assert_eq!(model(&output).graph.unwrap(), expected);
    let first =
        "ResNet-20 (CIFAR), saved by torchvision or timm: 272,474 parameters, 10 classes, input f32 [N,3,32,32]\n";
    assert!(said.starts_with(first), "{said}");
    assert!(warned.starts_with("warning: nothing says how these weights want their pictures"), "{warned}");
    assert!(!output.join("residual.toml").exists(), "no recipe is claimed");
    assert_eq!(scores(&output), scores(&folder.path().join("folded")));
}

#[test]
fn what_describes_the_model_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, _) = prepared(folder.path());
    let (output, here) = (folder.path().join("out"), folder.path());

    let (code, _, warned) = convert(&weights, &output, &["--preset", "cifar10"]);
    assert_eq!((code, warned.as_str()), (Some(0), ""));
    assert!(std::fs::read_to_string(output.join("residual.toml")).unwrap().ends_with("preset = \"cifar10\"\n"));

    let (code, _, warned) = convert(&weights, &output, &["--force"]);
    assert_eq!(code, Some(0));
    assert!(warned.contains("residual.toml was there before and goes on telling"), "{warned}");
    let (code, _, refused) = convert(&weights, &output, &["--preset", "cifar10"]);
    assert_eq!(code, Some(1));
    assert!(refused.contains("model.onnx is there already; give another folder, or --force"), "{refused}");

    for name in ["config.json", "preprocessor_config.json"] {
        std::fs::copy(root().join("models/resnet20-cifar10").join(name), here.join(name)).unwrap();
    }
    let (code, said, warned) = convert(&weights, &folder.path().join("described"), &[]);
    assert_eq!((code, warned.as_str()), (Some(0), ""), "{said}");
    for name in ["config.json", "preprocessor_config.json"] {
        let copy = std::fs::read(folder.path().join("described").join(name)).unwrap();
        assert_eq!(copy, std::fs::read(here.join(name)).unwrap());
    }
    // In place: what describes the model is there already, because it is what was read.
    let (code, said, warned) = convert(&weights, here, &["--size", "48"]);
    assert_eq!(code, Some(0), "{warned}");
    assert!(said.contains("[N,3,48,48]") && !said.contains("config.json"), "{said}");
    assert!(warned.contains("prepares images of 32x32, and the graph takes 48x48"), "{warned}");
}

#[test]
fn the_graph_takes_what_the_recipe_prepares() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, _) = prepared(folder.path());
    let (output, here) = (folder.path().join("out"), folder.path());
    let timm = r#"{"architecture": "resnet20", "pretrained_cfg": {"input_size": [3, 40, 40], "crop_pct": 0.9}}"#;
    // Says itself that the recipe is timm's; its size is none.
    let wrapper = r#"{"image_processor_type": "TimmWrapperImageProcessor", "size": {"height": 64, "width": 64}}"#;
    std::fs::write(here.join("config.json"), timm).unwrap();
    std::fs::write(here.join("preprocessor_config.json"), wrapper).unwrap();
    let (code, said, warned) = convert(&weights, &output, &[]);
    assert_eq!((code, warned.as_str()), (Some(0), ""), "{said}");
    assert!(said.contains("[N,3,40,40]"), "{said}");
    let cat = root().join("tests/golden/inputs/cat.jpg");
    let classified = run(&["classify", "--model", output.to_str().unwrap(), cat.to_str().unwrap()]);
    assert!(classified.status.success(), "{}", text(&classified.stderr));

    std::fs::write(here.join("config.json"), timm.replace("40, 40", "40, 50")).unwrap();
    let (code, _, refused) = convert(&weights, &output, &["--force"]);
    assert!(code == Some(1) && refused.contains("pictures of 50x40; expected square ones"), "{refused}");
    let (code, said, warned) = convert(&weights, &output, &["--force", "--size", "40"]);
    assert!(code == Some(0) && said.contains("[N,3,40,40]"), "{warned}");
    assert!(warned.contains("cannot be served as it is") && warned.contains("50x40"), "{warned}");
}

#[test]
fn nothing_is_written_where_the_weights_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, _) = prepared(folder.path());
    let output = folder.path().join("out");
    let config = folder.path().join("c.json");
    std::fs::write(&config, r#"{"architecture": "resnetaa50"}"#).unwrap();
    let (code, _, said) = convert(&weights, &output, &["--config", config.to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("c.json: architecture is \"resnetaa50\""), "{said}");

    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[..whole.len() - 1]).unwrap();
    let (code, _, said) = convert(&weights, &output, &[]);
    assert!(code == Some(1) && said.contains("download it again"), "{said}");

    let (code, _, said) = convert(&root().join("models/resnet20-cifar10/model.onnx"), &output, &[]);
    assert!(code == Some(1) && said.contains("no safetensors file"), "{said}");
    let (code, _, said) = convert(&folder.path().join("none"), &output, &[]);
    assert!(code == Some(1) && said.contains("No such file"), "{said}");
    let (code, _, said) = convert(&weights, &output, &["--preset", "a b"]);
    assert!(code == Some(2) && said.contains("expected one of torchvision-v1"), "{said}");
    assert!(!output.exists());
}
