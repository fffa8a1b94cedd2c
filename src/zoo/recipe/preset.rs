//! Recipes that have a name: one table, and beside each row where its numbers come from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::pipeline::preprocess::{CenterCrop, ChannelOrder, CropRounding, Filter, RecipeSteps, Resize};

const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
/// `ToTensor` and `rescale_factor`.
const TO_UNIT: f64 = 1.0 / 255.0;

/// From this edge on `ConvNextImageProcessor.resize` squashes instead of cropping.
pub(super) const CONVNEXT_SQUASH_FROM: u32 = 384;

/// How the resize relates to the size of the model's input.
#[derive(Debug, PartialEq)]
enum Scale {
    /// `round(size * resize / crop)`.
    Ratio { resize: u32, crop: u32 },
    /// `floor(size / crop_pct)`: timm, transformers, MLPerf's harness.
    CropPct(f64),
}

/// What the resize does with the aspect ratio.
#[derive(Debug, PartialEq)]
enum Framing {
    /// Kept; the other side is cut off to whole pixels.
    ShortestEdge,
    /// Kept; both sides are rounded.
    Cover,
    /// Not kept.
    Squash,
    /// Kept below [`CONVNEXT_SQUASH_FROM`], and from there on neither kept nor cropped.
    ConvNext,
}

/// One row of the table.
#[derive(Debug, PartialEq)]
struct Row {
    name: &'static str,
    /// Which weights were published with it.
    weights: &'static str,
    /// Where its numbers stand.
    source: &'static str,
    /// Side of the square input that the weights were published with.
    size: u32,
    scale: Scale,
    /// A second published size, and its own `crop_pct`.
    test: Option<(u32, f64)>,
    framing: Framing,
    filter: Filter,
    rounding: CropRounding,
    rescale: f64,
    mean: [f32; 3],
    std: [f32; 3],
}

/// Torchvision's first evaluation recipe. The rows below change what differs.
const TORCHVISION: Row = Row {
    name: "torchvision-v1",
    weights: "torchvision IMAGENET1K_V1, timm *.tv_in1k, most exports without any file beside them",
    source: "torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()",
    size: 224,
    scale: Scale::Ratio { resize: 256, crop: 224 },
    test: None,
    framing: Framing::ShortestEdge,
    filter: Filter::Bilinear,
    rounding: CropRounding::RoundHalfEven,
    rescale: TO_UNIT,
    mean: IMAGENET_MEAN,
    std: IMAGENET_STD,
};

/// What timm's ResNets were trained and measured with.
const TIMM: Row = Row {
    name: "timm-a1",
    weights: "timm resnet*.a1_in1k; also b1k, b2k, c1, c2 and d",
    source: "timm/models/resnet.py, _rcfg",
    scale: Scale::CropPct(0.95),
    test: Some((288, 1.0)),
    filter: Filter::Bicubic,
    ..TORCHVISION
};

