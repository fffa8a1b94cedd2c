//! `residual synth`: a ResNet with random weights, for load tests and for trying things out without a download.

use std::io::Write as _;

use anyhow::Context as _;
use clap::Args;

use super::model_folder::{
    CONFIG_FILE, GraphArgs, MODEL_FILE, ModelFolder, PREPROCESSOR_FILE, RECIPE_FILE, say, size_parser, summary, warn,
};
use crate::graph::build::{Dataset, HeWeights, KNOWN, Network, ShortcutOption, build, named};

/// Write a ResNet with random weights.
///
/// It has the layers, shapes and cost of the real network, and its classes mean nothing. Weights are He-initialised; the
/// same name, options and seed give the same file on every machine.
#[derive(Debug, Args)]
#[command(after_long_help = format!("Networks: {KNOWN}"))]
pub struct SynthArgs {
    /// The network, for example resnet50, resnet18-v1, resnet50-d, resnet20
    #[arg(value_name = "NETWORK")]
    name: String,

    /// Classes [default: 1000, or 10 for the CIFAR networks]
    #[arg(long, value_name = "N")]
    classes: Option<usize>,

    /// Width and height of the input, in pixels [default: 224, or 32 for the CIFAR networks]
    #[arg(long, value_name = "PIXELS", value_parser = size_parser())]
    size: Option<usize>,

    /// Shortcut between blocks of different shapes, as He et al. 2015 letter them [default: b, or a for the CIFAR
    /// networks]
    #[arg(long, value_enum)]
    shortcut: Option<ShortcutOption>,

    /// Another seed, other weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    graph: GraphArgs,
}

/// Runs the subcommand.
///
/// # Errors
/// Where the network is not known, or the folder cannot be written.
pub fn run(args: &SynthArgs) -> anyhow::Result<()> {
    let (architecture, dataset) = named(&args.name, args.classes, args.shortcut)?;
    let size = args.size.unwrap_or(dataset.size());
    let mut folder = ModelFolder::open(&args.graph.output, args.graph.force, &[RECIPE_FILE, MODEL_FILE])?;
    let network = Network::new(&architecture);
    let description = format!("{architecture} with random weights, seed {}; its classes mean nothing", args.seed);
    let form = args.graph.form(size, description);
    let model = build(&network, &form, &mut HeWeights::new(&network, args.seed))
        .with_context(|| format!("build {}", args.name))?;
    folder.add(RECIPE_FILE, |to| to.write_all(recipe(dataset, size).as_bytes()))?;
    // Last, so that a folder with a model has its recipe.
    folder.add_model(&model)?;
    let written = folder.finish()?;
    say(&summary(&architecture.to_string(), &network, architecture.classes(), &form));
    written.iter().for_each(|line| say(line));
    say(&format!("the weights are random (seed {}): its classes mean nothing", args.seed));
    say(&format!("serve it: residual serve --model {}", args.graph.output.display()));
    for name in [CONFIG_FILE, PREPROCESSOR_FILE] {
        let path = args.graph.output.join(name);
        if path.exists() {
            warn(&format!("{} was there before and describes another model; remove it", path.display()));
        }
    }
    Ok(())
}

/// The recipe beside the model: a preset, and where the size is another one, the steps that follow from it.
fn recipe(dataset: Dataset, size: usize) -> String {
    let head = "# How pictures are prepared; written by `residual synth`.\n";
    let (preset, resized, rounding) = match dataset {
        // torchvision resizes to 256 for 224, and by the same ratio for other sizes.
        Dataset::Imagenet => ("torchvision-v1", (size * 256 + 112) / 224, "round_half_even"),
        Dataset::Cifar => ("cifar10", size, "floor"),
    };
    let preset = format!("preset = \"{preset}\"\n");
    if size == dataset.size() {
        return format!("{head}{preset}");
    }
    format!(
        "{head}{preset}\n[recipe]\nresize = {{ shortest_edge = {resized} }}\n\
         crop = {{ width = {size}, height = {size}, rounding = \"{rounding}\" }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_follows_the_size() {
        let parsed = |dataset, size| recipe(dataset, size).parse::<toml::Table>().unwrap();
        assert_eq!(parsed(Dataset::Imagenet, 224), toml::toml! { preset = "torchvision-v1" });
        assert_eq!(parsed(Dataset::Cifar, 32), toml::toml! { preset = "cifar10" });
        let large = toml::toml! {
            preset = "torchvision-v1"
            [recipe]
            resize = { shortest_edge = 329 }
            crop = { width = 288, height = 288, rounding = "round_half_even" }
        };
        assert_eq!(parsed(Dataset::Imagenet, 288), large);
        let cifar = toml::toml! {
            preset = "cifar10"
            [recipe]
            resize = { shortest_edge = 64 }
            crop = { width = 64, height = 64, rounding = "floor" }
        };
        assert_eq!(parsed(Dataset::Cifar, 64), cifar);
    }
}
