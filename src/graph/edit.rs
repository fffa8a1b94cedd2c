//! Changes to a graph that is loaded from memory: frees the batch dimension that an exporter fixed, and says where
//! external weights lie.
//!
//! A free batch is not a matter of the declared shapes alone: nodes may have the number built in. Those that are known
//! to are rewritten or named in the refusal; whether the rest keeps images apart, only a run can prove.

use std::collections::HashSet;

use super::proto::{
    AttributeProto, AttributeType, DataType, DimensionProto, DimensionValue, GraphProto, ModelProto, NodeProto,
    TensorProto, TypeValue, ValueInfoProto,
};
use super::wiring::{self, Axes, Wiring, attribute, describe, int_attribute};

/// Why the batch cannot be made free.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFree {
    /// The model has no input of this name with a batch dimension.
    #[error("it has no input {input:?} with dimensions")]
    Input {
        /// The input asked for.
        input: String,
    },
    /// Nothing fixes the batch: neither the input, nor an output, nor a node.
    #[error("nothing in it fixes the batch")]
    Free,
    /// A node has the number of images built in.
    #[error("{node} {why}")]
    Node {
        /// The node.
        node: String,
        /// What it does with the batch.
        why: &'static str,
    },
}

/// A copy of `model` whose image input and outputs take any number of images in dimension 0. Weights are shared with
/// `model`, not copied. An input that is free already does not end the search: exporters that were told so may still
/// have traced a batch of one into an output or a node.
///
/// # Errors
/// [`NotFree`] where the file alone shows that the result would not load, or would mix images.
pub fn free_batch(model: &ModelProto, input: &str) -> Result<ModelProto, NotFree> {
    let no_input = || NotFree::Input { input: input.to_owned() };
    let graph = model.graph.as_ref().ok_or_else(no_input)?;
    let declared = graph.input.iter().find(|value| value.name() == input).and_then(first_dim).ok_or_else(no_input)?;
    let (batch, symbol) = match &declared.value {
        Some(DimensionValue::Value(batch)) if *batch > 0 => (*batch, unused_symbol(graph)),
        Some(DimensionValue::Param(symbol)) if !symbol.is_empty() => (hidden_batch(graph), symbol.clone()),
        Some(_) | None => (hidden_batch(graph), unused_symbol(graph)),
    };
    let wiring = Wiring::new(model, graph);
    let data = image_data(&wiring, input);
    let mut rewrites = Vec::new();
    for (index, node) in graph.node.iter().enumerate() {
        if node.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty()) {
            return Err(refuse(node, "has a graph of its own, which is not looked into"));
        }
        if node.output.iter().any(|name| data.contains(name.as_str()))
            && let Some(target) = check(node, batch, &wiring, &data)?
        {
            rewrites.push((index, target));
        }
    }
    let is_fixed = |dim: &DimensionProto| dim.value == Some(DimensionValue::Value(batch));
    if rewrites.is_empty() && !is_fixed(declared) && !graph.output.iter().filter_map(first_dim).any(is_fixed) {
        return Err(NotFree::Free);
    }
    let mut freed = model.clone();
    let graph = freed.graph.as_mut().expect("it was there above");
    let replaced: Vec<_> =
        rewrites.into_iter().rev().filter_map(|(index, target)| set_reshape_target(graph, index, target)).collect();
    drop_unused(graph, &replaced);
    for value in graph.input.iter_mut().filter(|value| value.name() == input).chain(&mut graph.output) {
        if value.name() == input || first_dim(value).is_some_and(is_fixed) {
            set_first_dim(value, &symbol);
        }
    }
    // Shapes inside the graph that were inferred for the fixed batch; the runtime infers them again.
    graph.value_info.clear();
    Ok(freed)
}

/// Gives the external data of tensors the paths that `place` has for them; `None` leaves a path as it is. Tensors of
/// functions and of graphs inside nodes are not looked at.
pub fn relocate(model: &mut ModelProto, place: impl Fn(&str) -> Option<String>) {
    let Some(graph) = &mut model.graph else { return };
    let constants = graph.node.iter_mut().flat_map(|node| &mut node.attribute).filter_map(|value| value.t.as_mut());
    let entries = graph.initializer.iter_mut().chain(constants).flat_map(|tensor| &mut tensor.external_data);
    for entry in entries.filter(|entry| entry.key() == "location") {
        if let Some(place) = place(entry.value()) {
            entry.value = Some(place);
        }
    }
}

