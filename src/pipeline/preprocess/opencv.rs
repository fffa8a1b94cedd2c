//! OpenCV's two resizes that published models were measured with, for 8-bit pictures: `INTER_AREA` and `INTER_LINEAR`.
//! Equal to `cv2.resize` in every bit, also where one of them quietly becomes the other.

use super::geometry::{Axis, Geometry};

/// What was asked of OpenCV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Area,
    Linear,
}

/// What OpenCV then does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// Whole blocks of pixels: sums of integers.
    Blocks { width: usize, height: usize },
    /// Parts of pixels: sums of f32.
    Cells,
    /// Two pixels an axis, weighted by where the centre lies.
    LinearByCentre,
    /// Two pixels an axis, weighted by where the edges lie: what `INTER_AREA` means when a side grows.
    LinearByEdge,
}

/// Fraction bits of a linear weight: OpenCV's `INTER_RESIZE_COEF_BITS`.
const WEIGHT_BITS: u32 = 11;
/// Part of a pixel below which `INTER_AREA` leaves it out.
const PART_MIN: f64 = 1e-3;

/// Calls `emit` with each row of the window, `[window width, 3]` u8, from top to bottom.
///
/// `rgb` is `[geometry.y.source, geometry.x.source, 3]`.
pub(super) fn for_each_row(rgb: &[u8], geometry: &Geometry, method: Method, emit: impl FnMut(usize, &[u8])) {
    let Geometry { x, y } = geometry;
    match plan(method, x, y) {
        Plan::Blocks { width, height } => blocks(rgb, x, y, (width, height), emit),
        Plan::Cells => cells(rgb, x, y, emit),
        Plan::LinearByCentre => linear(rgb, x, y, by_centre, emit),
        Plan::LinearByEdge => linear(rgb, x, y, by_edge, emit),
    }
}

fn plan(method: Method, x: &Axis, y: &Axis) -> Plan {
    let whole = |axis: &Axis| {
        let rounded = scale(axis).round();
        ((scale(axis) - rounded).abs() < f64::EPSILON).then_some(rounded as usize)
    };
    let blocks = whole(x).zip(whole(y)).map(|(width, height)| Plan::Blocks { width, height });
    match method {
        Method::Area if scale(x) >= 1.0 && scale(y) >= 1.0 => blocks.unwrap_or(Plan::Cells),
        Method::Area => Plan::LinearByEdge,
        // Halving both sides, every centre lies between four pixels, and OpenCV takes its faster way.
        Method::Linear if blocks == Some(Plan::Blocks { width: 2, height: 2 }) => Plan::Blocks { width: 2, height: 2 },
        Method::Linear => Plan::LinearByCentre,
    }
}

/// Source pixels for one resized pixel. OpenCV inverts the inverse, and its rounding errors decide whether a scale counts
/// as whole.
fn scale(axis: &Axis) -> f64 {
    1.0 / inverse_scale(axis)
}

fn inverse_scale(axis: &Axis) -> f64 {
    axis.resized as f64 / axis.source as f64
}

/// To the nearest, half to even, within 0..=255: `saturate_cast<uchar>`.
fn saturated(value: f32) -> u8 {
    value.round_ties_even() as u8
}

// rgb: [y.source, x.source, 3] u8, whole blocks of `width` x `height` -> rows of [x.window, 3] u8
fn blocks(rgb: &[u8], x: &Axis, y: &Axis, (width, height): (usize, usize), mut emit: impl FnMut(usize, &[u8])) {
    let stride = x.source * 3;
    let mut sums = vec![0_u32; x.window * 3];
    let mut row = vec![0_u8; x.window * 3];
    let part = 1.0 / (width * height) as f32;
    for index in 0..y.window {
        sums.fill(0);
        let top = (y.first + index) * height;
        for src in rgb[top * stride..].chunks_exact(stride).take(height) {
            let src = &src[x.first * width * 3..];
            for (sums, block) in sums.chunks_exact_mut(3).zip(src.chunks_exact(width * 3)) {
                for pixel in block.chunks_exact(3) {
                    for (sum, &value) in sums.iter_mut().zip(pixel) {
                        *sum += u32::from(value);
                    }
                }
            }
        }
        for (value, &sum) in row.iter_mut().zip(&sums) {
            // Four pixels have a path of their own, which rounds halves up instead of to even.
            *value = if (width, height) == (2, 2) { ((sum + 2) >> 2) as u8 } else { saturated(sum as f32 * part) };
        }
        emit(index, &row);
    }
}

