//! Tensors that are known before an image is: weights, shapes, axes. Small ones are computed, for exporters spell out the
//! pads of a layer in a dozen nodes; of large ones only the dimensions are followed.

use std::rc::Rc;

use super::flat::{Call, ValueId};
use crate::graph::proto::{DataType, TensorProto};

/// Most elements of a tensor whose numbers are followed. Pads, axes and shapes have at most ten or so.
const NUMBERS_MAX: usize = 64;
/// Most dimensions of a tensor that is followed.
pub(super) const RANK_MAX: usize = 8;

/// A tensor that no image changes.
#[derive(Clone, Debug)]
pub(super) struct Constant<'a> {
    /// The tensor that it was made of, to count it once however often it is used.
    pub(super) root: ValueId,
    pub(super) dims: Vec<u64>,
    /// As stored, before any conversion: that of int8 weights behind a `DequantizeLinear` is int8.
    pub(super) data_type: i32,
    /// The elements, if they are few and known. Integers beyond 2^53 only ever mean "to the end".
    pub(super) numbers: Option<Rc<[f64]>>,
    /// Whether all elements are zero, where that is known without reading them one by one.
    pub(super) is_zero: bool,
    /// Whether it is a scale or a zero point that quantisation made: no parameter of the network.
    pub(super) is_scale: bool,
    /// The tensor in the file.
    pub(super) tensor: Option<&'a TensorProto>,
}

impl<'a> Constant<'a> {
    /// A tensor of the file; `None` if it has more dimensions than are followed, or impossible ones.
    pub(super) fn of_tensor(root: ValueId, tensor: &'a TensorProto) -> Option<Self> {
        let dims: Option<Vec<u64>> = tensor.dims.iter().map(|dim| u64::try_from(*dim).ok()).collect();
        let dims = dims.filter(|dims| dims.len() <= RANK_MAX)?;
        let mut constant = Self { tensor: Some(tensor), ..Self::of_numbers(root, dims, None) };
        constant.data_type = tensor.data_type.unwrap_or(0);
        constant.numbers = (constant.elements()? <= NUMBERS_MAX as u64).then(|| numbers(tensor)).flatten();
        Some(constant)
    }

    /// A computed tensor.
    pub(super) fn of_numbers(root: ValueId, dims: Vec<u64>, numbers: Option<Vec<f64>>) -> Self {
        let numbers = numbers.filter(|numbers| numbers.len() <= NUMBERS_MAX).map(Rc::from);
        Self { root, dims, data_type: 0, numbers, is_zero: false, is_scale: false, tensor: None }
    }

    /// How many elements it has; `None` beyond 64 bits.
    pub(super) fn elements(&self) -> Option<u64> {
        self.dims.iter().try_fold(1_u64, |product, dim| product.checked_mul(*dim))
    }

    pub(super) fn is_scalar(&self) -> bool {
        self.elements() == Some(1)
    }

    /// Whether the elements are known and all are `value`.
    pub(super) fn is_all(&self, value: f64) -> bool {
        self.numbers.as_ref().is_some_and(|numbers| numbers.iter().all(|number| *number == value))
    }

    /// The elements as integers.
    pub(super) fn ints(&self) -> Option<Vec<i64>> {
        // `as` saturates.
        self.numbers.as_ref().map(|numbers| numbers.iter().map(|number| *number as i64).collect())
    }

    /// Whether every element is zero. Reads the tensor; callers remember the answer.
    pub(super) fn reads_zero(&self) -> bool {
        let in_file = || {
            let tensor = self.tensor?;
            let raw = tensor.raw_data.as_ref().filter(|raw| !raw.is_empty());
            let floats = (!tensor.float_data.is_empty()).then_some(&tensor.float_data);
            let by_bytes = raw.map(|raw| raw.iter().all(|byte| *byte == 0));
            by_bytes.or_else(|| floats.map(|floats| floats.iter().all(|value| *value == 0.0)))
        };
        self.is_zero
            || in_file().unwrap_or_else(|| self.numbers.as_ref().is_some_and(|all| all.iter().all(|n| *n == 0.0)))
    }
}

