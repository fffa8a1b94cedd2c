//! PNG and APNG. The first image in the file counts, which for an APNG is what Pillow shows as frame 0.

use std::io::Cursor;

use image::codecs::png::PngDecoder;
use image::{ColorType, ImageDecoder as _, Limits};

use super::convert::{Layout, to_rgb};
use super::orientation::Orientation;
use super::{DecodeError, Found};
use crate::pipeline::types::ImageFormat;

const FORMAT: ImageFormat = ImageFormat::Png;

/// Memory for everything in a PNG besides its pixels: colour profiles and text inflate to many times their size.
const METADATA_BYTES_MAX: u64 = 4 << 20;

/// What the chunks tell.
#[derive(Debug)]
pub(super) struct PngHeader {
    width: u32,
    height: u32,
    depth: u8,
    colour: u8,
    orientation: Orientation,
}

/// Reads the header chunk, and EXIF and XMP wherever they stand.
pub(super) fn header(bytes: &[u8]) -> Result<PngHeader, DecodeError> {
    let mut chunks = chunks(bytes);
    let Some((b"IHDR", [w3, w2, w1, w0, h3, h2, h1, h0, depth, colour, ..])) = chunks.next() else {
        return Err(DecodeError::broken(FORMAT, "the header chunk is missing or cut short"));
    };
    let (mut exif, mut xmp) = (None, None);
    for (kind, data) in chunks {
        match kind {
            b"eXIf" => exif = Some(data),
            b"iTXt" if data.starts_with(b"XML:com.adobe.xmp\0") => xmp = Some(data),
            _ => {}
        }
    }
    Ok(PngHeader {
        width: u32::from_be_bytes([*w3, *w2, *w1, *w0]),
        height: u32::from_be_bytes([*h3, *h2, *h1, *h0]),
        depth: *depth,
        colour: *colour,
        orientation: Orientation::from_metadata(exif, xmp),
    })
}

/// Kind and data of each whole chunk; ends where the file does.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (kind, after) = after.split_first_chunk::<4>()?;
        let (data, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = after.get(4..).unwrap_or_default();
        Some((kind, data))
    })
}

impl PngHeader {
    pub(super) fn found(&self) -> Found {
        Found { width: self.width, height: self.height, orientation: self.orientation }
    }

    pub(super) fn decode_bytes(&self) -> u64 {
        // Samples as the decoder gives them, with an alpha channel in case a transparent colour is declared. Gray
        // grows into a second buffer when it is converted; everything else shrinks in place.
        let (channels, converted) = match self.colour {
            0 | 4 => (2, 3),
            _ => (4, 0),
        };
        let samples = channels * if self.depth == 16 { 2 } else { 1 };
        let pixels = u64::from(self.width) * u64::from(self.height);
        // Beside them a few rows that are being unfiltered.
        pixels * (samples + converted) + u64::from(self.width) * 32 + METADATA_BYTES_MAX
    }

    /// `[height,width,3]` u8.
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let broken = |error: image::ImageError| DecodeError::from_image(FORMAT, &error);
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(self.decode_bytes());
        let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(broken)?;
        let layout = match decoder.color_type() {
            ColorType::L8 => Layout::Gray8,
            ColorType::La8 => Layout::GrayAlpha8,
            ColorType::Rgb8 => Layout::Rgb8,
            ColorType::Rgba8 => Layout::Rgba8,
            ColorType::L16 => Layout::Gray16Clipped,
            ColorType::La16 if self.colour == 0 => Layout::GrayAlpha16Clipped,
            ColorType::La16 => Layout::GrayAlpha16,
            ColorType::Rgb16 => Layout::Rgb16,
            ColorType::Rgba16 => Layout::Rgba16,
            other => return Err(DecodeError::unsupported(FORMAT, format_args!("colour type {other:?}"))),
        };
        if decoder.dimensions() != (self.width, self.height) {
            return Err(DecodeError::broken(FORMAT, "two header chunks disagree"));
        }
        let mut samples = vec![0; decoder.total_bytes() as usize];
        decoder.read_image(&mut samples).map_err(broken)?;
        Ok(to_rgb(layout, samples))
    }
}
