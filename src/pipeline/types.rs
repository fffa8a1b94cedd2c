//! The nouns that pass between the stages. A value of one of these types is already checked: a [`Sample`] has the
//! right length or does not exist.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::buffers::SampleValues;

/// Container format of an upload, as its bytes tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ImageInfo {
    /// Width in pixels, after the EXIF orientation was applied.
    pub width: u32,
    /// Height in pixels, after the EXIF orientation was applied.
    pub height: u32,
    /// Container format of the upload.
    pub format: ImageFormat,
}

/// A decoded picture: `[H,W,3]` u8, RGB, row-major, no padding between rows.
///
/// A large photo may have been decoded smaller than it was uploaded. Its pixels then are fewer than [`Image::info`] says,
/// and [`Image::view`] tells where in them the picture lies.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    info: ImageInfo,
    width: u32,
    height: u32,
    view: View,
    rgb: Vec<u8>,
}

/// Where in its pixels a picture lies, in pixels from the top left corner. All of them, but for pictures that were decoded
/// smaller: 4001 columns at 3/8 are 1500.375, and of the last of 1501 pixels only that much counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Where it begins from the left.
    pub left: f64,
    /// Where it begins from the top.
    pub top: f64,
    /// How wide it is.
    pub width: f64,
    /// How high it is.
    pub height: f64,
}

impl View {
    /// All of so many pixels.
    fn whole(width: u32, height: u32) -> Self {
        Self { left: 0.0, top: 0.0, width: width.into(), height: height.into() }
    }
}

impl Image {
    /// Takes `rgb` as `[info.height, info.width, 3]`.
    ///
    /// # Panics
    /// If the length does not fit: a decoder that returns the wrong number of bytes is a broken invariant, not bad input.
    #[must_use]
    pub fn new(info: ImageInfo, rgb: Vec<u8>) -> Self {
        Self::reduced(info, (info.width, info.height), View::whole(info.width, info.height), rgb)
    }

    /// Takes `rgb` as `[height, width, 3]` of a picture that was uploaded with the size in `info`.
    ///
    /// # Panics
    /// If the length does not fit, as [`Image::new`].
    #[must_use]
    pub fn reduced(info: ImageInfo, (width, height): (u32, u32), view: View, rgb: Vec<u8>) -> Self {
        assert_eq!(rgb.len(), width as usize * height as usize * 3, "a decoded image has 3 bytes a pixel");
        Self { info, width, height, view, rgb }
    }

    /// Size and format of the upload.
    #[must_use]
    pub fn info(&self) -> ImageInfo {
        self.info
    }

    /// Width in pixels, as decoded.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, as decoded.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Where in its pixels the picture lies.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
    }

    /// The pixels, `[H,W,3]`.
    #[must_use]
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The pixels without the rest, so that their memory can serve the next picture.
    #[must_use]
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
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
    values: SampleValues,
}

impl Sample {
    /// Takes `values` as `[3, shape.height, shape.width]`.
    ///
    /// # Panics
    /// If the length does not fit the shape.
    #[must_use]
    pub fn new(shape: SampleShape, values: Vec<f32>) -> Self {
        Self::lent(shape, values.into())
    }

    /// Like [`Sample::new`], of values that may go back to a pool when the sample is dropped.
    pub(super) fn lent(shape: SampleShape, values: SampleValues) -> Self {
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
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
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