/// The elements of a small tensor that carries them itself.
fn numbers(tensor: &TensorProto) -> Option<Rc<[f64]>> {
    fn wide<const N: usize>(raw: &[u8], read: impl Fn([u8; N]) -> f64) -> Rc<[f64]> {
        raw.chunks_exact(N).map(|chunk| read(chunk.try_into().expect("chunks have N bytes"))).collect()
    }
    let data_type = DataType::try_from(tensor.data_type?).ok()?;
    if let Some(raw) = &tensor.raw_data {
        if raw.len() > NUMBERS_MAX * size_of::<u64>() {
            return None;
        }
        return match data_type {
            DataType::Float => Some(wide(raw, |bytes| f64::from(f32::from_le_bytes(bytes)))),
            DataType::Double => Some(wide(raw, f64::from_le_bytes)),
            DataType::Int64 => Some(wide(raw, |bytes| i64::from_le_bytes(bytes) as f64)),
            DataType::Int32 => Some(wide(raw, |bytes| f64::from(i32::from_le_bytes(bytes)))),
            DataType::Uint8 | DataType::Bool => Some(wide(raw, |[byte]| f64::from(byte))),
            DataType::Int8 => Some(wide(raw, |bytes| f64::from(i8::from_le_bytes(bytes)))),
            _ => None,
        };
    }
    match data_type {
        DataType::Float => Some(tensor.float_data.iter().map(|value| f64::from(*value)).collect()),
        DataType::Double => Some(tensor.double_data.iter().copied().collect()),
        DataType::Int64 => Some(tensor.int64_data.iter().map(|value| *value as f64).collect()),
        DataType::Int32 | DataType::Uint8 | DataType::Int8 | DataType::Bool => {
            Some(tensor.int32_data.iter().map(|value| f64::from(*value)).collect())
        }
        _ => None,
    }
}

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

/// The axis that `axis` means, counted from the end if negative.
pub(super) fn axis(axis: i64, rank: usize) -> Option<usize> {
    let rank_signed = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(rank_signed)? } else { axis };
    usize::try_from(axis).ok().filter(|axis| *axis < rank)
}

/// The permutation of a `Transpose`; reversed if it names none.
pub(super) fn order(call: &Call<'_>, rank: usize) -> Option<Vec<usize>> {
    let Some(perm) = call.ints("perm") else {
        return Some((0..rank).rev().collect());
    };
    let order: Option<Vec<usize>> = perm.iter().map(|at| usize::try_from(*at).ok().filter(|at| *at < rank)).collect();
    order.filter(|order| order.len() == rank && (0..rank).all(|at| order.contains(&at)))
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

/// Dimensions after `Reshape` to `target`, with 0 for "as before" and -1 for "what is left".
pub(super) fn reshaped(dims: &[Option<u64>], target: &[i64]) -> Option<Vec<Option<u64>>> {
    if target.len() > RANK_MAX {
        return None;
    }
    let mut wanted: Vec<Option<u64>> = Vec::new();
    for (index, size) in target.iter().enumerate() {
        wanted.push(match size {
            0 => dims.get(index).copied().flatten(),
            size => u64::try_from(*size).ok(),
        });
    }
    if let Some(free) = target.iter().position(|size| *size == -1) {
        let all = dims.iter().try_fold(1_u64, |product, dim| product.checked_mul((*dim)?));
        let others = wanted.iter().enumerate().filter(|(index, _)| *index != free);
        let rest = others.map(|(_, dim)| *dim).try_fold(1_u64, |product, dim| product.checked_mul(dim?));
        wanted[free] = all.zip(rest).and_then(|(all, rest)| all.checked_div(rest));
    }
    Some(wanted)
}

/// Dimensions after `Squeeze`: without those of `axes`, or without every 1.
pub(super) fn squeezed(dims: &[Option<u64>], axes: Option<&[i64]>) -> Option<Vec<Option<u64>>> {
    let gone: Vec<usize> = match axes {
        Some(axes) => axes.iter().take(RANK_MAX).map(|at| axis(*at, dims.len())).collect::<Option<_>>()?,
        None => dims.iter().enumerate().filter(|(_, dim)| **dim == Some(1)).map(|(at, _)| at).collect(),
    };
    Some(dims.iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, dim)| *dim).collect())
}

/// Dimensions after `Unsqueeze`: with a 1 at each of `axes`.
pub(super) fn unsqueezed(dims: &[Option<u64>], axes: &[i64]) -> Option<Vec<Option<u64>>> {
    let rank = dims.len() + axes.len();
    if rank > RANK_MAX {
        return None;
    }
    let new: Vec<usize> = axes.iter().map(|at| axis(*at, rank)).collect::<Option<_>>()?;
    let mut old = dims.iter().copied();
    (0..rank).map(|at| if new.contains(&at) { Some(Some(1)) } else { old.next() }).collect()
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
