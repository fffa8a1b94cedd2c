//! What a model takes and returns, in the words that the stages need: decided by the zoo from the file and the settings,
//! obeyed by the session and by postprocessing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Provider;
use crate::pipeline::types::SampleShape;

/// The image input and the output that holds the classes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Signature {
    /// Where the samples go.
    pub input: InputSignature,
    /// Where the scores come from.
    pub output: OutputSignature,
    /// Images that every run must have, where the file fixes their number.
    #[serde(skip)]
    pub fixed_batch: Option<usize>,
}

/// The image input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InputSignature {
    /// Its name in the graph.
    pub name: String,
    /// Its dimensions as the file declares them, in the order of `layout`; -1 where free.
    pub shape: [i64; 4],
    /// Order of its dimensions.
    pub layout: TensorLayout,
    /// Type of its elements.
    pub element: Element,
}

/// The output that holds the classes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OutputSignature {
    /// Its name in the graph.
    pub name: String,
    /// Type of its elements.
    pub element: Element,
    /// What its values mean.
    pub scores: Scores,
    /// Who says so.
    pub scores_source: ScoresSource,
    /// Number of classes, as many as there are labels. The background is none.
    pub classes: usize,
    /// Value 0 of every row is a background that is no class: TensorFlow's 1001 classes of ImageNet. It keeps its share
    /// of the probability and is not shown; the classes' indices count from the value after it.
    pub background: bool,
}

impl OutputSignature {
    /// Values in one row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.classes + usize::from(self.background)
    }

    /// How a row becomes predictions.
    #[must_use]
    pub fn reading(&self) -> Reading {
        Reading { scores: self.scores, background: self.background }
    }
}

/// How a row of values becomes predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// What the values mean.
    pub scores: Scores,
    /// The first value is no class.
    pub background: bool,
}

/// What a client may want done to the values of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Probabilities that sum to 1.
    Softmax,
    /// A probability for each class by itself.
    Sigmoid,
    /// Nothing: the values as the graph returns them.
    None,
}

impl Reading {
    /// The values of `row` that stand for classes.
    #[must_use]
    pub fn classes(self, row: &[f32]) -> &[f32] {
        &row[usize::from(self.background)..]
    }

    /// The same row with `activation` applied; none where the graph has applied another one, which nothing undoes.
    #[must_use]
    pub fn with(self, activation: Activation) -> Option<Self> {
        use Scores as S;
        let scores = match (activation, self.scores) {
            (Activation::Softmax, S::Logits | S::MultiLabelLogits) => S::Logits,
            (Activation::Softmax, S::Probabilities | S::LogProbabilities) => self.scores,
            (Activation::Sigmoid, S::Logits | S::MultiLabelLogits) => S::MultiLabelLogits,
            (Activation::Sigmoid, S::MultiLabelProbabilities) => S::MultiLabelProbabilities,
            (Activation::Softmax, S::MultiLabelProbabilities)
            | (Activation::Sigmoid, S::Probabilities | S::LogProbabilities) => return None,
            // Such values are shown as they are.
            (Activation::None, _) => S::MultiLabelProbabilities,
        };
        Some(Self { scores, ..self })
    }
}

/// Order of the dimensions of an image batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TensorLayout {
    /// `[N,C,H,W]`, as PyTorch exports.
    Nchw,
    /// `[N,H,W,C]`, as TensorFlow exports.
    Nhwc,
}

/// Element types that a graph may take or return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// A byte a value: the graph takes pixels as they are and normalises them itself.
    U8,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
}

/// What the values of a row mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scores {
    /// Raw scores; softmax makes them probabilities.
    Logits,
    /// Probabilities that sum to 1.
    Probabilities,
    /// Natural logarithms of probabilities.
    LogProbabilities,
    /// Raw scores of classes that do not exclude each other; a sigmoid each makes them probabilities.
    MultiLabelLogits,
    /// Probabilities of classes that do not exclude each other.
    MultiLabelProbabilities,
}

impl Scores {
    /// The classes of an image share one probability.
    #[must_use]
    pub fn sums_to_1(self) -> bool {
        match self {
            Self::Logits | Self::Probabilities | Self::LogProbabilities => true,
            Self::MultiLabelLogits | Self::MultiLabelProbabilities => false,
        }
    }
}

