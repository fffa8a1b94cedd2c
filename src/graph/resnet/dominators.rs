//! Through which layer everything flows that reaches another one. The two branches of a residual block part at the
//! layer that dominates their sum.
//!
//! Networks are acyclic and their layers are numbered in an order in which they can run, so that one pass gives the tree:
//! a layer's dominator is the lowest common ancestor of its inputs. Ancestors are found by jump pointers (Myers, "An
//! applicative random-access stack", 1983), which keeps a hostile ladder of branches at O(n log n).

use crate::graph::view::{Layer, LayerId};

/// The dominator tree of a network, with a root above all layers that read nothing.
pub(super) struct Dominators {
    /// Index 0 is the root, layer `i` is `i + 1`.
    parent: Vec<usize>,
    jump: Vec<usize>,
    depth: Vec<usize>,
}

impl Dominators {
    pub(super) fn new(layers: &[Layer<'_>]) -> Self {
        let mut tree = Self { parent: vec![0], jump: vec![0], depth: vec![0] };
        for layer in layers {
            let inputs = layer.inputs.iter().map(|input| input + 1);
            let parent = inputs.reduce(|a, b| tree.common(a, b)).unwrap_or(0);
            let jump = tree.jump[parent];
            let is_even = tree.depth[parent] - tree.depth[jump] == tree.depth[jump] - tree.depth[tree.jump[jump]];
            tree.jump.push(if is_even { tree.jump[jump] } else { parent });
            tree.parent.push(parent);
            tree.depth.push(tree.depth[parent] + 1);
        }
        tree
    }

    /// The layer through which all that reaches `layer` flows, and the nearest such; `None` above the first.
    pub(super) fn of(&self, layer: LayerId) -> Option<LayerId> {
        self.parent[layer + 1].checked_sub(1)
    }

    /// Whether all that reaches `later` flows through `earlier`, which may be the same layer.
    pub(super) fn dominates(&self, earlier: LayerId, later: LayerId) -> bool {
        self.rise(later + 1, self.depth[earlier + 1]) == earlier + 1
    }

    /// The ancestor of `node` at `depth`, or `node` if it is not deeper.
    fn rise(&self, mut node: usize, depth: usize) -> usize {
        while self.depth[node] > depth {
            node = if self.depth[self.jump[node]] >= depth { self.jump[node] } else { self.parent[node] };
        }
        node
    }

    fn common(&self, a: usize, b: usize) -> usize {
        let (mut a, mut b) = (self.rise(a, self.depth[b]), self.rise(b, self.depth[a]));
        while a != b {
            (a, b) = if self.jump[a] == self.jump[b] {
                (self.parent[a], self.parent[b])
            } else {
                (self.jump[a], self.jump[b])
            };
        }
        a
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::view::Op;

    fn layers(inputs: &[&[LayerId]]) -> Vec<Layer<'static>> {
        let layer = |inputs: &&[LayerId]| Layer {
            op: Op::Add,
            inputs: inputs.to_vec(),
            dims: None,
            parameters: 0,
            macs: Some(0),
        };
        inputs.iter().map(layer).collect()
    }

    #[test]
    fn branches_meet_again_where_they_parted() {
        // 0 -> 1 -> {2 -> 3, 4} -> 5 -> {6, 5} -> 7; 8 reads nothing.
        let tree = Dominators::new(&layers(&[&[], &[0], &[1], &[2], &[1], &[3, 4], &[5], &[6, 5], &[], &[7, 8]]));
        assert_eq!(tree.of(5), Some(1));
        assert_eq!(tree.of(7), Some(5));
        assert_eq!(tree.of(3), Some(2));
        assert_eq!((tree.of(0), tree.of(8), tree.of(9)), (None, None, None));
        assert!(tree.dominates(1, 7) && tree.dominates(7, 7) && !tree.dominates(3, 5) && !tree.dominates(7, 9));
    }

    #[test]
    fn the_tree_is_that_of_a_plain_search() {
        // Random acyclic graphs; the dominators by their definition: a layer without which the other is not reached.
        let mut seed = 1_u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for _ in 0..200 {
            let graph: Vec<Vec<LayerId>> = (0..20)
                .map(|at| if at == 0 { Vec::new() } else { (0..1 + random(2)).map(|_| random(at)).collect() })
                .collect();
            let graph: Vec<&[LayerId]> = graph.iter().map(Vec::as_slice).collect();
            let tree = Dominators::new(&layers(&graph));
            for cut in 0..20 {
                let mut reached = vec![cut != 0];
                for inputs in &graph[1..] {
                    let at = reached.len();
                    reached.push(at != cut && inputs.iter().any(|input| reached[*input]));
                }
                for (later, reached) in reached.iter().enumerate().skip(cut) {
                    assert_eq!(tree.dominates(cut, later), !reached, "{cut} {later} {graph:?}");
                }
            }
        }
    }
}
