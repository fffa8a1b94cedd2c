//! Where each output pixel comes from: sizes, crop offsets and padding. Integers only, no pixels.

use super::PreprocessError;
use super::recipe::{CenterCrop, CropRounding, RecipeSteps, Resize};
use crate::pipeline::types::Image;

/// Most pixels a sample may have. It matters only for recipes without a crop, where the picture decides: a 1x20000
/// picture brought to a shortest edge of 256 would have 1.3 thousand million.
pub const SAMPLE_PIXELS_MAX: u64 = 4096 * 4096;

/// One axis: the resized side and the part of it that the output shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    /// Side of the picture in pixels.
    pub(super) source: usize,
    /// Where among them the picture begins: 0, unless it was decoded smaller and then mirrored.
    pub(super) from: f64,
    /// How many of them it covers: all, unless it was decoded smaller. This is the side that the resize shrinks.
    pub(super) extent: f64,
    /// Side after the resize, of which only `window` is ever computed.
    pub(super) resized: usize,
    /// First resized position shown.
    pub(super) first: usize,
    /// How many resized positions are shown.
    pub(super) window: usize,
    /// Black output positions before the window.
    pub(super) padding: usize,
    /// Side of the output.
    pub(super) output: usize,
}

impl Axis {
    fn new(source: u32, resized: u64, crop: Option<(u32, CropRounding)>) -> Self {
        let (resized, source) = (resized as usize, source as usize);
        let Some((crop, rounding)) = crop else {
            return Self::uncropped(source, resized);
        };
        let output = crop as usize;
        if resized < output {
            let spare = output - resized;
            let padding = match rounding {
                CropRounding::Floor => spare.div_ceil(2),
                CropRounding::FloorPadAfter | CropRounding::RoundHalfEven => spare / 2,
            };
            return Self { padding, output, ..Self::uncropped(source, resized) };
        }
        let spare = resized - output;
        let first = match rounding {
            CropRounding::Floor | CropRounding::FloorPadAfter => spare / 2,
            // Python's round: a half goes to the even neighbour.
            CropRounding::RoundHalfEven => spare / 2 + usize::from(spare % 4 == 3),
        };
        Self { first, window: output, output, ..Self::uncropped(source, resized) }
    }

    fn uncropped(source: usize, resized: usize) -> Self {
        let extent = source as f64;
        Self { source, from: 0.0, extent, resized, first: 0, window: resized, padding: 0, output: resized }
    }

    /// Whether the resize changes nothing, so that its pass is left out.
    pub(super) fn is_kept(&self) -> bool {
        self.resized == self.source && self.extent == self.source as f64
    }

    /// Source pixels for one resized pixel.
    pub(super) fn scale(&self) -> f64 {
        self.extent / self.resized as f64
    }
}

/// Both axes of one picture under one recipe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Geometry {
    pub(super) x: Axis,
    pub(super) y: Axis,
}

impl Geometry {
    /// Sizes and offsets follow from the picture as it was uploaded; where its pixels are fewer, only they are found
    /// elsewhere.
    pub(super) fn of(image: &Image, steps: &RecipeSteps) -> Result<Self, PreprocessError> {
        let (info, view) = (image.info(), image.view());
        let Self { x, y } = Self::new(info.width, info.height, steps)?;
        Ok(Self {
            x: Axis { source: image.width() as usize, from: view.left, extent: view.width, ..x },
            y: Axis { source: image.height() as usize, from: view.top, extent: view.height, ..y },
        })
    }

