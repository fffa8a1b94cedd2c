use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use bytes::Bytes;

use super::super::he::HeWeights;
use super::super::names::{ShortcutOption, named};
use super::super::numbers::BatchNorm;
use super::*;
use crate::graph::proto::{DataType, DimensionValue, NodeProto, TensorProto, TypeValue, ValueInfoProto};

/// No numbers at all: for what depends on names and shapes alone.
struct Blank;

impl Weights for Blank {
    type Error = Infallible;

    fn weight(&mut self, _name: &str, _shape: &[usize]) -> Result<Vec<f32>, Infallible> {
        Ok(Vec::new())
    }

    fn bias(&mut self, _name: &str, _len: usize) -> Result<Vec<f32>, Infallible> {
        Ok(Vec::new())
    }

    fn batch_norm(&mut self, name: &str, _channels: usize) -> Result<BatchNorm, Infallible> {
        Zeros.batch_norm(name, 0)
    }
}

struct Zeros;

impl Weights for Zeros {
    type Error = Infallible;

    fn weight(&mut self, _name: &str, shape: &[usize]) -> Result<Vec<f32>, Infallible> {
        Ok(vec![0.0; shape.iter().product()])
    }

    fn bias(&mut self, _name: &str, len: usize) -> Result<Vec<f32>, Infallible> {
        Ok(vec![0.0; len])
    }

    fn batch_norm(&mut self, _name: &str, channels: usize) -> Result<BatchNorm, Infallible> {
        let zeros = || vec![0.0; channels];
        Ok(BatchNorm { scale: zeros(), bias: zeros(), mean: zeros(), variance: zeros(), epsilon: 1e-5 })
    }
}

fn model_of(name: &str, shortcut: Option<ShortcutOption>, form: &GraphForm, weights: &mut impl Weights) -> ModelProto {
    let network = Network::new(&named(name, None, shortcut).unwrap().0);
    build(&network, form, weights).unwrap_or_else(|_| panic!("{name} cannot be built"))
}

fn graph_of(name: &str, form: &GraphForm) -> GraphProto {
    model_of(name, None, form, &mut Blank).graph.unwrap()
}

fn explicit() -> GraphForm {
    GraphForm { batch_norm: BatchNormForm::Explicit, ..GraphForm::default() }
}

fn count(graph: &GraphProto, op: &str) -> usize {
    graph.node.iter().filter(|node| node.op_type.as_deref() == Some(op)).count()
}

fn elements(tensor: &TensorProto) -> u64 {
    tensor.dims.iter().map(|&side| u64::try_from(side).unwrap()).product()
}

fn shape(value: &ValueInfoProto) -> Vec<String> {
    let Some(TypeValue::Tensor(tensor)) = value.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        panic!("{value:?} is no tensor");
    };
    let sides = tensor.shape.as_ref().unwrap().dim.iter();
    sides
        .map(|side| match side.value.as_ref().unwrap() {
            DimensionValue::Value(len) => len.to_string(),
            DimensionValue::Param(name) => name.clone(),
        })
        .collect()
}

fn node<'a>(graph: &'a GraphProto, name: &str) -> &'a NodeProto {
    graph.node.iter().find(|node| node.name.as_deref() == Some(name)).unwrap()
}

/// Initializers hold what is learned, what is tracked, and a few shapes; counted from the file, not from the plan.
#[test]
fn the_file_holds_as_many_parameters_as_published() {
    for (name, expected) in [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet50-v1", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
    ] {
        let graph = graph_of(name, &explicit());
        let tracked = |tensor: &&TensorProto| tensor.name.as_deref().unwrap().contains(".running_");
        let all: u64 = graph.initializer.iter().map(elements).sum();
        let statistics: u64 = graph.initializer.iter().filter(tracked).map(elements).sum();
        assert_eq!(all - statistics, expected, "{name}");

        // Folded, a channel has one bias where it had scale and bias.
        if name == "resnet50" {
            let folded: u64 = graph_of(name, &GraphForm::default()).initializer.iter().map(elements).sum();
            assert_eq!((statistics, folded), (53_120, expected - 26_560));
        }
    }
}

