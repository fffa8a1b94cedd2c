//! How three libraries name the tensors of the same networks. Ours are torchvision's.

use std::borrow::Cow;

/// Whose names a file's tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `layer1.0.conv1.weight`: torchvision, and timm's `resnet*`, `wide_resnet*` and `resnext*`.
    Torchvision,
    /// `stages.0.blocks.0.conv1.weight`: timm's `resnetv2_*`, which are pre-activation networks.
    TimmV2,
    /// `resnet.encoder.stages.0.layers.0.layer.0.convolution.weight`: transformers' `ResNetForImageClassification`.
    Transformers,
}

impl Naming {
    /// Recognises the naming by the tensors of stem and first block that every network of its kind has.
    pub(super) fn of(has: impl Fn(&str) -> bool) -> Option<Self> {
        if has("layer1.0.conv1.weight") {
            Some(Self::Torchvision)
        } else if has("stages.0.blocks.0.conv1.weight") {
            Some(Self::TimmV2)
        } else if has("resnet.encoder.stages.0.layers.0.layer.0.convolution.weight") {
            Some(Self::Transformers)
        } else {
            None
        }
    }

    /// The name in the file of what we call `name`: a layer's name, or a tensor's.
    pub(super) fn in_file(self, name: &str) -> Cow<'_, str> {
        let (layer, rest) = split(name);
        match self {
            Self::Torchvision => Cow::Owned(name.to_owned()),
            Self::TimmV2 => Cow::Owned(match layer {
                Some((stage, block)) => {
                    let rest = rest.replacen("bn", "norm", 1).replacen("downsample.0", "downsample.conv", 1);
                    format!("stages.{}.blocks.{block}.{rest}", stage - 1)
                }
                None => rest.replacen("conv1", "stem.conv", 1).replacen("fc", "head.fc", 1),
            }),
            Self::Transformers => Cow::Owned(match layer {
                Some((stage, block)) => {
                    format!("resnet.encoder.stages.{}.layers.{block}.{}", stage - 1, transformers(rest))
                }
                None => rest
                    .replacen("conv1", "resnet.embedder.embedder.convolution", 1)
                    .replacen("bn1", "resnet.embedder.embedder.normalization", 1)
                    .replacen("fc", "classifier.1", 1),
            }),
        }
    }
}

/// `layer3.5.conv1.weight` is block 5 of stage 3 and `conv1.weight`.
fn split(name: &str) -> (Option<(usize, &str)>, &str) {
    let parts = || {
        let (stage, rest) = name.strip_prefix("layer")?.split_once('.')?;
        let (block, rest) = rest.split_once('.')?;
        Some((stage.parse().ok().filter(|&stage: &usize| stage > 0)?, block, rest))
    };
    match parts() {
        Some((stage, block, rest)) => (Some((stage, block)), rest),
        None => (None, name),
    }
}

/// `conv2.weight` is `layer.1.convolution.weight`.
fn transformers(rest: &str) -> String {
    let (layer, tensor) = rest.split_once('.').unwrap_or((rest, ""));
    let numbered = |prefix: &str| layer.strip_prefix(prefix)?.parse::<usize>().ok()?.checked_sub(1);
    if let Some(index) = numbered("conv") {
        format!("layer.{index}.convolution.{tensor}")
    } else if let Some(index) = numbered("bn") {
        format!("layer.{index}.normalization.{tensor}")
    } else {
        rest.replacen("downsample.0", "shortcut.convolution", 1).replacen("downsample.1", "shortcut.normalization", 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_names_are_found_in_every_naming() {
        for (ours, timm, transformers) in [
            ("conv1.weight", "stem.conv.weight", "resnet.embedder.embedder.convolution.weight"),
            ("fc.bias", "head.fc.bias", "classifier.1.bias"),
            (
                "layer3.5.conv1.weight",
                "stages.2.blocks.5.conv1.weight",
                "resnet.encoder.stages.2.layers.5.layer.0.convolution.weight",
            ),
            (
                "layer1.0.bn3.running_var",
                "stages.0.blocks.0.norm3.running_var",
                "resnet.encoder.stages.0.layers.0.layer.2.normalization.running_var",
            ),
            (
                "layer2.0.downsample.0.weight",
                "stages.1.blocks.0.downsample.conv.weight",
                "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight",
            ),
        ] {
            assert_eq!(Naming::Torchvision.in_file(ours), ours);
            assert_eq!(Naming::TimmV2.in_file(ours), timm);
            assert_eq!(Naming::Transformers.in_file(ours), transformers);
        }
        assert_eq!(Naming::TimmV2.in_file("norm.weight"), "norm.weight");
        assert_eq!(Naming::Transformers.in_file("bn1.bias"), "resnet.embedder.embedder.normalization.bias");
    }
}
