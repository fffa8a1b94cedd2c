//! Networks as exporters write them, and what they are called.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;

use crate::graph::fakes::{Net, Plan, Shape, Shortcut, Stem, Style};
use crate::graph::proto::{FunctionProto, ModelProto, NodeProto};
use crate::graph::summary::{
    Attention, BatchNorm, BlockKind, Order, QuantisationFormat, ShortcutKind, Shortcuts, StemKind, Summary,
};
use crate::graph::{decode, summarise};

const BUILTIN: &[u8] = include_bytes!("../../../models/resnet20-cifar10/model.onnx");

/// Through the bytes of a file, as a user's model comes.
fn read(model: &ModelProto) -> Summary {
    let model = decode(Bytes::from(model.encode_to_vec())).unwrap();
    summarise(&model, None)
}

fn plain(plan: &Plan) -> Summary {
    read(&plan.model(Style::Plain))
}

const fn counts(identity: u64, projection: u64) -> Shortcuts {
    Shortcuts { identity, projection, zero_pad: 0, pool_projection: 0, other: 0 }
}

/// Parameters and multiplications add up over the parts.
fn assert_whole(summary: &Summary) {
    let (stem, head) = (summary.stem.as_ref().unwrap(), summary.head.as_ref().unwrap());
    let stages: u64 = summary.stages.iter().map(|stage| stage.parameters).sum();
    assert_eq!(stem.parameters + stages + head.parameters, summary.parameters);
    let stages: u64 = summary.stages.iter().map(|stage| stage.macs.unwrap()).sum();
    assert_eq!(stem.macs.unwrap() + stages + head.macs.unwrap(), summary.macs.unwrap());
}

#[test]
fn parameters_macs_and_shortcuts_are_the_published_ones() {
    // torchvision's documentation; GMACs there to two digits, here as its layers' hooks count them.
    let cases = [
        (Plan::imagenet(&[2, 2, 2, 2], false), "ResNet-18", 11_689_512, 1_814_073_344, counts(5, 3)),
        (Plan::imagenet(&[3, 4, 6, 3], false), "ResNet-34", 21_797_672, 3_663_761_408, counts(13, 3)),
        (Plan::imagenet(&[3, 4, 6, 3], true), "ResNet-50 v1.5", 25_557_032, 4_089_184_256, counts(12, 4)),
        (Plan::imagenet(&[3, 4, 23, 3], true), "ResNet-101 v1.5", 44_549_160, 7_801_405_440, counts(29, 4)),
        (Plan::imagenet(&[3, 8, 36, 3], true), "ResNet-152 v1.5", 60_192_808, 11_513_626_624, counts(46, 4)),
    ];
    for (plan, name, parameters, macs, shortcuts) in cases {
        let summary = plain(&plan);
        assert_eq!((summary.name.as_str(), summary.is_resnet), (name, true));
        assert_eq!((summary.parameters, summary.macs), (parameters, Some(macs)), "{name}");
        assert_eq!((summary.shortcuts, summary.shortcut_option), (shortcuts, Some('B')), "{name}");
        assert_eq!((summary.batch_norm, summary.activation), (BatchNorm::Explicit, Some(Order::Post)));
        assert_eq!(summary.classes, Some(1000));
        assert_eq!(summary.stages.len(), 4);
        assert_whole(&summary);
    }
}

#[test]
fn a_folded_network_holds_one_value_a_channel_fewer() {
    let folded = Plan { has_batch_norm: false, ..Plan::imagenet(&[3, 4, 6, 3], true) };
    let summary = plain(&folded);
    // ResNet-50 has 26,560 channels behind convolutions.
    assert_eq!(summary.parameters, 25_557_032 - 26_560);
    assert_eq!((summary.name.as_str(), summary.batch_norm), ("ResNet-50 v1.5", BatchNorm::Folded));
    assert_eq!(summary.stages[0].blocks[0].shortcut.bias, Some(true));
}

