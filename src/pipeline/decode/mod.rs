//! Bytes -> [`Image`]: whatever was uploaded becomes upright RGB8, equal to Pillow's `convert("RGB")`.
//!
//! Two steps, so that the caller can wait for memory between them: [`open`] reads only the header and checks the
//! limits, [`Pending::decode`] makes the pixels. Where threads and permits come from is the caller's business.

mod bmp;
pub mod budget;
mod canvas;
mod convert;
mod error;
mod gif;
mod jpeg;
mod orientation;
mod png;
mod scale;
mod sniff;
mod tiff;
mod webp;

#[cfg(test)]
mod tests;

pub use canvas::Canvas;
pub use error::DecodeError;
pub use orientation::Orientation;
pub use scale::{EXACT_PIXELS_MAX, Scale};

use crate::pipeline::types::{Image, ImageFormat, ImageInfo, View};

/// What to do with the orientation that a camera noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExifOrientation {
    /// Turn the picture upright, as people see it.
    #[default]
    Apply,
    /// Leave it as stored, as training pipelines without `exif_transpose` do.
    Ignore,
}

/// Whether large JPEGs are decoded smaller where the recipe shrinks them anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScaledDecode {
    /// Above [`EXACT_PIXELS_MAX`], as far as the recipe leaves room.
    #[default]
    Auto,
    /// Never: every pixel is decoded.
    Off,
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
    /// Whether [`Pending::shrink_for`] may shrink it.
    pub scaled_decode: ScaledDecode,
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
    scaled_decode: ScaledDecode,
    scale: Scale,
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
    Ok(Pending {
        bytes,
        header: Header { format, width, height, orientation },
        scaled_decode: options.scaled_decode,
        scale: Scale::WHOLE,
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
    fn decode_bytes(&self, scale: Scale) -> u64 {
        match self {
            Self::Jpeg(header) => header.decode_bytes(scale),
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

    /// Chooses how small to decode a picture that will be resized to `resized`, width before height and upright, with a
    /// filter that averages. Only large JPEGs shrink, and only where the options allow it.
    pub fn shrink_for(&mut self, resized: (u32, u32)) {
        let Header { width, height, orientation, .. } = self.header;
        let resized = if orientation.swaps_sides() { (resized.1, resized.0) } else { resized };
        self.scale = match (&self.codec, self.scaled_decode) {
            (Codec::Jpeg(_), ScaledDecode::Auto) => Scale::for_resize(width, height, resized),
            (Codec::Jpeg(_), ScaledDecode::Off) => Scale::WHOLE,
            (Codec::Png(_) | Codec::Webp(_) | Codec::Gif(_) | Codec::Bmp(_) | Codec::Tiff(_), _) => Scale::WHOLE,
        };
    }

    /// The same at this scale, whatever the rule says.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn at(self, scale: Scale) -> Self {
        Self { scale, ..self }
    }

    /// Part of each side that will be decoded.
    #[must_use]
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// Upper estimate of the bytes that decoding holds at once: the decoder's buffers, the conversion to RGB8, the
    /// turning, and the picture itself. The uploaded bytes are not counted.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let Header { width, height, orientation, .. } = self.header;
        let rgb_bytes = u64::from(self.scale.pixels(width)) * u64::from(self.scale.pixels(height)) * 3;
        // Turning by a quarter needs a second picture beside the first, when the decoder's buffers are gone.
        let turning_bytes = if orientation.swaps_sides() { rgb_bytes * 2 } else { rgb_bytes };
        self.codec.decode_bytes(self.scale).max(turning_bytes)
    }

    /// Decodes the pixels and turns them upright.
    ///
    /// # Errors
    /// Where the data is damaged, cut short, or uses a feature that is not decoded here.
    pub fn decode(self) -> Result<Image, DecodeError> {
        self.decode_into(&mut Canvas::default())
    }

    /// Like [`Pending::decode`], into memory that the caller keeps: [`Canvas::take_back`] returns the picture's part of it.
    ///
    /// # Errors
    /// As [`Pending::decode`].
    pub fn decode_into(self, canvas: &mut Canvas) -> Result<Image, DecodeError> {
        let info = self.info();
        let Self { bytes, header: Header { width, height, orientation, .. }, scale, codec, .. } = self;
        let rgb = match codec {
            Codec::Jpeg(header) => header.decode(bytes, scale, canvas),
            Codec::Png(header) => header.decode(bytes),
            Codec::Webp(header) => header.decode(bytes),
            Codec::Gif(header) => header.decode(),
            Codec::Bmp(header) => header.decode(),
            Codec::Tiff(header) => header.decode(),
        }?;
        let (columns, rows) = (scale.pixels(width), scale.pixels(height));
        let rgb = orientation.apply(columns as usize, rows as usize, rgb, canvas);
        let stored = View { left: 0.0, top: 0.0, width: scale.extent(width), height: scale.extent(height) };
        let view = orientation.apply_to_view(columns, rows, stored);
        let size = if orientation.swaps_sides() { (rows, columns) } else { (columns, rows) };
        Ok(Image::reduced(info, size, view, rgb))
    }
}
