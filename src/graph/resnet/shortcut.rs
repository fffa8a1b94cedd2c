//! Does a shortcut have weights? What lies on it, in one word and in a few.

use super::block;
use super::words::{kernel, word};
use crate::graph::summary::{Block, Shortcut, ShortcutKind, total};
use crate::graph::view::{Layer, LayerId, Op};

/// Describes the `layers` with the numbers `on`, the shortcut of a block.
pub(super) fn describe(layers: &[Layer<'_>], on: &[LayerId]) -> Shortcut {
    let convs = block::convolutions(layers, on);
    let conv = convs.first().map(|(_, conv)| *conv);
    let strides = on.iter().fold([1_u64; 2], |[rows, columns], layer| {
        let [by_row, by_column] = match &layers[*layer].op {
            Op::Conv(conv) => [conv.step(); 2],
            Op::MaxPool(window) | Op::AveragePool(window) => [window.step(); 2],
            Op::Slice { steps } => *steps,
            _ => [1; 2],
        };
        [rows.saturating_mul(by_row), columns.saturating_mul(by_column)]
    });
    let mut words: Vec<String> = on.iter().map(|layer| words(&layers[*layer].op)).collect();
    // Exporters cut rows and columns in two nodes.
    words.dedup();
    Shortcut {
        kind: kind(layers, on),
        weight: conv.map(|conv| conv.weight.clone()),
        stride: strides[0].max(strides[1]),
        bias: conv.map(|conv| conv.has_bias),
        detail: if words.is_empty() { "no layers".to_owned() } else { words.join(", ") },
        parameters: total(on.iter().map(|layer| layers[*layer].parameters)),
    }
}

fn kind(layers: &[Layer<'_>], on: &[LayerId]) -> ShortcutKind {
    let has = |wanted: fn(&Op<'_>) -> bool| on.iter().any(|layer| wanted(&layers[*layer].op));
    let is_known = |op: &Op<'_>| {
        matches!(
            op,
            Op::Conv(_)
                | Op::BatchNorm
                | Op::Norm(_)
                | Op::Scale
                | Op::Shift
                | Op::MaxPool(_)
                | Op::AveragePool(_)
                | Op::Pad { .. }
                | Op::Slice { .. }
        )
    };
    if !on.iter().all(|layer| is_known(&layers[*layer].op)) {
        return ShortcutKind::Other;
    }
    let averages = has(|op| matches!(op, Op::AveragePool(window) if !window.is_point()));
    let maximises = has(|op| matches!(op, Op::MaxPool(window) if !window.is_point()));
    let lengthens = has(|op| matches!(op, Op::Pad { on_channels: true }));
    let is_normed = has(|op| matches!(op, Op::BatchNorm | Op::Norm(_) | Op::Scale | Op::Shift));
    let convs = block::convolutions(layers, on);
    match convs.as_slice() {
        [] if is_normed || (maximises && !lengthens) => ShortcutKind::Other,
        [] if lengthens => ShortcutKind::ZeroPad,
        [] if averages => ShortcutKind::Other,
        // At most every second pixel is taken.
        [] => ShortcutKind::Identity,
        [(_, conv)] if !conv.is_square(1) || maximises || lengthens => ShortcutKind::Other,
        [_] if averages => ShortcutKind::PoolProjection,
        [_] => ShortcutKind::Projection,
        [_, _, ..] => ShortcutKind::Other,
    }
}

/// A layer on a shortcut.
fn words(op: &Op<'_>) -> String {
    let stepped = |what: String, step: u64| {
        if step > 1 { format!("{what} stride {step}") } else { what }
    };
    match op {
        Op::Conv(conv) => stepped(format!("convolution {}", kernel(conv.kernel())), conv.step()),
        Op::MaxPool(window) => stepped(format!("max pool {}", kernel(&window.kernel)), window.step()),
        Op::AveragePool(window) => stepped(format!("average pool {}", kernel(&window.kernel)), window.step()),
        Op::Slice { steps } => stepped("slice".to_owned(), steps[0].max(steps[1])),
        Op::Pad { on_channels: true } => "zeros for new channels".to_owned(),
        other => word(other),
    }
}

/// Which of the options of He et al. 2015, section 4.1, `blocks` follow. An average pool before a projection changes
/// nothing about which shortcuts have weights.
pub(super) fn option(blocks: &[Block]) -> Option<char> {
    let projects =
        |block: &&Block| matches!(block.shortcut.kind, ShortcutKind::Projection | ShortcutKind::PoolProjection);
    let is = |block: &Block, kind: ShortcutKind| block.shortcut.kind == kind;
    let (growing, others): (Vec<&Block>, Vec<&Block>) =
        blocks.iter().partition(|block| block.channels_in != block.channels);
    // Projections that only shrink are needed as well.
    let (shrinking, keeping): (Vec<&Block>, Vec<&Block>) = others.iter().partition(|block| block.stride > 1);
    if growing.is_empty() {
        return None;
    }
    let keeps = keeping.iter().all(|block| is(block, ShortcutKind::Identity));
    if keeps && growing.iter().all(|block| is(block, ShortcutKind::ZeroPad)) {
        return shrinking.iter().all(|block| !projects(block)).then_some('A');
    }
    if !growing.iter().all(projects) {
        return None;
    }
    if keeps { Some('B') } else { others.iter().all(projects).then_some('C') }
}
