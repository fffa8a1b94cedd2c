//! The model directories that `synth` and `convert` write: what a user may choose about the graph, and files that appear
//! whole or not at all.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use tempfile::NamedTempFile;

use crate::graph::build::{BatchNormForm, Dtype, GraphForm, Layout, Network, write_model};
use crate::graph::proto::ModelProto;
use crate::pipeline::preprocess::RECIPE_SIDE_MAX;

/// Files of a model directory.
pub(super) const MODEL_FILE: &str = "model.onnx";
pub(super) const RECIPE_FILE: &str = "residual.toml";
pub(super) const CONFIG_FILE: &str = "config.json";
pub(super) const PREPROCESSOR_FILE: &str = "preprocessor_config.json";

/// Largest input, in pixels: the usual recipe resizes to an eighth more and crops.
const SIZE_MAX: u64 = RECIPE_SIDE_MAX as u64 / 8 * 7;
/// Largest batch that may be fixed, in images. Beyond it a free batch is the better choice anyway.
const BATCH_IMAGES_MAX: u64 = 4096;

/// What both commands let a user choose about the graph and where it goes.
#[derive(Debug, Args)]
pub(super) struct GraphArgs {
    /// Folder to write the model to; it is made if it is not there
    #[arg(long, short = 'o', value_name = "FOLDER")]
    pub(super) output: PathBuf,

    /// Replace files that are there already
    #[arg(long)]
    pub(super) force: bool,

    /// Element type of weights, input and output
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,

    /// What becomes of batch norms
    #[arg(long, value_enum, default_value_t = BatchNormForm::Folded)]
    batch_norm: BatchNormForm,

    /// Order of the input's dimensions
    #[arg(long, value_enum, default_value_t = Layout::Nchw)]
    layout: Layout,

    /// Fix the number of images in a batch, which is free otherwise
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=BATCH_IMAGES_MAX))]
    batch: Option<usize>,

    /// End the graph in probabilities instead of logits
    #[arg(long)]
    softmax: bool,
}

impl GraphArgs {
    /// The defaults, and leave to replace what is in `output`.
    pub(super) fn replacing(output: &Path) -> Self {
        let GraphForm { dtype, batch_norm, layout, batch, softmax, .. } = GraphForm::default();
        Self { output: output.to_owned(), force: true, dtype, batch_norm, layout, batch, softmax }
    }

    /// The graph's form for pictures of `size` by `size` pixels.
    pub(super) fn form(&self, size: usize, description: String) -> GraphForm {
        let &Self { dtype, batch_norm, layout, batch, softmax, .. } = self;
        GraphForm { dtype, batch_norm, layout, size, batch, softmax, description }
    }
}

/// Takes 1 to [`SIZE_MAX`] pixels.
pub(super) fn size_parser() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=SIZE_MAX)
}

/// A folder whose new files are not there yet: they appear when all of them are complete.
pub(super) struct ModelFolder {
    path: PathBuf,
    force: bool,
    /// In the order in which they appear.
    files: Vec<(&'static str, NamedTempFile)>,
}

impl ModelFolder {
    /// Makes the folder, if need be, and refuses early if one of `names` is there and may not be replaced.
    pub(super) fn open(path: &Path, force: bool, names: &[&str]) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("make the folder {}", path.display()))?;
        if let Some(name) = names.iter().find(|name| !force && path.join(name).symlink_metadata().is_ok()) {
            bail!("{} is there already; give another folder, or --force to replace it", path.join(name).display());
        }
        Ok(Self { path: path.to_owned(), force, files: Vec::new() })
    }

    /// Writes a file beside its place.
    pub(super) fn add(
        &mut self,
        name: &'static str,
        write: impl FnOnce(&mut BufWriter<&mut fs::File>) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let mut file = self.temporary().with_context(|| format!("write into {}", self.path.display()))?;
        let written = {
            let mut to = BufWriter::with_capacity(1 << 20, file.as_file_mut());
            write(&mut to).and_then(|()| to.flush())
        };
        // Before the name points to it, the content has to be on the disk.
        written
            .and_then(|()| file.as_file().sync_all())
            .with_context(|| format!("write {}", self.path.join(name).display()))?;
        self.files.push((name, file));
        Ok(())
    }

    pub(super) fn add_model(&mut self, model: &ModelProto) -> anyhow::Result<()> {
        self.add(MODEL_FILE, |to| write_model(model, to))
    }

    /// Lets the files appear under their names, and returns a line for each. One that fails leaves those before it.
    pub(super) fn finish(self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for (name, file) in self.files {
            let to = self.path.join(name);
            let bytes = file.as_file().metadata().map_or(0, |metadata| metadata.len());
            let persisted = if self.force { file.persist(&to) } else { file.persist_noclobber(&to) };
            persisted.map_err(|error| error.error).with_context(|| format!("write {}", to.display()))?;
            lines.push(format!("wrote {}, {}", to.display(), weight(bytes)));
        }
        Ok(lines)
    }

    fn temporary(&self) -> io::Result<NamedTempFile> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".residual-").suffix(".partial");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // As other programs' files: readable for whom the umask lets, not for the owner alone.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        builder.tempfile_in(&self.path)
    }
}

