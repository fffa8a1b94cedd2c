//! The two passes of a resize, only for the pixels that the crop keeps: horizontal, u8 between, then vertical.
//! Equal to Pillow's 8-bit resampling in every bit, in the order that it had up to version 12; version 13 begins with the
//! rows where the height shrinks much more. OpenCV's filters are next door.

use pulp::{Arch, NullaryFnOnce};

use super::filter::{Kernel, PRECISION_BITS, Taps};
use super::geometry::Geometry;
use super::opencv::{self, Method};
use super::recipe::Filter;

/// Half of the last place, so that the shift rounds.
const ROUND: i32 = 1 << (PRECISION_BITS - 1);
/// Bytes of a row whose sums stay in registers: four 256-bit vectors of i32.
const BLOCK: usize = 32;
/// Source rows that share one load of the weights.
const ROWS: usize = 4;
/// Largest buffer that a [`Scratch`] keeps between pictures: one huge upload must not hold memory for ever.
const SCRATCH_BYTES_KEPT: usize = 8 << 20;

/// Buffers that serve one picture after another.
#[derive(Debug, Default)]
pub struct Scratch {
    horizontal: Taps,
    vertical: Taps,
    /// `[source rows that the crop needs, window width, 3]` u8: the picture between the passes.
    between: Vec<u8>,
    /// `[window width, 3]` u8: one finished row.
    row: Vec<u8>,
}

impl Scratch {
    /// Bytes held.
    pub(in crate::pipeline) fn bytes(&self) -> usize {
        self.horizontal.bytes() + self.vertical.bytes() + self.between.capacity() + self.row.capacity()
    }
}

/// Calls `emit` with each row of the window, `[window width, 3]` u8, from top to bottom.
///
/// `rgb` is `[geometry.y.source, geometry.x.source, 3]`.
pub(super) fn for_each_row(
    rgb: &[u8],
    geometry: &Geometry,
    filter: Filter,
    scratch: &mut Scratch,
    emit: impl FnMut(usize, &[u8]),
) {
    match resampler(filter) {
        Resampler::Pillow(kernel) => for_each_row_as_pillow(rgb, geometry, kernel, scratch, emit),
        Resampler::Opencv(method) => opencv::for_each_row(rgb, geometry, method, emit),
    }
}

/// Whose arithmetic a filter asks for.
enum Resampler {
    Pillow(Kernel),
    Opencv(Method),
}

fn resampler(filter: Filter) -> Resampler {
    match filter {
        Filter::Nearest => Resampler::Pillow(Kernel::Nearest),
        Filter::Box => Resampler::Pillow(Kernel::Box),
        Filter::Bilinear => Resampler::Pillow(Kernel::Bilinear),
        Filter::Hamming => Resampler::Pillow(Kernel::Hamming),
        Filter::Bicubic => Resampler::Pillow(Kernel::Bicubic),
        Filter::Lanczos => Resampler::Pillow(Kernel::Lanczos),
        Filter::OpencvArea => Resampler::Opencv(Method::Area),
        Filter::OpencvLinear => Resampler::Opencv(Method::Linear),
    }
}

