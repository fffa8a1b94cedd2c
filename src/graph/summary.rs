//! What Residual says about a model: the answer of `residual inspect` and of `GET /api/v1/models/{name}/graph`. All texts
//! are safe for a terminal.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

/// A model in words and numbers.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Graph")]
#[non_exhaustive]
pub struct Summary {
    /// What it is called: `ResNet-50 v1.5`; for another network what can be said.
    pub name: String,
    /// Whether it is a residual network of basic or bottleneck blocks behind a stem of He et al., or of their followers.
    pub is_resnet: bool,
    /// `ResNet`, `ResNeXt`, `Wide ResNet`, with `SE-` in front where channels are weighed.
    pub family: Option<String>,
    /// Layers with weights from the image to the classes, as the networks are named after: 50. That of a wide ResNet for
    /// CIFAR counts its projections as well, as its paper does.
    pub depth: Option<u64>,
    /// `v1`, `v1.5`, `v2`, `C`, `D`, `T`; none where the variants are the same network.
    pub variant: Option<String>,
    /// Trained values: weights and biases, scales and shifts of batch norms; no running statistics.
    pub parameters: u64,
    /// Multiplications of convolutions and fully connected layers for one image of `input_size`; none if a shape is not
    /// known.
    pub macs: Option<u64>,
    /// The image that `macs` and sizes are for.
    pub input_size: Option<InputSize>,
    /// Classes of the last fully connected layer.
    pub classes: Option<u64>,
    /// Layers before the first block.
    pub stem: Option<Stem>,
    /// Blocks of as many channels each.
    pub stages: Vec<Stage>,
    /// Layers behind the last block; for a network without blocks there is none.
    pub head: Option<Head>,
    /// How many shortcuts of each kind there are.
    pub shortcuts: Shortcuts,
    /// He et al. 2015, section 4.1: `A` zero-padded identities where dimensions grow, `B` projections there, `C`
    /// projections everywhere; none if there is no residual block, or a mixture.
    pub shortcut_option: Option<char>,
    /// Whether an activation follows the sums (`post`, v1) or precedes the convolutions (`pre`, v2).
    pub activation: Option<Order>,
    /// What became of the batch norms.
    pub batch_norm: BatchNorm,
    /// Integers in place of floating point.
    pub quantisation: Quantisation,
    /// Version of the standard operators.
    pub opset: Option<i64>,
    /// Version of the file format.
    pub ir_version: Option<i64>,
    /// The program that wrote the file, and its version.
    pub producer: Option<String>,
    /// What the graph wants, weights left out.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
    /// Files beside the model that hold weights.
    pub external_data: Vec<ExternalSummary>,
    /// How often each operator occurs, functions taken apart.
    pub operators: BTreeMap<String, u64>,
    /// What was assumed or not understood.
    pub notes: Vec<String>,
}

/// Size of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InputSize {
    /// In pixels.
    pub width: u64,
    /// In pixels.
    pub height: u64,
    /// `file`, `given` or `assumed`.
    pub source: &'static str,
}

/// What stands before the first block.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Stem {
    /// Its name.
    pub kind: StemKind,
    /// Its convolutions.
    pub convolutions: Vec<Convolution>,
    /// Whether a pool follows.
    pub has_pool: bool,
    /// Trained values.
    pub parameters: u64,
    /// Multiplications for one image.
    pub macs: Option<u64>,
}

/// How a network begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StemKind {
    /// 7x7, stride 2, and a pool: He et al. 2015.
    Conv7x7,
    /// Three 3x3, the first with stride 2, and a pool: variants C and D of He et al. 2018.
    Deep,
    /// One 3x3 that keeps the size: networks for CIFAR.
    Conv3x3,
    /// Anything else.
    Other,
}

/// A group of blocks with the same number of channels.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Stage {
    /// Channels of its result.
    pub channels: u64,
    /// Width of its result.
    pub width: Option<u64>,
    /// Height of its result.
    pub height: Option<u64>,
    /// First to last.
    pub blocks: Vec<Block>,
    /// Trained values.
    pub parameters: u64,
    /// Multiplications for one image.
    pub macs: Option<u64>,
}

