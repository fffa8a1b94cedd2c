//! What a node makes of constants. Exporters spell out the pads of a layer in a dozen nodes, so that small tensors are
//! computed here; of large ones only the dimensions are followed.

use std::rc::Rc;

use super::constant::{Constant, NUMBERS_MAX, RANK_MAX, axis, numbers, order, reshaped, squeezed, unsqueezed};
use super::flat::{Call, ValueId};
use crate::graph::proto::DataType;

/// The result of `call`, all of whose inputs are the constants `given`; `root` is its number if it is a new tensor.
/// Operators that are not known here give nothing.
pub(super) fn fold<'a>(call: &Call<'a>, given: &[Option<&Constant<'a>>], root: ValueId) -> Option<Constant<'a>> {
    let first = given.first().copied().flatten();
    let input = |index: usize| given.get(index).copied().flatten();
    let ints = |index: usize, name: &str| -> Option<Vec<i64>> {
        input(index).and_then(Constant::ints).or_else(|| call.ints(name).map(<[i64]>::to_vec))
    };
    match call.op() {
        "Constant" => constant(call, root),
        "ConstantOfShape" => {
            let dims = unsigned(&first?.ints()?)?;
            let value = call.tensor("value").map_or(Some(0.0), |tensor| numbers(tensor)?.first().copied());
            let mut made = Constant::of_numbers(root, dims, None);
            made.data_type = call.tensor("value").and_then(|tensor| tensor.data_type).unwrap_or(DataType::Float as i32);
            made.is_zero = value == Some(0.0);
            let few = made.elements().filter(|elements| *elements <= NUMBERS_MAX as u64);
            if let (Some(value), Some(few)) = (value, few) {
                made.numbers = Some(vec![value; usize::try_from(few).ok()?].into());
            }
            Some(made)
        }
        "Identity" | "Cast" | "CastLike" | "Dropout" | "QuantizeLinear" | "DequantizeLinear" | "Neg" => {
            let mut same = first?.clone();
            if call.op() == "Neg" {
                same.numbers = same.numbers.map(|numbers| numbers.iter().map(|number| -number).collect());
            }
            Some(same)
        }
        "Transpose" => {
            let from = first?;
            let order = order(call, from.dims.len())?;
            let dims: Vec<u64> = order.iter().map(|axis| from.dims[*axis]).collect();
            let numbers = from.numbers.as_deref().and_then(|numbers| transposed(numbers, &from.dims, &order));
            Some(Constant { dims, numbers: numbers.map(Rc::from), ..from.clone() })
        }
        "Reshape" => {
            let from = first?;
            let dims: Vec<Option<u64>> = from.dims.iter().map(|dim| Some(*dim)).collect();
            let target = ints(1, "shape")?;
            let dims: Option<Vec<u64>> = reshaped(&dims, &target)?.into_iter().collect();
            Some(Constant { dims: dims?, ..from.clone() })
        }
        "Flatten" => {
            let from = first?;
            let at = usize::try_from(call.int("axis").unwrap_or(1)).ok().filter(|at| *at <= from.dims.len())?;
            let product = |dims: &[u64]| dims.iter().try_fold(1_u64, |product, dim| product.checked_mul(*dim));
            Some(Constant { dims: vec![product(&from.dims[..at])?, product(&from.dims[at..])?], ..from.clone() })
        }
        "Squeeze" | "Unsqueeze" => {
            let from = first?;
            let dims: Vec<Option<u64>> = from.dims.iter().map(|dim| Some(*dim)).collect();
            let dims = if call.op() == "Squeeze" {
                squeezed(&dims, ints(1, "axes").as_deref())?
            } else {
                unsqueezed(&dims, &ints(1, "axes")?)?
            };
            let dims: Option<Vec<u64>> = dims.into_iter().collect();
            Some(Constant { dims: dims?, ..from.clone() })
        }
        "Concat" => {
            let parts: Option<Vec<&Constant<'_>>> = given.iter().copied().collect();
            let parts = parts?;
            let numbers: Option<Vec<&[f64]>> = parts.iter().map(|part| part.numbers.as_deref()).collect();
            let numbers = numbers.filter(|_| parts.iter().all(|part| part.dims.len() == 1)).map(|all| all.concat());
            let mut dims = parts.first()?.dims.clone();
            let axis = axis(call.int("axis").unwrap_or(0), dims.len())?;
            dims[axis] = parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(*part.dims.get(axis)?))?;
            let is_zero = parts.iter().all(|part| part.is_zero);
            Some(Constant { is_zero, ..Constant::of_numbers(root, dims, numbers) })
        }
        "Gather" => {
            let (from, index) = (first?, input(1)?);
            let numbers = from.numbers.as_deref().filter(|_| from.dims.len() == 1)?;
            let pick = |at: i64| numbers.get(axis(at, numbers.len())?).copied();
            let picked: Option<Vec<f64>> = index.ints()?.into_iter().map(pick).collect();
            Some(Constant::of_numbers(root, index.dims.clone(), Some(picked?)))
        }
        "Slice" => {
            let from = first?;
            let numbers = from.numbers.as_deref()?;
            // Only the first axis is ever cut in the shape arithmetic of exporters; a row has `width` numbers.
            let rows = *from.dims.first()?;
            let width = numbers.len().checked_div(usize::try_from(rows).ok()?)?;
            let along = ints(3, "axes").unwrap_or_else(|| vec![0]);
            let (start, end, step) =
                (ints(1, "starts")?, ints(2, "ends")?, ints(4, "steps").unwrap_or_else(|| vec![1]));
            if along.as_slice() != [0] || start.len() != 1 || end.len() != 1 || step.len() != 1 {
                return None;
            }
            let rows = sliced(i64::try_from(rows).ok()?, start[0], end[0], step[0])?;
            let kept = rows.iter().flat_map(|row| &numbers[row * width..(row + 1) * width]).copied().collect();
            let mut dims = from.dims.clone();
            dims[0] = rows.len() as u64;
            Some(Constant::of_numbers(root, dims, Some(kept)))
        }
        "Add" | "Sub" | "Mul" | "Div" => {
            let (a, b) = (first?, input(1)?);
            let dims = broadcast(&a.dims, &b.dims)?;
            let elements = Constant::of_numbers(root, dims.clone(), None).elements()?;
            let numbers = match (a.numbers.as_deref(), b.numbers.as_deref()) {
                (Some(a), Some(b)) if elements == a.len().max(b.len()) as u64 => arithmetic(call.op(), a, b),
                _ => None,
            };
            let larger = if a.elements() >= b.elements() { a } else { b };
            // A weight that is only scaled stays that weight.
            let mut made = Constant { dims, numbers: numbers.map(Rc::from), ..larger.clone() };
            made.is_scale = a.is_scale || b.is_scale;
            made.is_zero = call.op() == "Mul" && (a.is_zero || b.is_zero);
            made.tensor = None;
            Some(made)
        }
        "Expand" => {
            let from = first?;
            let dims = broadcast(&from.dims, &unsigned(&input(1)?.ints()?)?)?;
            let is_zero =
                from.is_zero || from.numbers.as_ref().is_some_and(|all| all.iter().all(|number| *number == 0.0));
            Some(Constant { is_zero, ..Constant::of_numbers(root, dims, None) })
        }
        "Shape" => shape(call, root, &first?.dims.iter().map(|dim| *dim as f64).collect::<Vec<_>>()),
        // Weights that are normalised at run time keep their shape.
        "BatchNormalization"
        | "InstanceNormalization"
        | "LayerNormalization"
        | "Sqrt"
        | "Pow"
        | "Exp"
        | "Log"
        | "Abs"
        | "Reciprocal"
        | "Clip"
        | "Relu"
        | "Sigmoid"
        | "Tanh" => Some(Constant { numbers: None, is_zero: false, tensor: None, ..first?.clone() }),
        _ => None,
    }
}

