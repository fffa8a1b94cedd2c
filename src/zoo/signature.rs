//! Which input takes the images and which output holds the classes: facts from the file, settings over them, and the
//! number of labels where both leave a choice.

mod error;

use serde::Deserialize;

pub use error::SignatureError;
use error::{describe, describe_output, list};

use super::recipe::{RecipeKeys, RecipeSource, Resolved};
use crate::graph::interface::{ChannelAxis, Dim, Ending, Input, Interface, Output, Row, Tensor};
use crate::graph::proto::DataType;
use crate::pipeline::SampleShape;
use crate::pipeline::infer::{Element, InputSignature, OutputSignature, Scores, ScoresSource, Signature, TensorLayout};
use crate::pipeline::preprocess::RecipeSteps;

/// Classes of ImageNet-1k, and with TensorFlow's background before them.
const IMAGENET: usize = 1000;
const IMAGENET_WITH_BACKGROUND: usize = 1001;
/// Classes, at most: what the file claims is allocated for every row. ImageNet-21k has 21,841.
const CLASSES_MAX: usize = 1_000_000;
/// Images of a fixed batch, at most: the buffer of a batch is allocated for what the file claims.
const FIXED_BATCH_MAX: usize = 1024;

/// What a `residual.toml` may say about the graph.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignatureOverrides {
    /// The table `[input]`.
    pub input: InputOverrides,
    /// The table `[output]`.
    pub output: OutputOverrides,
}

/// The table `[input]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InputOverrides {
    /// The input that takes the images.
    pub name: Option<String>,
    /// The order of its dimensions: `nchw` or `nhwc`.
    pub layout: Option<TensorLayout>,
}

/// The table `[output]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputOverrides {
    /// The output that holds the classes.
    pub name: Option<String>,
    /// What its values mean: `logits`, `probabilities`, `log_probabilities`, `multi_label_logits` or
    /// `multi_label_probabilities`.
    pub scores: Option<Scores>,
    /// Whether its first value is a background that is no class.
    pub background: Option<bool>,
}

/// What the files beside a model say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The samples that its recipe makes.
    pub sample: SampleShape,
    /// Number of its labels.
    pub labels: Option<usize>,
    /// Its classes do not exclude each other: `problem_type` is `multi_label_classification`.
    pub multi_label: bool,
}

/// Decides how `interface` is fed and read.
///
/// # Errors
/// [`SignatureError`] where that takes a guess.
pub fn signature(
    interface: &Interface,
    known: Known,
    overrides: &SignatureOverrides,
) -> Result<Signature, SignatureError> {
    let (input, input_batch) = input(interface, known.sample, &overrides.input)?;
    let (output, output_batch) = output(interface, known, &overrides.output)?;
    // An output with a fixed batch behind a free input contradicts it, and a run decides who is right.
    Ok(Signature { input, output, fixed_batch: input_batch.or(output_batch) })
}

fn input(
    interface: &Interface,
    sample: SampleShape,
    overrides: &InputOverrides,
) -> Result<(InputSignature, Option<usize>), SignatureError> {
    let inputs = &interface.inputs;
    let names = || list(inputs.iter().map(|input| describe(&input.tensor)));
    if let Some(name) = &overrides.name
        && !inputs.iter().any(|input| input.tensor.name == *name)
    {
        return Err(SignatureError::NoSuchName { table: "[input]", name: name.clone(), found: names() });
    }
    // A run needs all inputs, and only images are to be had.
    let [Input { tensor, channels, .. }] = &inputs[..] else {
        return Err(SignatureError::Inputs { found: names() });
    };
    let told = channels.map(|channels| match channels {
        ChannelAxis::First => TensorLayout::Nchw,
        ChannelAxis::Last => TensorLayout::Nhwc,
    });
    let (height, width) = (sample.height as usize, sample.width as usize);
    let wanted = |layout| match layout {
        TensorLayout::Nchw => [SampleShape::CHANNELS, height, width],
        TensorLayout::Nhwc => [height, width, SampleShape::CHANNELS],
    };
    let layout = overrides.layout.or(told);
    let refuse = |reason: &str| {
        let [a, b, c] = wanted(layout.unwrap_or(TensorLayout::Nchw));
        Err(SignatureError::Input {
            found: describe(tensor),
            expected: format!("[N, {a}, {b}, {c}]"),
            reason: reason.to_owned(),
        })
    };
    let Some(element) = element(tensor) else {
        return refuse("a type that images are prepared in");
    };
    let dims = match tensor.dims.as_deref() {
        Some([n, a, b, c]) => [n, a, b, c].map(Clone::clone),
        Some(_) => return refuse("a batch of images with channels"),
        None => [const { Dim::Free(None) }; 4],
    };
    let Some(layout) = layout else {
        return Err(SignatureError::Layout { found: describe(tensor) });
    };
    let channel = match layout {
        TensorLayout::Nchw => &dims[1],
        TensorLayout::Nhwc => &dims[3],
    };
    if *channel == Dim::Fixed(1) {
        return refuse("as images are prepared in colour: a model of grey images is not served yet");
    }
    if dims[1..].iter().zip(wanted(layout)).any(|(dim, size)| !fits(dim, size)) {
        return refuse("as its recipe prepares; export the graph for that size, or change the recipe");
    }
    let batch = fixed(&dims[0]);
    if batch.is_some_and(|batch| batch > FIXED_BATCH_MAX) {
        return refuse("and at most 1024 images in a fixed batch");
    }
    let shape = dims.map(|dim| fixed(&dim).and_then(|size| i64::try_from(size).ok()).unwrap_or(-1));
    Ok((InputSignature { name: tensor.name.clone(), shape, layout, element }, batch))
}

