//! TIFF: the first page; 1 to 16 bits, gray, palette, RGB or CMYK; raw, LZW, deflate, PackBits or fax.
//! JPEG inside TIFF is not decoded, and associated alpha is dropped without dividing the colours by it.

use std::borrow::Cow;
use std::fmt;
use std::io::Cursor;

use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

use super::convert::{Layout, Palette, palette_to_rgb, to_rgb};
use super::orientation::{Orientation, TiffDirectory};
use super::{DecodeError, Found};
use crate::pipeline::types::ImageFormat;

const FORMAT: ImageFormat = ImageFormat::Tiff;
/// Most values of one tag: two for each row of the tallest picture are enough for any table of strips.
const TAG_VALUES_MAX: u32 = 1 << 16;
/// Memory for one tag's values while they are read.
const TAGS_BYTES_MAX: u64 = 4 << 20;
const PHOTOMETRIC: u16 = 262;
const PHOTOMETRIC_GRAY: u8 = 1;
const PHOTOMETRIC_PALETTE: u32 = 3;

/// A decoder that stands before the pixels.
pub(super) struct TiffHeader<'a> {
    decoder: Decoder<Cursor<Cow<'a, [u8]>>>,
    width: u32,
    height: u32,
    colour: ColorType,
    has_palette: bool,
    orientation: Orientation,
    file_bytes: u64,
}

/// Reads the first directory.
pub(super) fn header(bytes: &[u8]) -> Result<TiffHeader<'_>, DecodeError> {
    let directory = TiffDirectory::first(bytes);
    match directory {
        // The decoder takes memory for a tag by the count that the file states: 250 MB for a file of a few bytes.
        Some(directory) if !directory.values_fit(TAG_VALUES_MAX) => {
            return Err(DecodeError::broken(FORMAT, "a tag has more values than the file, or than allowed"));
        }
        Some(_) => {}
        None if matches!(bytes.get(2..4), Some([43, 0] | [0, 43])) => {
            return Err(DecodeError::unsupported(FORMAT, "64-bit offsets"));
        }
        None => return Err(DecodeError::broken(FORMAT, "the directory is outside the file")),
    }
    let palette_at = directory
        .filter(|directory| directory.number(PHOTOMETRIC) == Some(PHOTOMETRIC_PALETTE))
        .and_then(|directory| Some((directory, directory.value_offset(PHOTOMETRIC)?)));
    let mut file = Cow::Borrowed(bytes);
    if let Some((directory, at)) = palette_at {
        // The decoder refuses palettes, but what it does with gray is what reading indices takes. So it gets a copy
        // that says gray, and the palette is applied here.
        let value = if directory.big_endian() { [0, PHOTOMETRIC_GRAY] } else { [PHOTOMETRIC_GRAY, 0] };
        file.to_mut()[at..at + 2].copy_from_slice(&value);
    }
    let mut decoder = Decoder::new(Cursor::new(file)).map_err(sorted)?;
    let (width, height) = decoder.dimensions().map_err(sorted)?;
    let colour = decoder.colortype().map_err(sorted)?;
    Ok(TiffHeader {
        decoder,
        width,
        height,
        colour,
        has_palette: palette_at.is_some(),
        orientation: Orientation::from_metadata(Some(bytes), None),
        file_bytes: bytes.len() as u64,
    })
}

fn sorted(error: TiffError) -> DecodeError {
    match error {
        TiffError::UnsupportedError(feature) => DecodeError::unsupported(FORMAT, feature),
        error => DecodeError::broken(FORMAT, error),
    }
}

impl fmt::Debug for TiffHeader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TiffHeader").field("colour", &self.colour).finish_non_exhaustive()
    }
}