#[test]
fn variants_are_told_apart() {
    let base = Plan::imagenet(&[3, 4, 6, 3], true);
    let pooled = Plan { shortcut: Shortcut::AveragePool, ..base };
    let cases = [
        (Plan { strides_early: true, ..base }, "ResNet-50 v1", Some("v1")),
        (Plan { is_pre_activated: true, ..base }, "ResNet-50 v2", Some("v2")),
        (Plan { stem: Stem::Deep, ..base }, "ResNet-50-C", Some("C")),
        (Plan { stem: Stem::Deep, ..pooled }, "ResNet-50-D", Some("D")),
        (pooled, "ResNet-50 v1.5 with average-pool shortcuts", Some("v1.5")),
        (Plan { width: 128, ..base }, "Wide ResNet-50-2", Some("v1.5")),
        (Plan { width: 128, groups: 32, ..base }, "ResNeXt-50 32x4d", None),
        (Plan { has_attention: true, ..base }, "SE-ResNet-50 v1.5", Some("v1.5")),
        (Plan { has_attention: true, width: 128, groups: 32, ..base }, "SE-ResNeXt-50 32x4d", None),
        (Plan { is_pre_activated: true, ..Plan::imagenet(&[2, 2, 2, 2], false) }, "ResNet-18 v2", Some("v2")),
        (
            Plan { shortcut: Shortcut::AveragePool, stem: Stem::Deep, ..Plan::imagenet(&[2, 2, 2, 2], false) },
            "ResNet-18-D",
            Some("D"),
        ),
        (
            Plan { base: 64, is_pre_activated: true, blocks: &[2, 2, 2], ..Plan::cifar(Shortcut::B) },
            "WRN-16-4",
            Some("v2"),
        ),
        (Plan { stem: Stem::Small, ..Plan::imagenet(&[2, 2, 2, 2], false) }, "ResNet-18 (CIFAR stem)", None),
    ];
    for (plan, name, variant) in cases {
        let summary = plain(&plan);
        assert_eq!((summary.name.as_str(), summary.variant.as_deref()), (name, variant));
        assert!(summary.is_resnet);
        assert_whole(&summary);
    }
    let summary = plain(&Plan { is_pre_activated: true, ..base });
    assert_eq!((summary.activation, summary.batch_norm), (Some(Order::Pre), BatchNorm::Explicit));
    // timm's resnetv2_50.
    assert_eq!(summary.parameters, 25_549_352 + 128);
    let summary = plain(&Plan { has_attention: true, ..base });
    assert_eq!(summary.stages[3].blocks[2].attention, Some(Attention::SqueezeExcitation));
    // timm's seresnet50.
    assert_eq!((summary.parameters, summary.macs), (28_088_024, Some(4_091_699_200)));
    let summary = plain(&Plan { stem: Stem::Deep, ..pooled });
    assert_eq!((summary.parameters, summary.macs), (25_576_264, Some(4_328_824_832)), "timm's resnet50d");
    let kinds: Vec<ShortcutKind> = summary.stages.iter().map(|stage| stage.blocks[0].shortcut.kind).collect();
    let (project, pool) = (ShortcutKind::Projection, ShortcutKind::PoolProjection);
    assert_eq!(kinds, [project, pool, pool, pool]);
}

#[test]
fn the_options_of_the_paper_are_told_apart() {
    let options = [(Shortcut::A, 'A', 269_722), (Shortcut::B, 'B', 272_474), (Shortcut::C, 'C', 283_962)];
    for (shortcut, option, parameters) in options {
        for style in [Style::Plain, Style::Nodes, Style::ChannelsLast] {
            let summary = read(&Plan::cifar(shortcut).model(style));
            assert_eq!(summary.name, "ResNet-20 (CIFAR)", "{option} {style:?}");
            assert_eq!((summary.shortcut_option, summary.parameters), (Some(option), parameters), "{style:?}");
            let size = summary.input_size.unwrap();
            assert_eq!((size.width, size.height, size.source), (32, 32, "assumed"));
        }
    }
    let summary = plain(&Plan::cifar(Shortcut::A));
    assert_eq!(summary.shortcuts, Shortcuts { identity: 7, zero_pad: 2, ..counts(0, 0) });
    let shortcut = &summary.stages[1].blocks[0].shortcut;
    assert_eq!((shortcut.kind, shortcut.stride, shortcut.parameters), (ShortcutKind::ZeroPad, 2, 0));
    assert_eq!((&shortcut.weight, shortcut.bias), (&None, None));
}