/// The value of a `Constant` node.
fn constant<'a>(call: &Call<'a>, root: ValueId) -> Option<Constant<'a>> {
    if let Some(tensor) = call.tensor("value") {
        return Constant::of_tensor(root, tensor);
    }
    let list = |numbers: Vec<f64>| Constant::of_numbers(root, vec![numbers.len() as u64], Some(numbers));
    let scalar = |number: f64| Constant::of_numbers(root, Vec::new(), Some(vec![number]));
    let mut made = call
        .float("value_float")
        .map(scalar)
        .or_else(|| call.int("value_int").map(|value| scalar(value as f64)))
        .or_else(|| call.floats("value_floats").map(|all| list(all.iter().map(|value| f64::from(*value)).collect())))
        .or_else(|| call.ints("value_ints").map(|all| list(all.iter().map(|value| *value as f64).collect())))?;
    let is_float = call.float("value_float").is_some() || call.floats("value_floats").is_some();
    made.data_type = if is_float { DataType::Float as i32 } else { DataType::Int64 as i32 };
    Some(made)
}

/// The result of `Shape`: all of `dims`, or those from `start` to `end`.
pub(super) fn shape<'a>(call: &Call<'a>, root: ValueId, dims: &[f64]) -> Option<Constant<'a>> {
    let rows = i64::try_from(dims.len()).ok()?;
    let kept = sliced(rows, call.int("start").unwrap_or(0), call.int("end").unwrap_or(rows), 1)?;
    let kept: Vec<f64> = kept.iter().map(|at| dims[*at]).collect();
    Some(Constant::of_numbers(root, vec![kept.len() as u64], Some(kept)))
}

