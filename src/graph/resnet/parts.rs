//! Stem, stages and head: every layer of a network belongs to exactly one of them, and so do its parameters.

use super::block::{self, Residual};
use super::describe::{convolution, is_depthwise};
use super::words::word;
use crate::graph::summary::{Block, Head, Stage, Stem, StemKind, total};
use crate::graph::view::{Conv, Layer, LayerId, Op, View};

/// Most layers of a head that are named.
const HEAD_LAYERS_MAX: usize = 16;

/// A network in parts; without residual blocks it has none.
#[derive(Default)]
pub(in crate::graph) struct Parts {
    pub(in crate::graph) stem: Option<Stem>,
    pub(in crate::graph) stages: Vec<Stage>,
    pub(in crate::graph) head: Option<Head>,
    /// Convolutions between the blocks and on none of their branches.
    pub(in crate::graph) strays: usize,
}

/// Divides `view` along its blocks, given as layers and in words.
pub(super) fn divide(view: &View<'_>, residuals: &[Residual], blocks: Vec<Block>) -> Parts {
    let (Some(first), Some(last)) = (residuals.first(), residuals.last()) else {
        return Parts::default();
    };
    // One stage for each run of blocks with as many channels.
    let mut stages: Vec<Vec<usize>> = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        match stages.last_mut() {
            Some(stage) if blocks[stage[0]].channels == block.channels => stage.push(index),
            Some(_) | None => stages.push(vec![index]),
        }
    }
    // Layer -> stage; what is on no branch belongs to the next sum.
    let mut stage_of_block = vec![0; blocks.len()];
    for (stage, members) in stages.iter().enumerate() {
        for block in members {
            stage_of_block[*block] = stage;
        }
    }
    let mut stage_of: Vec<Option<usize>> = vec![None; view.layers.len()];
    let mut is_on_branch = vec![false; view.layers.len()];
    for (block, residual) in residuals.iter().enumerate() {
        for layer in residual.branch.iter().chain(&residual.shortcut) {
            stage_of[*layer] = Some(stage_of_block[block]);
            is_on_branch[*layer] = true;
        }
    }
    let mut next = 0;
    for (layer, stage) in stage_of.iter_mut().enumerate().take(last.sum + 1).skip(first.start + 1) {
        while residuals[next].sum < layer {
            next += 1;
        }
        stage.get_or_insert(stage_of_block[next]);
    }
    let is_head = |layer: LayerId| layer > last.sum;
    let ids = || 0..view.layers.len();
    let mut members: Vec<Vec<LayerId>> = vec![Vec::new(); stages.len()];
    for id in ids() {
        if let Some(stage) = stage_of[id] {
            members[stage].push(id);
        }
    }
    let head: Vec<LayerId> = ids().filter(|id| stage_of[*id].is_none() && is_head(*id)).collect();
    let stem_layers: Vec<LayerId> = ids().filter(|id| stage_of[*id].is_none() && !is_head(*id)).collect();
    let strays = members.iter().flatten().filter(|id| !is_on_branch[**id] && is_conv(&view.layers[**id])).count();

    let mut blocks = blocks.into_iter();
    let stages = stages.iter().zip(&members).map(|(block_ids, layers)| {
        let end = residuals[block_ids[block_ids.len() - 1]].sum;
        let side = |axis: usize| view.layers[end].dims.as_ref().and_then(|dims| dims.get(axis).copied().flatten());
        let blocks: Vec<Block> = blocks.by_ref().take(block_ids.len()).collect();
        Stage {
            channels: blocks.first().map_or(0, |block| block.channels),
            width: side(3),
            height: side(2),
            blocks,
            parameters: parameters(view, layers),
            macs: macs(view, layers),
        }
    });
    Parts {
        stages: stages.collect(),
        stem: Some(stem(view, &stem_layers)),
        head: Some(Head {
            layers: head_words(view, &head, last.sum),
            parameters: parameters(view, &head),
            macs: macs(view, &head),
        }),
        strays,
    }
}

fn is_conv(layer: &Layer<'_>) -> bool {
    matches!(layer.op, Op::Conv(_))
}

fn parameters(view: &View<'_>, layers: &[LayerId]) -> u64 {
    total(layers.iter().map(|layer| view.layers[*layer].parameters))
}

fn macs(view: &View<'_>, layers: &[LayerId]) -> Option<u64> {
    layers.iter().try_fold(0_u64, |sum, layer| sum.checked_add(view.layers[*layer].macs?))
}

fn stem(view: &View<'_>, layers: &[LayerId]) -> Stem {
    let convs: Vec<&Conv> = block::convolutions(&view.layers, layers).into_iter().map(|(_, conv)| conv).collect();
    let is_pool = |layer: &LayerId| matches!(view.layers[*layer].op, Op::MaxPool(_) | Op::AveragePool(_));
    let has_pool = layers.iter().any(is_pool);
    let own: Vec<&Conv> = convs.iter().copied().filter(|conv| !is_depthwise(conv)).collect();
    let kind = match own.as_slice() {
        [conv] if conv.is_square(7) && conv.step() == 2 => StemKind::Conv7x7,
        [conv] if conv.is_square(3) && conv.step() == 1 && !has_pool => StemKind::Conv3x3,
        // Bello et al. 2021 (ResNet-RS) replace the pool by a fourth.
        [a, b, c] | [a, b, c, _] if a.step() == 2 && b.step() == 1 && c.step() == 1 => {
            if own.iter().all(|conv| conv.is_square(3)) { StemKind::Deep } else { StemKind::Other }
        }
        _ => StemKind::Other,
    };
    Stem {
        kind,
        convolutions: convs.into_iter().map(convolution).collect(),
        has_pool,
        parameters: parameters(view, layers),
        macs: macs(view, layers),
    }
}

/// The layers behind the last block, less the activation of its sum.
fn head_words(view: &View<'_>, head: &[LayerId], last_sum: LayerId) -> Vec<String> {
    let is_told = |layer: &&LayerId| {
        let layer = &view.layers[**layer];
        !(matches!(layer.op, Op::Activation(_)) && layer.inputs == [last_sum])
    };
    head.iter().filter(is_told).take(HEAD_LAYERS_MAX).map(|layer| word(&view.layers[*layer].op)).collect()
}
