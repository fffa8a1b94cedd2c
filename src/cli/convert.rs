//! `residual convert`: trained weights from a safetensors file to a model directory.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use super::model_folder::{
    CONFIG_FILE, GraphArgs, MODEL_FILE, ModelFolder, PREPROCESSOR_FILE, RECIPE_FILE, say, size_parser, summary, warn,
};
use crate::graph::build::build;
use crate::graph::weights::{Checkpoint, Hints, Naming, WeightsFile};
use crate::zoo::recipe::{Evidence, Preset, RecipeSource, resolve};
use crate::zoo::square_size;

/// Largest JSON file that is read, in bytes. With ImageNet-21k's labels twice it has three megabytes.
const JSON_BYTES_MAX: u64 = 16 << 20;

/// Convert ResNet weights to ONNX.
///
/// Takes torchvision's, timm's and transformers' ResNets: basic, bottleneck, wide, ResNeXt, ResNet-C and -D, and timm's
/// resnetv2. The network is found from the names and shapes of the tensors. Where the stride of a bottleneck is cannot be
/// seen: it is taken from downsample_in_bottleneck in config.json, otherwise it is in the 3x3 convolution ("v1.5"), as
/// all three libraries have it.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The weights
    #[arg(value_name = "WEIGHTS.safetensors")]
    weights: PathBuf,

    /// timm's or transformers' description of the model; copied beside it, together with preprocessor_config.json if the
    /// weights have one beside them [default: config.json beside the weights, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// How pictures are prepared, if config.json does not tell: torchvision-v1 for torchvision's older weights,
    /// torchvision-v2 for its newer ones
    #[arg(long, value_name = "NAME")]
    preset: Option<Preset>,

    /// Width and height of the input, in pixels [default: as the recipe makes it, otherwise 224, or 32 for a network
    /// with a 3x3 stem]
    #[arg(long, value_name = "PIXELS", value_parser = size_parser())]
    size: Option<usize>,

    #[command(flatten)]
    graph: GraphArgs,
}

/// Runs the subcommand.
///
/// # Errors
/// Where the weights are no ResNet's, a file cannot be read, or the folder cannot be written.
pub fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    let descriptions = Descriptions::find(args)?;
    let converted = convert(args, &descriptions)?;
    say(&converted.summary);
    converted.written.iter().for_each(|line| say(line));
    say(&format!("serve it: residual serve --model {}", args.graph.output.display()));
    advise(args, &descriptions, converted.size);
    Ok(())
}

/// Converts without a word and with every option at its default, into a folder whose files may be replaced.
///
/// # Errors
/// As [`run`].
pub fn convert_quietly(weights: &Path, config: Option<&Path>, output: &Path) -> anyhow::Result<()> {
    let args = ConvertArgs {
        weights: weights.to_owned(),
        config: config.map(Path::to_owned),
        preset: None,
        size: None,
        graph: GraphArgs::replacing(output),
    };
    convert(&args, &Descriptions::find(&args)?).map(drop)
}

struct Converted {
    /// The network and the graph, in a line.
    summary: String,
    /// A line for each file.
    written: Vec<String>,
    /// Width and height of the input, in pixels.
    size: usize,
}

fn convert(args: &ConvertArgs, descriptions: &Descriptions) -> anyhow::Result<Converted> {
    let hints = match &descriptions.config {
        Some((path, json)) => Hints::from_config(json).with_context(|| format!("read {}", path.display()))?,
        None => Hints::default(),
    };
    let file = WeightsFile::open(&args.weights)?;
    let mut checkpoint = Checkpoint::new(file, hints).with_context(|| format!("read {}", args.weights.display()))?;
    let architecture = checkpoint.architecture().clone();
    let size = match args.size {
        Some(size) => size,
        None => square_size(&args.weights, &descriptions.evidence(args.preset), architecture.is_for_small_pictures())?,
    };

    let output = &args.graph.output;
    let copies = descriptions.copies(output);
    let recipe = args
        .preset
        .as_ref()
        .map(|preset| format!("# How pictures are prepared; written by `residual convert`.\npreset = \"{preset}\"\n"));
    let mut names: Vec<&str> = copies.iter().map(|(name, _)| *name).chain([MODEL_FILE]).collect();
    names.extend(recipe.as_ref().map(|_| RECIPE_FILE));
    let mut folder = ModelFolder::open(output, args.graph.force, &names)?;

    let source = args.weights.file_name().unwrap_or(args.weights.as_os_str()).to_string_lossy();
    let form = args.graph.form(size, format!("{architecture}, weights of {source}"));
    let network = checkpoint.network().clone();
    let model = build(&network, &form, &mut checkpoint).context("build the graph")?;
    for (name, json) in copies {
        folder.add(name, |to| to.write_all(json))?;
    }
    if let Some(recipe) = &recipe {
        folder.add(RECIPE_FILE, |to| to.write_all(recipe.as_bytes()))?;
    }
    // Last, so that a folder with a model has what belongs to it.
    folder.add_model(&model)?;

    let library = match checkpoint.naming() {
        Naming::Torchvision => "torchvision or timm",
        Naming::TimmV2 => "timm",
        Naming::Transformers => "transformers",
    };
    let spoken = format!("{architecture}, saved by {library}");
    Ok(Converted {
        summary: summary(&spoken, &network, architecture.classes(), &form),
        written: folder.finish()?,
        size,
    })
}