    pub(super) fn new(width: u32, height: u32, steps: &RecipeSteps) -> Result<Self, PreprocessError> {
        if width == 0 || height == 0 {
            return Err(PreprocessError::EmptyImage { width, height });
        }
        let (resized_width, resized_height) = match steps.resize {
            Resize::None => (u64::from(width), u64::from(height)),
            Resize::Exact { width, height } => (u64::from(width), u64::from(height)),
            Resize::ShortestEdge(edge) => shortest_edge(u64::from(edge), u64::from(width), u64::from(height)),
            Resize::Cover { width: w, height: h } => keep_ratio((width, height), (w, h), f64::min),
            Resize::Contain { width: w, height: h } => keep_ratio((width, height), (w, h), f64::max),
        };
        if steps.crop.is_none() && resized_width.saturating_mul(resized_height) > SAMPLE_PIXELS_MAX {
            return Err(PreprocessError::SampleTooLarge {
                width: resized_width,
                height: resized_height,
                pixels: resized_width.saturating_mul(resized_height),
                max: SAMPLE_PIXELS_MAX,
            });
        }
        let side = |of: fn(&CenterCrop) -> u32| steps.crop.as_ref().map(|crop| (of(crop), crop.rounding));
        Ok(Self {
            x: Axis::new(width, resized_width, side(|crop| crop.width)),
            y: Axis::new(height, resized_height, side(|crop| crop.height)),
        })
    }
}

/// `int(edge * long / short)` for the longer side. Integer division agrees with Python's float: below 2^32 the quotient
/// of two sides is never close enough to the next integer to be rounded up to it.
fn shortest_edge(edge: u64, width: u64, height: u64) -> (u64, u64) {
    if width <= height { (edge, edge * height / width) } else { (edge * width / height, edge) }
}

/// Both sides divided by one of the two ratios between picture and target, `round` as Python does it. A side that would
/// vanish keeps one pixel; timm fails there.
fn keep_ratio(picture: (u32, u32), target: (u32, u32), pick: fn(f64, f64) -> f64) -> (u64, u64) {
    let (width, height) = (f64::from(picture.0), f64::from(picture.1));
    let ratio = pick(width / f64::from(target.0), height / f64::from(target.1));
    let scaled = |side: f64| ((side / ratio).round_ties_even() as u64).max(1);
    (scaled(width), scaled(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(resized: u64, crop: u32, rounding: CropRounding) -> (usize, usize) {
        let axis = Axis::new(1, resized, Some((crop, rounding)));
        (axis.first, axis.padding)
    }

    #[test]
    fn crop_offset_rounds_as_each_ecosystem_does() {
        // Differences 0, 1, 2, 3, 4, 5, 7 between picture and crop.
        let floor: Vec<usize> =
            [8, 9, 10, 11, 12, 13, 15].map(|resized| axis(resized, 8, CropRounding::Floor).0).to_vec();
        assert_eq!(floor, [0, 0, 1, 1, 2, 2, 3]);
        let even: Vec<usize> =
            [8, 9, 10, 11, 12, 13, 15].map(|resized| axis(resized, 8, CropRounding::RoundHalfEven).0).to_vec();
        assert_eq!(even, [0, 0, 1, 2, 2, 2, 4]);
    }

    #[test]
    fn odd_padding_stands_before_in_transformers_and_after_in_torchvision() {
        assert_eq!(axis(5, 8, CropRounding::Floor), (0, 2));
        assert_eq!(axis(5, 8, CropRounding::FloorPadAfter), (0, 1));
        assert_eq!(axis(5, 8, CropRounding::RoundHalfEven), (0, 1));
    }

    #[test]
    fn cover_fills_the_target_and_contain_stays_inside() {
        assert_eq!(keep_ratio((500, 375), (256, 256), f64::min), (341, 256));
        assert_eq!(keep_ratio((500, 375), (224, 224), f64::max), (224, 168));
        assert_eq!(keep_ratio((500, 375), (320, 224), f64::min), (320, 240));
        // Halves go to the even side: 3 * 5 / 2 = 7.5 and 3 * 3 / 2 = 4.5.
        assert_eq!(keep_ratio((2, 5), (3, 3), f64::min), (3, 8));
        assert_eq!(keep_ratio((2, 3), (3, 3), f64::min), (3, 4));
        assert_eq!(keep_ratio((1, 20_000), (224, 224), f64::max), (1, 224));
    }

    #[test]
    fn shortest_edge_truncates_the_other_side() {
        assert_eq!(shortest_edge(256, 500, 375), (341, 256));
        assert_eq!(shortest_edge(256, 375, 500), (256, 341));
        assert_eq!(shortest_edge(224, 224, 224), (224, 224));
        assert_eq!(shortest_edge(256, 1, 20_000), (256, 5_120_000));
    }
}