#[test]
fn every_value_is_made_before_it_is_read() {
    let forms = [GraphForm::default(), explicit()];
    let names = ["resnet18", "resnet50-v1", "resnet34-v2", "resnet50-d", "resnet20", "resnet32-v2", "resnext50_32x4d"];
    for (name, form) in names.iter().flat_map(|name| forms.iter().map(move |form| (name, form))) {
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let graph = graph_of(name, &GraphForm { layout, softmax: true, ..form.clone() });
            let initializers = graph.initializer.iter().map(|tensor| tensor.name.clone().unwrap());
            let mut made: BTreeSet<String> = initializers.chain([INPUT.to_owned()]).collect();
            let mut read = BTreeSet::new();
            for node in &graph.node {
                for input in &node.input {
                    assert!(made.contains(input), "{name}: {input}");
                    read.insert(input.clone());
                }
                assert!(made.insert(node.output[0].clone()), "{name}: {} is made twice", node.output[0]);
            }
            let left: Vec<&String> = made.difference(&read).collect();
            assert_eq!(left, [PROBABILITIES], "{name}: all but the output is read");
        }
    }
}

#[test]
fn folding_leaves_the_batch_norms_before_convolutions() {
    assert_eq!(count(&graph_of("resnet50", &explicit()), "BatchNormalization"), 53);
    assert_eq!(count(&graph_of("resnet50", &GraphForm::default()), "BatchNormalization"), 0);
    // One before each of 16 blocks and one behind the last. Two more in each block follow a convolution.
    assert_eq!(count(&graph_of("resnet50-v2", &GraphForm::default()), "BatchNormalization"), 17);
    assert_eq!(count(&graph_of("resnet50-v2", &explicit()), "BatchNormalization"), 17 + 32);
}

#[test]
fn zero_padded_shortcuts_have_no_weights() {
    let graph = model_of("resnet20", Some(ShortcutOption::A), &GraphForm::default(), &mut Blank).graph.unwrap();
    assert_eq!((count(&graph, "Slice"), count(&graph, "Pad"), count(&graph, "Conv")), (2, 2, 19));
    let pads = graph.initializer.iter().find(|tensor| tensor.name.as_deref() == Some("zero_pad.8_8")).unwrap();
    let pads: Vec<i64> =
        pads.raw_data.as_ref().unwrap().chunks(8).map(|value| i64::from_le_bytes(value.try_into().unwrap())).collect();
    assert_eq!(pads, [0, 8, 0, 0, 0, 8, 0, 0]);
}

#[test]
fn input_and_output_are_as_asked_for() {
    let graph = graph_of("resnet18", &GraphForm::default());
    assert_eq!(shape(&graph.input[0]), ["N", "3", "224", "224"]);
    assert_eq!(
        (graph.output[0].name.as_deref(), shape(&graph.output[0])),
        (Some("logits"), vec!["N".into(), "1000".into()])
    );
    let form =
        GraphForm { batch: Some(4), size: 64, layout: Layout::Nhwc, softmax: true, dtype: Dtype::F16, ..explicit() };
    let graph = model_of("resnet20", None, &form, &mut Zeros).graph.unwrap();
    assert_eq!(shape(&graph.input[0]), ["4", "64", "64", "3"]);
    assert_eq!(
        (graph.output[0].name.as_deref(), shape(&graph.output[0])),
        (Some("probabilities"), vec!["4".into(), "10".into()])
    );
    assert_eq!(node(&graph, "conv1").input[0], "to_nchw");
    let numbers = graph.initializer.iter().filter(|tensor| tensor.data_type != Some(DataType::Int64.into()));
    for tensor in numbers {
        assert_eq!(tensor.data_type, Some(DataType::Float16.into()));
        assert_eq!(tensor.raw_data.as_ref().unwrap().len() as u64, 2 * elements(tensor));
    }
}

