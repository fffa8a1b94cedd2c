//! A recipe as one line for people.

use std::fmt;

use super::recipe::{CenterCrop, ChannelOrder, Filter, Recipe, RecipeSteps, Resize};

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nearest => "nearest",
            Self::Box => "box",
            Self::Bilinear => "bilinear",
            Self::Hamming => "hamming",
            Self::Bicubic => "bicubic",
            Self::Lanczos => "lanczos",
            Self::OpencvArea => "opencv area",
            Self::OpencvLinear => "opencv linear",
        })
    }
}

/// `shortest edge 256 bilinear, centre crop 224x224, RGB, x 0.003922, mean [...], std [...]`.
impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecipeSteps { resize, filter, crop, rescale, mean, std, channel_order } = self.steps();
        match resize {
            Resize::None => write!(f, "no resize")?,
            Resize::Exact { width, height } => write!(f, "resize to {width}x{height} {filter}")?,
            Resize::ShortestEdge(edge) => write!(f, "shortest edge {edge} {filter}")?,
            Resize::Cover { width, height } => write!(f, "cover {width}x{height} {filter}")?,
            Resize::Contain { width, height } => write!(f, "fit into {width}x{height} {filter}")?,
        }
        if let Some(CenterCrop { width, height, rounding: _, fill }) = crop {
            write!(f, ", centre crop {width}x{height}")?;
            if *fill != [0; 3] {
                write!(f, " on {fill:?}")?;
            }
        }
        let order = match channel_order {
            ChannelOrder::Rgb => "RGB",
            ChannelOrder::Bgr => "BGR",
        };
        write!(f, ", {order} x {rescale:.6}, mean {mean:?}, std {std:?}")
    }
}

#[cfg(test)]
mod tests {
    use crate::pipeline::preprocess::CropRounding;

    use super::*;

    #[test]
    fn a_recipe_reads_as_one_line() {
        let recipe = Recipe::new(RecipeSteps {
            resize: Resize::ShortestEdge(256),
            filter: Filter::Bicubic,
            crop: Some(CenterCrop::new(224, 224, CropRounding::Floor)),
            rescale: 1.0 / 255.0,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            channel_order: ChannelOrder::Rgb,
        });
        assert_eq!(
            recipe.unwrap().to_string(),
            "shortest edge 256 bicubic, centre crop 224x224, RGB x 0.003922, mean [0.485, 0.456, 0.406], std [0.229, \
             0.224, 0.225]"
        );
    }
}