#[test]
fn exporters_differ_and_the_network_does_not() {
    let explicit = [Plan::imagenet(&[3, 4, 6, 3], true), Plan::imagenet(&[2, 2, 2, 2], false)];
    let folded = explicit.map(|plan| Plan { has_batch_norm: false, ..plan });
    for plan in explicit.into_iter().chain(folded) {
        let expected = plain(&plan);
        for style in [
            Style::Nodes,
            Style::Half,
            Style::Qdq,
            Style::Integers,
            Style::Dynamic,
            Style::Fused,
            Style::Functions,
            Style::ChannelsLast,
        ] {
            let mut found = read(&plan.model(style));
            let format = match style {
                Style::Qdq => QuantisationFormat::Qdq,
                Style::Integers => QuantisationFormat::Qoperator,
                Style::Dynamic => QuantisationFormat::Dynamic,
                _ => QuantisationFormat::None,
            };
            let weights = match style {
                Style::Half => "f16",
                Style::Qdq | Style::Integers | Style::Dynamic => "i8",
                _ => "f32",
            };
            assert_eq!((found.quantisation.format, found.quantisation.weights), (format, Some(weights)), "{style:?}");
            assert!(!found.operators.contains_key("local.Convolution"), "{style:?}");
            for block in found.stages.iter_mut().flat_map(|stage| &mut stage.blocks) {
                // A batch norm in two nodes is called what it is.
                block.shortcut.detail = block.shortcut.detail.replace("scale", "batch norm");
            }
            // What belongs to the file and not to the network.
            found.quantisation = expected.quantisation;
            found.operators.clone_from(&expected.operators);
            found.external_data.clone_from(&expected.external_data);
            found.inputs.clone_from(&expected.inputs);
            found.outputs.clone_from(&expected.outputs);
            assert_eq!(found, expected, "{style:?} {plan:?}");
        }
    }
}

#[test]
fn blocks_are_described() {
    let summary = plain(&Plan { strides_early: true, ..Plan::imagenet(&[3, 4, 6, 3], true) });
    let stem = summary.stem.as_ref().unwrap();
    assert_eq!((stem.kind, stem.has_pool, stem.parameters), (StemKind::Conv7x7, true, 9_536));
    let stage = &summary.stages[1];
    assert_eq!((stage.channels, stage.width, stage.height, stage.blocks.len()), (512, Some(28), Some(28), 4));
    let block = &stage.blocks[0];
    assert_eq!((block.kind, block.stride, block.stride_at.as_deref()), (BlockKind::Bottleneck, 2, Some("1x1")));
    assert_eq!((block.channels_in, block.channels), (256, 512));
    assert_eq!(block.convolutions[1].weight, [128, 128, 3, 3]);
    assert_eq!(block.shortcut.weight.as_deref(), Some([512, 256, 1, 1].as_slice()));
    assert_eq!((block.shortcut.stride, block.shortcut.bias), (2, Some(false)));
    assert_eq!(block.shortcut.detail, "convolution 1x1 stride 2, batch norm");
    // 512 * 256, and its batch norm.
    assert_eq!(block.shortcut.parameters, 131_072 + 1_024);
    assert_eq!(stage.blocks[1].shortcut.kind, ShortcutKind::Identity);
    assert_eq!(summary.head.unwrap().layers, ["global average pool", "fully connected 2048 to 1000"]);
}

