//! An [`Architecture`] laid out as layers in running order, under the names of torchvision and timm. Knows every
//! parameter's name and shape, and no parameter's value.

use super::architecture::{Architecture, Block, Order, Shortcut, Stage, Stem, StrideIn};

/// Index of a layer in [`Network::layers`].
pub(in crate::graph) type LayerId = usize;

/// Colour channels of a picture.
pub(in crate::graph) const COLOURS: usize = 3;

/// Layers in running order: each reads only layers before it, the first is the input, the last gives the logits.
#[derive(Debug, Clone)]
pub struct Network {
    layers: Vec<Layer>,
}

/// One step of the computation.
#[derive(Debug, Clone)]
pub(in crate::graph) struct Layer {
    /// Where a layer has parameters, their names begin with this: `layer1.0.conv1` has `layer1.0.conv1.weight`.
    pub(in crate::graph) name: String,
    pub(in crate::graph) op: Op,
    pub(in crate::graph) inputs: Vec<LayerId>,
    /// Channels that leave the layer.
    pub(in crate::graph) channels: usize,
}

/// What a layer computes, on `[N,C,H,W]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::graph) enum Op {
    Input,
    /// No bias; padded with `kernel / 2`.
    Conv {
        inputs: usize,
        kernel: usize,
        stride: usize,
        groups: usize,
    },
    BatchNorm,
    Relu,
    /// 3x3, stride 2, padded with 1.
    MaxPool,
    /// Square windows that do not overlap; those over the edge count only what lies inside.
    AveragePool {
        stride: usize,
    },
    /// Every `stride`-th pixel in both directions.
    Subsample {
        stride: usize,
    },
    /// Zero channels around the given ones.
    ZeroPad {
        before: usize,
        after: usize,
    },
    Add,
    /// `[N,C,H,W]` to `[N,C,1,1]`.
    GlobalAveragePool,
    /// `[N,C,1,1]` to `[N,classes]`, with bias.
    Linear {
        inputs: usize,
    },
}

/// Name and shape of a tensor that a network learns or tracks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// As in torchvision: `layer1.0.bn1.running_mean`.
    pub name: String,
    /// `[out, in / groups, height, width]` of a convolution, `[out, in]` of the classifier, `[channels]` of the others.
    pub shape: Vec<usize>,
    /// Running statistics are tracked, everything else is learned.
    pub learned: bool,
}

impl Network {
    /// Lays out the layers of `architecture`.
    #[must_use]
    pub fn new(architecture: &Architecture) -> Self {
        let mut network = Self { layers: Vec::new() };
        let mut at = network.stem(architecture);
        for (index, stage) in architecture.stages.iter().enumerate() {
            for block in 0..stage.blocks {
                let name = format!("layer{}.{block}", index + 1);
                let stride = if block == 0 { stage.stride } else { 1 };
                at = match architecture.order {
                    Order::PostActivation => network.block(architecture, stage, stride, &name, at),
                    Order::PreActivation => network.pre_activation_block(architecture, stage, stride, &name, at),
                };
            }
        }
        if architecture.order == Order::PreActivation {
            at = network.norm("norm", at);
            at = network.relu("norm", at);
        }
        let inputs = network.channels(at);
        at = network.push("pool", Op::GlobalAveragePool, &[at], inputs);
        network.push("fc", Op::Linear { inputs }, &[at], architecture.classes);
        network
    }