const TABLE: [Row; 16] = [
    TORCHVISION,
    Row {
        name: "torchvision-v2",
        weights: "torchvision IMAGENET1K_V2",
        source: "torchvision.models.ResNet50_Weights.IMAGENET1K_V2.transforms()",
        scale: Scale::Ratio { resize: 232, crop: 224 },
        ..TORCHVISION
    },
    Row {
        name: "onnx-zoo",
        weights: "ONNX Model Zoo resnet*-v1-7, resnet*-v2-7, resnet50-v1-12*",
        source: "onnx/models validated/vision/classification/resnet: README, resnet-preproc-v1-18.onnx, imagenet_preprocess.py",
        framing: Framing::Cover,
        rounding: CropRounding::Floor,
        ..TORCHVISION
    },
    Row {
        name: "zoo-notebook",
        weights: "the notebook beside the ONNX Model Zoo's opset-12 files; not what the README describes",
        source: "onnx/models vision/classification/onnxrt_inference.ipynb",
        framing: Framing::Squash,
        filter: Filter::OpencvLinear,
        rounding: CropRounding::Floor,
        ..TORCHVISION
    },
    Row {
        name: "mlperf",
        weights: "MLPerf resnet50_v1 (TensorFlow weights, 1001 classes)",
        source: "mlcommons/inference vision/classification_and_detection/python/dataset.py, pre_process_vgg",
        scale: Scale::CropPct(0.875),
        filter: Filter::OpencvArea,
        rounding: CropRounding::Floor,
        rescale: 1.0,
        mean: [123.68, 116.78, 103.94],
        std: [1.0; 3],
        ..TORCHVISION
    },
    TIMM,
    Row { name: "timm-a2", weights: "timm resnet*.a2_in1k", ..TIMM },
    Row {
        name: "timm-a3",
        weights: "timm resnet*.a3_in1k",
        source: "timm/models/resnet.py, _r3cfg",
        size: 160,
        test: Some((224, 0.95)),
        ..TIMM
    },
    Row {
        name: "timm-a1h",
        weights: "timm resnet50.a1h_in1k",
        source: "timm/models/resnet.py, resnet50.a1h_in1k",
        size: 176,
        scale: Scale::CropPct(0.9),
        test: Some((224, 1.0)),
        ..TIMM
    },
    Row {
        name: "timm-bt",
        weights: "timm resnet*.bt_in1k, resnet50.ra_in1k, resnet50.ram_in1k",
        source: "timm/models/resnet.py, _ttcfg",
        scale: Scale::CropPct(0.875),
        test: Some((288, 0.95)),
        ..TIMM
    },
    Row {
        name: "timm-ra4",
        weights: "timm resnet18d, resnet34 .ra4_e3600_r224_in1k",
        source: "timm/models/resnet.py, resnet34.ra4_e3600_r224_in1k",
        scale: Scale::CropPct(0.9),
        mean: [0.5; 3],
        std: [0.5; 3],
        ..TIMM
    },
    Row {
        name: "timm-gluon",
        weights: "timm resnet*.gluon_in1k",
        source: "timm/models/resnet.py, _gcfg",
        scale: Scale::CropPct(0.875),
        test: None,
        ..TIMM
    },
    Row {
        name: "timm-tv2",
        weights: "timm resnet{50,101,152}.tv2_in1k",
        source: "timm/models/resnet.py, resnet50.tv2_in1k",
        size: 176,
        scale: Scale::CropPct(0.875),
        test: Some((224, 0.965)),
        filter: Filter::Bilinear,
        ..TIMM
    },
    Row {
        name: "timm-fb",
        weights: "timm resnet{18,50}.fb_ssl_*, fb_swsl_* (licence CC-BY-NC-4.0)",
        source: "timm/models/resnet.py, _cfg",
        scale: Scale::CropPct(0.875),
        test: None,
        filter: Filter::Bilinear,
        ..TIMM
    },
    Row {
        name: "hf-resnet",
        weights: "microsoft/resnet-* on Hugging Face and its derivatives",
        source: "their preprocessor_config.json; transformers ConvNextImageProcessor.resize",
        scale: Scale::CropPct(0.875),
        framing: Framing::ConvNext,
        filter: Filter::Bicubic,
        rounding: CropRounding::Floor,
        ..TORCHVISION
    },
    Row {
        name: "cifar10",
        weights: "ResNets for 32x32 pictures, like the built-in model",
        source: "models/resnet20-cifar10; mean and std are those of the 50,000 training pictures",
        size: 32,
        scale: Scale::Ratio { resize: 32, crop: 32 },
        rounding: CropRounding::Floor,
        mean: [0.4914, 0.4822, 0.4465],
        std: [0.247, 0.2435, 0.2616],
        ..TORCHVISION
    },
];

/// A recipe that is known by name.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub struct Preset(&'static Row);

/// A name that no preset has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no preset is named {found:?}; expected one of {}", Preset::names().collect::<Vec<_>>().join(", "))]
pub struct UnknownPreset {
    /// The name given.
    pub found: String,
}

impl Preset {
    /// What is taken where nothing tells more: right for most exports, and off by a little for most others.
    pub const ASSUMED: Self = Self(&TABLE[0]);

