//! What a network is called.

use super::describe::is_depthwise;
use super::majority;
use super::parts::Parts;
use super::words::stem_words;
use crate::graph::Printable;
use crate::graph::summary::{Attention, Block, BlockKind, Order, Shortcuts, Stem, StemKind};
use crate::graph::view::{Op, View};

/// Fewest blocks of a ResNet.
const BLOCKS_MIN: usize = 2;
/// Convolutions of networks that may be called small: their first stage has this many channels (He et al. 2015, 4.2).
const CIFAR_CHANNELS: u64 = 16;

/// A name, and what it is made of.
#[derive(Clone, Debug)]
pub(in crate::graph) struct Name {
    pub(in crate::graph) text: String,
    pub(in crate::graph) is_resnet: bool,
    pub(in crate::graph) family: Option<String>,
    pub(in crate::graph) depth: Option<u64>,
    pub(in crate::graph) variant: Option<String>,
}

/// Names a network, and notes what is unusual about it.
pub(super) fn name(
    view: &View<'_>,
    parts: &Parts,
    shortcuts: &Shortcuts,
    activation: Option<Order>,
    is_chain: bool,
) -> (Name, Vec<String>) {
    let blocks: Vec<&Block> = parts.stages.iter().flat_map(|stage| &stage.blocks).collect();
    let mut notes = unknown_layers(view);
    let others = blocks.iter().filter(|block| block.kind == BlockKind::Other).count();
    let kind = majority(blocks.iter().map(|block| block.kind).filter(|kind| *kind != BlockKind::Other));
    let is_mixed = blocks.iter().any(|block| block.kind != BlockKind::Other && Some(block.kind) != kind);
    let (Some(kind), Some(stem), Some(activation)) = (kind, &parts.stem, activation) else {
        if others > 0 {
            notes.push(format!("no ResNet: none of its {others} blocks is basic or a bottleneck"));
        }
        return (other(view, blocks.len()), notes);
    };
    let reasons = [
        (blocks.len() < BLOCKS_MIN, "it has one residual block only".to_owned()),
        (!is_chain, "its residual blocks do not follow each other".to_owned()),
        (parts.strays > 0, format!("{} convolutions lie between its residual blocks", parts.strays)),
        (stem.kind == StemKind::Other, format!("its stem is none of a ResNet: {}", stem_words(stem))),
        (is_mixed, "it has both basic and bottleneck blocks".to_owned()),
        (
            others * 4 > blocks.len(),
            format!("{others} of its {} blocks are neither basic nor bottlenecks", blocks.len()),
        ),
    ];
    let reasons: Vec<String> = reasons.into_iter().filter(|(holds, _)| *holds).map(|(_, reason)| reason).collect();
    if !reasons.is_empty() {
        notes.push(format!("no ResNet: {}", reasons.join("; ")));
        return (other(view, blocks.len()), notes);
    }
    if others > 0 {
        notes.push(format!("{others} of {} blocks are neither basic nor bottlenecks", blocks.len()));
    }
    let plan = Plan { blocks: &blocks, stages: parts.stages.len(), stem, kind, activation, shortcuts };
    (plan.name(&mut notes), notes)
}

/// What the name of a ResNet depends on.
struct Plan<'p> {
    blocks: &'p [&'p Block],
    stages: usize,
    stem: &'p Stem,
    kind: BlockKind,
    activation: Order,
    shortcuts: &'p Shortcuts,
}