/// Lines about a network and the graph made of it: `ResNet-50 v1.5: 25,557,032 parameters, 1000 classes, ...`.
pub(super) fn summary(spoken: &str, network: &Network, classes: usize, form: &GraphForm) -> String {
    let GraphForm { size, batch, .. } = form;
    let batch = batch.map_or_else(|| "N".to_owned(), |batch| batch.to_string());
    let shape = match form.layout {
        Layout::Nchw => format!("[{batch},3,{size},{size}]"),
        Layout::Nhwc => format!("[{batch},{size},{size},3]"),
    };
    let dtype = match form.dtype {
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
    };
    let parameters = grouped(network.parameter_count());
    format!("{spoken}: {parameters} parameters, {classes} classes, input {dtype} {shape}")
}

/// `25557032` as `25,557,032`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (head, rest) = digits.split_at(first);
    let groups = rest.as_bytes().chunks(3).map(String::from_utf8_lossy);
    let head = (!head.is_empty()).then(|| head.into());
    head.into_iter().chain(groups).collect::<Vec<_>>().join(",")
}

fn weight(bytes: u64) -> String {
    if bytes < 100_000 { format!("{bytes} bytes") } else { format!("{:.1} MB", bytes as f64 / 1e6) }
}

/// Writes a line to standard output. What it tells about is done by then; where nobody reads, it is lost.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Writes a warning to standard error.
pub(super) fn warn(line: &str) {
    let _ = writeln!(io::stderr().lock(), "warning: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_threes() {
        let all = [0, 999, 1000, 25_557_032, 100_000].map(grouped);
        assert_eq!(all, ["0", "999", "1,000", "25,557,032", "100,000"]);
    }

    #[test]
    fn files_appear_together_and_are_not_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/model");
        let names = || -> Vec<String> {
            let mut names: Vec<String> =
                fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let mut first = ModelFolder::open(&path, false, &[RECIPE_FILE]).unwrap();
        first.add(RECIPE_FILE, |to| to.write_all(b"one")).unwrap();
        assert!(!names().contains(&RECIPE_FILE.to_owned()));
        assert_eq!(first.finish().unwrap(), [format!("wrote {}/residual.toml, 3 bytes", path.display())]);
        assert_eq!(names(), [RECIPE_FILE]);

        let error = ModelFolder::open(&path, false, &[MODEL_FILE, RECIPE_FILE]).map(drop).unwrap_err().to_string();
        assert!(error.ends_with("residual.toml is there already; give another folder, or --force to replace it"));

        // A writer that fails leaves what was there, and nothing beside it.
        let mut second = ModelFolder::open(&path, true, &[RECIPE_FILE]).unwrap();
        assert!(second.add(RECIPE_FILE, |_| Err(io::Error::other("disk full"))).is_err());
        drop(second);
        assert_eq!(
            (names(), fs::read(path.join(RECIPE_FILE)).unwrap()),
            (vec![RECIPE_FILE.to_owned()], b"one".to_vec())
        );

        let mut third = ModelFolder::open(&path, true, &[RECIPE_FILE]).unwrap();
        third.add(RECIPE_FILE, |to| to.write_all(b"two")).unwrap();
        third.finish().unwrap();
        assert_eq!(fs::read(path.join(RECIPE_FILE)).unwrap(), b"two");
    }

    #[cfg(unix)]
    #[test]
    fn files_can_be_read_by_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let mut model = ModelFolder::open(folder.path(), false, &[]).unwrap();
        model.add(RECIPE_FILE, |to| to.write_all(b"")).unwrap();
        model.finish().unwrap();
        // The umask decides, as it does for any file.
        fs::write(folder.path().join("other"), b"").unwrap();
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode(RECIPE_FILE), mode("other"));
    }
}
