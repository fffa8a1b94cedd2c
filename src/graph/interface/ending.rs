//! What the values of an output are, read from the operators that end in it.

use crate::graph::proto::NodeProto;
use crate::graph::wiring::{STEPS_MAX, Wiring, int_attribute, is_known_domain};

/// What an output's values are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Raw scores of a classifier layer: Gemm, MatMul, or a convolution in its place.
    Scores,
    /// Probabilities that sum to 1.
    Softmax,
    /// Their logarithms.
    LogSoftmax,
    /// One probability a class, each on its own.
    Sigmoid,
    /// Indices of classes: ArgMax, TopK.
    Indices,
    /// Pooled or activated values that no classifier layer follows: features, or the scores of a network that ends in
    /// its pooling.
    Features,
    /// Softmax over an axis that is not the classes': the scores of one image depend on its neighbours, or are all 1.
    WrongAxis {
        /// The operator.
        op: String,
        /// Its axis, as the file gives it.
        axis: i64,
    },
    /// Ends in an operator that this reader does not follow.
    Unknown {
        /// The operator; empty where no node makes the output.
        op: String,
    },
}

/// The ending of one output.
pub(super) struct Found {
    pub(super) ending: Ending,
    pub(super) root: String,
    /// Rows of the classifier's weight.
    pub(super) width: Option<usize>,
}

/// Walks from the tensor `output` to the operator that made its values.
pub(super) fn find(wiring: &Wiring<'_>, output: &str) -> Found {
    let mut walk = Walk { wiring, name: output, steps: STEPS_MAX };
    match walk.next() {
        Some(node) if is_known_domain(node) => match node.op_type() {
            "Softmax" | "QLinearSoftmax" => walk.normalised(node, Ending::Softmax),
            "LogSoftmax" => walk.normalised(node, Ending::LogSoftmax),
            "Log" => {
                walk.enter(node);
                match walk.next() {
                    Some(inner) if inner.op_type() == "Softmax" => walk.normalised(inner, Ending::LogSoftmax),
                    Some(_) | None => walk.unknown(node),
                }
            }
            "Sigmoid" | "QLinearSigmoid" => {
                walk.enter(node);
                Found { ending: Ending::Sigmoid, ..walk.scores() }
            }
            "ArgMax" | "ArgMin" | "TopK" => Found { ending: Ending::Indices, root: walk.name.to_owned(), width: None },
            _ => walk.scores(),
        },
        Some(node) => walk.unknown(node),
        None => Found { ending: Ending::Unknown { op: String::new() }, root: walk.name.to_owned(), width: None },
    }
}

struct Walk<'a, 'w> {
    wiring: &'w Wiring<'a>,
    /// The tensor that the walk has reached.
    name: &'a str,
    /// Steps that are left: a circle ends here, too.
    steps: usize,
}

