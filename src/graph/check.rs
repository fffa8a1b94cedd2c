//! What a decoded model must fulfil before anybody relies on it: tensors hold what they claim, every name that is read
//! is written once, and no node waits for itself.

use std::collections::HashMap;

use super::external;
use super::proto::{DataLocation, DataType, GraphProto, ModelProto, NodeProto, TensorProto};
use super::{GraphError, Printable};

/// First version of the format that states the versions of its operators.
const IR_VERSION_WITH_OPSETS: i64 = 3;

/// Checks `model`; time and memory grow with its size and no faster.
///
/// # Errors
/// [`GraphError::Graph`], [`GraphError::Tensor`] or [`GraphError::External`], about the first fault found.
pub(super) fn check(model: &ModelProto) -> Result<(), GraphError> {
    let fault = |what: String| Err(GraphError::Graph { what });
    let Some(graph) = &model.graph else {
        return fault("it holds no graph".to_owned());
    };
    if model.opset_import.is_empty() && model.ir_version.unwrap_or(0) >= IR_VERSION_WITH_OPSETS {
        return fault("it does not say which version of the operators it uses (opset_import)".to_owned());
    }
    for tensor in tensors(graph) {
        check_tensor(tensor)?;
    }
    for function in &model.functions {
        for tensor in function.node.iter().flat_map(node_tensors) {
            check_tensor(tensor)?;
        }
    }
    check_names(graph)
}

/// Every tensor of `graph`: initialisers, attributes, those of subgraphs. Sparse tensors are described by two others.
pub(super) fn tensors(graph: &GraphProto) -> Vec<&TensorProto> {
    let sparse = graph.sparse_initializer.iter().flat_map(|sparse| [&sparse.values, &sparse.indices]).flatten();
    graph.initializer.iter().chain(sparse).chain(graph.node.iter().flat_map(node_tensors)).collect()
}

/// The tensors in attributes of `node`, those of subgraphs included; the nesting is bounded by the scan.
pub(super) fn node_tensors(node: &NodeProto) -> Vec<&TensorProto> {
    let mut found = Vec::new();
    for attribute in &node.attribute {
        found.extend(attribute.t.iter().chain(&attribute.tensors));
        for sparse in attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors) {
            found.extend(sparse.values.iter().chain(&sparse.indices));
        }
        for graph in attribute.g.iter().chain(&attribute.graphs) {
            found.extend(tensors(graph));
        }
    }
    found
}

/// Elements and bytes that `tensor` claims to have. Elements of four bits share bytes; strings and types that are not
/// known have no size.
///
/// # Errors
/// A negative dimension, or a product beyond `u64`.
pub(super) fn claimed(tensor: &TensorProto) -> Result<(u64, Option<u64>), GraphError> {
    let fault = |what: String| GraphError::Tensor { name: tensor.name.clone().unwrap_or_default(), what };
    let mut elements: u64 = 1;
    let mut is_empty = false;
    for dim in &tensor.dims {
        let dim = u64::try_from(*dim).map_err(|_| fault(format!("a dimension is {dim}, at least 0 allowed")))?;
        is_empty |= dim == 0;
        // An empty tensor may have other dimensions of any size.
        elements = elements.checked_mul(dim.max(1)).ok_or_else(|| {
            fault(format!(
                "its dimensions {:?} multiply to more than 64 bits hold",
                &tensor.dims[..tensor.dims.len().min(8)]
            ))
        })?;
    }
    if is_empty {
        elements = 0;
    }
    let bits = DataType::try_from(tensor.data_type.unwrap_or(0)).ok().and_then(element_bits);
    let bytes = match bits {
        Some(bits) => {
            let bits = elements.checked_mul(bits);
            Some(
                bits.ok_or_else(|| fault(format!("it claims {elements} elements, more than any file holds")))?
                    .div_ceil(8),
            )
        }
        None => None,
    };
    Ok((elements, bytes))
}

/// Bits of one element.
const fn element_bits(data_type: DataType) -> Option<u64> {
    match data_type {
        DataType::Undefined | DataType::String => None,
        DataType::Uint4 | DataType::Int4 | DataType::Float4e2m1 => Some(4),
        DataType::Uint8
        | DataType::Int8
        | DataType::Bool
        | DataType::Float8e4m3fn
        | DataType::Float8e4m3fnuz
        | DataType::Float8e5m2
        | DataType::Float8e5m2fnuz => Some(8),
        DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16 => Some(16),
        DataType::Float | DataType::Int32 | DataType::Uint32 => Some(32),
        DataType::Int64 | DataType::Uint64 | DataType::Double | DataType::Complex64 => Some(64),
        DataType::Complex128 => Some(128),
    }
}

/// Whether the data of `tensor` lie in another file.
pub(super) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32)
}

