//! WebP: lossy, lossless, with alpha, or the first frame of an animation.

mod codes;
mod partitions;

use std::io::Cursor;

use image::ImageDecoder as _;
use image::codecs::webp::WebPDecoder;

use super::convert::{Layout, to_rgb};
use super::orientation::Orientation;
use super::{DecodeError, Found};
use crate::pipeline::types::ImageFormat;

const FORMAT: ImageFormat = ImageFormat::Webp;

/// What the RIFF chunks tell.
#[derive(Debug)]
pub(super) struct WebpHeader {
    width: u32,
    height: u32,
    orientation: Orientation,
    /// What decoding its chunks holds beside pixels.
    coded_bytes: u64,
}

/// Reads the chunks, and the size inside each frame: the decoder allocates by that one.
pub(super) fn header(bytes: &[u8]) -> Result<WebpHeader, DecodeError> {
    let riff_bytes = bytes.get(4..8).map_or(0, |size| u32::from_le_bytes(size.try_into().expect("four bytes")));
    if (bytes.len() as u64) < u64::from(riff_bytes) + 8 {
        let cause = format!("the file is truncated: {} of {} bytes", bytes.len(), u64::from(riff_bytes) + 8);
        return Err(DecodeError::broken(FORMAT, cause));
    }
    let (mut canvas, mut exif, mut xmp) = (None, None, None);
    let (mut outside, mut inside, mut frames) = (Seen::default(), Seen::default(), 0);
    for (kind, data) in chunks(bytes.get(12..).unwrap_or_default()) {
        match kind {
            b"VP8X" => {
                canvas = data.get(4..10).map(|d| (u24(d) + 1, u24(&d[3..]) + 1));
            }
            b"VP8 " | b"VP8L" => {
                let size = check_frame(kind, data, canvas)?;
                outside.note(kind, data, size);
                canvas = Some(size);
            }
            b"ALPH" => outside.note(kind, data, canvas.unwrap_or_default()),
            b"ANMF" => {
                let size = data.get(6..12).map(|d| (u24(d) + 1, u24(&d[3..]) + 1));
                for (kind, data) in chunks(data.get(16..).unwrap_or_default()) {
                    if matches!(kind, b"VP8 " | b"VP8L") {
                        check_frame(kind, data, size)?;
                    }
                    // Only the first frame is decoded.
                    if frames == 0 {
                        inside.note(kind, data, size.unwrap_or_default());
                    }
                }
                frames += 1;
            }
            b"EXIF" => exif = Some(data),
            b"XMP " => xmp = Some(data),
            _ => {}
        }
    }
    let (width, height) = canvas.ok_or_else(|| DecodeError::broken(FORMAT, "no frame and no canvas size"))?;
    let orientation = Orientation::from_metadata(exif, xmp);
    Ok(WebpHeader { width, height, orientation, coded_bytes: outside.bytes + inside.bytes })
}

/// What decoding holds for chunks beside pixels. Of each kind the first counts, which is the one that is decoded.
#[derive(Default)]
struct Seen {
    kinds: [bool; 3],
    bytes: u64,
}

impl Seen {
    /// Counts a chunk whose picture has this size.
    fn note(&mut self, kind: &[u8; 4], data: &[u8], (width, height): (u32, u32)) {
        const KINDS: [&[u8; 4]; 3] = [b"VP8 ", b"VP8L", b"ALPH"];
        let Some(at) = KINDS.iter().position(|known| *known == kind) else { return };
        if std::mem::replace(&mut self.kinds[at], true) {
            return;
        }
        self.bytes += match (at, data) {
            // Partitions are copied twice, the last one into a vector that grows by doubling.
            (0, data) => data.len() as u64 * 3,
            // The size stands before the stream.
            (1, [_, _, _, _, _, stream @ ..]) => codes::bytes(stream, width, height),
            // The lowest bits say that it is compressed, as a lossless picture without a size.
            (2, [how, stream @ ..]) if how & 3 == 1 => codes::bytes(stream, width, height),
            _ => 0,
        };
    }
}

/// The size that a bitstream states, which must be the one its container `declared`.
fn check_frame(kind: &[u8; 4], data: &[u8], declared: Option<(u32, u32)>) -> Result<(u32, u32), DecodeError> {
    // The decoder takes memory for each partition by the size that the frame states for it.
    if kind == b"VP8 " {
        partitions::check(data).map_err(|cause| DecodeError::broken(FORMAT, cause))?;
    }
    let size = match (kind, data) {
        (b"VP8 ", [_, _, _, 0x9D, 0x01, 0x2A, w0, w1, h0, h1, ..]) => Some((
            u32::from(u16::from_le_bytes([*w0, *w1]) & 0x3FFF),
            u32::from(u16::from_le_bytes([*h0, *h1]) & 0x3FFF),
        )),
        (b"VP8L", [0x2F, b0, b1, b2, b3, ..]) => {
            let bits = u32::from_le_bytes([*b0, *b1, *b2, *b3]);
            Some(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
        }
        _ => None,
    };
    let size = size.ok_or_else(|| DecodeError::broken(FORMAT, "a frame has no valid header"))?;
    match declared {
        Some(declared) if declared != size => {
            let cause = format!("a frame is {}x{}, declared as {}x{}", size.0, size.1, declared.0, declared.1);
            Err(DecodeError::broken(FORMAT, cause))
        }
        _ => Ok(size),
    }
}

fn u24(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0])
}

/// Kind and data of each chunk. Of one that claims more than there is, what there is: the decoder reads that too.
fn chunks(mut rest: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (kind, after) = rest.split_first_chunk::<4>()?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let (data, after) = after.split_at_checked(length).unwrap_or((after, &[]));
        // Chunks begin at even places.
        rest = after.get(length % 2..).unwrap_or_default();
        Some((kind, data))
    })
}

impl WebpHeader {
    pub(super) fn found(&self) -> Found {
        Found { width: self.width, height: self.height, orientation: self.orientation }
    }

    pub(super) fn decode_bytes(&self) -> u64 {
        // The samples, the frame as the codec holds it (RGBA, or 1.5 planes for lossy with its alpha), a second
        // frame where an animation is composed, transform tables, and the conversion.
        let pixels = (u64::from(self.width) + 16) * (u64::from(self.height) + 16);
        pixels * 14 + self.coded_bytes + (1 << 20)
    }

    /// `[height,width,3]` u8.
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let broken = |error: image::ImageError| DecodeError::from_image(FORMAT, &error);
        let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(broken)?;
        if decoder.dimensions() != (self.width, self.height) {
            return Err(DecodeError::broken(FORMAT, "frame and canvas disagree on the size"));
        }
        let layout = if decoder.color_type().has_alpha() { Layout::Rgba8 } else { Layout::Rgb8 };
        let mut samples = vec![0; decoder.total_bytes() as usize];
        decoder.read_image(&mut samples).map_err(broken)?;
        Ok(to_rgb(layout, samples))
    }
}