impl TiffHeader<'_> {
    pub(super) fn found(&self) -> Found {
        Found { width: self.width, height: self.height, orientation: self.orientation }
    }

    pub(super) fn decode_bytes(&self) -> u64 {
        let pixels = u64::from(self.width) * u64::from(self.height);
        let samples = pixels * u64::from(self.colour.bit_depth().div_ceil(8)) * u64::from(self.colour.num_samples());
        // 16-bit samples are copied to bytes; what has fewer than three bytes a pixel grows into a second buffer.
        let copied = if self.colour.bit_depth() > 8 { samples } else { 0 };
        let converted = if samples < pixels * 3 { pixels * 3 } else { 0 };
        let patched = if self.has_palette { self.file_bytes } else { 0 };
        // One more byte a pixel for a strip on its way through the decompressor.
        samples + copied + converted + patched + pixels + TAGS_BYTES_MAX
    }

    /// `[height,width,3]` u8.
    pub(super) fn decode(self) -> Result<Vec<u8>, DecodeError> {
        // Above the pixels there is room for the palette and the tables of strips.
        let bytes_max = usize::try_from(self.decode_bytes()).unwrap_or(usize::MAX);
        let mut limits = Limits::default();
        limits.decoding_buffer_size = bytes_max;
        limits.intermediate_buffer_size = bytes_max;
        let Self { decoder, width, height, colour, has_palette, .. } = self;
        let mut decoder = decoder.with_limits(limits);
        if decoder.image_buffer_layout().map_err(sorted)?.planes > 1 {
            return Err(DecodeError::unsupported(FORMAT, "separate planes"));
        }
        let palette = if has_palette { Some(decoder.get_tag_u16_vec(Tag::ColorMap).map_err(sorted)?) } else { None };
        let samples = match decoder.read_image().map_err(sorted)? {
            DecodingResult::U8(samples) => samples,
            DecodingResult::U16(samples) => samples.into_iter().flat_map(u16::to_ne_bytes).collect(),
            _ => return Err(DecodeError::unsupported(FORMAT, format_args!("{colour:?} samples"))),
        };
        let layout = match colour {
            ColorType::Gray(1 | 2 | 4 | 8) => Layout::Gray8,
            ColorType::Gray(16) => Layout::Gray16Clipped,
            ColorType::GrayA(8) | ColorType::Multiband { bit_depth: 8, num_samples: 2 } => Layout::GrayAlpha8,
            ColorType::GrayA(16) => Layout::GrayAlpha16,
            ColorType::RGB(8) => Layout::Rgb8,
            ColorType::RGB(16) => Layout::Rgb16,
            ColorType::RGBA(8) => Layout::Rgba8,
            ColorType::RGBA(16) => Layout::Rgba16,
            ColorType::CMYK(8) => Layout::Cmyk8,
            other => return Err(DecodeError::unsupported(FORMAT, format_args!("{other:?} samples"))),
        };
        let samples = match colour {
            ColorType::Gray(bits @ (1 | 2 | 4)) => unpack(&samples, width as usize, bits, palette.is_none()),
            _ => samples,
        };
        if samples.len() as u64 != u64::from(width) * u64::from(height) * layout.bytes_per_pixel() {
            return Err(DecodeError::broken(FORMAT, "strips and size of the image disagree"));
        }
        match palette {
            None => Ok(to_rgb(layout, samples)),
            Some(map) if layout == Layout::Gray8 => {
                // The map is all reds, all greens, all blues, 16 bits each; Pillow keeps the high byte.
                let third = map.len() / 3;
                let high = |at: usize| (map[at] >> 8) as u8;
                let palette = Palette::new((0..third).map(|at| [high(at), high(third + at), high(2 * third + at)]));
                Ok(palette_to_rgb(&palette, &samples))
            }
            Some(_) => Err(DecodeError::unsupported(FORMAT, "a palette of 16-bit indices")),
        }
    }
}

/// Rows of samples below 8 bits, each row padded to a byte -> one byte a sample; gray is stretched to 0..=255.
fn unpack(rows: &[u8], width: usize, bits: u8, gray: bool) -> Vec<u8> {
    let per_byte = usize::from(8 / bits);
    let max = u8::MAX >> (8 - bits);
    let scale = if gray { u8::MAX / max } else { 1 };
    let mut out = Vec::with_capacity(rows.len() * per_byte);
    for row in rows.chunks_exact(width.div_ceil(per_byte)) {
        out.extend((0..width).map(|x| {
            let shift = 8 - bits - bits * u8::try_from(x % per_byte).expect("at most 7");
            ((row[x / per_byte] >> shift) & max) * scale
        }));
    }
    out
}
