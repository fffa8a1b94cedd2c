//! How much smaller than it was stored a large photo is decoded, when the recipe shrinks it anyway.
//!
//! A pure rule. The JPEG decoder carries it out: its transform gives k x k pixels for each block of 8 x 8 from the low
//! frequencies alone, which skips most of the arithmetic and all of the memory.

/// Photos up to this size are always decoded whole, so their samples are the same bit by bit with or without this. Data sets
/// like ImageNet's hold pictures of 0.2 megapixels, few above 1; phones take 8 and more.
pub const EXACT_PIXELS_MAX: u64 = 4_000_000;

/// A shrunk picture has at least this many pixels for one of the resized picture, on each axis. Pillow's `thumbnail` asks for
/// 2 (`reducing_gap`). Here 12-megapixel photos were compared with the exact way: at 1.5 samples differ by up to 22 of 255
/// levels, at 3 by 9, at 4.4 by 2 in the median photo.
const GAP: f64 = 3.0;

/// In eighths, from the smallest. Left out is 2/8, which takes this decoder as long as 3/8 and keeps less of the picture, and
/// everything above 4/8, which takes longer than the vectorised transform of the whole.
const EIGHTHS: [u32; 3] = [1, 3, 4];

/// Part of each side that is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    eighths: u32,
}

impl Scale {
    /// Every pixel, as stored.
    pub const WHOLE: Self = Self { eighths: 8 };

    /// All scales in use.
    #[cfg(any(test, fuzzing))]
    pub(crate) const EVERY: [Self; 4] = [Self { eighths: 1 }, Self { eighths: 3 }, Self { eighths: 4 }, Self::WHOLE];

    /// The smallest scale that leaves a picture of `width` x `height` enough pixels to be resized to `resized`.
    pub(super) fn for_resize(width: u32, height: u32, resized: (u32, u32)) -> Self {
        if u64::from(width) * u64::from(height) <= EXACT_PIXELS_MAX {
            return Self::WHOLE;
        }
        let enough = |scale: &Self| {
            scale.extent(width) >= GAP * f64::from(resized.0) && scale.extent(height) >= GAP * f64::from(resized.1)
        };
        EIGHTHS.map(|eighths| Self { eighths }).into_iter().find(enough).unwrap_or(Self::WHOLE)
    }

    /// Eighths of each side, 1..=8.
    #[must_use]
    pub fn eighths(self) -> u32 {
        self.eighths
    }

    /// How long a side becomes, in pixels: of the last one perhaps only a part.
    pub(super) fn extent(self, side: u32) -> f64 {
        f64::from(side) * f64::from(self.eighths) / 8.0
    }

    /// Pixels that hold it.
    pub(crate) fn pixels(self, side: u32) -> u32 {
        // Within u32: both factors are bounded, sides of JPEGs by 65,535.
        (u64::from(side) * u64::from(self.eighths)).div_ceil(8) as u32
    }
}

#[cfg(test)]
mod tests;