    /// All layers, each after those it reads.
    pub(in crate::graph) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Every tensor that a network of this kind is saved with, in running order.
    pub fn parameters(&self) -> impl Iterator<Item = Parameter> {
        self.layers.iter().flat_map(|layer| {
            let tensor = |suffix: &str, shape: &[usize], learned| Parameter {
                name: format!("{}.{suffix}", layer.name),
                shape: shape.to_vec(),
                learned,
            };
            let channels = layer.channels;
            match layer.op {
                Op::Conv { inputs, kernel, groups, .. } => {
                    vec![tensor("weight", &[channels, inputs / groups, kernel, kernel], true)]
                }
                Op::BatchNorm => vec![
                    tensor("weight", &[channels], true),
                    tensor("bias", &[channels], true),
                    tensor("running_mean", &[channels], false),
                    tensor("running_var", &[channels], false),
                ],
                Op::Linear { inputs } => {
                    vec![tensor("weight", &[channels, inputs], true), tensor("bias", &[channels], true)]
                }
                Op::Input
                | Op::Relu
                | Op::MaxPool
                | Op::AveragePool { .. }
                | Op::Subsample { .. }
                | Op::ZeroPad { .. }
                | Op::Add
                | Op::GlobalAveragePool => Vec::new(),
            }
        })
    }