impl Plan<'_> {
    fn name(&self, notes: &mut Vec<String>) -> Name {
        let layers = if self.kind == BlockKind::Basic { 2 } else { 3 };
        // The stem counts as one layer however many it has, and the classes are the last.
        let mut depth = 2 + layers * self.blocks.len() as u64;
        let width = self.width();
        let groups = self.blocks.first().map_or(1, |block| block.groups.max(1));
        let is_small = self.stem.kind == StemKind::Conv3x3;
        let first = self.blocks.first().map_or(0, |block| block.channels);
        let mut variant = self.variant();
        let mut base = "ResNet";
        let mut text;
        if self.is_wide_small() {
            // Zagoruyko and Komodakis 2016 count the projections: 6n + 4.
            depth += 2;
            base = "Wide ResNet";
            text = format!("WRN-{depth}-{}", first / CIFAR_CHANNELS);
        } else if groups > 1 && self.kind == BlockKind::Bottleneck {
            base = "ResNeXt";
            text = format!("ResNeXt-{depth}");
            if let Some(width) = width {
                text = format!("{text} {groups}x{}d", width / groups);
            }
        } else if let Some(factor) = self.widening().filter(|factor| *factor > 1) {
            base = "Wide ResNet";
            text = format!("Wide ResNet-{depth}-{factor}");
        } else {
            text = format!("ResNet-{depth}");
        }
        if base == "ResNeXt" && variant.as_deref() == Some("v1.5") {
            // Its stride has always been there.
            variant = None;
        }
        match variant.as_deref() {
            Some(letter @ ("C" | "D" | "T")) => text = format!("{text}-{letter}"),
            Some(version) if base != "Wide ResNet" => text = format!("{text} {version}"),
            Some(_) | None => {}
        }
        if self.shortcuts.pool_projection > 0 && !matches!(variant.as_deref(), Some("D" | "T")) {
            text.push_str(" with average-pool shortcuts");
        }
        let count = |wanted: Attention| self.blocks.iter().filter(|block| block.attention == Some(wanted)).count();
        let is_se = count(Attention::SqueezeExcitation) * 2 > self.blocks.len();
        if is_se {
            text = format!("SE-{text}");
        } else if count(Attention::Other) + count(Attention::SqueezeExcitation) > 0 {
            notes.push("blocks weigh their channels in another way than squeeze-and-excitation".to_owned());
            text.push_str(" with attention");
        }
        if is_small && base != "Wide ResNet" {
            text.push_str(if self.stages == 3 { " (CIFAR)" } else { " (CIFAR stem)" });
        }
        if self.blocks.iter().any(|block| block.stride_at.as_deref().is_some_and(|at| at.contains("pool"))) {
            notes.push("blocks shrink the image by a pool of their own (anti-aliasing)".to_owned());
        }
        let family = if is_se { format!("SE-{base}") } else { base.to_owned() };
        Name { text, is_resnet: true, family: Some(family), depth: Some(depth), variant }
    }

    /// `v1`, `v1.5`, `v2`, `C`, `D` or `T`; none for basic blocks, whose stride has one place to be.
    fn variant(&self) -> Option<String> {
        let pools = self.shortcuts.pool_projection > 0;
        let widths: Vec<u64> = self.stem.convolutions.iter().filter_map(|conv| conv.weight.first().copied()).collect();
        let name = if self.activation == Order::Pre {
            "v2"
        } else if self.stem.kind == StemKind::Deep {
            // timm's tiered stem grows from its first convolution to its second.
            match (pools, widths.as_slice()) {
                (true, [a, b, _]) if a < b => "T",
                (true, _) => "D",
                (false, _) => "C",
            }
        } else {
            if self.kind != BlockKind::Bottleneck {
                return None;
            }
            let shrinking: Vec<&str> = self.blocks.iter().filter_map(|block| block.stride_at.as_deref()).collect();
            let all = |wanted: fn(&str) -> bool| !shrinking.is_empty() && shrinking.iter().all(|at| wanted(at));
            if all(|at| at == "1x1") {
                "v1"
            } else if all(|at| at != "1x1") {
                "v1.5"
            } else {
                return None;
            }
        };
        Some(name.to_owned())
    }

    /// Channels inside the first bottleneck.
    fn width(&self) -> Option<u64> {
        self.blocks.first()?.convolutions.iter().find(|conv| conv.weight.ends_with(&[3, 3]))?.weight.first().copied()
    }

    /// How many times wider the bottlenecks are than a quarter of their channels.
    fn widening(&self) -> Option<u64> {
        let channels = self.blocks.first()?.channels;
        let width = self.width().filter(|_| self.kind == BlockKind::Bottleneck)?;
        width.checked_mul(4)?.checked_div(channels)
    }

    /// Wide networks for CIFAR: basic, pre-activated, three stages, a multiple of 16 channels.
    fn is_wide_small(&self) -> bool {
        let channels = self.blocks.first().map_or(0, |block| block.channels);
        self.stem.kind == StemKind::Conv3x3
            && self.kind == BlockKind::Basic
            && self.activation == Order::Pre
            && self.stages == 3
            && channels > CIFAR_CHANNELS
            && channels.is_multiple_of(CIFAR_CHANNELS)
    }
}

/// What can be said about a network that is no ResNet.
fn other(view: &View<'_>, blocks: usize) -> Name {
    let count = |wanted: fn(&Op<'_>) -> bool| view.layers.iter().filter(|layer| wanted(&layer.op)).count();
    let convs = count(|op| matches!(op, Op::Conv(_)));
    let dense = count(|op| matches!(op, Op::Dense(_)));
    let depthwise = count(|op| matches!(op, Op::Conv(conv) if is_depthwise(conv)));
    let many = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut text = match (convs, blocks) {
        (0, _) => "network without convolutions".to_owned(),
        (_, 0) => format!("convolutional network: {}", many(convs, "convolution")),
        (_, _) => format!("residual network: {}, {}", many(blocks, "residual block"), many(convs, "convolution")),
    };
    if depthwise > 0 {
        text = format!("{text} ({depthwise} depthwise)");
    }
    if dense > 0 {
        text = format!("{text}{} {}", if convs == 0 { ":" } else { "," }, many(dense, "fully connected layer"));
    }
    Name { text, is_resnet: false, family: None, depth: None, variant: None }
}

/// Notes the operators that were passed over.
fn unknown_layers(view: &View<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut count = 0_usize;
    for layer in &view.layers {
        // Behind the classes there is nothing left to understand.
        if let Op::Other(name) = layer.op
            && !matches!(name, "ArgMax" | "TopK" | "ReduceMax" | "ReduceSum" | "Exp")
        {
            count += 1;
            if names.len() < 5 && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
    }
    if count == 0 {
        return Vec::new();
    }
    let names: Vec<String> = names.iter().map(|name| Printable(name).to_string()).collect();
    let nodes = if count == 1 { "node" } else { "nodes" };
    vec![format!("not understood: {count} {nodes} ({})", names.join(", "))]
}
