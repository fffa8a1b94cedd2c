//! `residual pull`: bringing a pretrained model, and saying how to serve it.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytesize::ByteSize;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::runtime::Search;
use crate::zoo::catalog::{self, Entry};
use crate::zoo::pull::{DEFAULT_HUB, Event, Hub, Options, Patience, Proxies, Pulled, Wanted, pull};

/// Marks the models that come without a recipe.
const NO_RECIPE: &str = "unknown!";

/// Bring a pretrained ResNet into a folder that `residual serve --model` takes.
///
/// NAME is one of the catalogue (`residual pull --list`), or hf:organisation/name[@revision] for a repository of the
/// Hugging Face hub: its ONNX file, or else its safetensors, which are converted. What is fetched is compared with the
/// hash in the catalogue or the hub's own. An interrupted pull goes on where it stopped when the command is given
/// again; a finished one is checked and left alone.
///
/// HF_TOKEN opens repositories that are not open to all; HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are heeded.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// The model: a name of the catalogue, or hf:organisation/name[@revision].
    #[arg(value_name = "NAME", required_unless_present = "list")]
    name: Option<String>,

    /// Show the catalogue.
    #[arg(long, conflicts_with_all = ["name", "output", "file", "force"])]
    list: bool,

    /// Bring it into this folder.
    #[arg(long, short, value_name = "DIR", conflicts_with = "models")]
    output: Option<PathBuf>,

    // No `env` for the cache's folder here: see `runtime`.
    /// Bring it into a folder of its own name in this one [default: models/ in RESIDUAL_CACHE_DIR or in residual/ of
    /// the user's cache folder].
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,

    /// The file of the repository to take, if it holds several: onnx/model_fp16.onnx.
    #[arg(long, value_name = "PATH")]
    file: Option<String>,

    /// The hub, or a mirror of it.
    #[arg(long, value_name = "URL", env = "HF_ENDPOINT", default_value = DEFAULT_HUB)]
    hub_url: String,

    /// Fetch it again even if it is there and undamaged.
    #[arg(long)]
    force: bool,

    /// Never use the network: check what is there, and fail if it is not [env: RESIDUAL_OFFLINE].
    #[arg(long)]
    offline: bool,

    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// Everything that [`crate::zoo::pull::PullError`] has names for; the text says what to do next.
pub fn run(args: &PullArgs) -> anyhow::Result<()> {
    let Some(name) = &args.name else {
        let entries = catalog::entries();
        let text = if args.json { serde_json::to_string_pretty(entries)? } else { table(entries) };
        return Ok(say(&text)?);
    };
    let search = Search::from_environment();
    let wanted = Wanted::parse(name, args.file.as_deref())?;
    let folder = folder(args, &search, &wanted)?;
    if let Some(entry) = wanted.entry.filter(|entry| entry.lacks_recipe()) {
        note(&format!("{}: {}", entry.name, entry.note.as_deref().unwrap_or("nobody published its recipe")));
    }
    let screen = Screen { bar: RefCell::new(None) };
    let pulled = pull(
        &wanted,
        &folder,
        &Options {
            hub: Hub::parse(&args.hub_url)?,
            token: std::env::var("HF_TOKEN").ok().map(|token| token.trim().to_owned()).filter(|it| !it.is_empty()),
            proxies: Proxies::from_environment(),
            patience: Patience::default(),
            offline: args.offline || search.offline,
            force: args.force,
            progress: &|event| screen.show(&event),
            pause: &std::thread::sleep,
            convert: &convert,
        },
    );
    screen.clear();
    let pulled = pulled?;
    let text =
        if args.json { serde_json::to_string_pretty(&Report::of(&wanted, &pulled))? } else { told(&wanted, &pulled) };
    Ok(say(&text)?)
}