/// For each position of an axis' window the source pixels that it covers, and how much of its area each has.
struct Covers {
    /// `(first source position, first weight, number of weights)`.
    spans: Vec<(usize, usize, usize)>,
    weights: Vec<f32>,
}

impl Covers {
    fn new(axis: &Axis) -> Self {
        let (scale, source) = (scale(axis), axis.source as f64);
        let mut covers = Self { spans: Vec::with_capacity(axis.window), weights: Vec::new() };
        for position in axis.first..axis.first + axis.window {
            let from = position as f64 * scale;
            let to = from + scale;
            // The last cell may reach beyond the picture by a rounding error.
            let area = scale.min(source - from);
            let last_whole = to.floor().min(source - 1.0);
            let first_whole = from.ceil().min(last_whole);
            let at = covers.weights.len();
            let mut start = first_whole as usize;
            if first_whole - from > PART_MIN {
                start -= 1;
                covers.weights.push(((first_whole - from) / area) as f32);
            }
            let whole = (last_whole - first_whole) as usize;
            covers.weights.extend(std::iter::repeat_n((1.0 / area) as f32, whole));
            if to - last_whole > PART_MIN {
                covers.weights.push(((to - last_whole).min(1.0).min(area) / area) as f32);
            }
            covers.spans.push((start, at, covers.weights.len() - at));
        }
        covers
    }

    fn at(&self, index: usize) -> (usize, &[f32]) {
        let (start, at, len) = self.spans[index];
        (start, &self.weights[at..at + len])
    }
}

// rgb: [y.source, x.source, 3] u8 -> rows of [x.window, 3] u8; sums of f32 in OpenCV's order
fn cells(rgb: &[u8], x: &Axis, y: &Axis, mut emit: impl FnMut(usize, &[u8])) {
    let (columns, rows) = (Covers::new(x), Covers::new(y));
    let mut across = vec![0_f32; x.window * 3];
    let mut across_of = None;
    let mut sums = vec![0_f32; x.window * 3];
    let mut row = vec![0_u8; x.window * 3];
    for index in 0..y.window {
        let (start, weights) = rows.at(index);
        sums.fill(0.0);
        for (source_row, &weight) in (start..).zip(weights) {
            // Neighbouring cells share the source row that lies on their edge.
            if across_of != Some(source_row) {
                sum_across(&rgb[source_row * x.source * 3..][..x.source * 3], &columns, &mut across);
                across_of = Some(source_row);
            }
            for (sum, &value) in sums.iter_mut().zip(&across) {
                *sum += value * weight;
            }
        }
        for (value, &sum) in row.iter_mut().zip(&sums) {
            *value = saturated(sum);
        }
        emit(index, &row);
    }
}

// src: [source width, 3] u8 -> dst: [window, 3] f32
fn sum_across(src: &[u8], columns: &Covers, dst: &mut [f32]) {
    for (index, dst) in dst.chunks_exact_mut(3).enumerate() {
        let (start, weights) = columns.at(index);
        let mut sums = [0_f32; 3];
        for (pixel, &weight) in src[start * 3..].chunks_exact(3).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(pixel) {
                *sum += f32::from(value) * weight;
            }
        }
        dst.copy_from_slice(&sums);
    }
}

/// Two neighbours on an axis and their weights, in units of 2^-11.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Between {
    positions: [usize; 2],
    weights: [i32; 2],
}

