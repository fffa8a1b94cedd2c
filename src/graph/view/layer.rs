//! What a network is made of once the exporter's habits are gone: layers, and between them the flow of one image.

use crate::graph::view::shape::Dims;

/// A layer's place in [`View::layers`](super::View).
pub(in crate::graph) type LayerId = usize;

/// One step of the network.
#[derive(Clone, Debug)]
pub(in crate::graph) struct Layer<'a> {
    pub(in crate::graph) op: Op<'a>,
    /// The layers whose results it reads.
    pub(in crate::graph) inputs: Vec<LayerId>,
    /// Shape of its result, `[N,C,H,W]` inside the network, with N = 1; `None` if not even the rank is known.
    pub(in crate::graph) dims: Dims,
    /// Trained values that it reads.
    pub(in crate::graph) parameters: u64,
    /// Multiplications for one image; `None` if its shape is not known.
    pub(in crate::graph) macs: Option<u64>,
}

/// What a layer does.
#[derive(Clone, Debug)]
pub(in crate::graph) enum Op<'a> {
    /// An input of the graph.
    Input,
    Conv(Conv),
    /// A fully connected layer.
    Dense(Dense),
    BatchNorm,
    /// Another norm, which computes its statistics from the image; named as ONNX names it.
    Norm(&'a str),
    /// A multiplication by trained values, with the addition that follows: a batch norm in two nodes.
    Scale,
    /// An addition of trained values that is no bias.
    Shift,
    /// Named as ONNX names it.
    Activation(&'a str),
    MaxPool(Window),
    AveragePool(Window),
    /// An average over the whole image.
    GlobalPool,
    /// The sum of several layers.
    Add,
    /// The product of several layers.
    Gate,
    /// Zeros around the image or, with `on_channels`, before or after its channels.
    Pad {
        on_channels: bool,
    },
    /// A part of the image: every so many-th row and column.
    Slice {
        steps: [u64; 2],
    },
    Concat,
    Softmax,
    /// Whatever is not known here, by its ONNX name.
    Other(&'a str),
}

/// A convolution. Shapes as ONNX has them: the weight is `[channels, inputs / groups, kernel...]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::graph) struct Conv {
    pub(in crate::graph) weight: Vec<u64>,
    pub(in crate::graph) groups: u64,
    pub(in crate::graph) stride: Vec<u64>,
    pub(in crate::graph) has_bias: bool,
    /// Type of the weights in the file, a number of `TensorProto.DataType`.
    pub(in crate::graph) data_type: i32,
}

/// A fully connected layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::graph) struct Dense {
    pub(in crate::graph) inputs: u64,
    pub(in crate::graph) outputs: u64,
    pub(in crate::graph) has_bias: bool,
    pub(in crate::graph) data_type: i32,
}

/// The window of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::graph) struct Window {
    pub(in crate::graph) kernel: Vec<u64>,
    pub(in crate::graph) stride: Vec<u64>,
    /// Whether it covers the whole image.
    pub(in crate::graph) is_global: bool,
}

impl Conv {
    /// Channels that it makes.
    pub(in crate::graph) fn channels(&self) -> u64 {
        self.weight[0]
    }

    /// Channels that it reads.
    pub(in crate::graph) fn inputs(&self) -> u64 {
        self.weight[1].saturating_mul(self.groups)
    }

    /// Rows and columns of its kernel.
    pub(in crate::graph) fn kernel(&self) -> &[u64] {
        &self.weight[2..]
    }

    /// Whether the kernel is `size` by `size`.
    pub(in crate::graph) fn is_square(&self, size: u64) -> bool {
        self.kernel() == [size, size]
    }

    /// The greatest stride.
    pub(in crate::graph) fn step(&self) -> u64 {
        self.stride.iter().copied().max().unwrap_or(1)
    }
}

impl Window {
    /// The greatest stride.
    pub(in crate::graph) fn step(&self) -> u64 {
        self.stride.iter().copied().max().unwrap_or(1)
    }

    /// Whether it looks at single pixels: a subsampling.
    pub(in crate::graph) fn is_point(&self) -> bool {
        self.kernel.iter().all(|size| *size == 1)
    }
}