/// An output that may hold the classes.
struct Candidate<'a> {
    output: &'a Output,
    element: Element,
    classes: usize,
    background: bool,
}

fn output(
    interface: &Interface,
    known: Known,
    overrides: &OutputOverrides,
) -> Result<(OutputSignature, Option<usize>), SignatureError> {
    let outputs: Vec<&Output> = match &overrides.name {
        Some(name) => interface.outputs.iter().filter(|output| output.tensor.name == *name).collect(),
        None => interface.outputs.iter().collect(),
    };
    if let (Some(name), true) = (&overrides.name, outputs.is_empty()) {
        let found = list(interface.outputs.iter().map(describe_output));
        return Err(SignatureError::NoSuchName { table: "[output]", name: name.clone(), found });
    }
    let rows: Vec<(&Output, Element)> = outputs
        .iter()
        .filter(|output| output.ending != Ending::Indices && output.row != Row::None)
        .filter_map(|output| Some((*output, element(&output.tensor).filter(|&element| element != Element::U8)?)))
        .collect();
    let candidates: Vec<Candidate<'_>> = rows
        .iter()
        .filter_map(|&(output, element)| {
            let (classes, background) = classes(output.row, known.labels, overrides.background)?;
            Some(Candidate { output, element, classes, background })
        })
        .collect();
    let Some(best) = candidates.iter().min_by_key(|candidate| preference(candidate.output)) else {
        // A row that could be any number long, and nobody to say how long.
        if let (Some((open, _)), None) = (rows.iter().find(|(output, _)| output.row == Row::Open), known.labels) {
            return Err(SignatureError::Classes { found: describe_output(open) });
        }
        return Err(SignatureError::NoScores {
            found: list(outputs.iter().copied().map(describe_output)),
            expected: known.labels.map_or_else(
                || "[N, classes], one score for each class".to_owned(),
                |labels| format!("[N, {labels}], one score for each label"),
            ),
        });
    };
    let rivals =
        || candidates.iter().map(|candidate| candidate.output).filter(|rival| rank(rival) == rank(best.output));
    // Copies of the same scores, raw or normalised, are no choice.
    if rivals().any(|rival| rival.root != best.output.root) {
        return Err(SignatureError::Ambiguous { found: list(rivals().map(describe_output)) });
    }
    let Candidate { output, element, classes, background } = *best;
    let (scores, scores_source) = scores(output, known, overrides)?;
    if (classes, background, scores.sums_to_1()) == (1, false, true) && overrides.scores.is_none() {
        return Err(SignatureError::OneScore { found: describe_output(output) });
    }
    // As many features as ImageNet has classes are the scores of a network that ends in its pooling.
    let told = known.labels.is_some() || *overrides != OutputOverrides::default() || classes == IMAGENET;
    if output.ending == Ending::Features && !told {
        return Err(SignatureError::Features { found: list(outputs.iter().copied().map(describe_output)) });
    }
    let batch = match output.tensor.dims.as_deref() {
        // A single dimension is that of the classes.
        Some([_]) | None => None,
        Some(dims) => dims.first().and_then(fixed).filter(|&batch| batch <= FIXED_BATCH_MAX),
    };
    let name = output.tensor.name.clone();
    Ok((OutputSignature { name, element, scores, scores_source, classes, background }, batch))
}

/// Raw scores are the most telling, probabilities come next, features only where nothing else has a score for each
/// label.
fn preference(output: &Output) -> u8 {
    match output.ending {
        Ending::Scores => 0,
        Ending::Softmax | Ending::LogSoftmax | Ending::Sigmoid => 1,
        Ending::Unknown { .. } => 2,
        Ending::Features => 3,
        Ending::WrongAxis { .. } => 4,
        Ending::Indices => 5,
    }
}

/// Outputs of one rank are rivals. A softmax of other scores may be the classes beside raw features as well as a second
/// head beside raw classes.
fn rank(output: &Output) -> u8 {
    match output.ending {
        Ending::Softmax | Ending::LogSoftmax | Ending::Sigmoid => 0,
        Ending::Scores | Ending::Unknown { .. } | Ending::Features | Ending::WrongAxis { .. } | Ending::Indices => {
            preference(output)
        }
    }
}