/// `numbers` of a matrix in transposed order; other ranks stay unknown.
fn transposed(numbers: &[f64], dims: &[u64], order: &[usize]) -> Option<Vec<f64>> {
    match (dims, order) {
        ([_], _) | (_, [0, 1]) => Some(numbers.to_vec()),
        ([rows, columns], [1, 0]) => {
            let (rows, columns) = (usize::try_from(*rows).ok()?, usize::try_from(*columns).ok()?);
            let all = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
            all.map(|at| numbers.get(at).copied()).collect()
        }
        _ => None,
    }
}

/// Dimensions of an element-wise result, as NumPy broadcasts.
fn broadcast(a: &[u64], b: &[u64]) -> Option<Vec<u64>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[u64], index: usize| (index + dims.len()).checked_sub(rank).map_or(1, |index| dims[index]);
    let dims = (0..rank).map(|index| match (at(a, index), at(b, index)) {
        (1, size) | (size, 1) => Some(size),
        (size, other) => (size == other).then_some(size),
    });
    dims.collect()
}

fn arithmetic(op: &str, a: &[f64], b: &[f64]) -> Option<Vec<f64>> {
    let len = a.len().max(b.len());
    let at = |all: &[f64], index: usize| {
        if all.len() == 1 { all.first().copied() } else { all.get(index).copied() }
    };
    let value = |index: usize| {
        let (a, b) = (at(a, index)?, at(b, index)?);
        Some(match op {
            "Add" => a + b,
            "Sub" => a - b,
            "Mul" => a * b,
            _ => a / b,
        })
    };
    (0..len).map(value).collect()
}

/// The rows that `start:end:step` picks out of `rows`, as ONNX's `Slice` clamps them.
fn sliced(rows: i64, start: i64, end: i64, step: i64) -> Option<Vec<usize>> {
    if step == 0 || rows > NUMBERS_MAX as i64 {
        return None;
    }
    let from_end = |at: i64| if at < 0 { at.saturating_add(rows) } else { at };
    let (start, end) = (from_end(start), from_end(end));
    let (start, end) = if step > 0 {
        (start.clamp(0, rows), end.clamp(0, rows))
    } else {
        (start.clamp(-1, rows - 1), end.clamp(-1, rows - 1))
    };
    let mut picked = Vec::new();
    let mut at = start;
    while if step > 0 { at < end } else { at > end } {
        picked.push(usize::try_from(at).ok()?);
        at = at.saturating_add(step);
    }
    Some(picked)
}

fn unsigned(numbers: &[i64]) -> Option<Vec<u64>> {
    if numbers.len() > RANK_MAX {
        return None;
    }
    numbers.iter().map(|number| u64::try_from(*number).ok()).collect()
}
