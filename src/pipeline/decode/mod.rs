//! Bytes -> [`Image`]: whatever was uploaded becomes upright RGB8, equal to Pillow's `convert("RGB")`.
//!
//! Two steps, so that the caller can wait for memory between them: [`open`] reads only the header and checks the
//! limits, [`Pending::decode`] makes the pixels. Where threads and permits come from is the caller's business.

mod bmp;
pub mod budget;
mod convert;
mod error;
mod gif;
mod jpeg;
mod orientation;
mod png;
mod sniff;
mod tiff;
mod webp;

#[cfg(test)]
mod tests;

pub use error::DecodeError;
pub use orientation::Orientation;

use crate::pipeline::types::{Image, ImageFormat, ImageInfo};

/// What to do with the orientation that a camera noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExifOrientation {
    /// Turn the picture upright, as people see it.
    #[default]
    Apply,
    /// Leave it as stored, as training pipelines without `exif_transpose` do.
    Ignore,
}

/// Bounds on the stored picture, checked before any memory is taken for pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Greatest width in pixels.
    pub width_max: u32,
    /// Greatest height in pixels.
    pub height_max: u32,
    /// Most pixels.
    pub pixels_max: u64,
}

impl DecodeLimits {
    /// Larger than the photos of today's phones (50 megapixels), far below what exhausts memory.
    pub const DEFAULT: Self = Self { width_max: 32_768, height_max: 32_768, pixels_max: 64_000_000 };
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DecodeOptions {
    /// Whether to turn the picture upright.
    pub exif_orientation: ExifOrientation,
    /// How large it may be.
    pub limits: DecodeLimits,
}

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Container format, as the bytes tell it.
    pub format: ImageFormat,
    /// Width as stored.
    pub width: u32,
    /// Height as stored.
    pub height: u32,
    /// How the stored picture will be turned; upright where the options say to ignore it.
    pub orientation: Orientation,
}

/// An image whose header is read and within the limits, and whose pixels are still to be decoded.
#[derive(Debug)]
pub struct Pending<'a> {
    bytes: &'a [u8],
    header: Header,
    memory_bytes: u64,
    codec: Codec<'a>,
}

/// What each format's file finds out before decoding.
#[derive(Debug)]
struct Found {
    width: u32,
    height: u32,
    orientation: Orientation,
}

#[derive(Debug)]
enum Codec<'a> {
    Jpeg(jpeg::JpegHeader),
    Png(png::PngHeader),
    Webp(webp::WebpHeader),
    Gif(Box<gif::GifHeader<'a>>),
    Bmp(Box<bmp::BmpHeader<'a>>),
    Tiff(Box<tiff::TiffHeader<'a>>),
}

/// The format that the first bytes name, if it is one that is decoded here.
#[must_use]
pub fn sniff(bytes: &[u8]) -> Option<ImageFormat> {
    sniff::sniff(bytes).ok()
}

/// Reads the header and checks the limits. No memory is taken for pixels.
///
/// # Errors
/// Where the bytes are no image that can be decoded here, or the picture is too large.
pub fn open<'a>(bytes: &'a [u8], options: &DecodeOptions) -> Result<Pending<'a>, DecodeError> {
    let format = sniff::sniff(bytes)?;
    let codec = match format {
        ImageFormat::Jpeg => Codec::Jpeg(jpeg::header(bytes)?),
        ImageFormat::Png => Codec::Png(png::header(bytes)?),
        ImageFormat::Webp => Codec::Webp(webp::header(bytes)?),
        ImageFormat::Gif => Codec::Gif(Box::new(gif::header(bytes)?)),
        ImageFormat::Bmp => Codec::Bmp(Box::new(bmp::header(bytes)?)),
        ImageFormat::Tiff => Codec::Tiff(Box::new(tiff::header(bytes)?)),
    };
    let Found { width, height, orientation } = codec.found();
    check_size(format, width, height, &options.limits)?;
    let orientation = match options.exif_orientation {
        ExifOrientation::Apply => orientation,
        ExifOrientation::Ignore => Orientation::Upright,
    };
    let rgb_bytes = u64::from(width) * u64::from(height) * 3;
    // Turning by a quarter needs a second picture beside the first, when the decoder's buffers are gone.
    let turning_bytes = if orientation.swaps_sides() { rgb_bytes * 2 } else { rgb_bytes };
    Ok(Pending {
        bytes,
        header: Header { format, width, height, orientation },
        memory_bytes: codec.decode_bytes().max(turning_bytes),
        codec,
    })
}

fn check_size(format: ImageFormat, width: u32, height: u32, limits: &DecodeLimits) -> Result<(), DecodeError> {
    if width == 0 || height == 0 {
        return Err(DecodeError::broken(format, format_args!("its size is {width}x{height}")));
    }
    if width > limits.width_max {
        return Err(DecodeError::TooWide { width, max: limits.width_max });
    }
    if height > limits.height_max {
        return Err(DecodeError::TooTall { height, max: limits.height_max });
    }
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.pixels_max {
        return Err(DecodeError::TooManyPixels { pixels, max: limits.pixels_max, width, height });
    }
    Ok(())
}

impl Codec<'_> {
    fn found(&self) -> Found {
        match self {
            Self::Jpeg(header) => header.found(),
            Self::Png(header) => header.found(),
            Self::Webp(header) => header.found(),
            Self::Gif(header) => header.found(),
            Self::Bmp(header) => header.found(),
            Self::Tiff(header) => header.found(),
        }
    }

    /// What decoding and converting to RGB8 hold at once, at most. Asked only for sizes within the limits.
    fn decode_bytes(&self) -> u64 {
        match self {
            Self::Jpeg(header) => header.decode_bytes(),
            Self::Png(header) => header.decode_bytes(),
            Self::Webp(header) => header.decode_bytes(),
            Self::Gif(header) => header.decode_bytes(),
            Self::Bmp(header) => header.decode_bytes(),
            Self::Tiff(header) => header.decode_bytes(),
        }
    }
}

impl Pending<'_> {
    /// What the header says.
    #[must_use]
    pub fn header(&self) -> Header {
        self.header
    }

    /// Size and format of the picture that [`Pending::decode`] will give.
    #[must_use]
    pub fn info(&self) -> ImageInfo {
        let Header { format, width, height, orientation } = self.header;
        let (width, height) = if orientation.swaps_sides() { (height, width) } else { (width, height) };
        ImageInfo { width, height, format }
    }

    /// Upper estimate of the bytes that decoding holds at once: the decoder's buffers, the conversion to RGB8, the
    /// turning, and the picture itself. The uploaded bytes are not counted.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Decodes the pixels and turns them upright.
    ///
    /// # Errors
    /// Where the data is damaged, cut short, or uses a feature that is not decoded here.
    pub fn decode(self) -> Result<Image, DecodeError> {
        let info = self.info();
        let rgb = match self.codec {
            Codec::Jpeg(header) => header.decode(self.bytes),
            Codec::Png(header) => header.decode(self.bytes),
            Codec::Webp(header) => header.decode(self.bytes),
            Codec::Gif(header) => header.decode(),
            Codec::Bmp(header) => header.decode(),
            Codec::Tiff(header) => header.decode(),
        }?;
        let Header { width, height, orientation, .. } = self.header;
        Ok(Image::new(info, orientation.apply(width as usize, height as usize, rgb)))
    }
}