#[test]
fn the_size_of_the_image_can_be_given() {
    let model = Plan::imagenet(&[3, 4, 6, 3], true).model(Style::Plain);
    let wide = summarise(&model, Some((448, 224)));
    assert_eq!((wide.stages[3].width, wide.stages[3].height), (Some(14), Some(7)));
    // All but the classes.
    assert_eq!(wide.macs, Some(2 * (4_089_184_256 - 2_048_000) + 2_048_000));
    assert_eq!(wide.input_size.unwrap().source, "given");
}

#[test]
fn the_built_in_model_is_known() {
    let summary = summarise(&decode(Bytes::from_static(BUILTIN)).unwrap(), None);
    assert_eq!((summary.name.as_str(), summary.shortcuts), ("ResNet-20 (CIFAR)", counts(7, 2)));
    assert_eq!((summary.batch_norm, summary.classes), (BatchNorm::Folded, Some(10)));
    // 272,474 less one value for each channel behind a convolution.
    assert_eq!(summary.parameters, 271_690);
    assert_whole(&summary);
}

#[test]
fn what_is_no_resnet_is_said_to_be_none() {
    // Convolutions in a row.
    let mut net = Net::new(Style::Plain);
    let x = net.conv_norm("x", Shape::new(3, 16, 3), false);
    let x = net.relu(&x);
    net.conv_norm(&x, Shape::new(16, 16, 3), false);
    let summary = read(&net.model());
    assert_eq!((summary.name.as_str(), summary.is_resnet), ("convolutional network: 2 convolutions", false));
    assert_eq!((summary.stages.len(), summary.depth, summary.shortcut_option), (0, None, None));
    assert_eq!(summary.parameters, 3 * 16 * 9 + 16 + 16 * 16 * 9 + 16);

    // Inverted residuals: 1x1, depthwise, 1x1.
    let mut net = Net::new(Style::Plain);
    let mut x = net.conv_norm("x", Shape::new(3, 16, 3), true);
    for _ in 0..3 {
        let y = net.conv_norm(&x, Shape::new(16, 96, 1), true);
        let y = net.conv_norm(&y, Shape::depthwise(96), true);
        let y = net.conv_norm(&y, Shape::new(96, 16, 1), true);
        x = net.node("Add", &[&x, &y], &[]);
    }
    let summary = read(&net.model());
    assert!(!summary.is_resnet);
    assert_eq!(summary.name, "residual network: 3 residual blocks, 10 convolutions (3 depthwise)");
    assert_eq!(summary.shortcuts, counts(3, 0));
    assert!(summary.notes.iter().any(|note| note.contains("none of its 3 blocks")), "{:?}", summary.notes);

    // Nothing that is known.
    let mut net = Net::new(Style::Plain);
    net.node("Fourier\u{1b}[2J", &["x"], &[]);
    let summary = read(&net.model());
    assert_eq!(summary.name, "network without convolutions");
    assert!(summary.notes.iter().any(|note| note.contains("not understood: 1 node (Fourier\\u{1b}[2J)")));
    assert!(!serde_json::to_string(&summary).unwrap().contains("\\u001b"));
}

/// Large enough that work which grows with the square would take hours.
const LARGE: usize = 100_000;

fn assert_quick(model: &ModelProto) -> Summary {
    let start = Instant::now();
    let summary = read(model);
    // Seconds, even unoptimised on a busy machine.
    assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
    summary
}

