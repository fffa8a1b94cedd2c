//! GIF: the first frame on its canvas, as Pillow shows it.

use std::fmt;
use std::io::Cursor;
use std::num::NonZeroU64;

use gif::{ColorOutput, DecodeOptions, Decoder, MemoryLimit};

use super::convert::{Palette, palette_to_rgb};
use super::orientation::Orientation;
use super::{DecodeError, Found};
use crate::pipeline::types::ImageFormat;

const FORMAT: ImageFormat = ImageFormat::Gif;

/// A decoder that stands before the pixels of the first frame.
pub(super) struct GifHeader<'a> {
    decoder: Decoder<Cursor<&'a [u8]>>,
    /// Left, top, width and height of the frame on the canvas.
    frame: [usize; 4],
    transparent: Option<u8>,
    canvas: (u32, u32),
}

/// Reads up to the first frame.
pub(super) fn header(bytes: &[u8]) -> Result<GifHeader<'_>, DecodeError> {
    let broken = |error| DecodeError::broken(FORMAT, error);
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    // The canvas is checked before anything of its size is allocated; this only bounds what else is in the file.
    options.set_memory_limit(MemoryLimit::Bytes(NonZeroU64::new(u64::from(u32::MAX)).expect("not zero")));
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(broken)?;
    let (width, height) = (decoder.width(), decoder.height());
    let frame = decoder
        .next_frame_info()
        .map_err(broken)?
        .ok_or_else(|| DecodeError::broken(FORMAT, "the file has no frame"))?;
    // Pillow enlarges the canvas where the frame does not fit on it.
    let canvas = (
        u32::from(width).max(u32::from(frame.left) + u32::from(frame.width)),
        u32::from(height).max(u32::from(frame.top) + u32::from(frame.height)),
    );
    let transparent = frame.transparent;
    let frame = [frame.left, frame.top, frame.width, frame.height].map(usize::from);
    Ok(GifHeader { decoder, frame, transparent, canvas })
}

impl fmt::Debug for GifHeader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GifHeader").field("frame", &self.frame).field("canvas", &self.canvas).finish_non_exhaustive()
    }
}

impl GifHeader<'_> {
    pub(super) fn found(&self) -> Found {
        Found { width: self.canvas.0, height: self.canvas.1, orientation: Orientation::Upright }
    }

    pub(super) fn decode_bytes(&self) -> u64 {
        // Indices of the frame, indices of the canvas, and the picture.
        u64::from(self.canvas.0) * u64::from(self.canvas.1) * 5 + (1 << 20)
    }

    /// `[height,width,3]` u8.
    pub(super) fn decode(mut self) -> Result<Vec<u8>, DecodeError> {
        let broken = |error| DecodeError::broken(FORMAT, error);
        let [left, top, width, height] = self.frame;
        if width == 0 || height == 0 {
            return Err(DecodeError::broken(FORMAT, format_args!("the first frame is {width}x{height}")));
        }
        let mut indices = vec![0; width * height];
        self.decoder.read_into_buffer(&mut indices).map_err(broken)?;
        let palette = self.decoder.palette().map_err(broken)?;
        let palette = Palette::new(palette.as_chunks::<3>().0.iter().copied());
        let (canvas_width, canvas_height) = (self.canvas.0 as usize, self.canvas.1 as usize);
        if (width, height) == (canvas_width, canvas_height) {
            return Ok(palette_to_rgb(&palette, &indices));
        }
        // Around the frame Pillow shows the transparent index, or else index 0; it ignores the background colour.
        let mut canvas = vec![self.transparent.unwrap_or(0); canvas_width * canvas_height];
        for (row, indices) in indices.chunks_exact(width).enumerate() {
            canvas[(top + row) * canvas_width + left..][..width].copy_from_slice(indices);
        }
        Ok(palette_to_rgb(&palette, &canvas))
    }
}