fn for_each_row_as_pillow(
    rgb: &[u8],
    geometry: &Geometry,
    kernel: Kernel,
    scratch: &mut Scratch,
    mut emit: impl FnMut(usize, &[u8]),
) {
    let Geometry { x, y } = *geometry;
    let Scratch { horizontal, vertical, between, row } = scratch;
    let row_bytes = x.window * 3;

    // A pass that changes nothing is skipped, as in Pillow: Lanczos weights at scale 1 are not exactly 0 and 1.
    let vertical_needed = !y.is_kept();
    if vertical_needed {
        vertical.compute(kernel, y);
    }
    let rows = if vertical_needed { vertical.source_range() } else { y.first..y.first + y.window };

    // src: `stride` bytes a row, of which `offset..offset + row_bytes` are the window; row 0 is source row rows.start.
    let (src, stride, offset) = if !x.is_kept() {
        horizontal.compute(kernel, x);
        let len = rows.len() * row_bytes;
        if between.len() < len {
            between.resize(len, 0);
        }
        let source = &rgb[rows.start * x.source * 3..rows.end * x.source * 3];
        let between = &mut between[..len];
        if kernel == Kernel::Nearest {
            pick_columns(source, x.source * 3, horizontal, between);
        } else {
            Arch::new().dispatch(Horizontal { src: source, stride: x.source * 3, taps: horizontal, dst: between });
        }
        (&*between, row_bytes, 0)
    } else {
        (&rgb[rows.start * x.source * 3..], x.source * 3, x.first * 3)
    };

    row.resize(row_bytes, 0);
    for index in 0..y.window {
        if !vertical_needed {
            emit(index, &src[index * stride + offset..][..row_bytes]);
        } else if kernel == Kernel::Nearest {
            let (start, _) = vertical.at(index);
            emit(index, &src[(start - rows.start) * stride + offset..][..row_bytes]);
        } else {
            let (start, weights) = vertical.at(index);
            let src = &src[(start - rows.start) * stride + offset..];
            Arch::new().dispatch(Vertical { src, stride, weights, dst: row });
            emit(index, row);
        }
    }
    if between.capacity() > SCRATCH_BYTES_KEPT {
        *between = Vec::new();
    }
}

/// Sum of 22-bit products back to a u8.
#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

// src: [rows, source width, 3] u8 -> dst: [rows, window width, 3] u8
fn pick_columns(src: &[u8], stride: usize, taps: &Taps, dst: &mut [u8]) {
    for (src, dst) in src.chunks_exact(stride).zip(dst.chunks_exact_mut(taps.len() * 3)) {
        for (index, dst) in dst.chunks_exact_mut(3).enumerate() {
            let (start, _) = taps.at(index);
            dst.copy_from_slice(&src[start * 3..start * 3 + 3]);
        }
    }
}

/// A pass as a value: pulp compiles what is inlined into `call` for the vector instructions of the machine. A closure
/// would not do, since nothing forces it to be inlined.
struct Horizontal<'a> {
    src: &'a [u8],
    stride: usize,
    taps: &'a Taps,
    dst: &'a mut [u8],
}

impl NullaryFnOnce for Horizontal<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        horizontal_pass(self.src, self.stride, self.taps, self.dst);
    }
}

/// One row of the second pass, as [`Horizontal`].
struct Vertical<'a> {
    src: &'a [u8],
    stride: usize,
    weights: &'a [i32],
    dst: &'a mut [u8],
}

impl NullaryFnOnce for Vertical<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        vertical_row(self.src, self.stride, self.weights, self.dst);
    }
}

// src: [rows, source width, 3] u8 -> dst: [rows, window width, 3] u8
#[inline(always)]
fn horizontal_pass(src: &[u8], stride: usize, taps: &Taps, dst: &mut [u8]) {
    let dst_stride = taps.len() * 3;
    let rows = dst.len() / dst_stride;
    // The vector path reads one byte past a pixel, which the last row of the picture does not have.
    let grouped = rows.saturating_sub(1) / ROWS * ROWS;
    let (fast, slow) = dst.split_at_mut(grouped * dst_stride);
    for (group, dst) in fast.chunks_exact_mut(ROWS * dst_stride).enumerate() {
        let src = &src[group * ROWS * stride..];
        horizontal_rows([src, &src[stride..], &src[2 * stride..], &src[3 * stride..]], taps, dst);
    }
    let src = &src[grouped * stride..];
    for (src, dst) in src.chunks_exact(stride).zip(slow.chunks_exact_mut(dst_stride)) {
        horizontal_row(src, taps, dst);
    }
}

