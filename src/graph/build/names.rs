//! The networks that have a name, from `resnet18` to `resnext101_64x4d`, and what their names mean.

use super::architecture::{Architecture, Block, Order, Shortcut, Stage, Stem, StrideIn};

/// Most classes a network may have. ImageNet-21k has 21,843.
pub const CLASSES_MAX: usize = 100_000;

/// What a named network was made for, which settles its usual size and number of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dataset {
    /// 1000 classes, 224x224.
    Imagenet,
    /// 10 classes, 32x32.
    Cifar,
}

impl Dataset {
    /// Number of classes.
    #[must_use]
    pub fn classes(self) -> usize {
        match self {
            Self::Imagenet => 1000,
            Self::Cifar => 10,
        }
    }

    /// Width and height, in pixels.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Imagenet => 224,
            Self::Cifar => 32,
        }
    }
}

/// The options of He et al. 2015, section 3.3, for shortcuts between different shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ShortcutOption {
    /// Zero-padded identity, no weights.
    A,
    /// Projection where the shape changes, identity elsewhere.
    B,
    /// Projection in each block.
    C,
}

/// Why a name and its options name no network.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// The name is not known.
    #[error("{found:?} is no network that is known here; there are {KNOWN}")]
    Unknown {
        /// The name given.
        found: String,
    },
    /// The number of classes is out of bounds.
    #[error("{found} classes are outside 1..={CLASSES_MAX}")]
    Classes {
        /// The number given.
        found: usize,
    },
    /// ResNet-D defines its shortcuts itself.
    #[error("{name} has pooled projections, which shortcut options A and C would replace; leave the option out")]
    Shortcut {
        /// The name given.
        name: String,
    },
}

/// The names, for errors and help.
pub const KNOWN: &str = "resnet18, 34, 50, 101 or 152, plain (v1.5) or with -v1, -v2 or -d; resnet20, 32, 44, 56 or 110 \
                         for CIFAR, plain or with -v2; wide_resnet50_2, wide_resnet101_2; resnext50_32x4d, \
                         resnext101_32x8d, resnext101_64x4d";

/// What stands behind the depth.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    V1,
    V1_5,
    V2,
    D,
}

/// The network called `name`. Case, `-` and `_` do not matter: `ResNet-50-D` is `resnet50d`.
///
/// Without `classes`, the dataset's; without `shortcut`, option B for ImageNet and A for CIFAR, as in He et al. 2015
/// (section 4.1 names B in its best single models; section 4.2 uses A throughout).
///
/// # Errors
/// Where the name is not known, or an option contradicts it.
pub fn named(
    name: &str,
    classes: Option<usize>,
    shortcut: Option<ShortcutOption>,
) -> Result<(Architecture, Dataset), NameError> {
    let (mut architecture, dataset) = parse(name).ok_or_else(|| NameError::Unknown { found: name.to_owned() })?;
    architecture.classes = classes.unwrap_or(dataset.classes());
    if !(1..=CLASSES_MAX).contains(&architecture.classes) {
        return Err(NameError::Classes { found: architecture.classes });
    }
    architecture.shortcut = match (architecture.shortcut, shortcut) {
        (own, None) => own,
        (Shortcut::PooledProjection, Some(ShortcutOption::B)) => Shortcut::PooledProjection,
        (Shortcut::PooledProjection, Some(_)) => return Err(NameError::Shortcut { name: name.to_owned() }),
        (_, Some(ShortcutOption::A)) => Shortcut::ZeroPad,
        (_, Some(ShortcutOption::B)) => Shortcut::Projection,
        (_, Some(ShortcutOption::C)) => Shortcut::ProjectionAlways,
    };
    Ok((architecture, dataset))
}

fn parse(name: &str) -> Option<(Architecture, Dataset)> {
    let plain: String = name.to_lowercase().chars().filter(|c| !matches!(c, '-' | '_')).collect();
    // The base width inside a bottleneck of 64 outer units, and its groups (torchvision's `width_per_group`).
    let (depth, inner, groups, variant) = match plain.as_str() {
        "wideresnet502" => (50, 128, 1, Variant::V1_5),
        "wideresnet1012" => (101, 128, 1, Variant::V1_5),
        "resnext5032x4d" => (50, 128, 32, Variant::V1_5),
        "resnext10132x8d" => (101, 256, 32, Variant::V1_5),
        "resnext10164x4d" => (101, 256, 64, Variant::V1_5),
        plain => {
            let rest = plain.strip_prefix("resnet")?;
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let variant = match &rest[digits..] {
                "v1" => Variant::V1,
                "" | "v1.5" => Variant::V1_5,
                "v2" => Variant::V2,
                "d" => Variant::D,
                _ => return None,
            };
            (rest[..digits].parse().ok()?, 64, 1, variant)
        }
    };
    imagenet(depth, inner, groups, variant)
        .map(|architecture| (architecture, Dataset::Imagenet))
        .or_else(|| cifar(depth, variant).map(|architecture| (architecture, Dataset::Cifar)))
}