    /// Numbers that are learned, as papers count them: scale and bias of a batch norm are, running statistics are not.
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        let sizes = self.parameters().filter(|parameter| parameter.learned).map(|parameter| {
            // A product of u128 cannot overflow for four dimensions that each fit a checkpoint on a disk.
            parameter.shape.iter().map(|&side| side as u128).product::<u128>()
        });
        u64::try_from(sizes.sum::<u128>()).unwrap_or(u64::MAX)
    }

    fn stem(&mut self, architecture: &Architecture) -> LayerId {
        let input = self.push("input", Op::Input, &[], COLOURS);
        let pre = architecture.order == Order::PreActivation;
        let at = match architecture.stem {
            Stem::Imagenet { width } => self.conv("conv1", input, width, (7, 2)),
            Stem::Cifar { width } => self.conv("conv1", input, width, (3, 1)),
            Stem::Deep { widths: [first, second, third] } => {
                // The names are positions in the sequence of layers, as in timm.
                let mut at = self.conv("conv1.0", input, first, (3, 2));
                at = self.norm("conv1.1", at);
                at = self.relu("conv1.1", at);
                at = self.conv("conv1.3", at, second, (3, 1));
                at = self.norm("conv1.4", at);
                at = self.relu("conv1.4", at);
                self.conv("conv1.6", at, third, (3, 1))
            }
        };
        // The first block of a pre-activation network normalises for itself.
        let at = if pre {
            at
        } else {
            let at = self.norm("bn1", at);
            self.relu("bn1", at)
        };
        match architecture.stem {
            Stem::Imagenet { .. } | Stem::Deep { .. } => self.push("maxpool", Op::MaxPool, &[at], self.channels(at)),
            Stem::Cifar { .. } => at,
        }
    }

    /// The convolutions of a residual branch: output channels, (kernel, stride), groups.
    fn branch(block: Block, stage: &Stage, stride: usize) -> Vec<(usize, (usize, usize), usize)> {
        match block {
            Block::Basic => vec![(stage.inner, (3, stride), 1), (stage.outer, (3, 1), 1)],
            Block::Bottleneck(place) => {
                let (first, middle) = match place {
                    StrideIn::First => (stride, 1),
                    StrideIn::Middle => (1, stride),
                };
                vec![(stage.inner, (1, first), 1), (stage.inner, (3, middle), stage.groups), (stage.outer, (1, 1), 1)]
            }
        }
    }

    fn block(
        &mut self,
        architecture: &Architecture,
        stage: &Stage,
        stride: usize,
        name: &str,
        from: LayerId,
    ) -> LayerId {
        let mut at = from;
        let branch = Self::branch(architecture.block, stage, stride);
        for (index, &(channels, shape, groups)) in branch.iter().enumerate() {
            at = self.conv_in_groups(&format!("{name}.conv{}", index + 1), at, channels, shape, groups);
            at = self.norm(&format!("{name}.bn{}", index + 1), at);
            if index + 1 < branch.len() {
                at = self.relu(&format!("{name}.bn{}", index + 1), at);
            }
        }
        let shortcut = self.shortcut(architecture, stage, stride, name, from, from);
        let sum = self.push(&format!("{name}.add"), Op::Add, &[at, shortcut], stage.outer);
        self.relu(&format!("{name}.add"), sum)
    }

    fn pre_activation_block(
        &mut self,
        architecture: &Architecture,
        stage: &Stage,
        stride: usize,
        name: &str,
        from: LayerId,
    ) -> LayerId {
        let mut at = from;
        let mut activated = from;
        for (index, (channels, shape, groups)) in
            Self::branch(architecture.block, stage, stride).into_iter().enumerate()
        {
            at = self.norm(&format!("{name}.bn{}", index + 1), at);
            at = self.relu(&format!("{name}.bn{}", index + 1), at);
            if index == 0 {
                activated = at;
            }
            at = self.conv_in_groups(&format!("{name}.conv{}", index + 1), at, channels, shape, groups);
        }
        let shortcut = self.shortcut(architecture, stage, stride, name, from, activated);
        self.push(&format!("{name}.add"), Op::Add, &[at, shortcut], stage.outer)
    }

    /// `identity` is the block's input. A projection reads `projected`: the same, but in a pre-activation block the
    /// activated input, as in timm.
    fn shortcut(
        &mut self,
        architecture: &Architecture,
        stage: &Stage,
        stride: usize,
        name: &str,
        identity: LayerId,
        projected: LayerId,
    ) -> LayerId {
        let same = stride == 1 && self.channels(identity) == stage.outer;
        match architecture.shortcut {
            Shortcut::ZeroPad | Shortcut::Projection | Shortcut::PooledProjection if same => identity,
            Shortcut::ZeroPad => {
                let mut at = identity;
                if stride > 1 {
                    let channels = self.channels(at);
                    at = self.push(&format!("{name}.subsample"), Op::Subsample { stride }, &[at], channels);
                }
                let missing = stage.outer.saturating_sub(self.channels(at));
                if missing > 0 {
                    // The paper leaves open where; half on either side is what most implementations do.
                    let op = Op::ZeroPad { before: missing / 2, after: missing - missing / 2 };
                    at = self.push(&format!("{name}.zero_pad"), op, &[at], stage.outer);
                }
                at
            }
            Shortcut::Projection | Shortcut::ProjectionAlways => {
                let at = self.conv(&format!("{name}.downsample.0"), projected, stage.outer, (1, stride));
                self.norm_of_projection(architecture, &format!("{name}.downsample.1"), at)
            }
            Shortcut::PooledProjection => {
                let mut at = projected;
                if stride > 1 {
                    let channels = self.channels(at);
                    at = self.push(&format!("{name}.downsample.0"), Op::AveragePool { stride }, &[at], channels);
                }
                let at = self.conv(&format!("{name}.downsample.1"), at, stage.outer, (1, 1));
                self.norm_of_projection(architecture, &format!("{name}.downsample.2"), at)
            }
        }
    }

    fn norm_of_projection(&mut self, architecture: &Architecture, name: &str, at: LayerId) -> LayerId {
        match architecture.order {
            Order::PostActivation => self.norm(name, at),
            Order::PreActivation => at,
        }
    }

    fn channels(&self, layer: LayerId) -> usize {
        self.layers[layer].channels
    }

    fn conv(&mut self, name: &str, from: LayerId, channels: usize, shape: (usize, usize)) -> LayerId {
        self.conv_in_groups(name, from, channels, shape, 1)
    }

    fn conv_in_groups(
        &mut self,
        name: &str,
        from: LayerId,
        channels: usize,
        (kernel, stride): (usize, usize),
        groups: usize,
    ) -> LayerId {
        let inputs = self.channels(from);
        self.push(name, Op::Conv { inputs, kernel, stride, groups }, &[from], channels)
    }

    fn norm(&mut self, name: &str, from: LayerId) -> LayerId {
        self.push(name, Op::BatchNorm, &[from], self.channels(from))
    }

    /// Named after the layer before it.
    fn relu(&mut self, after: &str, from: LayerId) -> LayerId {
        self.push(&format!("{after}.relu"), Op::Relu, &[from], self.channels(from))
    }

    fn push(&mut self, name: &str, op: Op, inputs: &[LayerId], channels: usize) -> LayerId {
        self.layers.push(Layer { name: name.to_owned(), op, inputs: inputs.to_vec(), channels });
        self.layers.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::{ShortcutOption, named};
    use super::*;

    fn network(name: &str, shortcut: Option<ShortcutOption>) -> Network {
        Network::new(&named(name, None, shortcut).unwrap().0)
    }

    #[test]
    fn parameters_are_as_many_as_published() {
        for (name, expected) in [
            // torchvision's model documentation.
            ("resnet18", 11_689_512),
            ("resnet34", 21_797_672),
            ("resnet50", 25_557_032),
            ("resnet50-v1", 25_557_032),
            ("resnet101", 44_549_160),
            ("resnet152", 60_192_808),
            ("wide_resnet50_2", 68_883_240),
            ("wide_resnet101_2", 126_886_696),
            ("resnext50_32x4d", 25_028_904),
            ("resnext101_32x8d", 88_791_336),
            ("resnext101_64x4d", 83_455_272),
        ] {
            assert_eq!(network(name, None).parameter_count(), expected, "{name}");
        }
        // He et al. 2015, table 6, in millions: 0.27, 0.46, 0.66, 0.85, 1.7.
        for (name, expected) in
            [("resnet20", 0.27), ("resnet32", 0.46), ("resnet44", 0.66), ("resnet56", 0.85), ("resnet110", 1.73)]
        {
            let found = network(name, None).parameter_count() as f64 / 1e6;
            assert!((found - expected).abs() < 0.006, "{name}: {found}");
        }
    }

    #[test]
    fn shortcuts_follow_the_options_of_the_paper() {
        let count = |name: &str, option: Option<ShortcutOption>| {
            let network = network(name, option);
            let of = |wanted: fn(&Op) -> bool| network.layers().iter().filter(|layer| wanted(&layer.op)).count();
            let adds = of(|op| *op == Op::Add);
            let projections = network
                .layers()
                .iter()
                .filter(|layer| matches!(layer.op, Op::Conv { .. }) && layer.name.contains(".downsample."));
            let pads = of(|op| matches!(op, Op::ZeroPad { .. }));
            let projections = projections.count();
            (adds - projections - pads, projections, pads)
        };
        use ShortcutOption::{A, B, C};
        assert_eq!(count("resnet18", None), (5, 3, 0));
        assert_eq!(count("resnet34", None), (13, 3, 0));
        assert_eq!(count("resnet50", None), (12, 4, 0));
        assert_eq!(count("resnet101", None), (29, 4, 0));
        assert_eq!(count("resnet152", None), (46, 4, 0));
        assert_eq!(count("resnet20", None), (7, 0, 2));
        assert_eq!(count("resnet20", Some(B)), (7, 2, 0));
        assert_eq!(count("resnet20", Some(C)), (0, 9, 0));
        assert_eq!(count("resnet50", Some(A)), (12, 0, 4));
        assert_eq!(count("resnet50-d", None), (12, 4, 0));
    }

    #[test]
    fn the_stride_stands_in_the_first_or_in_the_middle_convolution() {
        let strides = |name: &str| {
            let network = network(name, None);
            ["conv1", "conv2", "conv3"].map(|conv| {
                let wanted = format!("layer2.0.{conv}");
                let layer = network.layers().iter().find(|layer| layer.name == wanted).unwrap();
                match layer.op {
                    Op::Conv { stride, .. } => stride,
                    _ => 0,
                }
            })
        };
        assert_eq!(strides("resnet50-v1"), [2, 1, 1]);
        assert_eq!(strides("resnet50"), [1, 2, 1]);
        assert_eq!(strides("resnet50-v2"), [1, 2, 1]);
    }

    #[test]
    fn every_layer_has_a_name_of_its_own() {
        for name in ["resnet18-d", "resnet50-v2", "resnet20", "resnet34-v1"] {
            let network = network(name, None);
            let mut names: Vec<&str> = network.layers().iter().map(|layer| layer.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), network.layers().len(), "{name}");
        }
    }
}
