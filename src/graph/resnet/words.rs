//! Layers in a word or two.

use crate::graph::Printable;
use crate::graph::summary::Stem;
use crate::graph::view::Op;

/// `3x3`, from rows and columns.
pub(super) fn kernel(sizes: &[u64]) -> String {
    sizes.iter().map(u64::to_string).collect::<Vec<_>>().join("x")
}

/// The convolutions of a stem.
pub(super) fn stem_words(stem: &Stem) -> String {
    let convs: Vec<String> = stem
        .convolutions
        .iter()
        .take(4)
        .map(|conv| format!("{} stride {}", kernel(conv.weight.get(2..).unwrap_or_default()), conv.stride))
        .collect();
    let more = if stem.convolutions.len() > 4 { ", ..." } else { "" };
    if convs.is_empty() { "no convolution".to_owned() } else { format!("{}{more}", convs.join(", ")) }
}

/// A layer in a word or two.
pub(super) fn word(op: &Op<'_>) -> String {
    match op {
        Op::Input => "input".to_owned(),
        Op::Conv(conv) => format!("convolution {} to {}", conv.inputs(), conv.channels()),
        Op::Dense(dense) => format!("fully connected {} to {}", dense.inputs, dense.outputs),
        Op::BatchNorm => "batch norm".to_owned(),
        Op::Scale => "scale".to_owned(),
        Op::Shift => "shift".to_owned(),
        Op::Activation(name) | Op::Norm(name) | Op::Other(name) => Printable(name).to_string(),
        Op::MaxPool(_) => "max pool".to_owned(),
        Op::AveragePool(window) if window.is_global => "global average pool".to_owned(),
        Op::AveragePool(_) => "average pool".to_owned(),
        Op::GlobalPool => "global average pool".to_owned(),
        Op::Add => "sum".to_owned(),
        Op::Gate => "product".to_owned(),
        Op::Pad { .. } => "pad".to_owned(),
        Op::Slice { .. } => "slice".to_owned(),
        Op::Concat => "concatenation".to_owned(),
        Op::Softmax => "softmax".to_owned(),
    }
}
