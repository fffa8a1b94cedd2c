use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

use super::*;
use crate::graph::build::{BatchNormForm, GraphForm, StrideIn, build};

/// A tiny network: names and shapes, all zero.
type Shapes = BTreeMap<String, Vec<usize>>;

fn norm(shapes: &mut Shapes, name: &str, channels: usize) {
    for suffix in ["weight", "bias", "running_mean", "running_var"] {
        shapes.insert(format!("{name}.{suffix}"), vec![channels]);
    }
    shapes.insert(format!("{name}.num_batches_tracked"), vec![]);
}

/// Two stages of bottlenecks with one and two blocks, 4 and 8 channels inside, 8 and 16 outside.
fn bottlenecks(groups: usize) -> Shapes {
    let mut shapes = Shapes::from([("conv1.weight".to_owned(), vec![4, 3, 7, 7])]);
    norm(&mut shapes, "bn1", 4);
    let mut from = 4;
    for (stage, blocks, inner, outer) in [(1, 1, 4, 8), (2, 2, 8, 16)] {
        for block in 0..blocks {
            let name = format!("layer{stage}.{block}");
            for (conv, shape) in [
                ("conv1", vec![inner, from, 1, 1]),
                ("conv2", vec![inner, inner / groups, 3, 3]),
                ("conv3", vec![outer, inner, 1, 1]),
            ] {
                norm(&mut shapes, &format!("{name}.{}", conv.replace("conv", "bn")), shape[0]);
                shapes.insert(format!("{name}.{conv}.weight"), shape);
            }
            if block == 0 {
                shapes.insert(format!("{name}.downsample.0.weight"), vec![outer, from, 1, 1]);
                norm(&mut shapes, &format!("{name}.downsample.1"), outer);
            }
            from = outer;
        }
    }
    shapes.insert("fc.weight".to_owned(), vec![5, 16]);
    shapes.insert("fc.bias".to_owned(), vec![5]);
    shapes
}

/// The same network with a deep stem and pooled projections.
fn variant_d() -> Shapes {
    let mut shapes = Shapes::new();
    for (name, shape) in bottlenecks(1) {
        let name = name.replace("downsample.1", "downsample.2").replace("downsample.0", "downsample.1");
        shapes.insert(name, shape);
    }
    shapes.remove("conv1.weight");
    for (name, shape) in [("conv1.0", [2, 3, 3, 3]), ("conv1.3", [2, 2, 3, 3]), ("conv1.6", [4, 2, 3, 3])] {
        shapes.insert(format!("{name}.weight"), shape.to_vec());
    }
    norm(&mut shapes, "conv1.1", 2);
    norm(&mut shapes, "conv1.4", 2);
    shapes
}

fn renamed(shapes: Shapes, rename: impl Fn(&str) -> String) -> Shapes {
    shapes.into_iter().map(|(name, shape)| (rename(&name), shape)).collect()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn bytes(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join("weights.safetensors");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn save(&self, shapes: &Shapes) -> PathBuf {
        let zeros = vec![0_u8; 4 * shapes.values().map(|shape| shape.iter().product::<usize>()).max().unwrap_or(0)];
        let views = shapes.iter().map(|(name, shape)| {
            // As PyTorch saves it; nothing reads it.
            let dtype = if name.ends_with("num_batches_tracked") { Dtype::I32 } else { Dtype::F32 };
            let bytes = &zeros[..4 * shape.iter().product::<usize>()];
            (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).unwrap())
        });
        self.bytes(&safetensors::serialize(views, None).unwrap())
    }

    fn recognise(&self, shapes: &Shapes) -> Result<Checkpoint, WeightsError> {
        Checkpoint::new(WeightsFile::open(&self.save(shapes)).unwrap(), Hints::default())
    }

    fn refused(&self, shapes: &Shapes) -> String {
        self.recognise(shapes).map(|checkpoint| checkpoint.architecture().to_string()).unwrap_err().to_string()
    }
}

