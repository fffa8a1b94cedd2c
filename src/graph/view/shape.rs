//! Shapes of results, as far as parameters and multiplications need them. An unknown size stays unknown; nothing
//! overflows, whatever a file says.

use super::constant::RANK_MAX;
use super::flat::Call;

/// Sizes of a tensor, each of which may be unknown; `None` if their number is.
pub(in crate::graph) type Dims = Option<Vec<Option<u64>>>;

/// How a window moves over an image: for each spatial axis its size, stride, dilation, and the zeros on both sides.
pub(super) struct Moves {
    pub(super) kernel: Vec<u64>,
    pub(super) stride: Vec<u64>,
    dilation: Vec<u64>,
    pads: Vec<i128>,
    /// `auto_pad` is `SAME_UPPER` or `SAME_LOWER`: as many results as there are steps.
    is_same: bool,
    rounds_up: bool,
}

impl Moves {
    /// Reads the attributes of a convolution or pool with this `kernel`.
    pub(super) fn of(call: &Call<'_>, kernel: Vec<u64>) -> Self {
        let sizes = |name: &str| -> Vec<u64> {
            let given = call.ints(name).unwrap_or_default();
            let at = |index: usize| given.get(index).and_then(|size| u64::try_from(*size).ok()).unwrap_or(1).max(1);
            (0..kernel.len()).map(at).collect()
        };
        let (stride, dilation) = (sizes("strides"), sizes("dilations"));
        let auto = call.text("auto_pad").unwrap_or("NOTSET");
        let given = call.ints("pads").filter(|_| auto == "NOTSET" || auto.is_empty()).unwrap_or_default();
        let side = |index: usize| given.get(index).copied().map_or(0, i128::from);
        let pads = (0..kernel.len()).map(|axis| side(axis) + side(axis + kernel.len())).collect();
        let rounds_up = call.int("ceil_mode") == Some(1);
        Self { kernel, stride, dilation, pads, is_same: auto.starts_with("SAME"), rounds_up }
    }

    /// How many places the window takes along spatial axis `axis` of `size`.
    pub(super) fn places(&self, axis: usize, size: Option<u64>) -> Option<u64> {
        let (size, stride) = (i128::from(size?), i128::from(*self.stride.get(axis)?));
        if self.is_same {
            return u64::try_from((size + stride - 1) / stride).ok();
        }
        let reach = i128::from(self.dilation[axis]).checked_mul(i128::from(self.kernel[axis]) - 1)?.checked_add(1)?;
        let room = size.checked_add(self.pads[axis])?.checked_sub(reach)?;
        let rest = if self.rounds_up { stride - 1 } else { 0 };
        u64::try_from(room.checked_add(rest)?.checked_div(stride)? + 1).ok().filter(|_| room >= 0)
    }

    /// Whether anything is added around the image.
    pub(super) fn pads(&self) -> bool {
        self.is_same || self.pads.iter().any(|pad| *pad != 0)
    }
}

/// The spatial sizes of `dims`, all axes but the first and that of the channels.
pub(super) fn spatial(dims: &Dims, channel_axis: usize) -> Option<Vec<Option<u64>>> {
    let dims = dims.as_ref().filter(|dims| dims.len() > 2)?;
    Some(dims.iter().enumerate().filter(|(at, _)| *at != 0 && *at != channel_axis).map(|(_, dim)| *dim).collect())
}

/// `[1, channels, spatial...]`, or with the channels last.
pub(super) fn image(channels: Option<u64>, mut spatial: Vec<Option<u64>>, channel_axis: usize) -> Dims {
    spatial.insert(0, Some(1));
    let at = channel_axis.min(spatial.len());
    spatial.insert(at, channels);
    (spatial.len() <= RANK_MAX).then_some(spatial)
}

/// Shape of an element-wise result, as NumPy broadcasts; where one size is unknown the other holds unless it is 1.
pub(super) fn broadcast(a: &Dims, b: &Dims) -> Dims {
    let (Some(a), Some(b)) = (a, b) else {
        return a.clone().or_else(|| b.clone());
    };
    let rank = a.len().max(b.len());
    let at = |dims: &[Option<u64>], index: usize| (index + dims.len()).checked_sub(rank).map_or(Some(1), |at| dims[at]);
    let join = |index: usize| match (at(a, index), at(b, index)) {
        (Some(1), size) | (size, Some(1)) => size,
        (size, other) => size.or(other),
    };
    Some((0..rank).map(join).collect())
}

/// The product of all known `sizes`; `None` if one is unknown or the product goes beyond 64 bits.
pub(super) fn product(sizes: impl IntoIterator<Item = Option<u64>>) -> Option<u64> {
    sizes.into_iter().try_fold(1_u64, |product, size| product.checked_mul(size?))
}
