//! The numbers of a network: where they come from, how a batch norm disappears into a convolution, and the bytes that a
//! file holds.

use bytes::Bytes;
use half::f16;

use super::form::Dtype;

/// Where a network's numbers come from. Names and shapes are those of [`Network::parameters`]; as many numbers as the
/// shape says are the source's promise.
pub trait Weights {
    /// Why a tensor cannot be had.
    type Error;

    /// A convolution's or the classifier's weight, in the order of its shape.
    ///
    /// # Errors
    /// Where the tensor cannot be had.
    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Self::Error>;

    /// The classifier's bias.
    ///
    /// # Errors
    /// Where the tensor cannot be had.
    fn bias(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Self::Error>;

    /// A batch norm, by the name that its four tensors begin with.
    ///
    /// # Errors
    /// Where one of the tensors cannot be had.
    fn batch_norm(&mut self, name: &str, channels: usize) -> Result<BatchNorm, Self::Error>;
}

/// `(x - mean) / sqrt(variance + epsilon) * scale + bias`, one number a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchNorm {
    /// Learned; gamma in the paper (Ioffe and Szegedy 2015, arXiv:1502.03167).
    pub scale: Vec<f32>,
    /// Learned; beta in the paper.
    pub bias: Vec<f32>,
    /// Tracked.
    pub mean: Vec<f32>,
    /// Tracked; not negative.
    pub variance: Vec<f32>,
    /// Keeps the root away from zero.
    pub epsilon: f32,
}

/// Little-endian bytes, as `raw_data` wants them, or the first value that is not finite there.
pub(super) fn raw(dtype: Dtype, values: impl Iterator<Item = f64>) -> Result<Bytes, f64> {
    let (_, len) = values.size_hint();
    let mut bytes = Vec::with_capacity(len.unwrap_or(0) * dtype.bytes() as usize);
    for value in values {
        let finite = match dtype {
            Dtype::F32 => {
                let value = value as f32;
                bytes.extend_from_slice(&value.to_le_bytes());
                value.is_finite()
            }
            Dtype::F16 => {
                let value = f16::from_f64(value);
                bytes.extend_from_slice(&value.to_le_bytes());
                value.is_finite()
            }
        };
        if !finite {
            return Err(value);
        }
    }
    Ok(Bytes::from(bytes))
}

/// The convolution with `weight: [out, ...]` and then `norm`, as one convolution: its weight and its bias `[out]`.
/// Computed in f64 and rounded once, so that a folded graph differs from its origin by the rounding of f32 sums only.
pub(super) fn fold<'a>(
    weight: &'a [f32],
    norm: &'a BatchNorm,
) -> (impl ExactSizeIterator<Item = f64> + 'a, impl ExactSizeIterator<Item = f64> + 'a) {
    let factor = |channel: usize| {
        f64::from(norm.scale[channel]) / (f64::from(norm.variance[channel]) + f64::from(norm.epsilon)).sqrt()
    };
    let factors: Vec<f64> = (0..norm.scale.len()).map(factor).collect();
    let each = weight.len() / norm.scale.len().max(1);
    let bias: Vec<f64> = factors
        .iter()
        .enumerate()
        .map(|(channel, factor)| f64::from(norm.bias[channel]) - f64::from(norm.mean[channel]) * factor)
        .collect();
    let weight = weight.iter().enumerate().map(move |(index, &value)| f64::from(value) * factors[index / each.max(1)]);
    (weight, bias.into_iter())
}