#[test]
fn a_network_is_recognised_by_names_and_shapes() {
    let folder = Folder::new();
    let spoken = |shapes: &Shapes| folder.recognise(shapes).unwrap().architecture().to_string();
    assert_eq!(spoken(&bottlenecks(1)), "Wide ResNet-11-2 v1.5");
    assert_eq!(spoken(&bottlenecks(2)), "ResNeXt-11 2x2d v1.5");
    assert_eq!(spoken(&variant_d()), "Wide ResNet-11-2 v1.5 D");
    assert_eq!(spoken(&renamed(bottlenecks(1), |name| format!("module.{name}"))), "Wide ResNet-11-2 v1.5");
    let mut small = bottlenecks(1);
    small.insert("conv1.weight".to_owned(), vec![4, 3, 3, 3]);
    assert_eq!(spoken(&small), "Wide ResNet-11-2 v1.5 (CIFAR)");
    let mut projections = bottlenecks(1);
    projections.insert("layer2.1.downsample.0.weight".to_owned(), vec![16, 16, 1, 1]);
    norm(&mut projections, "layer2.1.downsample.1", 16);
    assert_eq!(spoken(&projections), "Wide ResNet-11-2 v1.5 with a projection in each block");
}

#[test]
fn the_hint_moves_the_stride() {
    let folder = Folder::new();
    let file = WeightsFile::open(&folder.save(&bottlenecks(1))).unwrap();
    let checkpoint = Checkpoint::new(file, Hints { stride: StrideIn::First, ..Hints::default() }).unwrap();
    assert_eq!(checkpoint.architecture().to_string(), "Wide ResNet-11-2 v1");
}

#[test]
fn all_namings_give_the_same_network() {
    let folder = Folder::new();
    let transformers = renamed(bottlenecks(1), |name| Naming::Transformers.in_file(name).into_owned());
    let (ours, theirs) = (folder.recognise(&bottlenecks(1)).unwrap(), folder.recognise(&transformers).unwrap());
    assert_eq!((ours.naming(), theirs.naming()), (Naming::Torchvision, Naming::Transformers));
    assert_eq!(ours.architecture(), theirs.architecture());

    // timm's v2 has a norm before each convolution, none in stem and projections, and a 1x1 convolution for a classifier.
    let mut v2 = renamed(bottlenecks(1), |name| Naming::TimmV2.in_file(name).into_owned());
    v2.retain(|name, _| !name.starts_with("bn1.") && !name.contains("downsample.1."));
    for (name, channels) in [("stages.0.blocks.0", 4), ("stages.1.blocks.0", 8), ("stages.1.blocks.1", 16)] {
        let inner = if name.starts_with("stages.0") { 4 } else { 8 };
        norm(&mut v2, &format!("{name}.norm1"), channels);
        norm(&mut v2, &format!("{name}.norm3"), inner);
    }
    norm(&mut v2, "norm", 16);
    v2.insert("head.fc.weight".to_owned(), vec![5, 16, 1, 1]);
    let checkpoint = folder.recognise(&v2).unwrap();
    assert_eq!(
        (checkpoint.naming(), checkpoint.architecture().to_string()),
        (Naming::TimmV2, "Wide ResNet-11-2 v2".into())
    );
}