/// Who says what the values mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScoresSource {
    /// The settings or the files beside the model.
    Setting,
    /// The operators at the end of the graph.
    Graph,
    /// A run at the start, whose values can be nothing else.
    Run,
    /// Nobody: the graph ends in operators that are not followed, and logits are what most networks return.
    Assumed,
}

/// A signature, and how images share a run: what a model is served by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Contract {
    /// What goes in and comes out.
    #[serde(flatten)]
    pub signature: Signature,
    /// How many images a run takes.
    pub batch: BatchSupport,
    /// Runs of a free batch are filled up to a power of two.
    #[serde(skip)]
    pub buckets: bool,
    /// The images of a run change each other's scores, so that each runs alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mixes: bool,
}

impl Contract {
    /// The tensor that runs are fed with, for samples of this shape and batches of up to `images_max`.
    #[must_use]
    pub fn batch_form(&self, sample: SampleShape, images_max: usize) -> BatchForm {
        let rows = match self.batch {
            BatchSupport::Free | BatchSupport::Freed { .. } if self.buckets => Rows::Buckets(images_max),
            BatchSupport::Free | BatchSupport::Freed { .. } => Rows::UpTo(images_max),
            BatchSupport::Fixed { images, .. } => Rows::Exactly(images),
        };
        BatchForm { sample, layout: self.signature.input.layout, element: self.signature.input.element, rows }
    }

    /// Images that a batch holds at most, given what the settings allow.
    #[must_use]
    pub fn images_max(&self, allowed: usize) -> usize {
        match self.batch {
            BatchSupport::Free | BatchSupport::Freed { .. } => allowed,
            BatchSupport::Fixed { .. } if self.mixes => 1,
            BatchSupport::Fixed { images, .. } => allowed.min(images),
        }
    }
}

/// How many images a run takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum BatchSupport {
    /// Any number, by the file.
    Free,
    /// Any number, although the file fixes it: the graph was changed, and runs have shown that images stay apart.
    Freed {
        /// Images of a run by the file.
        from: usize,
    },
    /// This many. Smaller batches are filled up with zeros.
    Fixed {
        /// Images of a run.
        images: usize,
        /// Why the number was not made free.
        why: String,
    },
}

/// Shape and type of the tensor that runs are fed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchForm {
    /// Shape of one sample.
    pub sample: SampleShape,
    /// Order of the dimensions.
    pub layout: TensorLayout,
    /// Type of the elements.
    pub element: Element,
    /// Images of a run.
    pub rows: Rows,
}

impl BatchForm {
    /// `[rows,3,H,W]` or `[rows,H,W,3]`.
    #[must_use]
    pub fn dimensions(&self, rows: usize) -> [usize; 4] {
        let SampleShape { height, width } = self.sample;
        let (height, width) = (height as usize, width as usize);
        match self.layout {
            TensorLayout::Nchw => [rows, SampleShape::CHANNELS, height, width],
            TensorLayout::Nhwc => [rows, height, width, SampleShape::CHANNELS],
        }
    }
}

/// Images of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// At most so many.
    UpTo(usize),
    /// The next power of two, at most so many: for providers that choose or compile kernels for each number.
    Buckets(usize),
    /// So many, whatever the number of samples.
    Exactly(usize),
}

impl Rows {
    /// Images of a run for so many samples, at most [`Rows::max`].
    #[must_use]
    pub fn of(self, samples: usize) -> usize {
        match self {
            Self::UpTo(_) => samples,
            Self::Buckets(max) => samples.next_power_of_two().min(max),
            Self::Exactly(rows) => rows,
        }
    }

    /// Every size that [`Rows::of`] can be, largest first, where each should run once before it is asked for; else one image
    /// and the largest batch.
    #[must_use]
    pub fn sizes(self, provider: Provider) -> Vec<usize> {
        let mut sizes: Vec<usize> = match self {
            Self::Exactly(rows) => vec![rows],
            Self::UpTo(max) if provider == Provider::Openvino => (1..=max).collect(),
            Self::UpTo(max) => vec![1, max],
            Self::Buckets(max) => (1..=max).map(|samples| self.of(samples)).collect(),
        };
        sizes.dedup();
        sizes.reverse();
        sizes
    }

    /// The largest number.
    #[must_use]
    pub fn max(self) -> usize {
        match self {
            Self::UpTo(rows) | Self::Buckets(rows) | Self::Exactly(rows) => rows,
        }
    }
}