/// The batch of a graph whose input is free: what an output claims, else one image.
fn hidden_batch(graph: &GraphProto) -> i64 {
    let claimed = graph.output.iter().filter_map(first_dim).find_map(|dim| match dim.value {
        Some(DimensionValue::Value(batch)) if batch > 0 => Some(batch),
        Some(DimensionValue::Value(_) | DimensionValue::Param(_)) | None => None,
    });
    claimed.unwrap_or(1)
}

/// The tensors that hold what was computed from pixels. The shape of a tensor holds none; what is computed from it
/// follows the batch by itself.
fn image_data<'a>(wiring: &Wiring<'a>, input: &'a str) -> HashSet<&'a str> {
    let mut data = HashSet::from([input]);
    let mut waiting = vec![input];
    while let Some(name) = waiting.pop() {
        for node in wiring.consumers(name).iter().filter(|node| !matches!(node.op_type(), "Shape" | "Size")) {
            let made = node.output.iter().map(String::as_str).filter(|name| !name.is_empty());
            waiting.extend(made.filter(|name| data.insert(name)));
        }
    }
    data
}

/// What must change at a node that the images pass: nothing, or the target of a Reshape.
fn check(node: &NodeProto, batch: i64, wiring: &Wiring<'_>, data: &HashSet<&str>) -> Result<Option<Vec<i64>>, NotFree> {
    let refuse = |why| Err(refuse(node, why));
    let is_data = |at: usize| node.input.get(at).is_some_and(|name| data.contains(name.as_str()));
    match node.op_type() {
        "Reshape" if is_data(0) => return reshape(node, batch, wiring),
        "Squeeze" => match wiring.axes(node, 1) {
            Axes::Absent => return refuse("drops every dimension of size 1, the batch of one image among them"),
            Axes::Listed(axes) if axes.contains(&0) => return refuse("drops the batch dimension"),
            Axes::Listed(_) | Axes::Computed => {}
        },
        "Unsqueeze" => {
            if matches!(wiring.axes(node, 1), Axes::Listed(axes) if axes.contains(&0)) {
                return refuse("puts a dimension before the batch");
            }
        }
        "Transpose" if attribute(node, "perm").is_none_or(|perm| perm.ints.first() != Some(&0)) => {
            return refuse("moves the batch dimension");
        }
        "Flatten" if int_attribute(node, "axis", 1) == 0 => return refuse("joins the images of a batch"),
        "Softmax" | "LogSoftmax" | "Hardmax" if int_attribute(node, "axis", 1) == 0 => {
            return refuse("works across the images of a batch");
        }
        "ArgMax" | "ArgMin" | "Gather" | "Split" if is_data(0) && int_attribute(node, "axis", 0) == 0 => {
            return refuse("works across the images of a batch");
        }
        "Concat" => {
            if int_attribute(node, "axis", 0) == 0 {
                return refuse("works across the images of a batch");
            }
            if node.input.iter().any(|name| wiring.constant(name).is_some()) {
                return refuse("joins the images with a constant of a fixed batch");
            }
        }
        "Slice" => {
            if matches!(wiring.axes(node, 3), Axes::Listed(axes) if axes.contains(&0)) {
                return refuse("cuts along the batch dimension");
            }
        }
        "Expand" => {
            let target = node.input.get(1).and_then(|name| wiring.ints(name));
            if target.is_some_and(|target| target.first().is_some_and(|&first| first > 1)) {
                return refuse("repeats up to a fixed batch");
            }
        }
        "Resize" if node.input.get(3).is_some_and(|name| wiring.constant(name).is_some()) => {
            return refuse("resizes to fixed sizes, the batch among them");
        }
        "BatchNormalization" if int_attribute(node, "training_mode", 0) == 1 => {
            return refuse("normalises over the images of a batch");
        }
        op if op.starts_with("Reduce") => match wiring.axes(node, 1) {
            Axes::Absent if int_attribute(node, "noop_with_empty_axes", 0) == 0 => {
                return refuse("reduces over the images of a batch");
            }
            Axes::Listed(axes) if axes.contains(&0) => return refuse("reduces over the images of a batch"),
            Axes::Absent | Axes::Listed(_) | Axes::Computed => {}
        },
        _ => {}
    }
    Ok(None)
}

