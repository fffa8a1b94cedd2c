//! Residual blocks: a sum, the layer where its two branches part, and what lies on each. Which blocks make up which
//! network is left to others.

use std::collections::HashSet;

use super::dominators::Dominators;
use crate::graph::view::{Conv, Layer, LayerId, Op, View};

/// Most layers on one branch of a block. A bottleneck with squeeze-and-excitation has about twenty; a skip connection
/// across half a network is no block.
const BRANCH_LAYERS_MAX: usize = 64;

/// One residual block of a network, in terms of its layers.
pub(super) struct Residual {
    /// The sum at its end.
    pub(super) sum: LayerId,
    /// Where the branches part.
    pub(super) start: LayerId,
    /// The layers of the residual function, in order.
    pub(super) branch: Vec<LayerId>,
    /// The layers of the shortcut, in order; none for an identity.
    pub(super) shortcut: Vec<LayerId>,
}

/// The residual blocks of `view`, first to last, without those inside others.
pub(super) fn find(view: &View<'_>, tree: &Dominators) -> Vec<Residual> {
    let layers = &view.layers;
    let mut found: Vec<Residual> = Vec::new();
    let mut walk = Walk { layers, visits: vec![0; layers.len()], walks: 0 };
    for (sum, layer) in layers.iter().enumerate() {
        let (Op::Add, [a, b]) = (&layer.op, layer.inputs.as_slice()) else {
            continue;
        };
        // A sum of two vectors is no block of a convolutional network.
        if layer.dims.as_ref().is_some_and(|dims| dims.len() != 4) {
            continue;
        }
        let Some(start) = tree.of(sum) else { continue };
        let Some(a) = walk.branch(*a, start) else { continue };
        let Some(b) = walk.branch(*b, start) else { continue };
        let weigh = |branch: &[LayerId]| convolutions(layers, branch).len();
        let (branch, shortcut) = if weigh(&a) >= weigh(&b) { (a, b) } else { (b, a) };
        if weigh(&branch) > 0 {
            found.push(Residual { sum, start, branch, shortcut });
        }
    }
    let mut inside: HashSet<LayerId> = HashSet::new();
    let mut outer: Vec<Residual> = Vec::new();
    for block in found.into_iter().rev() {
        if !inside.contains(&block.sum) {
            inside.extend(block.branch.iter().chain(&block.shortcut));
            outer.push(block);
        }
    }
    outer.reverse();
    outer
}

/// Walks back along branches, many times and each time not far.
struct Walk<'v, 'a> {
    layers: &'v [Layer<'a>],
    /// For each layer the number of the latest walk that came by.
    visits: Vec<usize>,
    walks: usize,
}

impl Walk<'_, '_> {
    /// The layers between `start` and `end`, `end` included and `start` not, in order; `None` if they are too many. Every
    /// way back from `end` leads through `start`.
    fn branch(&mut self, end: LayerId, start: LayerId) -> Option<Vec<LayerId>> {
        self.walks += 1;
        self.visits[start] = self.walks;
        let mut found = Vec::new();
        let mut next = vec![end];
        while let Some(layer) = next.pop() {
            if self.visits[layer] == self.walks {
                continue;
            }
            self.visits[layer] = self.walks;
            found.push(layer);
            // A layer of a hundred inputs is no part of a block either.
            if found.len() > BRANCH_LAYERS_MAX || self.layers[layer].inputs.len() > BRANCH_LAYERS_MAX {
                return None;
            }
            next.extend(&self.layers[layer].inputs);
        }
        found.sort_unstable();
        Some(found)
    }
}

/// The convolutions of `branch` that see the image; those that look at a pooled one, to weigh its channels, do not.
pub(super) fn convolutions<'v>(layers: &'v [Layer<'_>], branch: &[LayerId]) -> Vec<(LayerId, &'v Conv)> {
    let pooled = pooled(layers, branch);
    let convs = branch.iter().filter(|layer| !pooled.contains(layer)).filter_map(|layer| match &layers[*layer].op {
        Op::Conv(conv) => Some((*layer, conv)),
        _ => None,
    });
    convs.collect()
}

/// The layers of `branch` between a global pool and the product that it weighs.
pub(super) fn pooled(layers: &[Layer<'_>], branch: &[LayerId]) -> HashSet<LayerId> {
    let mut pooled = HashSet::new();
    for layer in branch {
        let is_pool = match &layers[*layer].op {
            Op::GlobalPool => true,
            Op::AveragePool(window) => window.is_global,
            Op::Gate | Op::Add | Op::Concat => false,
            _ => !layers[*layer].inputs.is_empty() && layers[*layer].inputs.iter().all(|input| pooled.contains(input)),
        };
        if is_pool {
            pooled.insert(*layer);
        }
    }
    pooled
}