#[test]
fn a_folded_convolution_computes_what_the_pair_computed() {
    let norm = BatchNorm {
        scale: vec![2.0, -0.5],
        bias: vec![0.25, 3.0],
        mean: vec![1.5, -2.0],
        variance: vec![4.0, 0.25],
        epsilon: 1e-5,
    };
    // A 1x1 convolution of two inputs to two outputs, on one pixel.
    let (weight, pixel) = ([0.5_f32, -1.0, 3.0, 0.125], [2.0_f64, -4.0]);
    let (folded, bias) = fold(&weight, &norm);
    let (folded, bias): (Vec<f64>, Vec<f64>) = (folded.collect(), bias.collect());
    for (out, bias) in bias.iter().enumerate() {
        let dot = |weight: &dyn Fn(usize) -> f64| (0..2).map(|at| weight(out * 2 + at) * pixel[at]).sum::<f64>();
        let plain = dot(&|at| f64::from(weight[at]));
        let root = (f64::from(norm.variance[out]) + f64::from(norm.epsilon)).sqrt();
        let expected =
            (plain - f64::from(norm.mean[out])) / root * f64::from(norm.scale[out]) + f64::from(norm.bias[out]);
        let found = dot(&|at| folded[at]) + bias;
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }
}

#[test]
fn numbers_that_are_not_finite_are_refused_by_name() {
    struct Bad(f32);
    impl Weights for Bad {
        type Error = Infallible;
        fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Infallible> {
            Ok(vec![if name == "layer1.0.conv2.weight" { self.0 } else { 0.0 }; shape.iter().product()])
        }
        fn bias(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Infallible> {
            Zeros.bias(name, len)
        }
        fn batch_norm(&mut self, name: &str, channels: usize) -> Result<BatchNorm, Infallible> {
            Zeros.batch_norm(name, channels)
        }
    }
    let network = Network::new(&named("resnet20", None, None).unwrap().0);
    let said = |value: f32, dtype: Dtype| {
        build(&network, &GraphForm { dtype, ..explicit() }, &mut Bad(value)).unwrap_err().to_string()
    };
    assert_eq!(said(f32::NAN, Dtype::F32), "tensor layer1.0.conv2.weight has the value NaN, which is no finite f32");
    let expected = "tensor layer1.0.conv2.weight has the value 70000, which is no finite f16; choose f32";
    assert_eq!(said(70_000.0, Dtype::F16), expected);
    assert!(build(&network, &explicit(), &mut Bad(70_000.0)).is_ok());
}

#[test]
fn a_model_beyond_two_gigabytes_is_refused_before_its_numbers_are_asked_for() {
    let mut architecture = named("resnet50", None, None).unwrap().0;
    architecture.classes = 300_000;
    let error = build(&Network::new(&architecture), &GraphForm::default(), &mut Blank).unwrap_err().to_string();
    assert!(error.contains("at most 2147483647"), "{error}");
}

#[test]
fn random_weights_depend_on_seed_and_name_alone() {
    let tensors = |name: &str, form: &GraphForm, seed: u64| -> BTreeMap<String, Bytes> {
        let network = Network::new(&named(name, None, None).unwrap().0);
        let graph = build(&network, form, &mut HeWeights::new(&network, seed)).unwrap().graph.unwrap();
        graph.initializer.into_iter().map(|tensor| (tensor.name.unwrap(), tensor.raw_data.unwrap())).collect()
    };
    let small = tensors("resnet20", &explicit(), 7);
    assert_eq!(small, tensors("resnet20", &explicit(), 7));
    let deep = tensors("resnet32", &explicit(), 7);
    assert_eq!(small["layer1.0.conv1.weight"], deep["layer1.0.conv1.weight"]);
    assert_eq!(small["fc.weight"], tensors("resnet20", &GraphForm::default(), 7)["fc.weight"]);
    let other = tensors("resnet20", &explicit(), 8);
    assert_ne!(small["layer1.0.conv1.weight"], other["layer1.0.conv1.weight"]);
    assert_ne!(small["layer1.0.conv1.weight"], small["layer1.0.conv2.weight"]);
}
