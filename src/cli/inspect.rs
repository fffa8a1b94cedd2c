//! `residual inspect`: what a model is, read from its file alone.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::graph::summary::{
    Attention, BatchNorm, Block, BlockKind, Dim, ExternalSummary, Order, Port, QuantisationFormat, ShortcutKind, Stage,
    Stem,
};
use crate::graph::{OnnxFile, Summary, summarise};
use crate::zoo::{self, Files, Place, Wanted};

/// Longest side of an image that is counted for.
const SIDE_MAX: u32 = 16_384;

/// Say what a model is: its name, its blocks, and whether its shortcuts have weights.
///
/// Reads the file alone: ONNX Runtime is not needed, and neither are weights in files beside it. Multiplications (MACs)
/// are those of convolutions and fully connected layers for one image.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// An .onnx file, or a model directory
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,

    /// Count for images of this height and width: 224, or 224x320 [default: the file's; else 224, or 32 for a network
    /// that was made for CIFAR]
    #[arg(long, value_name = "HxW", value_parser = size)]
    size: Option<(u32, u32)>,
}

/// Runs the subcommand.
///
/// # Errors
/// The file cannot be read, or is no model; the text says what it is instead.
pub fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let path = model_file(&args.path)?;
    let file = OnnxFile::open(&path)?;
    let mut summary = summarise(&file.model, args.size);
    if let Err(error) = summary.look_up_external(&path, &file.model) {
        summary.notes.push(error.to_string());
    }
    let text =
        if args.json { serde_json::to_string_pretty(&summary)? } else { page(&summary, &path, file.bytes.len()) };
    Ok(say(&text)?)
}

/// The file that `path` means: itself, or the newest model of a directory in any layout that is served.
fn model_file(path: &Path) -> anyhow::Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    match zoo::find_newest(&Wanted { name: None, place: Place::Path(path.to_owned()) })?.files {
        Files::Disk { model, .. } => Ok(model),
        Files::Builtin => Ok(path.to_owned()),
    }
}

/// Reads `224` or `224x320`, height before width as in a tensor's shape; gives width and height.
fn size(text: &str) -> Result<(u32, u32), String> {
    let side = |text: &str| match text.trim().parse::<u32>() {
        Ok(side) if (1..=SIDE_MAX).contains(&side) => Ok(side),
        Ok(_) | Err(_) => Err(format!("{text:?} is no side of an image, 1 to {SIDE_MAX} pixels allowed")),
    };
    match text.split_once(['x', 'X']) {
        Some((height, width)) => Ok((side(width)?, side(height)?)),
        None => side(text).map(|side| (side, side)),
    }
}

fn say(text: &str) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// The whole answer for a person.
fn page(summary: &Summary, path: &Path, bytes: usize) -> String {
    let mut text = format!("{}\n", summary.name);
    let mut facts = Table::new();
    facts.load_style(NOTHING);
    let mut fact = |what: &str, value: String| {
        facts.add_row([what.to_owned(), value]);
    };
    fact("file", format!("{}, {}", path.display(), size_words(bytes as u64)));
    if let Some(producer) = &summary.producer {
        fact("written by", producer.clone());
    }
    if let Some(opset) = summary.opset {
        fact("opset", opset.to_string());
    }
    for (what, ports) in [("input", &summary.inputs), ("output", &summary.outputs)] {
        for item in ports {
            fact(what, port(item));
        }
    }
    fact("parameters", grouped(summary.parameters));
    fact("MACs", macs_words(summary));
    if !summary.stages.is_empty() {
        fact("shortcuts", shortcuts(summary));
        fact("activation", activation(summary));
    }
    fact("batch norm", batch_norm(summary).to_owned());
    fact("quantisation", quantisation(summary));
    for file in &summary.external_data {
        fact("weights in", external(file));
    }
    if summary.stages.is_empty() {
        let operators = summary.operators.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>();
        fact("operators", wrapped(&operators.join(", "), 90));
    }
    text.push_str(&table_text(&facts));
    if !summary.stages.is_empty() {
        text.push('\n');
        text.push_str(&table_text(&network(summary)));
    }
    for note in &summary.notes {
        text.push_str(&format!("\nnote: {note}"));
    }
    text.trim_end().to_owned()
}

