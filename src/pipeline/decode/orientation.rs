//! EXIF orientation: finding it, and turning the picture upright. Broken EXIF is no EXIF: the photo still counts.

use super::canvas::Canvas;
use crate::pipeline::types::View;

/// Source rows that are turned to columns together.
const ROWS_AT_ONCE: usize = 64;

/// How the stored picture must be turned to stand upright.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orientation {
    /// As stored.
    Upright,
    /// Mirrored left to right (2).
    FlipHorizontal,
    /// Half a turn (3).
    Rotate180,
    /// Mirrored top to bottom (4).
    FlipVertical,
    /// Mirrored at the main diagonal (5).
    Transpose,
    /// A quarter clockwise (6).
    Rotate90,
    /// Mirrored at the other diagonal (7).
    Transverse,
    /// A quarter counter-clockwise (8).
    Rotate270,
}

impl Orientation {
    /// As Pillow's `exif_transpose` reads it: the EXIF tag if it is there, else `tiff:Orientation` in the XMP packet.
    /// Values outside 2..=8 change nothing.
    pub(super) fn from_metadata(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Self {
        let tag = exif.and_then(orientation_in_exif).or_else(|| xmp.and_then(orientation_in_xmp));
        match tag {
            Some(2) => Self::FlipHorizontal,
            Some(3) => Self::Rotate180,
            Some(4) => Self::FlipVertical,
            Some(5) => Self::Transpose,
            Some(6) => Self::Rotate90,
            Some(7) => Self::Transverse,
            Some(8) => Self::Rotate270,
            _ => Self::Upright,
        }
    }

    /// Whether width and height change places.
    pub(super) fn swaps_sides(self) -> bool {
        match self {
            Self::Upright | Self::FlipHorizontal | Self::Rotate180 | Self::FlipVertical => false,
            Self::Transpose | Self::Rotate90 | Self::Transverse | Self::Rotate270 => true,
        }
    }

    /// `[height,width,3]` u8 as stored -> the upright picture, `[width,height,3]` where the sides are swapped.
    pub(super) fn apply(self, width: usize, height: usize, mut rgb: Vec<u8>, canvas: &mut Canvas) -> Vec<u8> {
        match self {
            Self::Upright => rgb,
            Self::FlipVertical => {
                for y in 0..height / 2 {
                    let (above, below) = rgb.split_at_mut((height - 1 - y) * width * 3);
                    above[y * width * 3..][..width * 3].swap_with_slice(&mut below[..width * 3]);
                }
                rgb
            }
            Self::FlipHorizontal => {
                for row in rgb.chunks_exact_mut(width * 3) {
                    row.as_chunks_mut::<3>().0.reverse();
                }
                rgb
            }
            Self::Rotate180 => {
                rgb.as_chunks_mut::<3>().0.reverse();
                rgb
            }
            Self::Transpose => swapped(height, rgb, canvas, |x, y| y * width + x),
            Self::Rotate90 => swapped(height, rgb, canvas, |x, y| (height - 1 - y) * width + x),
            Self::Transverse => swapped(height, rgb, canvas, |x, y| (height - 1 - y) * width + (width - 1 - x)),
            Self::Rotate270 => swapped(height, rgb, canvas, |x, y| y * width + (width - 1 - x)),
        }
    }

    /// Where in `width` x `height` pixels as stored the picture lies -> where it lies in the upright ones.
    pub(super) fn apply_to_view(self, width: u32, height: u32, view: View) -> View {
        let (right, bottom) = (f64::from(width) - view.left - view.width, f64::from(height) - view.top - view.height);
        let (left, top) = match self {
            Self::Upright => (view.left, view.top),
            Self::FlipHorizontal => (right, view.top),
            Self::Rotate180 => (right, bottom),
            Self::FlipVertical => (view.left, bottom),
            Self::Transpose => (view.top, view.left),
            Self::Rotate90 => (bottom, view.left),
            Self::Transverse => (bottom, right),
            Self::Rotate270 => (view.top, right),
        };
        let (width, height) = if self.swaps_sides() { (view.height, view.width) } else { (view.width, view.height) };
        View { left, top, width, height }
    }
}

/// Row x of the result is column x of the source; `from` says where its y-th pixel comes from.
fn swapped(height: usize, rgb: Vec<u8>, canvas: &mut Canvas, from: impl Fn(usize, usize) -> usize) -> Vec<u8> {
    let mut out = canvas.take(rgb.len());
    // A few source rows at a time, which stay in the cache while all their columns are read: 12 megapixels take a fifth of the
    // time.
    for top in (0..height).step_by(ROWS_AT_ONCE) {
        let bottom = (top + ROWS_AT_ONCE).min(height);
        for (x, row) in out.chunks_exact_mut(height * 3).enumerate() {
            for (y, pixel) in (top..bottom).zip(row[top * 3..bottom * 3].as_chunks_mut::<3>().0) {
                let at = from(x, y) * 3;
                pixel.copy_from_slice(&rgb[at..at + 3]);
            }
        }
    }
    canvas.keep(rgb);
    out
}

/// Orientation tag of the first directory of an EXIF block, which is a small TIFF file.
fn orientation_in_exif(exif: &[u8]) -> Option<u32> {
    let mut exif = exif;
    while let Some(rest) = exif.strip_prefix(b"Exif\0\0") {
        exif = rest;
    }
    TiffDirectory::first(exif)?.number(0x0112)
}

/// `tiff:Orientation="6"` or `<tiff:Orientation>6<`; no XML parser for one digit, Pillow has none either.
fn orientation_in_xmp(xmp: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"tiff:Orientation";
    xmp.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).find_map(|(at, _)| {
        match &xmp[at + NAME.len()..] {
            [b'=', b'"', digit @ b'0'..=b'9', ..] | [b'>', digit @ b'0'..=b'9', ..] => Some(u32::from(digit - b'0')),
            _ => None,
        }
    })
}

