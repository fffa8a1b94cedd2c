//! `residual tune`: tries settings on this machine and says which to serve a model with.

mod report;

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use humantime::Duration as Time;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::config::{self, BatchSettings, ImageSettings, RuntimeSettings, limits};
use crate::machine;
use crate::pipeline::decode::{self, DecodeOptions, Pending};
use crate::pipeline::proof::PHOTOS;
use crate::shutdown::Signals;
use crate::telemetry::logging::{self, Delivery, LogFormat};
use crate::tune::{Plan, Tuner, Tuning, settings};
use crate::zoo::recipe::Preset;
use crate::zoo::{Choices, Wanted};
use report::Report;

/// Images of a folder that are used, at most, and the bytes they hold together.
const IMAGES_MAX: usize = 256;
const IMAGES_BYTES_MAX: usize = 512 * 1024 * 1024;
/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(200);
/// Load of each core from which on measurements disturb each other.
const BUSY: f64 = 0.5;
/// Steps of the progress bar.
const STEPS: f64 = 1000.0;
/// Exit code of a search that a signal broke off: 128 + SIGINT, as shells count.
const EXIT_INTERRUPTED: u8 = 130;

/// Find the settings that serve a model fastest on this machine.
///
/// Tries providers, instances and their threads, batch sizes and delays on the real engine, decoding included, and looks for
/// the most images a second whose 99th percentile of latency stays within a bound. Shows every candidate in a table and
/// says what to set, if anything. docs/TUNE.md tells how it searches.
#[derive(Debug, Args)]
pub struct TuneArgs {
    /// What is to be served: a model file, a model directory or `builtin`.
    #[arg(value_name = "MODEL")]
    model: Wanted,

    /// The latency that one image in a hundred may exceed, from upload to answer. Default: 4 times what the default settings
    /// need for a lone caller.
    #[arg(long, value_name = "TIME", value_parser = config::positive_duration)]
    latency: Option<Time>,

    /// How long the search may take. Longer tries more and tells smaller differences apart.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = search_time)]
    time: Time,

    /// The largest batch to try. Default: 16, on GPUs 64.
    #[arg(long, value_name = "N", value_parser = config::count(1, 128))]
    batch_max: Option<usize>,

    /// Photos like those that will be sent, searched for in this folder. Default: two photos of about 500x350 pixels.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,

    /// How images are prepared, whatever the model's files say.
    #[arg(long, value_name = "PRESET")]
    preset: Option<Preset>,

    /// Write the winning settings to this file, for `residual serve --config`.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Replace the file of --output if it is there.
    #[arg(long, requires = "output")]
    force: bool,

    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    runtime: RuntimeSettings,
    #[command(flatten)]
    image: ImageSettings,

    /// What to log on standard error.
    #[arg(long, env = "RESIDUAL_LOG", value_name = "FILTER", default_value = "warn", help_heading = "Logging")]
    log: String,
}

/// A second is the least that says anything, and after a day the machine is another one.
fn search_time(text: &str) -> Result<Time, String> {
    let time = config::positive_duration(text)?;
    let allowed = Duration::from_secs(1)..=Duration::from_secs(86_400);
    if allowed.contains(&*time) { Ok(time) } else { Err("must be from 1s to 1day".to_owned()) }
}