/// The number of classes in a row, and whether a background stands before them; none if the labels say otherwise.
fn classes(row: Row, labels: Option<usize>, background: Option<bool>) -> Option<(usize, bool)> {
    let width = match (row, labels) {
        (Row::None, _) | (Row::Open, None) => return None,
        (Row::Known(width), _) => width,
        (Row::Open, Some(labels)) => labels + usize::from(background == Some(true)),
    };
    let background = background.unwrap_or(match labels {
        Some(labels) => (width, labels) == (IMAGENET_WITH_BACKGROUND, IMAGENET),
        // No data set of that size is known but TensorFlow's ImageNet.
        None => width == IMAGENET_WITH_BACKGROUND,
    });
    let classes = width.checked_sub(usize::from(background)).filter(|classes| (1..=CLASSES_MAX).contains(classes))?;
    labels.is_none_or(|labels| labels == classes).then_some((classes, background))
}

fn scores(
    output: &Output,
    known: Known,
    overrides: &OutputOverrides,
) -> Result<(Scores, ScoresSource), SignatureError> {
    if let Some(scores) = overrides.scores {
        return Ok((scores, ScoresSource::Setting));
    }
    let raw = |source| {
        if known.multi_label { (Scores::MultiLabelLogits, ScoresSource::Setting) } else { (Scores::Logits, source) }
    };
    Ok(match output.ending {
        Ending::Softmax => (Scores::Probabilities, ScoresSource::Graph),
        Ending::LogSoftmax => (Scores::LogProbabilities, ScoresSource::Graph),
        Ending::Sigmoid => (Scores::MultiLabelProbabilities, ScoresSource::Graph),
        Ending::Scores => raw(ScoresSource::Graph),
        Ending::Features | Ending::Unknown { .. } => raw(ScoresSource::Assumed),
        Ending::WrongAxis { .. } | Ending::Indices => {
            return Err(SignatureError::Axis { found: describe_output(output) });
        }
    })
}

fn element(tensor: &Tensor) -> Option<Element> {
    match tensor.element? {
        DataType::Float => Some(Element::F32),
        DataType::Float16 => Some(Element::F16),
        DataType::Bfloat16 => Some(Element::Bf16),
        DataType::Double => Some(Element::F64),
        DataType::Uint8 => Some(Element::U8),
        _ => None,
    }
}

/// Width and height of the graph's images, where the file fixes both.
pub(super) fn image_size(interface: &Interface, overrides: &SignatureOverrides) -> Option<(u32, u32)> {
    let chosen = |input: &&Input| overrides.input.name.as_ref().is_none_or(|name| *name == input.tensor.name);
    let input = interface.inputs.iter().find(chosen)?;
    let layout = overrides.input.layout.or(match input.channels? {
        ChannelAxis::First => Some(TensorLayout::Nchw),
        ChannelAxis::Last => Some(TensorLayout::Nhwc),
    })?;
    let first = match layout {
        TensorLayout::Nchw => 2,
        TensorLayout::Nhwc => 1,
    };
    let side =
        |at: usize| input.tensor.dims.as_ref()?.get(at).and_then(fixed).and_then(|side| u32::try_from(side).ok());
    Some((side(first + 1)?, side(first)?))
}

/// The recipe normalises for a graph that does so itself, and nobody who knows this model's graph said that it should.
/// Into a graph that takes bytes go the pixels as they are.
pub(super) fn normalises_twice(interface: &Interface, resolved: &Resolved, keys: Option<&RecipeKeys>) -> bool {
    let told = match resolved.source {
        RecipeSource::Setting | RecipeSource::ResidualToml => true,
        RecipeSource::OnnxMetadata
        | RecipeSource::PreprocessorConfig
        | RecipeSource::Config
        | RecipeSource::Catalog
        | RecipeSource::Assumed
        | RecipeSource::BuiltIn => false,
    };
    let told = told
        || keys
            .is_some_and(|RecipeKeys { rescale, mean, std, .. }| rescale.is_some() || mean.is_some() || std.is_some());
    let RecipeSteps { rescale, mean, std, .. } = resolved.recipe.steps();
    let by_recipe = (*rescale, *mean, *std) != (1.0, [0.0; 3], [1.0; 3]);
    let by_graph = |input: &Input| input.normalises && input.tensor.element != Some(DataType::Uint8);
    by_recipe && !told && interface.inputs.iter().any(by_graph)
}

fn fits(dim: &Dim, size: usize) -> bool {
    match dim {
        Dim::Fixed(found) => *found == size,
        Dim::Free(_) => true,
    }
}

fn fixed(dim: &Dim) -> Option<usize> {
    match dim {
        Dim::Fixed(size) => Some(*size),
        Dim::Free(_) => None,
    }
}

#[cfg(test)]
mod tests;