/// A Reshape to a constant target: its first dimension is the batch, or it cannot be known what is.
fn reshape(node: &NodeProto, batch: i64, wiring: &Wiring<'_>) -> Result<Option<Vec<i64>>, NotFree> {
    let target = match (attribute(node, "shape"), node.input.get(1)) {
        (Some(shape), _) => Some(shape.ints.clone()),
        (None, Some(name)) => match wiring.ints(name) {
            Some(target) => Some(target),
            None if wiring.constant(name).is_some() => {
                return Err(refuse(node, "takes its target from a tensor that is not inside the file"));
            }
            // Computed, and so by a rule that the run will judge.
            None => None,
        },
        (None, None) => None,
    };
    let Some(mut target) = target else { return Ok(None) };
    match target.split_first_mut() {
        Some((0 | -1, rest)) if !rest.is_empty() => Ok(None),
        Some((first, rest)) if *first == batch && !rest.is_empty() => {
            // -1 is right whatever the input's dimensions are, but there can be only one; 0 copies dimension 0.
            *first = if rest.contains(&-1) { 0 } else { -1 };
            if *first == 0 && int_attribute(node, "allowzero", 0) == 1 {
                return Err(refuse(node, "takes a 0 in its target literally"));
            }
            Ok(Some(target))
        }
        Some(_) | None => Err(refuse(node, "has a target without a place for the batch")),
    }
}

fn refuse(node: &NodeProto, why: &'static str) -> NotFree {
    NotFree::Node { node: describe(node), why }
}

/// Gives one Reshape a target of its own, as its operator set wants it: the old one may be shared with other nodes.
/// Returns the name of the old one.
fn set_reshape_target(graph: &mut GraphProto, index: usize, target: Vec<i64>) -> Option<String> {
    let node = &mut graph.node[index];
    if let Some(shape) = node.attribute.iter_mut().find(|attribute| attribute.name() == "shape") {
        shape.ints = target;
        return None;
    }
    // The output's name is unique in the graph, and the suffix is nobody else's.
    let name = format!("{}/residual_free_batch", node.output.first().map_or("", String::as_str));
    let old = std::mem::replace(&mut node.input[1], name.clone());
    let value = TensorProto {
        dims: vec![i64::try_from(target.len()).expect("a shape has few dimensions")],
        data_type: Some(DataType::Int64 as i32),
        int64_data: target,
        ..TensorProto::default()
    };
    let attribute = AttributeProto {
        name: Some("value".to_owned()),
        t: Some(value),
        r#type: Some(AttributeType::Tensor as i32),
        ..AttributeProto::default()
    };
    // A node and not an initialiser: before IR 4 those must be inputs as well.
    let constant = NodeProto {
        output: vec![name],
        op_type: Some("Constant".to_owned()),
        attribute: vec![attribute],
        ..NodeProto::default()
    };
    graph.node.insert(index, constant);
    Some(old)
}

/// Removes the constants among `names` that nothing reads any more: the runtime warns of each at every load.
fn drop_unused(graph: &mut GraphProto, names: &[String]) {
    let read =
        graph.node.iter().flat_map(|node| &node.input).chain(graph.output.iter().filter_map(|v| v.name.as_ref()));
    let read: HashSet<&String> = read.collect();
    let unused: HashSet<String> = names.iter().filter(|name| !read.contains(name)).cloned().collect();
    graph.initializer.retain(|tensor| !unused.contains(tensor.name()));
    graph.input.retain(|value| !unused.contains(value.name()));
    graph.node.retain(|node| node.op_type() != "Constant" || !node.output.iter().any(|name| unused.contains(name)));
}

fn first_dim(value: &ValueInfoProto) -> Option<&DimensionProto> {
    wiring::tensor_type(value)?.shape.as_ref()?.dim.first()
}

fn set_first_dim(value: &mut ValueInfoProto, symbol: &str) {
    if let Some(TypeValue::Tensor(tensor)) = value.r#type.as_mut().and_then(|r#type| r#type.value.as_mut())
        && let Some(dim) = tensor.shape.as_mut().and_then(|shape| shape.dim.first_mut())
    {
        dim.value = Some(DimensionValue::Param(symbol.to_owned()));
    }
}

/// `N`, unless the file calls another dimension so: the runtime takes dimensions of one name for equal.
fn unused_symbol(graph: &GraphProto) -> String {
    let shapes = graph.input.iter().chain(&graph.output).filter_map(|value| wiring::tensor_type(value)?.shape.as_ref());
    let used: HashSet<&str> = shapes
        .flat_map(|shape| &shape.dim)
        .filter_map(|dim| match &dim.value {
            Some(DimensionValue::Param(name)) => Some(name.as_str()),
            Some(DimensionValue::Value(_)) | None => None,
        })
        .collect();
    let mut symbol = "N".to_owned();
    while used.contains(symbol.as_str()) {
        symbol.push('_');
    }
    symbol
}

#[cfg(test)]
mod tests;