#[test]
fn what_does_not_belong_and_what_is_missing_are_named() {
    let folder = Folder::new();
    let with = |name: &str, shape: &[usize]| {
        let mut shapes = bottlenecks(1);
        shapes.insert(name.to_owned(), shape.to_vec());
        folder.refused(&shapes)
    };
    let without = |names: &[&str]| {
        let mut shapes = bottlenecks(1);
        shapes.retain(|name, _| !names.iter().any(|gone| name.contains(gone)));
        folder.refused(&shapes)
    };
    let looks = "the weights look like Wide ResNet-11-2 v1.5, but";
    assert_eq!(with("extra.weight", &[3]), format!("{looks} also have extra.weight"));
    assert_eq!(without(&["layer1.0.bn2.bias"]), format!("{looks} lack layer1.0.bn2.bias"));
    assert!(with("layer1.0.se.fc1.weight", &[1]).contains("squeeze-and-excitation"));
    assert!(without(&["running_"]).ends_with("export the model to ONNX instead"));
    assert!(without(&["running_"]).contains("and 18 more; networks with group norm"), "{}", without(&["running_"]));
    assert!(without(&["fc."]).contains("fc.weight is missing: there is no classifier"));
    assert!(without(&["layer"]).contains("no ResNet weights that are known here"));
    assert!(without(&["layer1.0.conv2"]).contains("tensor layer1.0.conv2.weight is missing"));
    for (name, shape, expected) in [
        ("fc.weight", &[5][..], "has the shape [5]; a classifier has [classes, channels]"),
        ("fc.weight", &[5, 17], "has the shape [5, 17]; Wide ResNet-11-2 v1.5 would have [5, 16] there"),
        ("fc.bias", &[6], "would have [5] there"),
        ("conv1.weight", &[4, 1, 7, 7], "[width, 3, 7, 7] or [width, 3, 3, 3] can be converted"),
        ("conv1.weight", &[4, 3, 7], "a convolution has [out, in, height, width]"),
        ("layer1.0.conv2.weight", &[4, 3, 3, 3], "its inputs must divide 4, the inputs of all groups"),
        ("layer1.0.conv2.weight", &[4, 0, 3, 3], "no side may be empty"),
        ("layer1.0.conv1.weight", &[0, 4, 1, 1], "no side may be empty"),
    ] {
        let error = with(name, shape);
        assert!(error.starts_with(&format!("tensor {name} ")) && error.ends_with(expected), "{error}");
    }
}

#[test]
fn numbers_are_read_from_their_place_in_any_float_type() {
    let folder = Folder::new();
    let f32s: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let f64s: Vec<u8> = [0.1_f64].iter().flat_map(|value| value.to_le_bytes()).collect();
    // 1.5 and -2 in f16 and in bf16.
    let (f16s, bf16s) = ([0x00, 0x3e, 0x00, 0xc0], [0xc0, 0x3f, 0x00, 0xc0]);
    let views = [
        ("a", TensorView::new(Dtype::F32, vec![2], &f32s).unwrap()),
        ("b", TensorView::new(Dtype::F16, vec![2], &f16s).unwrap()),
        ("c", TensorView::new(Dtype::BF16, vec![2], &bf16s).unwrap()),
        ("d", TensorView::new(Dtype::F64, vec![], &f64s).unwrap()),
        ("e", TensorView::new(Dtype::I8, vec![4], &f16s).unwrap()),
    ];
    let mut file = WeightsFile::open(&folder.bytes(&safetensors::serialize(views, None).unwrap())).unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(file.read(name).unwrap(), [1.5, -2.0], "{name}");
    }
    assert_eq!(file.read("d").unwrap(), [0.1]);
    let error = file.read("e").unwrap_err().to_string();
    assert!(error.ends_with("tensor e is I8; f32, f16, bf16 and f64 can be converted"), "{error}");
    assert!(file.read("f").is_err());
}

