//! Why bytes are no picture.

use crate::pipeline::types::ImageFormat;

/// Why bytes cannot become an [`Image`](crate::pipeline::Image). The texts fit after "failed to decode image: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No bytes at all.
    #[error("image is empty, at least one byte expected")]
    Empty,
    /// The first bytes belong to no image format that is known here.
    #[error("not an image: it begins with {first_bytes}; JPEG, PNG, WebP, GIF, BMP and TIFF are accepted")]
    NotAnImage {
        /// At most the first eight bytes, in hexadecimal.
        first_bytes: String,
    },
    /// An image, but of a format that is not decoded here.
    #[error("{name} images are not supported; JPEG, PNG, WebP, GIF, BMP and TIFF are accepted")]
    UnsupportedFormat {
        /// Name of the format.
        name: &'static str,
    },
    /// The right format in a variant that is not decoded here.
    #[error("{} image uses {feature}, which is not supported", name(*.format))]
    UnsupportedFeature {
        /// Format of the image.
        format: ImageFormat,
        /// What the decoder lacks.
        feature: String,
    },
    /// Wider than allowed.
    #[error("image is {width} pixels wide, at most {max} allowed")]
    TooWide {
        /// Width found.
        width: u32,
        /// Greatest width allowed.
        max: u32,
    },
    /// Taller than allowed.
    #[error("image is {height} pixels high, at most {max} allowed")]
    TooTall {
        /// Height found.
        height: u32,
        /// Greatest height allowed.
        max: u32,
    },
    /// More pixels than allowed.
    #[error("{width}x{height} has {pixels} pixels, at most {max} allowed")]
    TooManyPixels {
        /// Pixels found.
        pixels: u64,
        /// Most pixels allowed.
        max: u64,
        /// Width found.
        width: u32,
        /// Height found.
        height: u32,
    },
    /// Damaged or cut short.
    #[error("{} image is broken: {cause}", name(*.format))]
    Broken {
        /// Format of the image.
        format: ImageFormat,
        /// What the decoder stumbled on.
        cause: String,
    },
}

impl DecodeError {
    pub(super) fn broken(format: ImageFormat, cause: impl std::fmt::Display) -> Self {
        Self::Broken { format, cause: cause.to_string() }
    }

    pub(super) fn unsupported(format: ImageFormat, feature: impl std::fmt::Display) -> Self {
        // Some decoders end their own sentence with the verdict.
        let feature = feature.to_string().trim_end_matches(" is unsupported").to_owned();
        Self::UnsupportedFeature { format, feature }
    }

    /// Sorts an error of the `image` crate.
    pub(super) fn from_image(format: ImageFormat, error: &image::ImageError) -> Self {
        match error {
            image::ImageError::Unsupported(error) => Self::unsupported(format, error),
            error => Self::broken(format, error),
        }
    }
}

/// The format as people write it.
fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::Webp => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
    }
}