/// A residual block.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Block {
    /// What its residual function is made of.
    pub kind: BlockKind,
    /// By how much it shrinks the image.
    pub stride: u64,
    /// Which layer of the residual function does: `3x3`.
    pub stride_at: Option<String>,
    /// Channels of what it reads.
    pub channels_in: u64,
    /// Channels of its result.
    pub channels: u64,
    /// Groups of its 3x3 convolution; 1 but for ResNeXt.
    pub groups: u64,
    /// Where its activations stand.
    pub activation: Order,
    /// Whether its channels are weighed, and how.
    pub attention: Option<Attention>,
    /// The convolutions of the residual function.
    pub convolutions: Vec<Convolution>,
    /// What is added to the residual function.
    pub shortcut: Shortcut,
    /// Trained values, the shortcut's included.
    pub parameters: u64,
    /// Multiplications for one image, the shortcut's included.
    pub macs: Option<u64>,
}

/// What a residual function is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// 3x3, 3x3.
    Basic,
    /// 1x1, 3x3, 1x1.
    Bottleneck,
    /// Anything else.
    Other,
}

/// Where the activations of a block stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Behind the sum.
    Post,
    /// Before the convolutions; the sum goes on as it is.
    Pre,
}

/// How a block weighs its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Attention {
    /// Pool, two layers with weights, sigmoid: Hu et al. 2017.
    SqueezeExcitation,
    /// Some other product of layers.
    Other,
}

/// A convolution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Convolution {
    /// `[channels, inputs / groups, height, width]`.
    pub weight: Vec<u64>,
    /// The greater of its two strides.
    pub stride: u64,
    /// Groups that do not see each other.
    pub groups: u64,
    /// Whether it adds a trained value to each channel.
    pub bias: bool,
}

/// What a block adds to its residual function.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Shortcut {
    /// In one word.
    pub kind: ShortcutKind,
    /// Shape of its weight, `[channels, inputs, 1, 1]`.
    pub weight: Option<Vec<u64>>,
    /// Its stride, where it has one.
    pub stride: u64,
    /// Whether its convolution has a bias; none without convolution.
    pub bias: Option<bool>,
    /// Its layers in words.
    pub detail: String,
    /// Trained values.
    pub parameters: u64,
}

/// What a shortcut does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShortcutKind {
    /// Nothing: what was read is added as it is, or every second pixel of it. No weights.
    Identity,
    /// A 1x1 convolution.
    Projection,
    /// Zeros in place of the channels that are missing. No weights.
    ZeroPad,
    /// An average pool and a 1x1 convolution.
    PoolProjection,
    /// Anything else.
    Other,
}

/// How many shortcuts of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "the names of ShortcutKind")]
pub struct Shortcuts {
    pub identity: u64,
    pub projection: u64,
    pub zero_pad: u64,
    pub pool_projection: u64,
    pub other: u64,
}

/// What stands behind the last block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Head {
    /// Layers with names of their own, first to last.
    pub layers: Vec<String>,
    /// Trained values.
    pub parameters: u64,
    /// Multiplications for one image.
    pub macs: Option<u64>,
}

/// What became of the batch norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchNorm {
    /// They are layers of their own.
    Explicit,
    /// They are inside the weights and biases of the convolutions.
    Folded,
    /// Some are, some are not.
    Partly,
    /// There is neither one nor a bias that could have taken one up.
    Absent,
}

/// Integers in place of floating point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Quantisation {
    /// How.
    pub format: QuantisationFormat,
    /// Type of most weights: `f32`, `f16`, `i8`.
    pub weights: Option<&'static str>,
}

/// How integers are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuantisationFormat {
    /// Not at all.
    None,
    /// Pairs of QuantizeLinear and DequantizeLinear around floating-point layers, which the runtime fuses.
    Qdq,
    /// Operators on integers: QLinearConv and its like.
    Qoperator,
    /// The same, with scales computed for each image.
    Dynamic,
    /// Weights are stored as integers, computing is in floating point.
    WeightOnly,
}

/// An input or output of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Type of its elements: `f32`, `u8`, `i64`.
    pub dtype: String,
    /// Its dimensions; none if not even their number is told.
    pub dims: Option<Vec<Dim>>,
}

/// A dimension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Dim {
    /// Always so many.
    Fixed(i64),
    /// Free, with a name.
    Named(String),
    /// Free.
    Free,
}

/// A file that holds weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ExternalSummary {
    /// Its path below the directory of the model.
    pub location: String,
    /// How many tensors lie there.
    pub tensors: u64,
    /// How long it must be at least.
    pub bytes: u64,
    /// Whether it is there; none before anybody looked.
    pub present: Option<bool>,
}

/// A sum that stays at the greatest number.
pub(super) fn total(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}