    /// All of them, the most common first.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(Self)
    }

    /// Their names, for help texts.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|row| row.name)
    }

    /// The name, as settings and files spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Which published weights it is for.
    #[must_use]
    pub fn weights(self) -> &'static str {
        self.0.weights
    }

    /// Where its numbers come from.
    #[must_use]
    pub fn source(self) -> &'static str {
        self.0.source
    }

    /// Width and height that its weights were published with.
    #[must_use]
    pub fn size(self) -> (u32, u32) {
        (self.0.size, self.0.size)
    }

    /// Its steps: at the size that its weights were published with, or brought to the `(width, height)` that a graph
    /// fixes. Another size keeps the proportion of resize and crop, unless its own was published.
    #[must_use]
    pub fn steps(self, input_size: Option<(u32, u32)>) -> RecipeSteps {
        let row = self.0;
        let (width, height) = input_size.unwrap_or((row.size, row.size));
        let edge = |side: u32| match (row.test, &row.scale) {
            (Some((size, crop_pct)), _) if side == size && width == height => by_crop_pct(side, crop_pct),
            (_, Scale::CropPct(crop_pct)) => by_crop_pct(side, *crop_pct),
            (_, Scale::Ratio { resize, crop }) => by_ratio(side, *resize, *crop),
        };
        let (wide, high) = (edge(width), edge(height));
        let crop = Some(CenterCrop::new(width, height, row.rounding));
        let (resize, crop) = match row.framing {
            Framing::Squash => (Resize::Exact { width: wide, height: high }, crop),
            Framing::ConvNext if width.min(height) >= CONVNEXT_SQUASH_FROM => (Resize::Exact { width, height }, None),
            Framing::ShortestEdge | Framing::ConvNext if width == height => (Resize::ShortestEdge(wide), crop),
            Framing::ShortestEdge | Framing::ConvNext | Framing::Cover => {
                (Resize::Cover { width: wide, height: high }, crop)
            }
        };
        RecipeSteps {
            resize,
            filter: row.filter,
            crop,
            rescale: row.rescale,
            mean: row.mean,
            std: row.std,
            channel_order: ChannelOrder::Rgb,
        }
    }
}

/// `floor(size / crop_pct)`, at least one pixel.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and Recipe::new has a bound")]
pub(super) fn by_crop_pct(size: u32, crop_pct: f64) -> u32 {
    ((f64::from(size) / crop_pct).floor() as u32).max(1)
}

/// `round(size * resize / crop)`, halves up.
fn by_ratio(size: u32, resize: u32, crop: u32) -> u32 {
    let scaled = (u64::from(size) * u64::from(resize) * 2 + u64::from(crop)) / (u64::from(crop) * 2);
    u32::try_from(scaled).unwrap_or(u32::MAX)
}

impl fmt::Debug for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Preset({})", self.0.name)
    }
}

/// The name.
impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(name: &str) -> Result<Self, UnknownPreset> {
        Self::all().find(|preset| preset.name() == name).ok_or_else(|| UnknownPreset { found: name.to_owned() })
    }
}

impl TryFrom<String> for Preset {
    type Error = UnknownPreset;

    fn try_from(name: String) -> Result<Self, UnknownPreset> {
        name.parse()
    }
}