/// Four rows at once: one weight load serves all, and a pixel with its right neighbour's red is one 4-byte load.
#[inline(always)]
fn horizontal_rows(src: [&[u8]; ROWS], taps: &Taps, dst: &mut [u8]) {
    let dst_stride = taps.len() * 3;
    for index in 0..taps.len() {
        let (start, weights) = taps.at(index);
        let span = start * 3..(start + weights.len()) * 3 + 1;
        let src: [&[u8]; ROWS] = std::array::from_fn(|row| &src[row][span.clone()]);
        let mut sums = [[ROUND; 4]; ROWS];
        for (tap, &weight) in weights.iter().enumerate() {
            for (sums, src) in sums.iter_mut().zip(src) {
                let pixel: [u8; 4] = src[tap * 3..tap * 3 + 4].try_into().expect("four bytes");
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight));
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let dst = &mut dst[row * dst_stride + index * 3..][..3];
            for (dst, &sum) in dst.iter_mut().zip(sums) {
                *dst = clip(sum);
            }
        }
    }
}

/// The plain version, and the oracle of the tests.
#[inline(always)]
fn horizontal_row(src: &[u8], taps: &Taps, dst: &mut [u8]) {
    for (index, dst) in dst.chunks_exact_mut(3).enumerate() {
        let (start, weights) = taps.at(index);
        let mut sums = [ROUND; 3];
        for (pixel, &weight) in src[start * 3..].chunks_exact(3).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(pixel) {
                *sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight));
            }
        }
        for (dst, sum) in dst.iter_mut().zip(sums) {
            *dst = clip(sum);
        }
    }
}

// src: weights.len() rows, `stride` bytes apart -> dst: one row, u8
#[inline(always)]
fn vertical_row(src: &[u8], stride: usize, weights: &[i32], dst: &mut [u8]) {
    if dst.len() < BLOCK {
        return vertical_row_plain(src, stride, weights, dst);
    }
    let last = dst.len() - BLOCK;
    let mut at = 0;
    loop {
        let mut sums = [ROUND; BLOCK];
        for (tap, &weight) in weights.iter().enumerate() {
            let values: &[u8; BLOCK] = src[tap * stride + at..][..BLOCK].try_into().expect("one block");
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight));
            }
        }
        for (dst, sum) in dst[at..at + BLOCK].iter_mut().zip(sums) {
            *dst = clip(sum);
        }
        if at == last {
            return;
        }
        // The last block overlaps the one before it rather than being shorter.
        at = (at + BLOCK).min(last);
    }
}

/// The plain version, and the oracle of the tests.
#[inline(always)]
fn vertical_row_plain(src: &[u8], stride: usize, weights: &[i32], dst: &mut [u8]) {
    for (at, dst) in dst.iter_mut().enumerate() {
        let mut sum = ROUND;
        for (tap, &weight) in weights.iter().enumerate() {
            sum = sum.wrapping_add(i32::from(src[tap * stride + at]).wrapping_mul(weight));
        }
        *dst = clip(sum);
    }
}

/// The oracle: resize the whole picture, Pillow's way in plain loops, one full pass after the other.
#[cfg(test)]
pub(super) fn resize_whole(rgb: &[u8], geometry: &Geometry, filter: Filter) -> Vec<u8> {
    use super::geometry::Axis;
    let whole = |axis: Axis| Axis { first: 0, window: axis.resized, padding: 0, output: axis.resized, ..axis };
    let (x, y) = (whole(geometry.x), whole(geometry.y));
    let kernel = match resampler(filter) {
        Resampler::Pillow(kernel) => kernel,
        Resampler::Opencv(method) => {
            let mut out = Vec::new();
            opencv::for_each_row(rgb, &Geometry { x, y }, method, |_, row| out.extend_from_slice(row));
            return out;
        }
    };
    let mut taps = Taps::default();
    let mut between = rgb.to_vec();
    if !x.is_kept() {
        taps.compute(kernel, x);
        between = vec![0; y.source * x.resized * 3];
        for (src, dst) in rgb.chunks_exact(x.source * 3).zip(between.chunks_exact_mut(x.resized * 3)) {
            horizontal_row(src, &taps, dst);
        }
    }
    if y.is_kept() {
        return between;
    }
    taps.compute(kernel, y);
    let stride = x.resized * 3;
    let mut out = vec![0; y.resized * stride];
    for (index, dst) in out.chunks_exact_mut(stride).enumerate() {
        let (start, weights) = taps.at(index);
        vertical_row_plain(&between[start * stride..], stride, weights, dst);
    }
    out
}
