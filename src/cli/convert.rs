//! `residual convert`: trained weights from a safetensors file to a model directory.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use super::model_folder::{
    CONFIG_FILE, GraphArgs, MODEL_FILE, ModelFolder, PREPROCESSOR_FILE, RECIPE_FILE, SIZE_MAX, say, size_parser,
    summary, warn,
};
use crate::graph::build::{Dataset, build};
use crate::graph::weights::{Checkpoint, Hints, Naming, WeightsFile};
use crate::zoo::recipe::Preset;

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

    /// Width and height of the input, in pixels [default: as config.json says, otherwise 224, or 32 for a network with
    /// a 3x3 stem]
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
    advise(args, &descriptions, converted.size)
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
    let usual = if architecture.is_for_small_pictures() { Dataset::Cifar } else { Dataset::Imagenet };
    let preset_size = args.preset.map(|preset| preset.size().0 as usize);
    let size = args.size.or(preset_size).or(descriptions.size()?).unwrap_or(usual.size());

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
fn advise(args: &ConvertArgs, descriptions: &Descriptions, size: usize) -> anyhow::Result<()> {
    let recipe = args.graph.output.join(RECIPE_FILE);
    if args.preset.is_some() {
        return Ok(());
    }
    if recipe.exists() {
        warn(&format!("{} was there before and goes on telling how pictures are prepared", recipe.display()));
    } else if !descriptions.have_recipe() {
        warn(
            "nothing says how these weights want their pictures; torchvision-v1 will be assumed. If they are newer \
             torchvision weights (IMAGENET1K_V2), give --preset torchvision-v2; if they are timm's or transformers', \
             give their config.json with --config",
        );
    } else if let Some(declared) = descriptions.size()?.filter(|&declared| declared != size) {
        warn(&format!(
            "the graph takes {size} pixels and the description of the model says {declared}; set resize and crop for \
             {size} in the table [recipe] of {}",
            recipe.display()
        ));
    }
    Ok(())
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

    /// Whether they say how pictures are prepared: a preprocessor always does, a configuration if it is timm's.
    fn have_recipe(&self) -> bool {
        self.preprocessor.is_some()
            || self.config.as_ref().and_then(|(_, json)| timm(json)).is_some_and(|timm| {
                ["input_size", "crop_pct", "interpolation"].iter().any(|key| timm.get(key).is_some())
            })
    }

    /// The side of the square picture that the model was made for, if they say.
    fn size(&self) -> anyhow::Result<Option<usize>> {
        if let Some((path, json)) = &self.preprocessor {
            let json: Value = serde_json::from_slice(json).with_context(|| format!("read {}", path.display()))?;
            return side_of_preprocessor(&json).with_context(|| format!("read {}", path.display()));
        }
        let Some((path, json)) = &self.config else { return Ok(None) };
        match timm(json).and_then(|timm| timm.get("input_size").cloned()) {
            None => Ok(None),
            Some(sides) => match sides.as_array().map(Vec::as_slice) {
                Some([_, height, width]) => {
                    square(Some(height), Some(width)).with_context(|| format!("read {}", path.display()))
                }
                _ => bail!("read {}: input_size is {sides}; expected [3, height, width]", path.display()),
            },
        }
    }
}

/// The part of timm's `config.json` with the recipe: a table of its own, or in old files the whole.
fn timm(json: &[u8]) -> Option<Value> {
    let mut config: Value = serde_json::from_slice(json).ok()?;
    let nested = config.get_mut("pretrained_cfg").map(Value::take);
    Some(nested.unwrap_or(config))
}

/// What leaves a processor of transformers: its crop, or its size where it does not crop.
fn side_of_preprocessor(json: &Value) -> anyhow::Result<Option<usize>> {
    let crops = match json.get("do_center_crop").and_then(Value::as_bool) {
        Some(crops) => crops,
        None => json.get("crop_size").is_some(),
    };
    let Some(size) = json.get(if crops { "crop_size" } else { "size" }) else { return Ok(None) };
    if size.is_number() {
        return square(Some(size), Some(size));
    }
    let edge = size.get("shortest_edge");
    square(size.get("height").or(edge), size.get("width").or(edge))
}

fn square(height: Option<&Value>, width: Option<&Value>) -> anyhow::Result<Option<usize>> {
    let side = |value: Option<&Value>| value.and_then(Value::as_u64);
    match (side(height), side(width)) {
        (Some(side), _) | (_, Some(side)) if !(1..=SIZE_MAX).contains(&side) => {
            bail!("the model takes pictures of {side} pixels; 1 to {SIZE_MAX} are possible")
        }
        (Some(height), Some(width)) if height == width => Ok(usize::try_from(height).ok()),
        (Some(height), Some(width)) => bail!(
            "the model takes pictures of {width}x{height} pixels; only square ones can be converted, choose one with --size"
        ),
        _ => Ok(None),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_size_is_what_leaves_the_processor() {
        for (json, expected) in [
            (json!({"crop_pct": 0.875, "size": {"shortest_edge": 224}}), Some(224)),
            (json!({"size": {"shortest_edge": 256}, "do_center_crop": true, "crop_size": 224}), Some(224)),
            (json!({"size": 256, "crop_size": {"height": 200, "width": 200}}), Some(200)),
            (json!({"size": {"height": 384, "width": 384}, "do_center_crop": false, "crop_size": 224}), Some(384)),
            (json!({"do_resize": false}), None),
        ] {
            assert_eq!(side_of_preprocessor(&json).unwrap(), expected, "{json}");
        }
        let error = side_of_preprocessor(&json!({"size": {"height": 100, "width": 200}})).unwrap_err().to_string();
        assert!(error.contains("200x100"), "{error}");
    }

    #[test]
    fn timm_tells_its_size_in_new_files_and_in_old() {
        let size = |json: Value| {
            let config = Some(("c.json".into(), json.to_string().into_bytes()));
            Descriptions { config, preprocessor: None }.size().map_err(|error| format!("{error:#}"))
        };
        assert_eq!(size(json!({"pretrained_cfg": {"input_size": [3, 176, 176]}})), Ok(Some(176)));
        assert_eq!(size(json!({"input_size": [3, 288, 288]})), Ok(Some(288)));
        assert_eq!(size(json!({"id2label": {}})), Ok(None));
        assert!(size(json!({"input_size": [3, 2]})).unwrap_err().contains("expected [3, height, width]"));
        assert!(size(json!({"input_size": [3, 200, 100]})).unwrap_err().contains("100x200"));
    }

    #[test]
    fn sizes_are_bounded() {
        let size = |side: u64| side_of_preprocessor(&json!({"size": side})).map_err(|error| error.to_string());
        assert_eq!(size(SIZE_MAX), Ok(Some(3584)));
        assert!(size(SIZE_MAX + 1).unwrap_err().contains("1 to 3584"));
        assert!(size(0).is_err());
    }
}