/// Holds what `tensor` claims against what it carries.
fn check_tensor(tensor: &TensorProto) -> Result<(), GraphError> {
    let (elements, bytes) = claimed(tensor)?;
    if is_external(tensor) {
        return external::reference(tensor).map(|_| ());
    }
    let fault = |what: String| Err(GraphError::Tensor { name: tensor.name.clone().unwrap_or_default(), what });
    if let Some(raw) = &tensor.raw_data {
        return match bytes {
            Some(bytes) if raw.len() as u64 != bytes => {
                fault(format!("its dimensions {:?} need {bytes} bytes, it carries {}", short(&tensor.dims), raw.len()))
            }
            Some(_) | None => Ok(()),
        };
    }
    // Complex numbers lie there as pairs, elements of four bits two by two.
    let (carried, needed) = match DataType::try_from(tensor.data_type.unwrap_or(0)) {
        Ok(DataType::Float) => (tensor.float_data.len(), elements),
        Ok(DataType::Complex64) => (tensor.float_data.len(), elements.saturating_mul(2)),
        Ok(DataType::Double) => (tensor.double_data.len(), elements),
        Ok(DataType::Complex128) => (tensor.double_data.len(), elements.saturating_mul(2)),
        Ok(DataType::Int64) => (tensor.int64_data.len(), elements),
        Ok(DataType::Uint32 | DataType::Uint64) => (tensor.uint64_data.len(), elements),
        Ok(DataType::String) => (tensor.string_data.len(), elements),
        Ok(DataType::Uint4 | DataType::Int4 | DataType::Float4e2m1) => (tensor.int32_data.len(), elements.div_ceil(2)),
        Ok(DataType::Undefined) | Err(_) => return Ok(()),
        Ok(_) => (tensor.int32_data.len(), elements),
    };
    if carried as u64 == needed {
        return Ok(());
    }
    fault(format!("its dimensions {:?} need {needed} values, it carries {carried}", short(&tensor.dims)))
}

/// Dimensions for a text; a tensor may claim thousands.
fn short(dims: &[i64]) -> &[i64] {
    &dims[..dims.len().min(8)]
}

/// Checks that each name is written once, that each name that is read is written somewhere, and that no node waits for
/// itself. Nodes may stand in any order.
fn check_names(graph: &GraphProto) -> Result<(), GraphError> {
    let fault = |what: String| Err(GraphError::Graph { what });
    // Name -> the node that writes it; `None` for inputs and initialisers.
    let mut writers: HashMap<&str, Option<usize>> = HashMap::new();
    let given = graph.input.iter().filter_map(|input| input.name.as_deref());
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref()?.name.as_deref());
    let constants = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref()).chain(sparse);
    for name in given.chain(constants) {
        writers.insert(name, None);
    }
    for (index, node) in graph.node.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if writers.insert(name, Some(index)).is_some() {
                return fault(format!("tensor {} is written twice", Printable(name)));
            }
        }
    }
    // Kahn's algorithm: a node is done when all nodes that it reads from are done.
    let mut waits = vec![0_usize; graph.node.len()];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); graph.node.len()];
    for (index, node) in graph.node.iter().enumerate() {
        let mut reads = Vec::new();
        reads_of(node, &mut reads);
        for (name, is_own) in reads {
            match writers.get(name) {
                Some(Some(writer)) => {
                    waits[index] += 1;
                    readers[*writer].push(index);
                }
                Some(None) => {}
                // A subgraph reads its own names as well.
                None if !is_own => {}
                None => {
                    let reader = node.name.as_deref().filter(|name| !name.is_empty()).or(node.op_type.as_deref());
                    let (reader, name) = (Printable(reader.unwrap_or("?")), Printable(name));
                    return fault(format!("node {reader} reads the tensor {name}, which nothing writes"));
                }
            }
        }
    }
    let mut ready: Vec<usize> = (0..waits.len()).filter(|index| waits[*index] == 0).collect();
    let mut done = 0;
    while let Some(index) = ready.pop() {
        done += 1;
        for reader in &readers[index] {
            waits[*reader] -= 1;
            if waits[*reader] == 0 {
                ready.push(*reader);
            }
        }
    }
    if done < graph.node.len() {
        let stuck = graph.node.iter().zip(&waits).find_map(|(node, waits)| (*waits > 0).then_some(node));
        let name = stuck.and_then(|node| node.output.first()).map_or("", String::as_str);
        return fault(format!("the graph has a cycle through or before the tensor {}", Printable(name)));
    }
    for name in graph.output.iter().filter_map(|output| output.name.as_deref()) {
        if !writers.contains_key(name) {
            return fault(format!("nothing writes the output {}", Printable(name)));
        }
    }
    Ok(())
}

/// The names that `node` reads, each with whether the node itself reads it rather than one of its subgraphs.
fn reads_of<'a>(node: &'a NodeProto, reads: &mut Vec<(&'a str, bool)>) {
    reads.extend(node.input.iter().filter(|name| !name.is_empty()).map(|name| (name.as_str(), true)));
    for graph in node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)) {
        let mut inner = Vec::new();
        for node in &graph.node {
            reads_of(node, &mut inner);
        }
        reads.extend(inner.into_iter().map(|(name, _)| (name, false)));
    }
}