/// A table without the spaces that `NOTHING` leaves at the ends of lines.
fn table_text(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Stem, blocks and head, one line each; blocks that are alike share one.
fn network(summary: &Summary) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["part", "block", "layers", "stride", "shortcut", "output", "parameters", "MACs"]);
    if let Some(stem) = &summary.stem {
        let row = ["stem".to_owned(), String::new(), stem_words(stem), String::new(), String::new(), String::new()];
        table.add_row(row.into_iter().chain([grouped(stem.parameters), macs(stem.macs)]));
    }
    for (index, stage) in summary.stages.iter().enumerate() {
        for (row, (first, last)) in alike(&stage.blocks).into_iter().enumerate() {
            let block = &stage.blocks[first];
            let (part, output) =
                if row == 0 { (format!("stage {}", index + 1), output(stage)) } else { Default::default() };
            let number = if first == last { (first + 1).to_string() } else { format!("{}-{}", first + 1, last + 1) };
            let each = if first == last { "" } else { " each" };
            table.add_row([
                part,
                number,
                layers(block),
                block.stride.to_string(),
                shortcut(block),
                output,
                format!("{}{each}", grouped(block.parameters)),
                format!("{}{each}", macs(block.macs)),
            ]);
        }
    }
    if let Some(head) = &summary.head {
        let row =
            ["head".to_owned(), String::new(), head.layers.join(", "), String::new(), String::new(), String::new()];
        table.add_row(row.into_iter().chain([grouped(head.parameters), macs(head.macs)]));
    }
    table
}

/// Runs of blocks that are the same in every respect, as indices of the first and the last.
fn alike(blocks: &[Block]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        match runs.last_mut() {
            Some((first, last)) if blocks[*first] == *block => *last = index,
            Some(_) | None => runs.push((index, index)),
        }
    }
    runs
}

/// `bottleneck 64, 3x3 64, 256`.
fn layers(block: &Block) -> String {
    let kind = match block.kind {
        BlockKind::Basic => "basic",
        BlockKind::Bottleneck => "bottleneck",
        BlockKind::Other => "other",
    };
    let convs = block.convolutions.iter().map(|conv| {
        let kernel = conv.weight.iter().skip(2).map(u64::to_string).collect::<Vec<_>>().join("x");
        let groups = if conv.groups > 1 { format!(" in {} groups", conv.groups) } else { String::new() };
        format!("{kernel} {}{groups}", conv.weight.first().copied().unwrap_or(0))
    });
    let attention = match block.attention {
        Some(Attention::SqueezeExcitation) => ", SE",
        Some(Attention::Other) => ", attention",
        None => "",
    };
    let at = match (&block.stride_at, block.kind) {
        (Some(at), BlockKind::Bottleneck) => format!(" (stride at {at})"),
        (Some(_) | None, _) => String::new(),
    };
    format!("{kind}: {}{attention}{at}", convs.collect::<Vec<_>>().join(", "))
}

fn shortcut(block: &Block) -> String {
    let shortcut = &block.shortcut;
    let weight = shortcut.weight.as_ref().map(|dims| dims.iter().map(u64::to_string).collect::<Vec<_>>().join("x"));
    match (shortcut.kind, weight) {
        (ShortcutKind::Identity, _) if shortcut.stride > 1 => {
            format!("identity ({})", shortcut.detail)
        }
        (ShortcutKind::Identity, _) => "identity".to_owned(),
        (ShortcutKind::Projection, Some(weight)) => format!("projection {weight}"),
        (ShortcutKind::PoolProjection, Some(weight)) => {
            format!("average pool, projection {weight}")
        }
        (ShortcutKind::ZeroPad, _) => format!("zero pad ({})", shortcut.detail),
        (ShortcutKind::Projection | ShortcutKind::PoolProjection | ShortcutKind::Other, _) => {
            format!("other ({})", shortcut.detail)
        }
    }
}

/// The question that the residual network raises: do its shortcuts have weights?
fn shortcuts(summary: &Summary) -> String {
    let counts = summary.shortcuts;
    let all = counts.identity + counts.projection + counts.zero_pad + counts.pool_projection + counts.other;
    let weights: Vec<u64> = summary
        .stages
        .iter()
        .flat_map(|stage| &stage.blocks)
        .map(|block| block.shortcut.parameters)
        .filter(|parameters| *parameters > 0)
        .collect();
    let kinds = [
        (counts.identity, "identity"),
        (counts.projection, "projection"),
        (counts.zero_pad, "zero pad"),
        (counts.pool_projection, "average pool and projection"),
        (counts.other, "other"),
    ];
    let kinds: Vec<String> =
        kinds.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
    let answer = if weights.is_empty() {
        format!("none of {all} has weights")
    } else {
        let parameters = weights.iter().fold(0_u64, |sum, parameters| sum.saturating_add(*parameters));
        format!("{} of {all} have weights ({} parameters)", weights.len(), grouped(parameters))
    };
    let option = match summary.shortcut_option {
        Some(letter) => format!("; option {letter} of He et al. 2015"),
        None => String::new(),
    };
    format!("{answer}: {}{option}", kinds.join(", "))
}