impl From<Preset> for &'static str {
    fn from(preset: Preset) -> Self {
        preset.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::preprocess::Recipe;

    fn framing(name: &str, input_size: Option<(u32, u32)>) -> (Resize, Option<(u32, u32)>) {
        let steps = name.parse::<Preset>().unwrap().steps(input_size);
        (steps.resize, steps.crop.map(|crop| (crop.width, crop.height)))
    }

    #[test]
    fn every_preset_is_a_recipe_with_a_name_of_its_own() {
        let mut names = std::collections::BTreeSet::new();
        for preset in Preset::all() {
            assert!(names.insert(preset.name()), "{preset} stands twice in the table");
            assert!(Recipe::new(preset.steps(None)).unwrap().sample_shape().is_some(), "{preset}");
            assert_eq!(preset.name().parse(), Ok(preset));
            assert_eq!(serde_json::from_value::<Preset>(serde_json::to_value(preset).unwrap()).unwrap(), preset);
            for size in [(288, 288), (320, 224), (384, 384), (32, 32)] {
                let shape = Recipe::new(preset.steps(Some(size))).unwrap().sample_shape().unwrap();
                assert_eq!((shape.width, shape.height), size, "{preset}");
            }
        }
        assert_eq!(Preset::ASSUMED.name(), "torchvision-v1");
    }

    #[test]
    fn the_documentation_has_a_row_for_every_preset() {
        let page = include_str!("../../../docs/RECIPES.md");
        for preset in Preset::all() {
            assert!(page.contains(&format!("\n| `{preset}` |")), "docs/RECIPES.md has no row for {preset}");
        }
    }

    /// Whether `text` names `file`, as a word that may hold one star.
    fn names(text: &str, file: &str) -> bool {
        text.split([' ', ',', ';', '`']).any(|word| match word.split_once('*') {
            Some((front, end)) => file.strip_prefix(front).is_some_and(|rest| !front.is_empty() && rest.ends_with(end)),
            None => word == file,
        })
    }

    #[test]
    fn a_file_of_the_catalogue_is_claimed_by_its_preset_and_no_other() {
        let page = include_str!("../../../docs/RECIPES.md");
        let row = |preset| page.lines().find(|line| line.starts_with(&format!("| `{preset}` |"))).unwrap();
        for entry in crate::zoo::catalog::entries() {
            let Some(its) = entry.preset.as_ref() else { continue };
            let its: Preset = its.parse().unwrap();
            for preset in Preset::all().filter(|_| entry.pinned.is_some()) {
                for text in [preset.weights(), row(preset)] {
                    assert_eq!(names(text, &entry.name), preset == its, "{preset} and {}: {text}", entry.name);
                }
            }
        }
    }

    #[test]
    fn published_sizes_are_those_of_their_authors() {
        for (name, edge, size) in [
            ("torchvision-v1", 256, 224),
            ("torchvision-v2", 232, 224),
            ("mlperf", 256, 224),
            ("timm-a1", 235, 224),
            ("timm-a2", 235, 224),
            ("timm-a3", 168, 160),
            ("timm-a1h", 195, 176),
            ("timm-bt", 256, 224),
            ("timm-ra4", 248, 224),
            ("timm-gluon", 256, 224),
            ("timm-tv2", 201, 176),
            ("timm-fb", 256, 224),
            ("hf-resnet", 256, 224),
            ("cifar10", 32, 32),
        ] {
            assert_eq!(framing(name, None), (Resize::ShortestEdge(edge), Some((size, size))), "{name}");
        }
        assert_eq!(framing("onnx-zoo", None), (Resize::Cover { width: 256, height: 256 }, Some((224, 224))));
        assert_eq!(framing("zoo-notebook", None), (Resize::Exact { width: 256, height: 256 }, Some((224, 224))));
    }

    #[test]
    fn a_graph_of_another_size_scales_the_resize() {
        let square = |name, size| framing(name, Some((size, size))).0;
        assert_eq!(square("torchvision-v1", 288), Resize::ShortestEdge(329));
        assert_eq!(square("torchvision-v2", 256), Resize::ShortestEdge(265));
        // The second published sizes have a crop_pct of their own.
        assert_eq!(square("timm-a1", 288), Resize::ShortestEdge(288));
        assert_eq!(square("timm-a1", 256), Resize::ShortestEdge(269));
        assert_eq!(square("timm-tv2", 224), Resize::ShortestEdge(232));
        assert_eq!(square("timm-a3", 224), Resize::ShortestEdge(235));
        assert_eq!(framing("hf-resnet", Some((384, 384))), (Resize::Exact { width: 384, height: 384 }, None));
        let wide = framing("torchvision-v1", Some((320, 224)));
        assert_eq!(wide, (Resize::Cover { width: 366, height: 256 }, Some((320, 224))));
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let text = "torchvision".parse::<Preset>().unwrap_err().to_string();
        assert!(text.starts_with("no preset is named \"torchvision\"; expected one of torchvision-v1, "), "{text}");
        assert!(text.ends_with("cifar10"), "{text}");
    }
}
