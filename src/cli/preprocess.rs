//! `residual preprocess`: one image through one recipe, without a model. What a model would see, to look at or to compare
//! with the library that trained it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};

use crate::config::{ExifSetting, ScaledDecodeSetting};
use crate::pipeline::Sample;
use crate::pipeline::decode::{DecodeOptions, ExifOrientation, Pending};
use crate::pipeline::prepare::open_for;
use crate::pipeline::preprocess::{self, Recipe};
use crate::zoo::recipe::{Evidence, Preset, Resolved};
use crate::zoo::{self, Choices, Wanted};

/// Arguments of `residual preprocess`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("from").required(true).args(["preset", "recipe", "model", "list_presets"])))]
pub struct PreprocessArgs {
    /// The image file.
    #[arg(value_name = "IMAGE", required_unless_present = "list_presets")]
    image: Option<PathBuf>,

    /// Prepare it as this preset says.
    #[arg(long, value_name = "NAME")]
    preset: Option<Preset>,

    /// Prepare it as this file says: a preprocessor_config.json of Hugging Face, or a config.json of timm.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,

    /// Prepare it as for this model: a file, a directory, or `builtin`.
    #[arg(long, value_name = "PATH")]
    model: Option<Wanted>,

    /// Size of the graph's input, where it is fixed and not the recipe's own.
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size, conflicts_with_all = ["model", "list_presets"])]
    size: Option<(u32, u32)>,

    /// Write the sample there: a .npy file, f32 of shape [3, height, width]. Without this, only tell what it would be.
    #[arg(long, short, value_name = "FILE.npy", conflicts_with = "list_presets")]
    output: Option<PathBuf>,

    /// Whether to turn a photo upright as its EXIF orientation says.
    #[arg(long, env = "RESIDUAL_EXIF_ORIENTATION", value_name = "MODE", default_value = "apply")]
    exif_orientation: ExifSetting,

    /// Whether JPEGs above 4 megapixels are decoded smaller where the recipe shrinks them anyway, as the server does it.
    #[arg(long, env = "RESIDUAL_SCALED_DECODE", value_name = "MODE", default_value = "auto")]
    scaled_decode: ScaledDecodeSetting,

    /// Show every preset and which weights it is for.
    #[arg(long, conflicts_with = "image")]
    list_presets: bool,
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x').map(|(width, height)| (width.parse(), height.parse()));
    match sides {
        Some((Ok(width), Ok(height))) => Ok((width, height)),
        Some(_) | None => Err(format!("{text:?} is no size; expected two numbers like 224x224")),
    }
}

/// Runs `residual preprocess`.
pub(super) fn run(args: &PreprocessArgs) -> anyhow::Result<()> {
    let Some(path) = &args.image else {
        say(&preset_table());
        return Ok(());
    };
    let (recipe, said_by, notes) = recipe(args)?;
    let sample = prepare(path, args, &recipe)?;
    let shape = sample.shape();
    if let Some(output) = &args.output {
        std::fs::write(output, npy(&sample)).with_context(|| format!("write {}", output.display()))?;
    }
    say(&format!("[3, {}, {}] f32: {recipe} ({said_by})", shape.height, shape.width));
    for note in notes {
        // Nobody may be reading; the sample is written all the same.
        let _ = writeln!(io::stderr(), "note: {note}");
    }
    Ok(())
}

/// The recipe, who told it, and what else is to be known about it.
fn recipe(args: &PreprocessArgs) -> anyhow::Result<(Recipe, String, Vec<String>)> {
    if let Some(model) = &args.model {
        let spec = zoo::open_newest(model, &Choices::default())?.spec;
        let notes = [spec.warnings, spec.notes].concat();
        return Ok((spec.recipe, spec.recipe_source.to_owned(), notes));
    }
    let mut evidence = Evidence { explicit: args.preset, input_size: args.size, ..Evidence::default() };
    let mut json = Vec::new();
    if let Some(path) = &args.recipe {
        json = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        // By its name, as beside a model; any other name is tried as the file that says more.
        if path.file_name().is_some_and(|name| name == "config.json") {
            evidence.config = Some((path, &json));
        } else {
            evidence.preprocessor = Some((path, &json));
        }
    }
    let Resolved { recipe, source, notes, sample_shape: _ } = zoo::recipe::resolve(&evidence)?;
    drop(json);
    Ok((recipe, args.preset.map_or_else(|| source.to_string(), |preset| preset.to_string()), notes))
}

fn prepare(path: &Path, args: &PreprocessArgs, recipe: &Recipe) -> anyhow::Result<Sample> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let exif_orientation = match args.exif_orientation {
        ExifSetting::Apply => ExifOrientation::Apply,
        ExifSetting::Ignore => ExifOrientation::Ignore,
    };
    let options =
        DecodeOptions { exif_orientation, scaled_decode: args.scaled_decode.into(), ..DecodeOptions::default() };
    let image = open_for(&bytes, &options, recipe)
        .and_then(Pending::decode)
        .with_context(|| format!("decode {}", path.display()))?;
    Ok(preprocess::preprocess(&image, recipe)?)
}

/// Version 1.0 of NumPy's format: magic, length of the header, a Python dict padded to 64 bytes, the values.
fn npy(sample: &Sample) -> Vec<u8> {
    const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
    let shape = sample.shape();
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': (3, {}, {}), }}", shape.height, shape.width);
    let unpadded = MAGIC.len() + 2 + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let len = u16::try_from(header.len()).expect("two numbers fit into a header of 64 KiB");
    let mut bytes = [MAGIC, &len.to_le_bytes(), header.as_bytes()].concat();
    bytes.extend(sample.values().iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

fn preset_table() -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["preset", "recipe", "published with"]);
    for preset in Preset::all() {
        let recipe = Recipe::new(preset.steps(None)).map(|recipe| recipe.to_string());
        table.add_row([
            preset.name().to_owned(),
            recipe.unwrap_or_else(|error| error.to_string()),
            preset.weights().to_owned(),
        ]);
    }
    table.to_string()
}

fn say(text: &str) {
    // A reader that went away, like `head`, has read what it wants.
    let _ = writeln!(io::stdout().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::SampleShape;

    #[test]
    fn a_numpy_file_starts_on_a_multiple_of_64_bytes() {
        let shape = SampleShape { height: 2, width: 1 };
        let bytes = npy(&Sample::new(shape, vec![0.0, 1.0, 2.0, 3.0, 4.0, -5.5]));
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let header = std::str::from_utf8(&bytes[10..128]).unwrap();
        assert_eq!(header.trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2, 1), }");
        assert!(header.ends_with('\n'));
        assert_eq!(bytes.len(), 128 + 6 * 4);
        assert_eq!(bytes[148..], (-5.5_f32).to_le_bytes());
    }

    #[test]
    fn a_size_is_two_numbers() {
        assert_eq!(size("320x224"), Ok((320, 224)));
        for wrong in ["320", "320x", "x", "320x224x3", "-1x3"] {
            assert!(size(wrong).unwrap_err().contains("expected two numbers"), "{wrong}");
        }
    }
}