fn activation(summary: &Summary) -> String {
    match summary.activation {
        Some(Order::Post) => "behind the sums (post-activation)".to_owned(),
        Some(Order::Pre) => "before the convolutions (pre-activation)".to_owned(),
        None => "unknown".to_owned(),
    }
}

fn batch_norm(summary: &Summary) -> &'static str {
    match summary.batch_norm {
        BatchNorm::Explicit => "explicit",
        // Another network may never have had any.
        BatchNorm::Folded if !summary.is_resnet => "no layers of their own",
        BatchNorm::Folded => "folded into the convolutions",
        BatchNorm::Partly => "partly folded into the convolutions",
        BatchNorm::Absent => "none, nor biases that could hold it",
    }
}

fn quantisation(summary: &Summary) -> String {
    let format = match summary.quantisation.format {
        QuantisationFormat::None => "none",
        QuantisationFormat::Qdq => "QDQ pairs",
        QuantisationFormat::Qoperator => "integer operators",
        QuantisationFormat::Dynamic => "integer operators, scales computed for each image",
        QuantisationFormat::WeightOnly => "of the weights alone",
    };
    let weights = summary.quantisation.weights.map(|weights| format!("; weights are {weights}"));
    format!("{format}{}", weights.unwrap_or_default())
}

fn external(file: &ExternalSummary) -> String {
    let present = match file.present {
        Some(true) => "",
        Some(false) => ", absent",
        None => ", not looked for",
    };
    format!("{}: {} tensors, {}{present}", file.location, file.tensors, size_words(file.bytes))
}

fn port(port: &Port) -> String {
    let dims = port.dims.as_ref().map(|dims| {
        let dims = dims.iter().map(|dim| match dim {
            Dim::Fixed(size) => size.to_string(),
            Dim::Named(name) => name.clone(),
            Dim::Free => "?".to_owned(),
        });
        format!(" [{}]", dims.collect::<Vec<_>>().join(","))
    });
    format!("{} {}{}", port.name, port.dtype, dims.unwrap_or_default())
}

fn stem_words(stem: &Stem) -> String {
    let convs = stem.convolutions.iter().take(4).map(|conv| {
        let kernel = conv.weight.iter().skip(2).map(u64::to_string).collect::<Vec<_>>().join("x");
        let stride = if conv.stride > 1 { format!(" stride {}", conv.stride) } else { String::new() };
        format!("{kernel} {}{stride}", conv.weight.first().copied().unwrap_or(0))
    });
    let pool = stem.has_pool.then(|| "pool".to_owned());
    convs.chain(pool).collect::<Vec<_>>().join(", ")
}

/// `256x56x56`: channels, width, height.
fn output(stage: &Stage) -> String {
    match (stage.width, stage.height) {
        (Some(width), Some(height)) => format!("{width}x{height}, {} channels", stage.channels),
        (_, _) => format!("{} channels", stage.channels),
    }
}

fn macs_words(summary: &Summary) -> String {
    let size = summary.input_size.map(|size| format!(" for {}x{} pixels", size.width, size.height));
    match summary.macs {
        Some(macs) => format!("{}{}", grouped(macs), size.unwrap_or_default()),
        None => "unknown: a shape in the file is not understood".to_owned(),
    }
}

/// `118.0 M`; the sum is given to the last digit elsewhere.
fn macs(macs: Option<u64>) -> String {
    match macs {
        Some(macs) if macs >= 1_000_000_000 => format!("{:.2} G", macs as f64 / 1e9),
        Some(macs) if macs >= 1_000_000 => format!("{:.1} M", macs as f64 / 1e6),
        Some(macs) => format!("{:.1} k", macs as f64 / 1e3),
        None => "?".to_owned(),
    }
}

/// `25,557,032`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn size_words(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// `text` in lines of at most about `width` characters.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        if lines.last().is_some_and(|line| line.len() + word.len() > width) {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}