impl<'a> Walk<'a, '_> {
    /// The node that makes the current tensor, behind those that only rearrange or convert it.
    fn next(&mut self) -> Option<&'a NodeProto> {
        while self.steps > 0 {
            let node = self.wiring.producer(self.name)?;
            match node.op_type() {
                "Identity" | "Cast" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Dropout" | "Transpose"
                | "QuantizeLinear" | "DequantizeLinear" => self.enter(node),
                _ => return Some(node),
            }
        }
        None
    }

    /// Goes on to the node's first input.
    fn enter(&mut self, node: &'a NodeProto) {
        // A node without inputs ends the walk: nothing makes the empty name.
        self.name = node.input.first().map_or("", String::as_str);
        self.steps = self.steps.saturating_sub(1);
    }

    /// Softmax over scores: the class axis must be the one that it sums to 1.
    fn normalised(mut self, node: &'a NodeProto, ending: Ending) -> Found {
        let axis = int_attribute(node, "axis", if self.wiring.opset() < 13 { 1 } else { -1 });
        // Two dimensions where nothing says otherwise: `[N,C]`.
        let rank = node.input.first().and_then(|name| self.wiring.rank(name)).unwrap_or(2);
        let ending = if self.is_class_axis(axis, rank) {
            ending
        } else {
            Ending::WrongAxis { op: node.op_type().to_owned(), axis }
        };
        self.enter(node);
        Found { ending, ..self.scores() }
    }

    /// Up to opset 12 Softmax flattens to two dimensions at its axis, so 1 takes all values of an image. Later it works
    /// on one axis: the channels of `[N,C]` or `[N,C,1,1]`, or the last one of `[N,C]`.
    fn is_class_axis(&self, axis: i64, rank: usize) -> bool {
        axis == 1 || (rank == 2 && axis == -1) || i64::try_from(rank).is_ok_and(|rank| axis == 1 - rank)
    }

    /// Values that are no probabilities by their last operator: a classifier's, or features.
    fn scores(mut self) -> Found {
        // Behind what only rearranges, so that scores and the softmax of them have one root.
        self.next();
        let root = self.name.to_owned();
        let found = |ending, width| Found { ending, root: root.clone(), width };
        while let Some(node) = self.next() {
            match node.op_type() {
                _ if !is_known_domain(node) => return self.unknown(node),
                "Gemm" | "MatMul" | "QGemm" | "QLinearMatMul" | "MatMulInteger" | "FusedMatMul" | "FusedGemm"
                | "Conv" | "ConvInteger" | "QLinearConv" | "FusedConv" => {
                    return found(Ending::Scores, self.width(node));
                }
                // A bias, a temperature, the scales of a quantised layer.
                "Add" | "Sub" | "Mul" | "BatchNormalization" | "QLinearAdd" => self.enter_data(node),
                "Div" if node.input.get(1).is_some_and(|name| self.wiring.constant(name).is_some()) => self.enter(node),
                "GlobalAveragePool"
                | "GlobalMaxPool"
                | "AveragePool"
                | "MaxPool"
                | "ReduceMean"
                | "ReduceMax"
                | "QLinearGlobalAveragePool"
                | "QLinearAveragePool" => {
                    // A network may classify each place and average the scores.
                    self.enter(node);
                    return match self.next() {
                        Some(conv) if conv.op_type() == "Conv" => found(Ending::Scores, self.width(conv)),
                        Some(_) | None => found(Ending::Features, None),
                    };
                }
                "Relu" | "Clip" | "LeakyRelu" | "PRelu" | "HardSwish" | "Gelu" | "Concat" | "LpNormalization" => {
                    return found(Ending::Features, None);
                }
                _ => return Found { root, ..self.unknown(node) },
            }
        }
        // An input or a constant, passed on.
        found(Ending::Features, None)
    }

    /// Of two operands goes to the one that is no constant.
    fn enter_data(&mut self, node: &'a NodeProto) {
        self.enter(node);
        if self.wiring.weight_dims(self.name, &mut self.steps).is_some()
            && let Some(other) = node.input.get(1)
        {
            self.name = other;
        }
    }

    /// Classes of a classifier layer, from the shape of its weight.
    fn width(&mut self, node: &NodeProto) -> Option<usize> {
        let weight = match node.op_type() {
            "QLinearMatMul" | "QLinearConv" | "QGemm" => node.input.get(3)?,
            _ => node.input.get(1)?,
        };
        let dims = self.wiring.weight_dims(weight, &mut self.steps)?;
        let width = match (node.op_type(), &dims[..]) {
            ("Conv" | "ConvInteger" | "QLinearConv" | "FusedConv", [width, ..]) => width,
            ("Gemm" | "QGemm" | "FusedGemm", [rows, columns]) => {
                if int_attribute(node, "transB", 0) == 1 {
                    rows
                } else {
                    columns
                }
            }
            ("FusedMatMul", [rows, columns]) => {
                if int_attribute(node, "transB", 0) == 1 {
                    rows
                } else {
                    columns
                }
            }
            (_, [.., columns]) => columns,
            (_, []) => return None,
        };
        usize::try_from(*width).ok().filter(|&width| width > 0)
    }

    fn unknown(&self, node: &NodeProto) -> Found {
        let ending = Ending::Unknown { op: node.op_type().to_owned() };
        Found { ending, root: self.name.to_owned(), width: None }
    }
}
