//! What a model was trained to see. A [`Recipe`] is checked once, when it is made; the stage then only computes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pipeline::types::SampleShape;

/// Longest side a recipe may ask for, in pixels. Published ResNets stay below 600.
pub const RECIPE_SIDE_MAX: u32 = 4096;

/// How the picture is brought to size before the crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Resize {
    /// The picture keeps its size.
    None,
    /// Both sides are set; the aspect ratio is not kept ("squash").
    Exact {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The shorter side becomes this long, the longer one `size * long / short`, rounded down as torchvision and
    /// transformers do.
    ShortestEdge(u32),
    /// The aspect ratio is kept, and the smaller of the two sizes that touch this one is not taken: nothing of it stays
    /// empty. Both sides are rounded to the nearest, half to even, as timm's `ResizeKeepRatio(longest=0)` does.
    Cover {
        /// Width to cover, in pixels.
        width: u32,
        /// Height to cover, in pixels.
        height: u32,
    },
    /// The aspect ratio is kept and the whole picture fits; the crop then pads. Rounded like [`Resize::Cover`], as
    /// timm's `ResizeKeepRatio(longest=1)` does.
    Contain {
        /// Width to fit into, in pixels.
        width: u32,
        /// Height to fit into, in pixels.
        height: u32,
    },
}

/// How pixels are computed. The first six are Pillow's, antialiased when the picture shrinks; the last two are OpenCV's,
/// which differ from all of Pillow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// The pixel under the centre; never antialiased.
    Nearest,
    /// Mean over the covered pixels, support 0.5.
    Box,
    /// Triangle, support 1.
    Bilinear,
    /// Hamming-windowed sinc, support 1.
    Hamming,
    /// Cubic with a = -0.5, support 2.
    Bicubic,
    /// Lanczos-windowed sinc, support 3.
    Lanczos,
    /// `cv2.INTER_AREA`: each output pixel is the mean of the area that it covers.
    OpencvArea,
    /// `cv2.INTER_LINEAR`: between four pixels, never antialiased.
    OpencvLinear,
}

/// Which of two neighbouring offsets a centre crop takes when it cannot be centred exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CropRounding {
    /// transformers on Pillow: `(size - crop) // 2`, also below zero: the larger half of the padding stands before.
    Floor,
    /// transformers on torch (the `Fast` processors): `(size - crop) // 2`; the smaller half of the padding stands before.
    FloorPadAfter,
    /// torchvision and timm: `int(round((size - crop) / 2.0))`, half to even; the smaller half of the padding stands before.
    RoundHalfEven,
}

/// A centre crop. A picture smaller than the crop is padded with one colour, which normalisation then treats like any
/// pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CenterCrop {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// How the offset is rounded.
    pub rounding: CropRounding,
    /// Colour of the padding, R, G, B; black nearly everywhere.
    #[serde(skip_serializing_if = "is_black")]
    pub fill: [u8; 3],
}

impl CenterCrop {
    /// A crop that pads with black.
    #[must_use]
    pub const fn new(width: u32, height: u32, rounding: CropRounding) -> Self {
        Self { width, height, rounding, fill: [0; 3] }
    }
}

fn is_black(fill: &[u8; 3]) -> bool {
    *fill == [0; 3]
}

/// Order of the channels as the model sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelOrder {
    /// Red first.
    Rgb,
    /// Blue first, as Caffe models were trained.
    Bgr,
}

/// The steps of a recipe, in the order in which they run. [`Recipe::new`] checks them.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RecipeSteps {
    /// First the size,
    pub resize: Resize,
    /// computed with this filter,
    pub filter: Filter,
    /// then the crop.
    pub crop: Option<CenterCrop>,
    /// Factor from 0..=255 to the model's range before mean and std; 1/255 for most, 1 for Caffe-style models.
    /// f64, because transformers multiplies in f64 and rounds the product to f32.
    pub rescale: f64,
    /// Subtracted after rescaling, in the order of the model's channels: with [`ChannelOrder::Bgr`] blue comes first.
    pub mean: [f32; 3],
    /// Divides after the mean, in the order of the model's channels.
    pub std: [f32; 3],
    /// Order of the model's channels.
    pub channel_order: ChannelOrder,
}

