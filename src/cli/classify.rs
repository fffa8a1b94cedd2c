//! `residual classify`: the same pipeline as the server's, fed from files.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, presets};
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;
use walkdir::WalkDir;

use crate::config::{BatchSettings, ImageSettings, RuntimeSettings};
use crate::pipeline::batch::Scored;
use crate::pipeline::{Ask, ClassifyError, Engine, ImageInfo, Prediction, decode};
use crate::telemetry::logging::{self, Delivery, LogFormat};
use crate::zoo::recipe::Preset;
use crate::zoo::{Choices, Wanted};

/// Images from which on a progress bar is worth its line.
const PROGRESS_FROM: usize = 20;
/// Largest file that is read. Ten times what the server takes: the files are the caller's own.
const FILE_BYTES_MAX: u64 = 200 * 1024 * 1024;
/// A file waits for its neighbours, not for a client: only a hang should end the wait.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// Arguments of `residual classify`.
#[derive(Debug, Args)]
pub struct ClassifyArgs {
    /// Image files, folders (searched for images), or - for standard input.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Classes to show for each image.
    #[arg(long, short = 'k', value_name = "N", default_value_t = 3, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    top_k: usize,

    /// One JSON object a line instead of a table, as soon as each image is done.
    #[arg(long)]
    json: bool,

    /// What to classify with: `builtin` (ResNet-20, ten CIFAR-10 classes), a model file or a model directory.
    #[arg(long, env = "RESIDUAL_MODEL", value_name = "PATH", default_value = "builtin", help_heading = "Model")]
    model: Wanted,

    /// How images are prepared, whatever the model's files say.
    #[arg(long, value_name = "PRESET", help_heading = "Model")]
    preset: Option<Preset>,

    #[command(flatten)]
    runtime: RuntimeSettings,
    #[command(flatten)]
    batch: BatchSettings,
    #[command(flatten)]
    image: ImageSettings,

    /// What to log on standard error.
    #[arg(long, env = "RESIDUAL_LOG", value_name = "FILTER", default_value = "warn", help_heading = "Logging")]
    log: String,
}

/// What went wrong with one file.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("read file: {0}")]
    Read(#[from] std::io::Error),
    #[error("search folder: {0}")]
    Search(String),
    #[error(transparent)]
    Classify(#[from] ClassifyError),
}

impl FileError {
    fn code(&self) -> &'static str {
        match self {
            Self::Read(_) | Self::Search(_) => "unreadable_file",
            Self::Classify(error) => error.code(),
        }
    }
}

/// One line of `--json`.
#[derive(Serialize)]
#[serde(untagged)]
enum JsonLine<'a> {
    Classified { path: String, predictions: &'a [Prediction], image: ImageInfo },
    Failed { path: String, error: JsonError },
}

#[derive(Serialize)]
struct JsonError {
    code: &'static str,
    detail: String,
}

type Outcome = (PathBuf, Result<Scored, FileError>);

