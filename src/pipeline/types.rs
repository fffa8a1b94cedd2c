//! The nouns that pass between the stages. A value of one of these types is already checked: a [`Sample`] has the
//! right length or does not exist.

use std::sync::Arc;

use serde::Serialize;

/// Container format of an upload, as its bytes tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// JPEG, baseline or progressive.
    Jpeg,
    /// PNG or APNG.
    Png,
    /// WebP, lossy or lossless.
    Webp,
    /// GIF; only the first frame is read.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// TIFF; only the first page is read.
    Tiff,
}

/// What a client is told about its image: the size of the upright picture and the format of the upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ImageInfo {
    /// Width in pixels, after the EXIF orientation was applied.
    pub width: u32,
    /// Height in pixels, after the EXIF orientation was applied.
    pub height: u32,
    /// Container format of the upload.
    pub format: ImageFormat,
}

/// A decoded picture: `[H,W,3]` u8, RGB, row-major, no padding between rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    info: ImageInfo,
    rgb: Vec<u8>,
}

impl Image {
    /// Takes `rgb` as `[info.height, info.width, 3]`.
    ///
    /// # Panics
    /// If the length does not fit: a decoder that returns the wrong number of bytes is a broken invariant, not bad input.
    #[must_use]
    pub fn new(info: ImageInfo, rgb: Vec<u8>) -> Self {
        assert_eq!(rgb.len(), info.width as usize * info.height as usize * 3, "a decoded image has 3 bytes a pixel");
        Self { info, rgb }
    }

    /// Size and format.
    #[must_use]
    pub fn info(&self) -> ImageInfo {
        self.info
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.info.width
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.info.height
    }

    /// The pixels, `[H,W,3]`.
    #[must_use]
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

/// Shape of one model input without its batch dimension: `[3,H,W]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct SampleShape {
    /// Height in pixels.
    pub height: u32,
    /// Width in pixels.
    pub width: u32,
}

impl SampleShape {
    /// Colour channels of every sample.
    pub const CHANNELS: usize = 3;

    /// Number of f32 values in one sample.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a shape with no pixels is refused when a recipe is made")]
    pub fn len(self) -> usize {
        Self::CHANNELS * self.height as usize * self.width as usize
    }
}

/// One preprocessed image: `[3,H,W]` f32, normalised as its recipe says.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    shape: SampleShape,
    values: Vec<f32>,
}

impl Sample {
    /// Takes `values` as `[3, shape.height, shape.width]`.
    ///
    /// # Panics
    /// If the length does not fit the shape.
    #[must_use]
    pub fn new(shape: SampleShape, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), shape.len(), "a sample holds 3 x height x width values");
        Self { shape, values }
    }

    /// The shape, without batch dimension.
    #[must_use]
    pub fn shape(&self) -> SampleShape {
        self.shape
    }

    /// The values, `[3,H,W]`.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

/// One class with its score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// Number of the class in the model's output, from 0; a background before the classes does not count. Labels may
    /// repeat; the index does not.
    pub index: usize,
    /// Name of the class.
    pub label: Arc<str>,
    /// Probability, 0..=1.
    pub score: f32,
}

/// The best classes of one image, highest score first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Classification {
    /// At most as many as were asked for; equal scores keep the order of the index.
    pub predictions: Vec<Prediction>,
}