/// The first directory of a classic TIFF file, read without trusting it.
#[derive(Debug, Clone, Copy)]
pub(super) struct TiffDirectory<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    entries: usize,
    count: u16,
}

impl<'a> TiffDirectory<'a> {
    pub(super) fn first(bytes: &'a [u8]) -> Option<Self> {
        let big_endian = match bytes {
            [b'I', b'I', 42, 0, ..] => false,
            [b'M', b'M', 0, 42, ..] => true,
            _ => return None,
        };
        let mut directory = Self { bytes, big_endian, entries: 0, count: 0 };
        let at = directory.u32_at(4)? as usize;
        directory.count = directory.u16_at(at)?;
        directory.entries = at.checked_add(2)?;
        Some(directory)
    }

    /// First value of an integer tag.
    pub(super) fn number(&self, tag: u16) -> Option<u32> {
        let at = self.value_offset(tag)?;
        match self.u16_at(at - 6)? {
            1 => self.bytes.get(at).map(|&byte| u32::from(byte)),
            3 => self.u16_at(at).map(u32::from),
            4 => self.u32_at(at),
            _ => None,
        }
    }

    /// Where the four value bytes of a tag stand in the file.
    pub(super) fn value_offset(&self, tag: u16) -> Option<usize> {
        (0..usize::from(self.count))
            .map(|index| self.entries + index * 12)
            .take_while(|at| at + 12 <= self.bytes.len())
            .find(|&at| self.u16_at(at) == Some(tag))
            .map(|at| at + 8)
    }

    /// Whether the values of every tag lie inside the file, and numbers are at most `max` to a tag. Text and blobs such
    /// as colour profiles may be longer; the decoder does not read them.
    pub(super) fn values_fit(&self, max: u32) -> bool {
        (0..usize::from(self.count)).map(|index| self.entries + index * 12).all(|at| {
            let (Some(kind), Some(count), Some(offset)) =
                (self.u16_at(at + 2), self.u32_at(at + 4), self.u32_at(at + 8))
            else {
                return false;
            };
            let value_bytes = match kind {
                1 | 2 | 6 | 7 => 1,
                3 | 8 => 2,
                4 | 9 | 11 | 13 => 4,
                _ => 8,
            };
            let bytes = u64::from(count) * value_bytes;
            let inside = bytes <= 4 || u64::from(offset) + bytes <= self.bytes.len() as u64;
            inside && (matches!(kind, 2 | 7) || count <= max)
        })
    }

    pub(super) fn big_endian(&self) -> bool {
        self.big_endian
    }

    fn u16_at(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32_at(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }
}