#[test]
fn files_that_are_something_else_say_what_they_are() {
    let folder = Folder::new();
    let said = |bytes: &[u8]| WeightsFile::open(&folder.bytes(bytes)).map(drop).unwrap_err().to_string();
    assert!(said(b"PK\x03\x04rest").contains("a PyTorch checkpoint, not a safetensors file; load it with PyTorch"));
    assert!(said(b"version https://git-lfs.github.com/spec/v1\n").contains("Git LFS pointer"));
    assert!(said(b"\n<!DOCTYPE html>").contains("web page"));
    assert!(said(b"").contains("it is empty"));
    assert!(said(b"abc").contains("it has 3 bytes where its header says 8"));
    assert!(said(&u64::MAX.to_le_bytes()).contains("claims 18446744073709551615 bytes"));
    assert!(
        said(&[&1000_u64.to_le_bytes()[..], b"{}"].concat()).contains("it has 10 bytes where its header says 1008")
    );
    let with_header = |json: &str, data: usize| {
        said(&[&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &vec![0; data]].concat())
    };
    assert!(with_header("{", 0).contains("its header is broken: EOF"));
    let tensor =
        |shape: &str, to: &str| format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{to}]}}}}"#);
    // 2^58 elements: the offsets contradict the shape, or the file is not that long. 2^60 of them have 2^65 bits.
    assert!(with_header(&tensor("[288230376151711744]", "8"), 8).contains("invalid shape"));
    assert!(with_header(&tensor("[288230376151711744]", "1152921504606846976"), 8).contains("where its header says"));
    assert!(with_header(&tensor("[1152921504606846976]", "8"), 8).contains("overflow"));
    assert!(with_header(&tensor("[4294967296,4294967296,4294967296]", "8"), 8).contains("overflow"));
    assert!(with_header(&tensor("[2]", "8"), 7).contains("download it again"));
    assert!(with_header(&tensor("[2]", "8"), 9).contains("download it again"));
    assert!(WeightsFile::open(&folder.0.path().join("none")).unwrap_err().to_string().contains("No such file"));
    assert!(WeightsFile::open(folder.0.path()).is_err());
}

#[test]
fn a_recognised_file_builds_in_either_form() {
    let folder = Folder::new();
    for batch_norm in [BatchNormForm::Folded, BatchNormForm::Explicit] {
        let mut checkpoint = folder.recognise(&bottlenecks(2)).unwrap();
        let network = checkpoint.network().clone();
        let model = build(&network, &GraphForm { batch_norm, ..GraphForm::default() }, &mut checkpoint).unwrap();
        assert!(model.graph.unwrap().initializer.len() > 20);
    }
}

#[test]
fn a_variance_below_zero_is_refused() {
    let folder = Folder::new();
    let shapes = bottlenecks(1);
    let path = folder.save(&shapes);
    // All data are zero; the last four tensors are found by their name.
    let mut bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let from = json["bn1.running_var"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + header + from..][..4].copy_from_slice(&(-1.0_f32).to_le_bytes());
    let mut checkpoint = Checkpoint::new(WeightsFile::open(&folder.bytes(&bytes)).unwrap(), Hints::default()).unwrap();
    let network = checkpoint.network().clone();
    let error = build(&network, &GraphForm::default(), &mut checkpoint).unwrap_err().to_string();
    assert!(error.starts_with("tensor conv1.weight has the value NaN"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Damage anywhere in a header gives an error or a network, never a panic.
    #[test]
    fn damaged_headers_are_survived(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let folder = Folder::new();
        let mut bytes = std::fs::read(folder.save(&bottlenecks(2))).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for (at, byte) in damage {
            bytes[at.index(8 + header)] = byte;
        }
        if let Ok(file) = WeightsFile::open(&folder.bytes(&bytes))
            && let Ok(mut checkpoint) = Checkpoint::new(file, Hints::default())
        {
            let network = checkpoint.network().clone();
            let _ = build(&network, &GraphForm::default(), &mut checkpoint);
        }
    }

    /// Any shapes under the right names: an error or a network.
    #[test]
    fn odd_shapes_are_survived(
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::collection::vec(prop::sample::select(vec![0_usize, 1, 2, 3, 7, 8, 64]), 0..5)),
            1..4,
        )
    ) {
        let folder = Folder::new();
        let mut shapes = bottlenecks(2);
        for (at, shape) in changes {
            let name = at.get(&shapes.keys().cloned().collect::<Vec<_>>()).clone();
            shapes.insert(name, shape);
        }
        if let Ok(mut checkpoint) = folder.recognise(&shapes) {
            let network = checkpoint.network().clone();
            let _ = build(&network, &GraphForm::default(), &mut checkpoint);
        }
    }
}
