//! Windows bitmaps, also palettes and run-length coding.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::{ColorType, ImageDecoder as _};

use super::convert::{Layout, to_rgb};
use super::orientation::Orientation;
use super::{DecodeError, Found};
use crate::pipeline::types::ImageFormat;

const FORMAT: ImageFormat = ImageFormat::Bmp;

/// A decoder that stands before the pixels.
pub(super) struct BmpHeader<'a> {
    decoder: BmpDecoder<Cursor<&'a [u8]>>,
    /// Bits of red, green and blue where two bytes hold all three.
    packed_bits: Option<[u32; 3]>,
}

/// Reads the headers and the palette.
pub(super) fn header(bytes: &[u8]) -> Result<BmpHeader<'_>, DecodeError> {
    let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(|error| DecodeError::from_image(FORMAT, &error))?;
    Ok(BmpHeader { decoder, packed_bits: packed_bits(bytes) })
}

fn packed_bits(bytes: &[u8]) -> Option<[u32; 3]> {
    const BITFIELDS: u8 = 3;
    let &[16, 0, compression, ..] = bytes.get(28..54)? else { return None };
    if compression != BITFIELDS {
        return Some([5; 3]);
    }
    let masks = bytes.get(54..66)?.as_chunks::<4>().0;
    Some(std::array::from_fn(|channel| u32::from_le_bytes(masks[channel]).count_ones()))
}

/// The decoder rounds 5- and 6-bit values to the nearest of 0..=255, Pillow rounds down. The rounded value still tells
/// the packed one.
fn round_down(rgb: &mut [u8], bits: [u32; 3]) {
    let tables = bits.map(|bits| {
        let max = (1 << bits.clamp(1, 8)) - 1;
        std::array::from_fn::<u8, 256, _>(|rounded| ((rounded * max + 127) / 255 * 255 / max) as u8)
    });
    for pixel in rgb.as_chunks_mut::<3>().0 {
        for (value, table) in pixel.iter_mut().zip(&tables) {
            *value = table[usize::from(*value)];
        }
    }
}

impl std::fmt::Debug for BmpHeader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BmpHeader").field("size", &self.decoder.dimensions()).finish_non_exhaustive()
    }
}

impl BmpHeader<'_> {
    pub(super) fn found(&self) -> Found {
        let (width, height) = self.decoder.dimensions();
        Found { width, height, orientation: Orientation::Upright }
    }

    pub(super) fn decode_bytes(&self) -> u64 {
        let (width, height) = self.decoder.dimensions();
        // The samples, the converted picture, and two rows on their way.
        u64::from(width) * u64::from(height) * 7 + u64::from(width) * 8
    }

    /// `[height,width,3]` u8.
    pub(super) fn decode(self) -> Result<Vec<u8>, DecodeError> {
        let layout = match self.decoder.color_type() {
            ColorType::L8 => Layout::Gray8,
            ColorType::Rgb8 => Layout::Rgb8,
            ColorType::Rgba8 => Layout::Rgba8,
            other => return Err(DecodeError::unsupported(FORMAT, format_args!("colour type {other:?}"))),
        };
        let mut samples = vec![0; self.decoder.total_bytes() as usize];
        self.decoder.read_image(&mut samples).map_err(|error| DecodeError::from_image(FORMAT, &error))?;
        let mut rgb = to_rgb(layout, samples);
        if let Some(bits) = self.packed_bits {
            round_down(&mut rgb, bits);
        }
        Ok(rgb)
    }
}
