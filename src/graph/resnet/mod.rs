//! Knows a ResNet when it sees one: where its blocks are, what their shortcuts do, which stages they make up, and what
//! the whole is called.

mod block;
mod describe;
mod dominators;
mod name;
mod parts;
mod shortcut;
mod words;

use std::collections::BTreeMap;

use self::block::Residual;
use self::dominators::Dominators;
use self::name::Name;
use self::parts::Parts;
use super::summary::{BatchNorm, Block, Order, ShortcutKind, Shortcuts};
use super::view::{Conv, Layer, LayerId, Op, View};

/// Layers between a batch norm and the convolution that it prepares for: an activation, a pad, a pool.
const STEPS_TO_NORM_MAX: usize = 4;

/// A network as the literature describes it.
pub(super) struct Network {
    pub(super) name: Name,
    pub(super) parts: Parts,
    pub(super) shortcuts: Shortcuts,
    pub(super) shortcut_option: Option<char>,
    pub(super) activation: Option<Order>,
    pub(super) batch_norm: BatchNorm,
    /// Type of most weights, a number of `TensorProto.DataType`.
    pub(super) data_type: Option<i32>,
    pub(super) notes: Vec<String>,
}

impl Network {
    pub(super) fn of(view: &View<'_>) -> Self {
        let tree = Dominators::new(&view.layers);
        let residuals = block::find(view, &tree);
        let readers = readers(&view.layers);
        let blocks: Vec<Block> =
            residuals.iter().map(|block| describe::block(view, block, order(view, block, &readers))).collect();
        let activation = majority(blocks.iter().map(|block| block.activation));
        let is_chain = residuals.windows(2).all(|pair| tree.dominates(pair[0].sum, pair[1].sum));
        let shortcut_option = shortcut::option(&blocks);
        let mut shortcuts = Shortcuts::default();
        for block in &blocks {
            let count = match block.shortcut.kind {
                ShortcutKind::Identity => &mut shortcuts.identity,
                ShortcutKind::Projection => &mut shortcuts.projection,
                ShortcutKind::ZeroPad => &mut shortcuts.zero_pad,
                ShortcutKind::PoolProjection => &mut shortcuts.pool_projection,
                ShortcutKind::Other => &mut shortcuts.other,
            };
            *count += 1;
        }
        let batch_norm = batch_norm(view, &readers, activation);
        let data_type = data_type(view);
        let parts = parts::divide(view, &residuals, blocks);
        let (name, notes) = name::name(view, &parts, &shortcuts, activation, is_chain);
        Self { name, parts, shortcuts, shortcut_option, activation, batch_norm, data_type, notes }
    }
}

/// For each layer those that read it.
fn readers(layers: &[Layer<'_>]) -> Vec<Vec<LayerId>> {
    let mut readers = vec![Vec::new(); layers.len()];
    for (id, layer) in layers.iter().enumerate() {
        for input in &layer.inputs {
            readers[*input].push(id);
        }
    }
    readers
}

/// Whether the sum of `block` is activated, or goes on as it is and is normalised or activated on one way only. A
/// quantised sum may be followed by neither: the activation lies in the range of its integers.
fn order(view: &View<'_>, block: &Residual, readers: &[Vec<LayerId>]) -> Order {
    let reads = |wanted: fn(&Op<'_>) -> bool| readers[block.sum].iter().any(|reader| wanted(&view.layers[*reader].op));
    let is_normed = reads(|op| matches!(op, Op::BatchNorm | Op::Norm(_) | Op::Scale));
    let is_activated = reads(|op| matches!(op, Op::Activation(_)));
    let goes_on = reads(|op| !matches!(op, Op::Activation(_)));
    if is_normed || (is_activated && goes_on) { Order::Pre } else { Order::Post }
}

/// The most frequent of `values`.
fn majority<T: Copy + PartialEq>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: Vec<(T, usize)> = Vec::new();
    for value in values {
        match counts.iter_mut().find(|(known, _)| *known == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((value, 1)),
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(value, _)| value)
}

/// What became of the batch norms around the convolutions that see the image.
fn batch_norm(view: &View<'_>, readers: &[Vec<LayerId>], activation: Option<Order>) -> BatchNorm {
    let layers = &view.layers;
    let is_norm = |layer: LayerId| matches!(layers[layer].op, Op::BatchNorm | Op::Norm(_) | Op::Scale);
    let all: Vec<LayerId> = (0..layers.len()).collect();
    let pooled = block::pooled(layers, &all);
    let convs: Vec<(LayerId, &Conv)> = (0..layers.len())
        .filter(|id| !pooled.contains(id))
        .filter_map(|id| match &layers[id].op {
            Op::Conv(conv) => Some((id, conv)),
            _ => None,
        })
        .collect();
    if !(0..layers.len()).any(is_norm) {
        let has_bias = convs.iter().any(|(_, conv)| conv.has_bias);
        return if has_bias { BatchNorm::Folded } else { BatchNorm::Absent };
    }
    let prepares = |conv: LayerId| {
        let mut at = conv;
        for _ in 0..STEPS_TO_NORM_MAX {
            let Some(input) = layers[at].inputs.first().copied() else {
                return false;
            };
            if is_norm(input) {
                return true;
            }
            if !matches!(layers[input].op, Op::Activation(_) | Op::Pad { .. } | Op::MaxPool(_) | Op::AveragePool(_)) {
                return false;
            }
            at = input;
        }
        false
    };
    let is_pre = activation == Some(Order::Pre);
    let mut missing = convs.iter().enumerate().filter(|(index, (conv, _))| {
        let is_followed = readers[*conv].iter().any(|reader| is_norm(*reader));
        // The stem of a pre-activated network may leave its batch norm to the first block.
        !(is_followed || (is_pre && (*index == 0 || prepares(*conv))))
    });
    if missing.next().is_none() { BatchNorm::Explicit } else { BatchNorm::Partly }
}

/// The type that most weights have.
fn data_type(view: &View<'_>) -> Option<i32> {
    let mut sums: BTreeMap<i32, u64> = BTreeMap::new();
    for layer in &view.layers {
        let data_type = match &layer.op {
            Op::Conv(conv) => conv.data_type,
            Op::Dense(dense) => dense.data_type,
            _ => continue,
        };
        let sum = sums.entry(data_type).or_default();
        *sum = sum.saturating_add(layer.parameters);
    }
    sums.into_iter()
        .filter(|(data_type, _)| *data_type != 0)
        .max_by_key(|(_, sum)| *sum)
        .map(|(data_type, _)| data_type)
}
