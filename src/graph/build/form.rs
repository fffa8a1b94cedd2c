//! What a user may choose about a graph without changing what it computes.

use crate::graph::proto::DataType;

/// Element type of input, output and every tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits, IEEE 754 binary16.
    F16,
}

impl Dtype {
    pub(super) fn code(self) -> DataType {
        match self {
            Self::F32 => DataType::Float,
            Self::F16 => DataType::Float16,
        }
    }

    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// What becomes of batch norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BatchNormForm {
    /// One behind a convolution is multiplied into it; one before a convolution, as v2 networks have, stays.
    Folded,
    /// All stay.
    Explicit,
}

/// Order of the input's dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    /// `[N,3,H,W]`.
    Nchw,
    /// `[N,H,W,3]`, turned by the graph's first node, as exports from TensorFlow have it.
    Nhwc,
}

/// What a user may choose about a graph without changing what it computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphForm {
    /// Element type.
    pub dtype: Dtype,
    /// Batch norms folded or kept.
    pub batch_norm: BatchNormForm,
    /// Order of the input's dimensions.
    pub layout: Layout,
    /// Width and height of the input, in pixels.
    pub size: usize,
    /// Images in a batch; free, under the name `N`, where it is `None`.
    pub batch: Option<usize>,
    /// Whether the graph ends in probabilities instead of logits.
    pub softmax: bool,
    /// One sentence for the file's `doc_string`.
    pub description: String,
}

impl Default for GraphForm {
    /// f32, folded, NCHW, 224 pixels, a free batch, logits.
    fn default() -> Self {
        Self {
            dtype: Dtype::F32,
            batch_norm: BatchNormForm::Folded,
            layout: Layout::Nchw,
            size: 224,
            batch: None,
            softmax: false,
            description: String::new(),
        }
    }
}
