//! One residual block in the words of the summary.

use super::block::{self, Residual};
use super::shortcut;
use super::words::kernel;
use crate::graph::summary::{Attention, Block, BlockKind, Convolution, Order, total};
use crate::graph::view::{Conv, Layer, LayerId, Op, View};

/// Describes `block` of `view`.
pub(super) fn block(view: &View<'_>, block: &Residual, activation: Order) -> Block {
    let layers = &view.layers;
    let convs = block::convolutions(layers, &block.branch);
    let first = convs.first().map_or(0, |(_, conv)| conv.inputs());
    let last = convs.last().map_or(0, |(_, conv)| conv.channels());
    let shrinks: Vec<(u64, String)> = block.branch.iter().filter_map(|layer| shrinks(&layers[*layer])).collect();
    let stride_at: Vec<&str> = shrinks.iter().map(|(_, at)| at.as_str()).collect();
    let widest = convs.iter().map(|(_, conv)| conv.groups).max().unwrap_or(1);
    let all = || block.branch.iter().chain(&block.shortcut).map(|layer| &layers[*layer]);
    Block {
        kind: kind(layers, block, &convs),
        stride: shrinks.iter().fold(1, |product, (step, _)| product.saturating_mul(*step)),
        stride_at: (!stride_at.is_empty()).then(|| stride_at.join(", ")),
        channels_in: first,
        channels: last,
        groups: widest,
        activation,
        attention: attention(layers, &block.branch),
        convolutions: convs.iter().map(|(_, conv)| convolution(conv)).collect(),
        shortcut: shortcut::describe(layers, &block.shortcut),
        parameters: total(all().map(|layer| layer.parameters)),
        macs: all().try_fold(0_u64, |sum, layer| sum.checked_add(layer.macs?)),
    }
}

/// A convolution in the words of the summary.
pub(super) fn convolution(conv: &Conv) -> Convolution {
    Convolution { weight: conv.weight.clone(), stride: conv.step(), groups: conv.groups, bias: conv.has_bias }
}

/// By how much a layer shrinks the image, if it does, and which layer that is.
fn shrinks(layer: &Layer<'_>) -> Option<(u64, String)> {
    match &layer.op {
        Op::Conv(conv) if conv.step() > 1 => Some((conv.step(), kernel(conv.kernel()))),
        Op::AveragePool(window) if window.step() > 1 && !window.is_global => {
            Some((window.step(), "average pool".to_owned()))
        }
        Op::MaxPool(window) if window.step() > 1 => Some((window.step(), "max pool".to_owned())),
        _ => None,
    }
}

/// Whether a convolution looks at each channel alone; as a part of a ResNet's block, that is a blur.
pub(super) fn is_depthwise(conv: &Conv) -> bool {
    conv.groups > 1 && conv.groups == conv.channels()
}

fn kind(layers: &[Layer<'_>], block: &Residual, convs: &[(LayerId, &Conv)]) -> BlockKind {
    let pooled = block::pooled(layers, &block.branch);
    let is_known = |layer: &LayerId| {
        pooled.contains(layer)
            || match &layers[*layer].op {
                Op::Conv(_) | Op::BatchNorm | Op::Norm(_) | Op::Scale | Op::Shift | Op::Activation(_) | Op::Gate => {
                    true
                }
                Op::MaxPool(_) | Op::AveragePool(_) => true,
                Op::Pad { on_channels } => !on_channels,
                Op::Input
                | Op::Dense(_)
                | Op::GlobalPool
                | Op::Add
                | Op::Slice { .. }
                | Op::Concat
                | Op::Softmax
                | Op::Other(_) => false,
            }
    };
    if !block.branch.iter().all(is_known) {
        return BlockKind::Other;
    }
    let kernels: Vec<&[u64]> =
        convs.iter().filter(|(_, conv)| !is_depthwise(conv)).map(|(_, conv)| conv.kernel()).collect();
    match kernels.as_slice() {
        [[3, 3], [3, 3]] => BlockKind::Basic,
        [[1, 1], [3, 3], [1, 1]] => BlockKind::Bottleneck,
        _ => BlockKind::Other,
    }
}

fn attention(layers: &[Layer<'_>], branch: &[LayerId]) -> Option<Attention> {
    if !branch.iter().any(|layer| matches!(layers[*layer].op, Op::Gate)) {
        return None;
    }
    let pooled = block::pooled(layers, branch);
    let weights = |layer: &&LayerId| match &layers[**layer].op {
        // A convolution along the channels is another invention (Wang et al. 2019, ECA).
        Op::Conv(conv) => conv.kernel().iter().all(|size| *size == 1),
        Op::Dense(_) => true,
        _ => false,
    };
    let is_se = pooled.iter().filter(weights).count() == 2;
    Some(if is_se { Attention::SqueezeExcitation } else { Attention::Other })
}