#[test]
fn long_chains_and_ladders_take_linear_time() {
    let mut net = Net::new(Style::Plain);
    let mut x = "x".to_owned();
    for _ in 0..LARGE {
        x = net.node("Relu", &[&x], &[]);
    }
    assert_quick(&net.model());

    // Each sum adds the one before to the one before that: no layer but the first dominates many others.
    let mut net = Net::new(Style::Plain);
    let (mut x, mut y) = ("x".to_owned(), net.node("Relu", &["x"], &[]));
    for _ in 0..LARGE / 2 {
        let sum = net.node("Add", &[&x, &y], &[]);
        x = std::mem::replace(&mut y, sum);
    }
    assert_quick(&net.model());

    // Diamonds inside diamonds: the first sum closes the last branch that was opened.
    let mut net = Net::new(Style::Plain);
    let mut open = vec!["x".to_owned()];
    for _ in 0..LARGE / 2 {
        let next = net.node("Relu", &[open.last().unwrap()], &[]);
        open.push(next);
    }
    let mut x = open.pop().unwrap();
    for outer in open.iter().rev() {
        x = net.node("Add", &[&x, outer], &[]);
    }
    assert_quick(&net.model());

    // As many blocks as fit.
    let mut net = Net::new(Style::Plain);
    let mut x = "x".to_owned();
    let weight = net.tensor(&[3, 3, 3, 3], crate::graph::proto::DataType::Float);
    for _ in 0..LARGE / 10 {
        let y = net.node("Conv", &[&x, &weight], &[crate::graph::fakes::ints("pads", &[1; 4])]);
        let y = net.node("Conv", &[&y, &weight], &[crate::graph::fakes::ints("pads", &[1; 4])]);
        x = net.node("Add", &[&x, &y], &[]);
    }
    assert_eq!(assert_quick(&net.model()).shortcuts.identity, LARGE as u64 / 10);
}

#[test]
fn functions_that_grow_without_end_are_cut() {
    let node = |op: String, domain: &str, input: &str, output: &str| NodeProto {
        op_type: Some(op),
        domain: Some(domain.to_owned()),
        input: vec![input.to_owned()],
        output: vec![output.to_owned()],
        ..Default::default()
    };
    let function = |name: String, node: Vec<NodeProto>| FunctionProto {
        name: Some(name),
        domain: Some("local".to_owned()),
        input: vec!["a".to_owned()],
        output: vec!["c".to_owned()],
        node,
        ..Default::default()
    };
    // Each calls the next twice; the last of 30 computes, the last of 3 calls the first.
    let twice = |next: usize| {
        let next = format!("f{next}");
        vec![node(next.clone(), "local", "a", "b"), node(next, "local", "b", "c")]
    };
    let mut doubling: Vec<FunctionProto> =
        (0..30).map(|index| function(format!("f{index}"), twice(index + 1))).collect();
    doubling.push(function("f30".to_owned(), vec![node("Relu".to_owned(), "", "a", "c")]));
    let circle = (0..3).map(|index| function(format!("f{index}"), twice((index + 1) % 3))).collect();
    for functions in [doubling, circle] {
        let mut model = Net::new(Style::Plain).model();
        model.functions = functions;
        model.graph.as_mut().unwrap().node.push(node("f0".to_owned(), "local", "x", "y"));
        let summary = assert_quick(&model);
        assert!(summary.notes.iter().any(|note| note.contains("functions")), "{:?}", summary.notes);
    }
}

#[test]
fn damaged_models_never_panic() {
    // Bytes of small models, changed, cut, doubled and swapped at random; a fixed seed, so that a failure comes again.
    let mut seed = 0x5eed_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below.max(1) as u64) as usize
    };
    let styles = [Style::Plain, Style::Nodes, Style::Qdq, Style::Dynamic, Style::Functions, Style::ChannelsLast];
    let models: Vec<Vec<u8>> = styles
        .iter()
        .map(|style| Plan { blocks: &[1, 1], ..Plan::cifar(Shortcut::A) }.model(*style).encode_to_vec())
        .collect();
    let mut taken = 0;
    for _ in 0..3_000 {
        let mut bytes = models[random(models.len())].clone();
        for _ in 0..1 + random(2) {
            let at = random(bytes.len());
            match random(5) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes[at] ^= 1 << random(8),
                2 => bytes.truncate(at.max(1)),
                3 => {
                    let other = random(bytes.len());
                    bytes.swap(at, other);
                }
                _ => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random(5)],
            }
        }
        if let Ok(model) = decode(Bytes::from(bytes)) {
            taken += 1;
            let size = [None, Some((1, 1)), Some((u32::MAX, u32::MAX))][random(3)];
            drop(serde_json::to_string(&summarise(&model, size)).unwrap());
        }
    }
    // Enough of them were models to make the test worth its time.
    assert!(taken > 300, "{taken}");
}