/// Weights to a model directory: `(weights, config, folder)`.
fn convert(weights: &Path, config: Option<&Path>, folder: &Path) -> Result<(), Box<dyn StdError + Send + Sync>> {
    // With its causes: the folder is gone when somebody reads this.
    super::convert::convert_quietly(weights, config, folder).map_err(|error| format!("{error:#}").into())
}

/// Where the model goes.
fn folder(args: &PullArgs, search: &Search, wanted: &Wanted) -> anyhow::Result<PathBuf> {
    if let Some(output) = &args.output {
        return Ok(output.clone());
    }
    let in_cache = || search.cache_dir.as_ref().map(|cache| cache.join("models"));
    let models = args.models.clone().or_else(in_cache);
    let models = models.context(
        "find a folder for models: neither XDG_CACHE_HOME nor HOME is set; name one with --output or --models, or set \
         RESIDUAL_CACHE_DIR",
    )?;
    Ok(models.join(wanted.folder_name()))
}

/// The last lines of a pull. The very last is a command to copy.
fn told(wanted: &Wanted, pulled: &Pulled) -> String {
    let size = ByteSize(pulled.receipt.bytes()).display().si();
    let how = if pulled.fetched { "pulled and checked" } else { "already there, and undamaged" };
    let what = format!("{wanted}: {size}, {how}: {}", pulled.folder.display());
    let licence = pulled.receipt.licence.as_deref().unwrap_or("not known, see the repository");
    format!("{what}\nlicence: {licence}\nto serve it:\n{}", serve_command(&pulled.folder))
}

fn serve_command(folder: &Path) -> String {
    let folder = folder.display().to_string();
    let plain = folder.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@%,".contains(c));
    let quoted = if plain { folder } else { format!("'{}'", folder.replace('\'', r"'\''")) };
    format!("residual serve --model {quoted}")
}

/// A pull as `--json` prints it.
#[derive(Debug, Serialize)]
struct Report<'a> {
    name: String,
    folder: &'a Path,
    fetched: bool,
    bytes: u64,
    serve: String,
    #[serde(flatten)]
    receipt: &'a crate::zoo::pull::Receipt,
}

impl<'a> Report<'a> {
    fn of(wanted: &Wanted, Pulled { folder, receipt, fetched }: &'a Pulled) -> Self {
        let (name, serve) = (wanted.to_string(), serve_command(folder));
        Self { name, folder, fetched: *fetched, bytes: receipt.bytes(), serve, receipt }
    }
}

/// The catalogue for people.
fn table(entries: &[Entry]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["name", "size", "top-1", "recipe", "also"]);
    for entry in entries {
        let size =
            entry.pinned.as_ref().map_or("-".to_owned(), |pinned| ByteSize(pinned.bytes).display().si().to_string());
        let top1 = entry.top1.map_or("-".to_owned(), |top1| format!("{top1:.2} %"));
        let recipe = match &entry.preset {
            Some(preset) => preset,
            None if entry.lacks_recipe() => NO_RECIPE,
            None => "its own",
        };
        table.add_row([&entry.name, &size, &top1, recipe, &entry.aliases.join(", ")]);
    }
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    let notes = entries.iter().filter(|entry| !entry.lacks_recipe());
    let notes = notes.filter_map(|entry| entry.note.as_ref().map(|note| format!("{}: {note}", entry.name)));
    lines.push(String::new());
    lines.extend(notes);
    lines.push(format!(
        "{NO_RECIPE}: nobody wrote down how images are prepared for these; they need a recipe of your own to be right"
    ));
    lines.push("any repository of the hub: residual pull hf:organisation/name[@revision]".to_owned());
    lines.join("\n")
}

/// A progress bar on a terminal, and a line for each file elsewhere.
struct Screen {
    bar: RefCell<Option<ProgressBar>>,
}