/// Tells where the recipe is not known or does not fit.
fn advise(args: &ConvertArgs, descriptions: &Descriptions, size: usize) {
    let recipe = args.graph.output.join(RECIPE_FILE);
    if args.preset.is_some() {
        return;
    }
    if recipe.exists() {
        warn(&format!("{} was there before and goes on telling how pictures are prepared", recipe.display()));
        return;
    }
    let side = u32::try_from(size).expect("sizes are bounded by SIZE_MAX, or those of a recipe");
    match resolve(&Evidence { input_size: Some((side, side)), ..descriptions.evidence(None) }) {
        Ok(resolved) if resolved.source == RecipeSource::Assumed => warn(
            "nothing says how these weights want their pictures; torchvision-v1 will be assumed. If they are newer \
             torchvision weights (IMAGENET1K_V2), give --preset torchvision-v2; if they are timm's or transformers', \
             give their config.json with --config",
        ),
        Ok(_) => {}
        // As the server would say it.
        Err(error) => warn(&format!("{} cannot be served as it is: {error}", args.graph.output.display())),
    }
}

/// The JSON files that describe the model, as far as they are there.
struct Descriptions {
    config: Option<(PathBuf, Vec<u8>)>,
    preprocessor: Option<(PathBuf, Vec<u8>)>,
}

impl Descriptions {
    fn find(args: &ConvertArgs) -> anyhow::Result<Self> {
        let beside = |file: &Path, name: &str| file.with_file_name(name);
        let config = match &args.config {
            Some(path) => Some((path.clone(), read(path)?)),
            None => read_if_there(beside(&args.weights, CONFIG_FILE))?,
        };
        let mut preprocessor = read_if_there(beside(&args.weights, PREPROCESSOR_FILE))?;
        if let (None, Some(config)) = (&preprocessor, &args.config) {
            preprocessor = read_if_there(beside(config, PREPROCESSOR_FILE))?;
        }
        Ok(Self { config, preprocessor })
    }

    /// The files to put beside the model, less those that are there already because they were found there.
    fn copies(&self, output: &Path) -> Vec<(&'static str, &[u8])> {
        let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
        let files = [(CONFIG_FILE, &self.config), (PREPROCESSOR_FILE, &self.preprocessor)];
        let found = files.into_iter().filter_map(|(name, file)| Some((name, file.as_ref()?)));
        let new = found.filter(|(name, (path, _))| !same(path, &output.join(name)));
        new.map(|(name, (_, json))| (name, json.as_slice())).collect()
    }

    /// All that will tell the recipe of the model.
    fn evidence(&self, explicit: Option<Preset>) -> Evidence<'_> {
        let [preprocessor, config] = [&self.preprocessor, &self.config]
            .map(|file| file.as_ref().map(|(path, json)| (path.as_path(), json.as_slice())));
        Evidence { explicit, preprocessor, config, ..Evidence::default() }
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = fs::metadata(path).with_context(|| format!("read {}", path.display()))?.len();
    if bytes > JSON_BYTES_MAX {
        bail!("read {}: it has {bytes} bytes; at most {JSON_BYTES_MAX} are read", path.display());
    }
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

fn read_if_there(path: PathBuf) -> anyhow::Result<Option<(PathBuf, Vec<u8>)>> {
    if !path.exists() {
        return Ok(None);
    }
    let json = read(&path)?;
    Ok(Some((path, json)))
}