/// Runs `residual tune` with `arguments`, the whole command line. The exit code is 1 if nothing stays within the bound.
pub(super) fn run(args: &TuneArgs, arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    logging::init(LogFormat::Text, &args.log, Delivery::Direct)
        .map_err(|error| anyhow::anyhow!("--log {:?} is no log filter: {error}", args.log))?;
    if let Some(output) = &args.output {
        check_output(output, args.force)?;
    }
    let uploads = match &args.images {
        Some(folder) => read_images(folder)?,
        None => PHOTOS.into_iter().map(Bytes::from_static).collect(),
    };
    let choices = Choices { preset: args.preset };
    let (opened, starter) = crate::serve::opened(&args.model, &choices, &args.runtime, &defaults(), &args.image)?;
    let spec = opened.spec.clone();
    for warning in &spec.warnings {
        tracing::warn!("model {} version {}: {warning}", spec.name, spec.version);
    }
    let cores = machine::cores().online.unwrap_or(1);
    if let Some(load) = machine::load().filter(|load| *load > BUSY * cores as f64) {
        note(&format!("the machine is busy (load {load:.1} on {cores} cores): differences will be hard to tell"));
    }
    let plan = Plan { time: *args.time, p99: args.latency.map(|latency| *latency), batch_images_max: args.batch_max };
    let images = uploads.len();
    let tuner = Tuner::new(starter, opened, uploads, plan);
    let (tuning, interrupted) = search(&tuner, args.json)?;

    let report = Report { model: &spec, images, tuning: &tuning, base: tuner.base(), interrupted };
    print(&if args.json { report.json() } else { report.text() })?;
    if interrupted {
        if args.output.is_some() {
            note("interrupted: what is best in a part of the search is not written");
        }
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    let decision = tuning.decide();
    let Some(winner) = decision.winner() else { anyhow::bail!(report.sentence(decision)) };
    if let Some(output) = &args.output {
        let row = &tuning.rows[winner];
        let command: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        let text = settings::file(&report.comments(&command.join(" "), decision), &settings::keys(row, tuner.base()));
        write(output, args.force, &text)?;
        note(&format!("wrote {}; serve with: residual serve --model {} --config {0}", output.display(), args.model));
    }
    Ok(ExitCode::SUCCESS)
}

/// The server's own settings, which the search varies.
fn defaults() -> BatchSettings {
    BatchSettings {
        queue_images_max: limits::QUEUE_IMAGES_MAX,
        batch_images_max: None,
        batch_delay: limits::BATCH_DELAY.into(),
        instances: None,
        intra_op_threads: None,
        decode_threads: None,
        stuck_after: None,
        queue_delay_max: None,
    }
}

/// Runs the search to its end or to a signal; true if it was a signal.
fn search(tuner: &Tuner, json: bool) -> anyhow::Result<(Tuning, bool)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut tuning = Tuning::default();
    let bar = progress_bar(json);
    let ended: anyhow::Result<bool> = runtime.block_on(async {
        let mut signals = Signals::listen().context("listen for signals")?;
        let mut tick = tokio::time::interval(TICK);
        let tell = |text: &str| bar.set_message(text.to_owned());
        let mut run = std::pin::pin!(tuner.run(&mut tuning, &tell));
        loop {
            tokio::select! {
                result = &mut run => return Ok(result.map(|()| false)?),
                _ = signals.next() => return Ok(true),
                _ = tick.tick() => bar.set_position((tuner.progress() * STEPS) as u64),
            }
        }
    });
    bar.finish_and_clear();
    // An engine that is being started when a signal comes is not waited for.
    runtime.shutdown_background();
    Ok((tuning, ended?))
}

fn progress_bar(json: bool) -> ProgressBar {
    // On one terminal a bar would be left in front of the object.
    if json && std::io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}").expect("the template is a constant");
    ProgressBar::with_draw_target(Some(STEPS as u64), ProgressDrawTarget::stderr()).with_style(style)
}

/// The images of a folder that can be decoded, in the order of their names.
fn read_images(folder: &Path) -> anyhow::Result<Vec<Bytes>> {
    anyhow::ensure!(folder.is_dir(), "--images {}: no such folder", folder.display());
    let found = super::classify::find(&[folder.to_owned()]).images;
    let (all, mut bytes, mut broken, mut images) = (found.len(), 0, 0, Vec::new());
    for path in found {
        let image = path.ok().and_then(|path| super::classify::read(&path).ok());
        let decodes = |image: &Bytes| decode::open(image, &DecodeOptions::default()).and_then(Pending::decode).is_ok();
        match image.filter(decodes) {
            Some(image) => {
                bytes += image.len();
                images.push(image);
            }
            None => broken += 1,
        }
        if images.len() >= IMAGES_MAX || bytes >= IMAGES_BYTES_MAX {
            break;
        }
    }
    anyhow::ensure!(
        !images.is_empty(),
        "--images {}: no image in it that can be decoded; {all} file(s) look like images",
        folder.display()
    );
    if broken > 0 {
        note(&format!("{broken} file(s) cannot be decoded and are left out"));
    }
    if images.len() + broken < all {
        note(&format!("of {all} images the first {} are used", images.len()));
    }
    Ok(images)
}

/// Said before the search and not after it.
fn check_output(output: &Path, force: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        force || !output.exists(),
        "--output {}: the file is there already; give --force to replace it",
        output.display()
    );
    let folder = folder_of(output);
    anyhow::ensure!(folder.is_dir(), "--output {}: there is no folder {}", output.display(), folder.display());
    Ok(())
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The file appears whole or not at all.
fn write(output: &Path, force: bool, text: &str) -> anyhow::Result<()> {
    let place = || format!("write {}", output.display());
    let mut builder = tempfile::Builder::new();
    // As any file that a person makes, and not for the owner alone: the server may run as somebody else.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = builder.tempfile_in(folder_of(output)).with_context(place)?;
    file.write_all(text.as_bytes()).with_context(place)?;
    match force {
        true => file.persist(output).map(drop),
        false => file.persist_noclobber(output).map(drop),
    }
    .with_context(place)
}

/// A reader that went away has read what it wants; the search is over all the same.
fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("write the result"),
        _ => Ok(()),
    }
}

/// Beside the result. Where nobody listens it is lost, and the result is not.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