impl Screen {
    fn show(&self, event: &Event<'_>) {
        match event {
            Event::Waiting => self.line("waiting for another process that pulls into this folder"),
            Event::Begun { file, from, bytes } => self.begin(file, *from, *bytes),
            Event::Advanced { bytes } => {
                if let Some(bar) = self.bar.borrow().as_ref() {
                    bar.set_position(*bytes);
                }
            }
            Event::Finished { .. } => self.clear(),
            Event::Retrying { why, wait } => {
                let after = if wait.is_zero() { String::new() } else { format!(" in {} s", wait.as_secs()) };
                // What to do about it is for the last time.
                let why = why.to_string();
                self.line(&format!("{}; trying again{after}", why.split("; ").next().unwrap_or_default()));
            }
            Event::Converting { file } => self.line(&format!("converting {file}")),
        }
    }

    fn begin(&self, file: &str, from: u64, bytes: Option<u64>) {
        self.clear();
        let bar = ProgressBar::with_draw_target(bytes, ProgressDrawTarget::stderr());
        if bar.is_hidden() {
            // Not a terminal: a line in the build log, where a bar would draw nothing.
            let size = bytes.map_or("of unknown size".to_owned(), |bytes| ByteSize(bytes).display().si().to_string());
            let rest = if from == 0 { String::new() } else { format!(", from {} on", ByteSize(from).display().si()) };
            note(&format!("fetching {file}, {size}{rest}"));
            return;
        }
        let template = match bytes {
            Some(_) => "{msg} {bar:30} {decimal_bytes}/{decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left",
            None => "{msg} {spinner} {decimal_bytes}, {decimal_bytes_per_sec}",
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant"));
        bar.set_message(file.rsplit('/').next().unwrap_or(file).to_owned());
        bar.set_position(from);
        // What was there already did not come at this speed.
        bar.reset_eta();
        self.bar.replace(Some(bar));
    }

    fn line(&self, text: &str) {
        self.clear();
        note(text);
    }

    fn clear(&self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Writes to standard output. A reader that has seen enough, `head` for one, is no error.
fn say(text: &str) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// What goes on meanwhile goes to standard error, out of the way of pipes. Where nobody listens it is lost.
fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Harness {
        #[command(flatten)]
        pull: PullArgs,
    }

    fn args(arguments: &[&str]) -> Result<PullArgs, clap::Error> {
        Harness::try_parse_from(std::iter::once(&"pull").chain(arguments)).map(|harness| harness.pull)
    }

    #[test]
    fn a_model_goes_where_one_says_or_into_the_cache_under_its_name() {
        let wanted = Wanted::parse("resnet50", None).unwrap();
        let mut search = Search::from_environment();
        search.cache_dir = Some("/cache".into());
        let folder = |arguments: &[&str], search: &Search| folder(&args(arguments).unwrap(), search, &wanted);
        assert_eq!(folder(&["resnet50"], &search).unwrap(), Path::new("/cache/models/resnet50-v1-12"));
        assert_eq!(folder(&["resnet50", "--models", "m"], &search).unwrap(), Path::new("m/resnet50-v1-12"));
        assert_eq!(folder(&["resnet50", "-o", "x"], &search).unwrap(), Path::new("x"));
        search.cache_dir = None;
        let error = folder(&["resnet50"], &search).unwrap_err().to_string();
        assert!(error.contains("--output or --models"), "{error}");
        assert!(args(&["resnet50", "-o", "x", "--models", "m"]).is_err());
        assert!(args(&[]).is_err() && args(&["--list"]).is_ok());
    }

    #[test]
    fn the_command_to_serve_it_can_be_pasted() {
        assert_eq!(serve_command(Path::new("/m/a-b_1.0")), "residual serve --model /m/a-b_1.0");
        assert_eq!(serve_command(Path::new("/m/it's $x")), r"residual serve --model '/m/it'\''s $x'");
    }

    #[test]
    fn the_catalogue_is_shown_with_its_warnings() {
        insta::assert_snapshot!(table(catalog::entries()));
    }
}