/// He et al. 2015, table 1.
fn imagenet(depth: usize, inner: usize, groups: usize, variant: Variant) -> Option<Architecture> {
    let stride = if variant == Variant::V1 { StrideIn::First } else { StrideIn::Middle };
    let (block, blocks) = match depth {
        18 => (Block::Basic, [2, 2, 2, 2]),
        34 => (Block::Basic, [3, 4, 6, 3]),
        50 => (Block::Bottleneck(stride), [3, 4, 6, 3]),
        101 => (Block::Bottleneck(stride), [3, 4, 23, 3]),
        152 => (Block::Bottleneck(stride), [3, 8, 36, 3]),
        _ => return None,
    };
    let stage = |(index, blocks): (usize, usize)| Stage {
        blocks,
        stride: if index == 0 { 1 } else { 2 },
        inner: inner << index,
        outer: if block == Block::Basic { 64 << index } else { 256 << index },
        groups,
    };
    Some(Architecture {
        stem: if variant == Variant::D { Stem::Deep { widths: [32, 32, 64] } } else { Stem::Imagenet { width: 64 } },
        block,
        order: if variant == Variant::V2 { Order::PreActivation } else { Order::PostActivation },
        shortcut: if variant == Variant::D { Shortcut::PooledProjection } else { Shortcut::Projection },
        stages: blocks.into_iter().enumerate().map(stage).collect(),
        classes: Dataset::Imagenet.classes(),
    })
}

/// He et al. 2015, section 4.2: three stages of n blocks with 16, 32 and 64 channels, depth 6n + 2.
fn cifar(depth: usize, variant: Variant) -> Option<Architecture> {
    if ![20, 32, 44, 56, 110].contains(&depth) || variant == Variant::D {
        return None;
    }
    let stage = |(index, width): (usize, usize)| Stage {
        blocks: (depth - 2) / 6,
        stride: if index == 0 { 1 } else { 2 },
        inner: width,
        outer: width,
        groups: 1,
    };
    Some(Architecture {
        stem: Stem::Cifar { width: 16 },
        block: Block::Basic,
        order: if variant == Variant::V2 { Order::PreActivation } else { Order::PostActivation },
        shortcut: Shortcut::ZeroPad,
        stages: [16, 32, 64].into_iter().enumerate().map(stage).collect(),
        classes: Dataset::Cifar.classes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(name: &str) -> String {
        named(name, None, None).unwrap().0.to_string()
    }

    #[test]
    fn names_mean_what_people_mean() {
        for (name, expected) in [
            ("resnet18", "ResNet-18"),
            ("resnet34-v1", "ResNet-34"),
            ("resnet50", "ResNet-50 v1.5"),
            ("resnet50-v1", "ResNet-50 v1"),
            ("ResNet-50-v1.5", "ResNet-50 v1.5"),
            ("resnet50d", "ResNet-50 v1.5 D"),
            ("resnet18-d", "ResNet-18 D"),
            ("resnet152-v2", "ResNet-152 v2"),
            ("resnet20", "ResNet-20 with zero-padded shortcuts (CIFAR)"),
            ("wide_resnet50_2", "Wide ResNet-50-2 v1.5"),
            ("resnext50_32x4d", "ResNeXt-50 32x4d v1.5"),
            ("resnext101_64x4d", "ResNeXt-101 64x4d v1.5"),
        ] {
            assert_eq!(spoken(name), expected, "{name}");
        }
        assert_eq!(named("resnet110", None, None).unwrap().0.depth(), 110);
    }

    #[test]
    fn other_names_are_refused_with_a_list() {
        for name in ["", "resnet", "resnet19", "resnet50x", "resnet20-d", "vgg16", "resnet99999999999999999999", "é50"]
        {
            let error = named(name, None, None).unwrap_err().to_string();
            assert!(error.contains("resnet18, 34, 50") && error.contains("wide_resnet50_2"), "{error}");
        }
        assert!(named("resnet50d", None, Some(ShortcutOption::A)).unwrap_err().to_string().contains("pooled"));
        assert!(named("resnet18", Some(0), None).unwrap_err().to_string().contains("1..=100000"));
        assert!(named("resnet18", Some(CLASSES_MAX), None).is_ok());
        assert!(named("resnet18", Some(CLASSES_MAX + 1), None).is_err());
    }
}