/// Where resized position `position` lies: the source position at or before it, and the fraction beyond.
type Locate = fn(axis: &Axis, position: usize) -> (i64, f32);

fn by_centre(axis: &Axis, position: usize) -> (i64, f32) {
    let at = ((position as f64 + 0.5) * scale(axis) - 0.5) as f32;
    (at.floor() as i64, at - at.floor())
}

fn by_edge(axis: &Axis, position: usize) -> (i64, f32) {
    let before = (position as f64 * scale(axis)).floor();
    let beyond = ((position as f64 + 1.0) - (before + 1.0) * inverse_scale(axis)) as f32;
    (before as i64, if beyond <= 0.0 { 0.0 } else { beyond - beyond.floor() })
}

impl Between {
    fn new(before: i64, beyond: f32, source: usize) -> Self {
        let last = source as i64 - 1;
        let fixed = |weight: f32| (weight * (1 << WEIGHT_BITS) as f32).round_ties_even() as i32;
        Self {
            positions: [before, before + 1].map(|at| at.clamp(0, last) as usize),
            weights: [fixed(1.0 - beyond), fixed(beyond)],
        }
    }

    /// A column beyond the edge is the edge, with its whole weight.
    fn column(axis: &Axis, position: usize, locate: Locate) -> Self {
        let (before, beyond) = locate(axis, position);
        if before < 0 || before >= axis.source as i64 - 1 {
            return Self::new(before.clamp(0, axis.source as i64 - 1), 0.0, axis.source);
        }
        Self::new(before, beyond, axis.source)
    }

    /// A row beyond the edge is the edge too, but keeps the two weights: their products are cut off one by one.
    fn row(axis: &Axis, position: usize, locate: Locate) -> Self {
        let (before, beyond) = locate(axis, position);
        Self::new(before, beyond, axis.source)
    }
}

// rgb: [y.source, x.source, 3] u8 -> rows of [x.window, 3] u8; integers with 11 bits a weight
fn linear(rgb: &[u8], x: &Axis, y: &Axis, locate: Locate, mut emit: impl FnMut(usize, &[u8])) {
    let columns: Vec<Between> = (x.first..x.first + x.window).map(|at| Between::column(x, at, locate)).collect();
    let len = x.window * 3;
    let mut across = [vec![0_i32; len], vec![0_i32; len]];
    let mut across_of = [None, None];
    let mut row = vec![0_u8; len];
    for index in 0..y.window {
        let Between { positions, weights } = Between::row(y, y.first + index, locate);
        if across_of[1] == Some(positions[0]) {
            across.swap(0, 1);
            across_of.swap(0, 1);
        }
        for ((across, of), position) in across.iter_mut().zip(&mut across_of).zip(positions) {
            if *of != Some(position) {
                blend_across(&rgb[position * x.source * 3..][..x.source * 3], &columns, across);
                *of = Some(position);
            }
        }
        let [above, below] = &across;
        for ((value, &above), &below) in row.iter_mut().zip(above).zip(below) {
            // As OpenCV, in 16-bit halves: each product loses its low bits before they are added.
            let part = |sum: i32, weight: i32| (weight * (sum >> 4)) >> 16;
            *value = ((part(above, weights[0]) + part(below, weights[1]) + 2) >> 2).clamp(0, 255) as u8;
        }
        emit(index, &row);
    }
}

// src: [source width, 3] u8 -> dst: [window, 3] i32, in units of 2^-11
fn blend_across(src: &[u8], columns: &[Between], dst: &mut [i32]) {
    for (column, dst) in columns.iter().zip(dst.chunks_exact_mut(3)) {
        let [left, right] = column.positions.map(|at| &src[at * 3..at * 3 + 3]);
        for ((dst, &left), &right) in dst.iter_mut().zip(left).zip(right) {
            *dst = i32::from(left) * column.weights[0] + i32::from(right) * column.weights[1];
        }
    }
}