/// Why the steps are no recipe.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum RecipeError {
    /// A side is zero or beyond [`RECIPE_SIDE_MAX`].
    #[error("{step} {width}x{height} is outside 1..={max} pixels a side")]
    Side {
        /// "resize" or "crop".
        step: &'static str,
        /// Width asked for.
        width: u32,
        /// Height asked for.
        height: u32,
        /// Longest side allowed.
        max: u32,
    },
    /// The rescale factor is zero, negative, infinite or not a number.
    #[error("rescale factor {found} is not a positive finite number")]
    Rescale {
        /// The factor found.
        found: f64,
    },
    /// A mean is infinite or not a number.
    #[error("mean of channel {channel} is {found}, which is not finite")]
    Mean {
        /// Channel of the model, from 0.
        channel: usize,
        /// The mean found.
        found: f32,
    },
    /// A standard deviation is zero, negative, infinite or not a number.
    #[error("std of channel {channel} is {found}, which is not a positive finite number")]
    Std {
        /// Channel of the model, from 0.
        channel: usize,
        /// The standard deviation found.
        found: f32,
    },
    /// Rescale, mean and std, each a number to compute with, together lead beyond what an f32 holds.
    #[error(
        "rescale, mean and std make {found} of the pixel value {pixel} in channel {channel}; finite numbers expected"
    )]
    NotFinite {
        /// Channel of the model, 0..3.
        channel: usize,
        /// The first such value of a pixel.
        pixel: usize,
        /// What it becomes.
        found: f32,
    },
}

/// Checked preprocessing: from any picture to one model's input.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Recipe {
    #[serde(flatten)]
    steps: RecipeSteps,
    /// `[channel of the model][u8 value]`: the whole of rescale, mean and std.
    #[serde(skip)]
    values: Box<[[f32; 256]; 3]>,
}

impl Recipe {
    /// Checks the steps.
    ///
    /// # Errors
    /// Where a side is out of bounds, or a number cannot be computed with.
    pub fn new(steps: RecipeSteps) -> Result<Self, RecipeError> {
        match steps.resize {
            Resize::None => {}
            Resize::Exact { width, height } | Resize::Cover { width, height } | Resize::Contain { width, height } => {
                check_side("resize", width, height)?;
            }
            Resize::ShortestEdge(edge) => check_side("resize", edge, edge)?,
        }
        if let Some(crop) = steps.crop {
            check_side("crop", crop.width, crop.height)?;
        }
        if !(steps.rescale.is_finite() && steps.rescale > 0.0) {
            return Err(RecipeError::Rescale { found: steps.rescale });
        }
        for channel in 0..3 {
            let (mean, std) = (steps.mean[channel], steps.std[channel]);
            if !mean.is_finite() {
                return Err(RecipeError::Mean { channel, found: mean });
            }
            if !(std.is_finite() && std > 0.0) {
                return Err(RecipeError::Std { channel, found: std });
            }
        }
        let values: Box<[[f32; 256]; 3]> = Box::new(std::array::from_fn(|channel| normalised(&steps, channel)));
        for (channel, values) in values.iter().enumerate() {
            if let Some((pixel, &found)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
                return Err(RecipeError::NotFinite { channel, pixel, found });
            }
        }
        Ok(Self { steps, values })
    }

    /// The steps, as they were given.
    #[must_use]
    pub fn steps(&self) -> &RecipeSteps {
        &self.steps
    }

    /// The shape of every sample, where crop or an exact size fix it; `None` where it depends on the picture.
    #[must_use]
    pub fn sample_shape(&self) -> Option<SampleShape> {
        match (self.steps.crop, self.steps.resize) {
            (Some(crop), _) => Some(SampleShape { height: crop.height, width: crop.width }),
            (None, Resize::Exact { width, height }) => Some(SampleShape { height, width }),
            (None, Resize::None | Resize::ShortestEdge(_) | Resize::Cover { .. } | Resize::Contain { .. }) => None,
        }
    }

    /// What each u8 value becomes in each channel of the model.
    pub(super) fn values(&self) -> &[[f32; 256]; 3] {
        &self.values
    }
}

/// v -> (v * rescale - mean) / std. The product is rounded to f32 once, the rest is f32: what numpy does in
/// transformers, and for 1/255 also what torch does in torchvision.
fn normalised(steps: &RecipeSteps, channel: usize) -> [f32; 256] {
    std::array::from_fn(|v| {
        let rescaled = (v as f64 * steps.rescale) as f32;
        (rescaled - steps.mean[channel]) / steps.std[channel]
    })
}

fn check_side(step: &'static str, width: u32, height: u32) -> Result<(), RecipeError> {
    let allowed = 1..=RECIPE_SIDE_MAX;
    if allowed.contains(&width) && allowed.contains(&height) {
        Ok(())
    } else {
        Err(RecipeError::Side { step, width, height, max: RECIPE_SIDE_MAX })
    }
}
