//! Why a graph is not served, with its inputs and outputs as people read them.

use crate::graph::Printable;
use crate::graph::interface::{Dim, Ending, Output, Tensor};

/// Why a graph is not served. Every text names what the file has and what would be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not one input.
    #[error("the graph has inputs {found}; expected one, of images")]
    Inputs {
        /// The inputs.
        found: String,
    },
    /// A setting names what is not there.
    #[error("residual.toml has {table} name = {name:?}; the graph has {found}")]
    NoSuchName {
        /// `[input]` or `[output]`.
        table: &'static str,
        /// The name set.
        name: String,
        /// The names there are.
        found: String,
    },
    /// The input is no batch of colour images.
    #[error("the graph has input {found}; expected f32, f16 or u8 {expected}, {reason}")]
    Input {
        /// The input.
        found: String,
        /// Dimensions that would fit.
        expected: String,
        /// What does not.
        reason: String,
    },
    /// Nothing tells where the channels stand.
    #[error(
        "the graph has input {found}; set layout = \"nchw\" or \"nhwc\" under [input] in residual.toml, the file does not tell"
    )]
    Layout {
        /// The input.
        found: String,
    },
    /// No output fits.
    #[error("the graph has outputs {found}; expected f32, f16 or f64 {expected}")]
    NoScores {
        /// The outputs, each with what it ends in.
        found: String,
        /// What would fit.
        expected: String,
    },
    /// More than one fits.
    #[error(
        "the graph has outputs {found} that could hold the classes; choose one with name = under [output] in residual.toml"
    )]
    Ambiguous {
        /// The outputs that fit.
        found: String,
    },
    /// Features, and nothing says that they are classes.
    #[error(
        "the graph has outputs {found} and no classifier; if one holds the classes, choose it with name = under [output] in \
         residual.toml, or give labels, one a class"
    )]
    Features {
        /// The outputs.
        found: String,
    },
    /// One value, which softmax makes 1 whatever it is.
    #[error(
        "the graph has output {found}, one value an image, and softmax makes any one value 1; if it is a class that is there \
         or not, set scores = \"multi_label_logits\" under [output] in residual.toml, or \"multi_label_probabilities\" if \
         the graph applies the sigmoid"
    )]
    OneScore {
        /// The output.
        found: String,
    },
    /// Nothing says how many classes there are.
    #[error("the graph has output {found}, and nothing tells the number of classes; give labels, one a class")]
    Classes {
        /// The output.
        found: String,
    },
    /// The output's softmax is not over the classes.
    #[error(
        "the graph has output {found}; expected softmax over the classes, or set scores = under [output] in residual.toml"
    )]
    Axis {
        /// The output.
        found: String,
    },
}

/// `image: f32 [N, 3, 224, 224]`
pub(super) fn describe(tensor: &Tensor) -> String {
    let Tensor { name, element, dims } = tensor;
    let name = Printable(name);
    let element = match element {
        Some(element) => format!("{element:?}").to_lowercase(),
        None => "no tensor".to_owned(),
    };
    let Some(dims) = dims else {
        return format!("{name}: {element} of any shape");
    };
    let dims = dims.iter().map(|dim| match dim {
        Dim::Fixed(size) => size.to_string(),
        Dim::Free(Some(symbol)) => Printable(symbol).to_string(),
        Dim::Free(None) => "?".to_owned(),
    });
    format!("{name}: {element} [{}]", list(dims))
}

/// `probabilities: f32 [N, 10], softmax`
pub(super) fn describe_output(output: &Output) -> String {
    let ending = match &output.ending {
        Ending::Scores => "raw scores".to_owned(),
        Ending::Softmax => "softmax".to_owned(),
        Ending::LogSoftmax => "log softmax".to_owned(),
        Ending::Sigmoid => "sigmoid".to_owned(),
        Ending::Indices => "indices of classes".to_owned(),
        Ending::Features => "features".to_owned(),
        Ending::WrongAxis { op, axis } => format!("{} over axis {axis}", Printable(op)),
        Ending::Unknown { op } if op.is_empty() => "made by no node".to_owned(),
        Ending::Unknown { op } => format!("ends in {}", Printable(op)),
    };
    format!("{} ({ending})", describe(&output.tensor))
}

pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}
