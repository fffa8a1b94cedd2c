//! Tensors that are known before an image is: weights, shapes, axes. Small ones are computed, for exporters spell out the
//! pads of a layer in a dozen nodes; of large ones only the dimensions are followed.

use std::rc::Rc;

use super::flat::{Call, ValueId};
use crate::graph::proto::{DataType, TensorProto};

/// Most elements of a tensor whose numbers are followed. Pads, axes and shapes have at most ten or so.
pub(super) const NUMBERS_MAX: usize = 64;
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
        let elements = constant.elements()?;
        if elements <= NUMBERS_MAX as u64 {
            // A tensor whose data lie elsewhere carries none.
            constant.numbers = numbers(tensor).filter(|numbers| numbers.len() as u64 == elements);
        }
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
pub(super) fn numbers(tensor: &TensorProto) -> Option<Rc<[f64]>> {
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
