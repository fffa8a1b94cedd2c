//! Resampling weights as Pillow computes them: filters in f64, normalised, then rounded to 22 fractional bits.

use std::f64::consts::PI;

use super::geometry::Axis;

/// Fraction bits of a weight: Pillow's `PRECISION_BITS = 32 - 8 - 2`, which leaves two bits of headroom above a u8.
pub(super) const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Pillow's filters, less the choice of a library that [`super::recipe::Filter`] adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    Nearest,
    Box,
    Bilinear,
    Hamming,
    Bicubic,
    Lanczos,
}

/// For each position of an axis' window: which source positions count, and how much.
#[derive(Debug, Default)]
pub(super) struct Taps {
    spans: Vec<Span>,
    weights: Vec<i32>,
    /// The weights of one position before they are rounded.
    row: Vec<f64>,
}

/// The source positions `start..start + len` and where their weights stand.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    len: usize,
    weights: usize,
}

impl Taps {
    /// Replaces the taps by those of `axis`; the allocations stay.
    pub(super) fn compute(&mut self, kernel: Kernel, axis: Axis) {
        self.spans.clear();
        self.weights.clear();
        match kernel {
            Kernel::Nearest => self.compute_nearest(axis),
            Kernel::Box => self.compute_weighted(axis, 0.5, box_filter),
            Kernel::Bilinear => self.compute_weighted(axis, 1.0, bilinear),
            Kernel::Hamming => self.compute_weighted(axis, 1.0, hamming),
            Kernel::Bicubic => self.compute_weighted(axis, 2.0, bicubic),
            Kernel::Lanczos => self.compute_weighted(axis, 3.0, lanczos),
        }
    }

    fn compute_nearest(&mut self, axis: Axis) {
        let step = axis.scale();
        let mut centre = axis.from + step * 0.5;
        // Pillow adds the step up instead of multiplying, so the same rounding errors must add up here,
        // also over the positions before the window.
        for position in 0..axis.first + axis.window {
            if position >= axis.first {
                let start = (centre as usize).min(axis.source - 1);
                self.spans.push(Span { start, len: 1, weights: self.weights.len() });
                self.weights.push(1 << PRECISION_BITS);
            }
            centre += step;
        }
    }

    fn compute_weighted(&mut self, axis: Axis, support: f64, weight: fn(f64) -> f64) {
        let scale = axis.scale();
        // Shrinking widens the filter (this is the antialiasing); growing does not narrow it.
        let stretch = scale.max(1.0);
        let support = support * stretch;
        let inverse = 1.0 / stretch;
        for position in axis.first..axis.first + axis.window {
            let centre = axis.from + (position as f64 + 0.5) * scale;
            // `as usize` truncates and stops at 0, which is what the cast to int and the clamp do in C.
            let start = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(axis.source);
            self.row.clear();
            self.row.extend((start..end).map(|at| weight((at as f64 - centre + 0.5) * inverse)));
            let sum: f64 = self.row.iter().sum();
            self.spans.push(Span { start, len: self.row.len(), weights: self.weights.len() });
            self.weights.extend(self.row.iter().map(|&value| quantised(if sum == 0.0 { value } else { value / sum })));
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.weights.capacity() * 4 + self.row.capacity() * 8
    }

    /// Number of window positions.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// First source position and the weights from there on.
    #[inline(always)]
    pub(super) fn at(&self, index: usize) -> (usize, &[i32]) {
        let span = self.spans[index];
        (span.start, &self.weights[span.weights..span.weights + span.len])
    }

    /// The source positions that any tap reads.
    pub(super) fn source_range(&self) -> std::ops::Range<usize> {
        let start = self.spans.iter().map(|span| span.start).min().unwrap_or(0);
        let end = self.spans.iter().map(|span| span.start + span.len).max().unwrap_or(0);
        start..end
    }
}

/// Half away from zero, as Pillow rounds.
fn quantised(weight: f64) -> i32 {
    (weight * f64::from(1 << PRECISION_BITS)).round() as i32
}

fn box_filter(x: f64) -> f64 {
    if x > -0.5 && x <= 0.5 { 1.0 } else { 0.0 }
}

fn bilinear(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

fn hamming(x: f64) -> f64 {
    let x = x.abs();
    if x == 0.0 {
        1.0
    } else if x >= 1.0 {
        0.0
    } else {
        let x = x * PI;
        // Pillow writes 0.54f and 0.46f, and the difference reaches the last bit of some weights.
        x.sin() / x * (f64::from(0.54_f32) + f64::from(0.46_f32) * x.cos())
    }
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn lanczos(x: f64) -> f64 {
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        1.0
    } else {
        let x = x * PI;
        x.sin() / x
    }
}
