//! What a residual network is made of: stem, blocks, stages, shortcuts. Which layers follow from that is said in
//! `network`; where the numbers come from is somebody else's.

use std::fmt;

/// A residual network for classification, as its papers describe it.
///
/// Made by [`super::named`] from a name, or by [`crate::graph::weights`] from the shapes of trained weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Architecture {
    pub(in crate::graph) stem: Stem,
    pub(in crate::graph) block: Block,
    pub(in crate::graph) order: Order,
    pub(in crate::graph) shortcut: Shortcut,
    pub(in crate::graph) stages: Vec<Stage>,
    pub(in crate::graph) classes: usize,
}

/// What stands before the first block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::graph) enum Stem {
    /// 7x7 convolution with stride 2, then 3x3 max pooling with stride 2 (He et al. 2015, table 1).
    Imagenet { width: usize },
    /// Three 3x3 convolutions, the first with stride 2, then the same pooling (He et al. 2018, arXiv:1812.01187,
    /// ResNet-C).
    Deep { widths: [usize; 3] },
    /// One 3x3 convolution with stride 1 and no pooling (He et al. 2015, section 4.2).
    Cifar { width: usize },
}

/// The residual branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::graph) enum Block {
    /// Two 3x3 convolutions; the first has the stride.
    Basic,
    /// 1x1, 3x3, 1x1.
    Bottleneck(StrideIn),
}

impl Block {
    pub(in crate::graph) fn convolutions(self) -> usize {
        match self {
            Self::Basic => 2,
            Self::Bottleneck(_) => 3,
        }
    }
}

/// Which convolution of a bottleneck has the stride.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrideIn {
    /// The first 1x1: "v1", as in He et al. 2015 and in Caffe.
    First,
    /// The 3x3: "v1.5", as in torchvision, timm and MLPerf.
    Middle,
}

/// Where normalisation and ReLU stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::graph) enum Order {
    /// Behind each convolution, and ReLU behind the sum (He et al. 2015).
    PostActivation,
    /// Before each convolution, and nothing behind the sum: "v2" (He et al. 2016, arXiv:1603.05027).
    PreActivation,
}

/// What carries a block's input past it. Wherever input and output agree in shape, all but
/// [`Shortcut::ProjectionAlways`] take the input itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::graph) enum Shortcut {
    /// Every `stride`-th pixel, new channels are zero: option A of He et al. 2015, section 3.3. No weights.
    ZeroPad,
    /// A 1x1 convolution with the stride: option B.
    Projection,
    /// A 1x1 convolution in each block: option C.
    ProjectionAlways,
    /// Average pooling with the stride, then a 1x1 convolution without (He et al. 2018, ResNet-D).
    PooledProjection,
}

/// Blocks that work at one size of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::graph) struct Stage {
    /// Blocks one after the other, at least one.
    pub(in crate::graph) blocks: usize,
    /// Of the first block; the others have 1.
    pub(in crate::graph) stride: usize,
    /// Channels inside the residual branch.
    pub(in crate::graph) inner: usize,
    /// Channels that leave a block.
    pub(in crate::graph) outer: usize,
    /// Groups of a bottleneck's 3x3 convolution; ResNeXt has more than one.
    pub(in crate::graph) groups: usize,
}

impl Architecture {
    /// Number of classes, the length of the logits.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Whether the stem is that for small pictures, which does not shrink them.
    #[must_use]
    pub fn is_for_small_pictures(&self) -> bool {
        matches!(self.stem, Stem::Cifar { .. })
    }

    /// Layers with weights on the longest way, projections not counted: the 50 of ResNet-50.
    #[must_use]
    pub fn depth(&self) -> usize {
        let blocks: usize = self.stages.iter().map(|stage| stage.blocks).sum();
        blocks * self.block.convolutions() + 2
    }
}

/// The name that people use: `ResNet-50 v1.5`, `ResNeXt-50 32x4d`, `Wide ResNet-50-2`, `ResNet-20 (CIFAR)`.
impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let depth = self.depth();
        let first = self.stages.first();
        let (groups, inner, outer) = first.map_or((1, 1, 1), |stage| (stage.groups, stage.inner, stage.outer));
        match self.block {
            Block::Bottleneck(_) if groups > 1 => write!(f, "ResNeXt-{depth} {groups}x{}d", inner / groups)?,
            // A bottleneck's inside has a quarter of the channels; k times that is "wide by k".
            Block::Bottleneck(_) if outer > 0 && inner * 4 >= outer * 2 => {
                write!(f, "Wide ResNet-{depth}-{}", inner * 4 / outer)?;
            }
            Block::Basic | Block::Bottleneck(_) => write!(f, "ResNet-{depth}")?,
        }
        match (self.order, self.block) {
            (Order::PreActivation, _) => f.write_str(" v2")?,
            (Order::PostActivation, Block::Bottleneck(StrideIn::First)) => f.write_str(" v1")?,
            (Order::PostActivation, Block::Bottleneck(StrideIn::Middle)) => f.write_str(" v1.5")?,
            (Order::PostActivation, Block::Basic) => {}
        }
        match (self.stem, self.shortcut) {
            (Stem::Deep { .. }, Shortcut::PooledProjection) => f.write_str(" D")?,
            (Stem::Deep { .. }, _) => f.write_str(" C")?,
            (Stem::Imagenet { .. } | Stem::Cifar { .. }, Shortcut::PooledProjection) => {
                f.write_str(" with pooled projections")?;
            }
            (Stem::Imagenet { .. } | Stem::Cifar { .. }, _) => {}
        }
        match self.shortcut {
            Shortcut::ZeroPad => f.write_str(" with zero-padded shortcuts")?,
            Shortcut::ProjectionAlways => f.write_str(" with a projection in each block")?,
            Shortcut::Projection | Shortcut::PooledProjection => {}
        }
        if self.is_for_small_pictures() { f.write_str(" (CIFAR)") } else { Ok(()) }
    }
}