/// Runs `residual classify`. The exit code is 1 if any image failed.
pub(super) fn run(args: &ClassifyArgs) -> anyhow::Result<ExitCode> {
    logging::init(LogFormat::Text, &args.log, Delivery::Direct)
        .map_err(|error| anyhow::anyhow!("--log {:?} is no log filter: {error}", args.log))?;
    let found = find(&args.paths);
    anyhow::ensure!(
        !found.images.is_empty(),
        "no image in {}; {} other file(s) were looked at",
        list(&args.paths),
        found.other_files
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
    let engine =
        crate::serve::engine(&args.model, &Choices { preset: args.preset }, &args.runtime, &args.batch, &args.image)?;
    let failed = match runtime.block_on(classify_all(&engine, found.images, args)) {
        // `residual classify ... | head` has read all it wants.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        result => result.context("write the result")?,
    };
    if found.other_files > 0 {
        note(&format!("{} file(s) in the folders are no images and were left out", found.other_files));
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What lies in folders.
#[derive(Default)]
pub(super) struct Found {
    pub(super) images: Vec<Result<PathBuf, Unreadable>>,
    pub(super) other_files: usize,
}

/// A part of a folder that cannot be searched.
#[derive(Clone)]
pub(super) struct Unreadable {
    path: PathBuf,
    cause: String,
}

/// Every file that was named, and every image in the folders that were named, in the order of their names. Links are
/// followed: a model hub's cache consists of them.
pub(super) fn find(paths: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for path in paths {
        if !path.is_dir() {
            found.images.push(Ok(path.clone()));
            continue;
        }
        for entry in WalkDir::new(path).follow_links(true).sort_by_file_name() {
            match entry {
                Ok(entry) if !entry.file_type().is_file() => {}
                Ok(entry) if is_named_like_an_image(entry.path()) || is_image(entry.path()) => {
                    found.images.push(Ok(entry.into_path()));
                }
                Ok(_) => found.other_files += 1,
                Err(error) => found
                    .images
                    .push(Err(Unreadable { path: error.path().unwrap_or(path).to_owned(), cause: error.to_string() })),
            }
        }
    }
    found
}

/// A file that claims to be an image is one, and if it is broken, that is reported.
fn is_named_like_an_image(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    ["jpg", "jpeg", "jfif", "png", "apng", "webp", "gif", "bmp", "tif", "tiff"].contains(&extension.as_str())
}

/// The first bytes tell; a file that cannot be opened counts as an image, so that its error is shown.
fn is_image(path: &Path) -> bool {
    let mut start = Vec::new();
    match std::fs::File::open(path).and_then(|file| file.take(64).read_to_end(&mut start)) {
        Ok(_) => decode::sniff(&start).is_some(),
        Err(_) => true,
    }
}

/// Classifies all, some at once, and shows them in order. Returns how many failed.
async fn classify_all(
    engine: &Engine,
    images: Vec<Result<PathBuf, Unreadable>>,
    args: &ClassifyArgs,
) -> std::io::Result<usize> {
    let top_k = args.top_k.min(engine.spec().labels.len());
    let execution = engine.execution();
    let at_once = execution.queue_images_max.min(execution.batch_images_max * execution.layout.runs_max() * 2);
    let progress = progress_bar(images.len(), args.json);
    let mut outcomes = stream::iter(images)
        .map(|found| async move {
            match found {
                Ok(path) => {
                    let outcome = classify_one(engine, &path, top_k).await;
                    (path, outcome)
                }
                Err(Unreadable { path, cause }) => (path, Err(FileError::Search(cause))),
            }
        })
        .buffered(at_once);
    let (mut failed, mut table) = (0, new_table());
    while let Some(outcome) = outcomes.next().await {
        progress.inc(1);
        failed += usize::from(outcome.1.is_err());
        if args.json {
            progress.suspend(|| print_json(&outcome))?;
        } else {
            progress.suspend(|| add_row(&mut table, &outcome));
        }
    }
    progress.finish_and_clear();
    if !args.json && table.row_count() > 0 {
        print_line(&table.to_string())?;
    }
    Ok(failed)
}

async fn classify_one(engine: &Engine, path: &Path, top_k: usize) -> Result<Scored, FileError> {
    let owned = path.to_owned();
    let bytes = tokio::task::spawn_blocking(move || read(&owned)).await.map_err(std::io::Error::other)??;
    let place = engine.reserve(1).map_err(ClassifyError::from)?.pop().expect("one place was reserved");
    Ok(engine.classify(place, bytes, Ask::new(top_k, Instant::now() + TIME_LIMIT)).await?)
}

pub(super) fn read(path: &Path) -> std::io::Result<Bytes> {
    if path == Path::new("-") {
        return read_bounded(std::io::stdin().lock());
    }
    read_bounded(std::fs::File::open(path)?)
}

/// Reads to the end, which a device or a pipe may not have.
fn read_bounded(source: impl std::io::Read) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    source.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("more than {FILE_BYTES_MAX} bytes, which no image needs")));
    }
    Ok(bytes.into())
}

fn progress_bar(images: usize, json: bool) -> ProgressBar {
    // JSON lines and a bar would share the terminal; the lines themselves show the progress.
    if images < PROGRESS_FROM || (json && std::io::stdout().is_terminal()) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} images, {rate}, {eta} left")
        .expect("the template is a constant")
        .with_key("rate", |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            // Fails only if the text cannot grow, and then the bar shows no rate.
            let _ = write!(text, "{:.0}/s", state.per_sec());
        });
    ProgressBar::with_draw_target(Some(images as u64), ProgressDrawTarget::stderr()).with_style(style)
}

fn new_table() -> Table {
    let mut table = Table::new();
    let style = presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());
    table.load_style(style).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["image", "size", "class", "score", "next"]);
    if let Some(score) = table.column_mut(3) {
        score.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn add_row(table: &mut Table, (path, outcome): &Outcome) {
    match outcome {
        Ok(Scored { classification, image, .. }) => {
            let mut best = classification.predictions.iter();
            let first = best.next().expect("top_k is at least 1");
            let next: Vec<_> = best.map(|p| format!("{} {}", p.label, percent(p.score))).collect();
            table.add_row([
                path.display().to_string(),
                format!("{}x{}", image.width, image.height),
                first.label.to_string(),
                percent(first.score),
                next.join(", "),
            ]);
        }
        Err(error) => note(&format!("{}: {error}", path.display())),
    }
}

fn print_json((path, outcome): &Outcome) -> std::io::Result<()> {
    let path = path.display().to_string();
    let line = match outcome {
        Ok(scored) => {
            JsonLine::Classified { path, predictions: &scored.classification.predictions, image: scored.image }
        }
        Err(error) => JsonLine::Failed { path, error: JsonError { code: error.code(), detail: error.to_string() } },
    };
    print_line(&serde_json::to_string(&line).expect("a line of strings and numbers is always JSON"))
}

fn percent(score: f32) -> String {
    format!("{:.1} %", score * 100.0)
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Unlike `println!`, returns an error when the reader is gone instead of panicking.
fn print_line(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")
}

/// Problems go beside the result, not into it. Where nobody listens they are lost, and the result is not.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
