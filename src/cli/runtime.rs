//! `residual runtime`: fetching, listing and naming the ONNX Runtime library.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::runtime::{
    Candidate, Depth, Flavour, Hardware, Installed, Refresh, Room, Search, Source, State, candidates,
    cuda_libraries_folder, faster_here, find, find_or_install, install, room,
};

/// Find or fetch ONNX Runtime, the library that runs the models.
///
/// It is looked for in this order: the file given by --ort-lib or ORT_DYLIB_PATH; beside the executable; the cache
/// folder; the system's library path (1.24 or newer). If there is none, commands that run a model fetch the CPU library
/// by themselves, unless they are told to stay offline.
#[derive(Debug, Args)]
pub struct RuntimeArgs {
    #[command(subcommand)]
    command: RuntimeCommand,

    // No `env` here and below: `Search::from_environment` reads the variables, and an empty one is no error there.
    /// Use exactly this ONNX Runtime library; an unfit one is an error [env: ORT_DYLIB_PATH]
    #[arg(long, value_name = "FILE", global = true)]
    ort_lib: Option<PathBuf>,

    /// Keep fetched libraries below this folder [env: RESIDUAL_CACHE_DIR] [default: residual/ in the user's cache
    /// folder]
    #[arg(long, value_name = "FOLDER", global = true)]
    cache_dir: Option<PathBuf>,

    /// Never use the network [env: RESIDUAL_OFFLINE]
    #[arg(long, global = true)]
    offline: bool,
}

#[derive(Debug, Subcommand)]
enum RuntimeCommand {
    /// Fetch a flavour of ONNX Runtime into the cache folder, if it is not there yet
    ///
    /// The official Python wheel is downloaded with pip, whose settings for mirrors and proxies apply, compared with
    /// the hash that is built into this program, and its shared libraries are unpacked. Any Python 3 with pip serves;
    /// name one in RESIDUAL_PYTHON if `python3` is not it.
    Install {
        /// cpu: 30 MB, runs everywhere. openvino: 160 MB, faster on Intel CPUs; brings cpu too. cuda: 320 MB, for
        /// NVIDIA GPUs; brings cuda-libraries too, CUDA 13 and cuDNN 9 in 1.3 GB (0.9 GB to fetch), unless
        /// --no-cuda-libraries says that the system has them
        #[arg(value_enum, default_value_t = Flavour::Cpu)]
        flavour: Flavour,
        /// With cuda: use the CUDA 13 libraries and cuDNN 9 that the system's loader finds
        #[arg(long)]
        no_cuda_libraries: bool,
        /// Fetch it again even if it is there and undamaged
        #[arg(long)]
        force: bool,
    },
    /// Show every ONNX Runtime that was found, and which one would be used
    List {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
        /// Hash large files whole, where every start only looks at their size and edges
        #[arg(long)]
        verify: bool,
    },
    /// Print the path of the library that would be used, and nothing else
    ///
    /// For openvino it is the path of the plugin, for cuda-libraries that of their folder. The exit code is 1 if there is none; nothing is ever fetched.
    Path {
        /// What to find
        #[arg(value_enum, default_value_t = Flavour::Cpu)]
        flavour: Flavour,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// Everything that [`crate::runtime::RuntimeError`] has names for; the text says what to do next.
pub fn run(args: &RuntimeArgs) -> anyhow::Result<()> {
    let mut search = Search::from_environment();
    search.ort_lib = args.ort_lib.clone().or(search.ort_lib);
    search.cache_dir = args.cache_dir.clone().or(search.cache_dir);
    search.offline |= args.offline;
    match args.command {
        RuntimeCommand::Install { flavour, no_cuda_libraries, force } => {
            let refresh = if force { Refresh::Always } else { Refresh::IfNeeded };
            run_install(&search, &parts(flavour, no_cuda_libraries)?, refresh)?;
        }
        RuntimeCommand::List { json, verify } => {
            let depth = if verify { Depth::Full } else { Depth::Quick };
            let rows: Vec<Row> = candidates(&search, depth).iter().map(Row::of).collect();
            if json {
                say(&serde_json::to_string_pretty(&rows)?)?;
            } else {
                say(&table(&rows))?;
                for line in remarks(&search, &rows) {
                    say(&line)?;
                }
            }
        }
        RuntimeCommand::Path { flavour } => {
            search.flavour = flavour;
            say(&path(&search)?.display().to_string())?;
        }
    }
    Ok(())
}

/// What is fetched for a flavour, the largest first: if that fails, the rest was not fetched for nothing.
fn parts(flavour: Flavour, no_cuda_libraries: bool) -> anyhow::Result<Vec<Flavour>> {
    match flavour {
        Flavour::Cuda if no_cuda_libraries => Ok(vec![Flavour::Cuda]),
        Flavour::Cpu | Flavour::Openvino | Flavour::CudaLibraries if no_cuda_libraries => {
            anyhow::bail!(
                "install {flavour} with --no-cuda-libraries: only cuda brings the CUDA libraries; leave the flag out"
            )
        }
        Flavour::Cuda => Ok(vec![Flavour::CudaLibraries, Flavour::Cuda]),
        Flavour::Cpu | Flavour::Openvino | Flavour::CudaLibraries => Ok(vec![flavour]),
    }
}

fn run_install(search: &Search, parts: &[Flavour], refresh: Refresh) -> anyhow::Result<()> {
    if !search.offline {
        let room = room(search, parts, refresh)?;
        if room.wheels > 1 {
            note(&announcement(room));
        }
    }
    let spinner = ProgressBar::new_spinner();
    let progress = |line: &str| {
        if spinner.is_hidden() {
            // Not a terminal: a line in the build log, where a spinner would draw nothing.
            note(line);
        } else {
            spinner.set_message(line.to_owned());
            // The thread behind this stops when the spinner is cleared.
            spinner.enable_steady_tick(Duration::from_millis(100));
        }
    };
    for &flavour in parts {
        let installed = install(search, flavour, refresh, &progress);
        // The plugin alone does nothing; whoever installs it for later use offline needs the library as well.
        let library = match (&installed, flavour) {
            (Ok(_), Flavour::Openvino) => Some(find_or_install(search, &progress)),
            (Ok(_), Flavour::Cpu | Flavour::Cuda | Flavour::CudaLibraries) | (Err(_), _) => None,
        };
        spinner.finish_and_clear();
        spinner.reset();
        say(&summary(&installed?))?;
        if let Some(library) = library.transpose()? {
            say(&format!("used with {}", library.library.display()))?;
        }
    }
    // An image may be built where there is no GPU, so this is no failure; on the machine that is to use it, it is news.
    if parts.contains(&Flavour::Cuda)
        && let Err(error) = Hardware::read(search).driver()
    {
        note(&format!("installed; to be used on this machine, more is needed: {error}"));
    }
    Ok(())
}

/// What an install of several wheels will take, said before it begins.
fn announcement(room: Room) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    format!(
        "{} wheels to fetch, {:.0} MB; {:.0} MB on the disk when done, up to {:.0} MB meanwhile",
        room.wheels,
        megabytes(room.fetched_bytes),
        megabytes(room.installed_bytes),
        megabytes(room.peak_bytes)
    )
}

/// What else there is to know about the flavours on this machine.
fn remarks(search: &Search, rows: &[Row]) -> Vec<String> {
    let has_cuda = rows.iter().any(|row| row.flavour == Some(Flavour::Cuda) && row.state == "ready");
    let driver = has_cuda.then(|| match Hardware::read(search).driver() {
        Ok(version) => format!("cuda: this machine has an NVIDIA GPU with driver {version}"),
        Err(error) => format!("cuda cannot be used on this machine: {error}"),
    });
    driver.into_iter().chain(faster_here(search).map(|advice| advice.to_string())).collect()
}

/// The last line of an install: path, version, size, seconds.
fn summary(installed: &Installed) -> String {
    let Installed { flavour, version, library, bytes, elapsed, fetched } = installed;
    let megabytes = *bytes as f64 / 1e6;
    let library = library.display();
    if *fetched {
        format!("{library}: {flavour} {version}, {megabytes:.1} MB, installed in {:.1} s", elapsed.as_secs_f64())
    } else {
        format!("{library}: {flavour} {version}, {megabytes:.1} MB, already installed")
    }
}

/// The one path that `residual runtime path` prints.
fn path(search: &Search) -> anyhow::Result<PathBuf> {
    if search.flavour == Flavour::CudaLibraries {
        let command = search.flavour.install_command();
        return cuda_libraries_folder(search)?
            .with_context(|| format!("find the CUDA libraries: not installed in the cache; run `{command}`"));
    }
    let found = find(search)?.with_context(|| {
        let Search { flavour, .. } = search;
        let command = flavour.install_command();
        format!(
            "find ONNX Runtime for {flavour}: no usable one beside the executable, in {} or on the system's library \
             path; run `{command}`, or give its path with --ort-lib",
            search.cache_name()
        )
    })?;
    Ok(found.provider_plugin.unwrap_or(found.library))
}

/// A candidate as `list --json` prints it.
#[derive(Debug, Serialize)]
struct Row {
    chosen: bool,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    flavour: Option<Flavour>,
    version: Option<String>,
    path: PathBuf,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    install: Option<String>,
}

impl Row {
    fn of(candidate: &Candidate) -> Self {
        let (source, flavour) = match candidate.source {
            Source::Explicit => ("given", None),
            Source::BesideExecutable => ("beside executable", None),
            Source::Cache(flavour) => ("cache", Some(flavour)),
            Source::System => ("system", None),
        };
        let (state, reason) = match &candidate.state {
            State::Ready => ("ready", None),
            State::NotInstalled => ("not installed", None),
            State::Unfit(why) => ("unfit", Some(why.to_string())),
            State::Damaged(damage) => ("damaged", Some(damage.to_string())),
        };
        let install = match (&candidate.state, flavour) {
            (State::NotInstalled, Some(flavour)) => Some(flavour.install_command()),
            (State::Damaged(_), Some(flavour)) => Some(format!("{} --force", flavour.install_command())),
            (State::NotInstalled | State::Damaged(_), None) | (State::Ready | State::Unfit(_), _) => None,
        };
        let version = candidate.version.map(|version| version.to_string());
        Self {
            chosen: candidate.chosen,
            source,
            flavour,
            version,
            path: candidate.path.clone(),
            state,
            reason,
            install,
        }
    }

    fn name(&self) -> String {
        self.flavour.map_or_else(|| self.source.to_owned(), |flavour| format!("{}: {flavour}", self.source))
    }
}

/// A table of what is there, then a line for everything that is not as it could be.
fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["", "source", "version", "state", "path"]);
    let mut notes = Vec::new();
    for row in rows {
        let mark = if row.chosen { "*" } else { "" };
        let version = row.version.as_deref().unwrap_or("-");
        table.add_row([mark, &row.name(), version, row.state, &row.path.display().to_string()]);
        notes.extend(row.reason.iter().map(|reason| format!("{}: {reason}", row.path.display())));
        notes.extend(
            row.install.iter().map(|command| format!("{} is {}; to fetch it: {command}", row.name(), row.state)),
        );
    }
    let verdict = if rows.iter().any(|row| row.chosen) { "* would be used" } else { "none of these would be used" };
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.chain([String::new(), verdict.to_owned()]).chain(notes).collect::<Vec<_>>().join("\n")
}

/// Writes a line to standard output. A reader that has seen enough, `head` for one, is no error.
fn say(text: &str) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[expect(clippy::print_stderr, reason = "what goes on meanwhile goes to standard error, out of the way of pipes")]
fn note(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Harness {
        #[command(flatten)]
        runtime: RuntimeArgs,
    }

    fn search(folder: &Path) -> Search {
        Search {
            ort_lib: None,
            flavour: Flavour::Cpu,
            offline: true,
            cache_dir: Some(folder.join("cache")),
            python: "/no/such/python3".into(),
            executable_dir: None,
            system_dirs: vec![folder.join("lib")],
        }
    }

    /// A folder with one library of the given version that looks real, and the head of one that does not.
    fn folder_with(version: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let lib = folder.path().join("lib");
        std::fs::create_dir(&lib).unwrap();
        // The test's own binary is a shared object for this machine; a real header, then the names that are looked for.
        let own = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let mut bytes = Vec::new();
        own.take(64).read_to_end(&mut bytes).unwrap();
        bytes.extend_from_slice(format!("\0OrtGetApiBase\0VERS_{version}\0").as_bytes());
        std::fs::write(lib.join(format!("libonnxruntime.so.{version}")), bytes).unwrap();
        std::fs::write(lib.join("libonnxruntime.so.1.2.3"), "a text where a library should be").unwrap();
        folder
    }

    fn rows(search: &Search) -> Vec<Row> {
        candidates(search, Depth::Quick).iter().map(Row::of).collect()
    }

    fn redacted(text: &str, folder: &Path) -> String {
        text.replace(&folder.canonicalize().unwrap().display().to_string(), "[folder]")
            .replace(&folder.display().to_string(), "[folder]")
    }

    #[test]
    fn list_reads_well() {
        let folder = folder_with("1.30.2");
        let text = table(&rows(&search(folder.path())));
        insta::assert_snapshot!(redacted(&text, folder.path()), @r"
            source                 version  state          path
            cache: cpu             -        not installed  [folder]/cache/onnxruntime-1.31.1/cpu
         *  system                 1.30.2   ready          [folder]/lib/libonnxruntime.so.1.30.2
            system                 1.2.3    unfit          [folder]/lib/libonnxruntime.so.1.2.3
            cache: openvino        -        not installed  [folder]/cache/onnxruntime-1.31.1/openvino
            cache: cuda            -        not installed  [folder]/cache/onnxruntime-1.31.1/cuda
            cache: cuda-libraries  -        not installed  [folder]/cache/onnxruntime-1.31.1/cuda-libraries

        * would be used
        cache: cpu is not installed; to fetch it: residual runtime install cpu
        [folder]/lib/libonnxruntime.so.1.2.3: it is not a shared library
        cache: openvino is not installed; to fetch it: residual runtime install openvino
        cache: cuda is not installed; to fetch it: residual runtime install cuda
        cache: cuda-libraries is not installed; to fetch it: residual runtime install cuda-libraries
        ");
    }

    #[test]
    fn list_as_json_has_stable_words() {
        let folder = folder_with("1.20.0");
        let json = serde_json::to_string_pretty(&rows(&search(folder.path()))).unwrap();
        insta::assert_snapshot!(redacted(&json, folder.path()), @r#"
        [
          {
            "chosen": false,
            "source": "cache",
            "flavour": "cpu",
            "version": null,
            "path": "[folder]/cache/onnxruntime-1.31.1/cpu",
            "state": "not installed",
            "install": "residual runtime install cpu"
          },
          {
            "chosen": false,
            "source": "system",
            "version": "1.20.0",
            "path": "[folder]/lib/libonnxruntime.so.1.20.0",
            "state": "unfit",
            "reason": "it is version 1.20.0, at least 1.24.0 is needed"
          },
          {
            "chosen": false,
            "source": "system",
            "version": "1.2.3",
            "path": "[folder]/lib/libonnxruntime.so.1.2.3",
            "state": "unfit",
            "reason": "it is not a shared library"
          },
          {
            "chosen": false,
            "source": "cache",
            "flavour": "openvino",
            "version": null,
            "path": "[folder]/cache/onnxruntime-1.31.1/openvino",
            "state": "not installed",
            "install": "residual runtime install openvino"
          },
          {
            "chosen": false,
            "source": "cache",
            "flavour": "cuda",
            "version": null,
            "path": "[folder]/cache/onnxruntime-1.31.1/cuda",
            "state": "not installed",
            "install": "residual runtime install cuda"
          },
          {
            "chosen": false,
            "source": "cache",
            "flavour": "cuda-libraries",
            "version": null,
            "path": "[folder]/cache/onnxruntime-1.31.1/cuda-libraries",
            "state": "not installed",
            "install": "residual runtime install cuda-libraries"
          }
        ]
        "#);
    }

    #[test]
    fn path_names_the_library_or_says_what_is_missing() {
        let folder = folder_with("1.30.2");
        let mut search = search(folder.path());
        assert!(path(&search).unwrap().ends_with("lib/libonnxruntime.so.1.30.2"));
        search.flavour = Flavour::Cuda;
        let error = format!("{:#}", path(&search).unwrap_err());
        assert!(error.contains("residual runtime install cuda"), "{error}");
    }

    #[test]
    fn cuda_brings_its_libraries_unless_the_system_has_them() {
        let parts = |line: &str| {
            let harness = Harness::try_parse_from(line.split(' ')).unwrap();
            let RuntimeCommand::Install { flavour, no_cuda_libraries, .. } = harness.runtime.command else {
                panic!("{line} is an install")
            };
            parts(flavour, no_cuda_libraries).map_err(|error| error.to_string())
        };
        assert_eq!(parts("x install cuda").unwrap(), [Flavour::CudaLibraries, Flavour::Cuda]);
        assert_eq!(parts("x install cuda --no-cuda-libraries").unwrap(), [Flavour::Cuda]);
        assert_eq!(parts("x install cuda-libraries").unwrap(), [Flavour::CudaLibraries]);
        let error = parts("x install cpu --no-cuda-libraries").unwrap_err();
        assert!(error.contains("only cuda brings the CUDA libraries"), "{error}");
    }

    #[test]
    fn announcement_has_everything_in_megabytes() {
        let room =
            Room { wheels: 6, fetched_bytes: 1_181_468_856, installed_bytes: 1_630_373_687, peak_bytes: 1_885_942_000 };
        let expected = "6 wheels to fetch, 1181 MB; 1630 MB on the disk when done, up to 1886 MB meanwhile";
        assert_eq!(announcement(room), expected);
    }

    #[test]
    fn folder_of_the_cuda_libraries_is_named_or_said_to_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        let search = Search { flavour: Flavour::CudaLibraries, ..search(folder.path()) };
        let error = format!("{:#}", path(&search).unwrap_err());
        assert!(error.contains("residual runtime install cuda-libraries"), "{error}");
    }

    #[test]
    fn summary_has_path_version_size_and_time() {
        let mut installed = Installed {
            flavour: Flavour::Cpu,
            version: "1.31.1".into(),
            library: "/cache/libonnxruntime.so.1.31.1".into(),
            bytes: 29_352_200,
            elapsed: Duration::from_millis(2340),
            fetched: true,
        };
        let expected = "/cache/libonnxruntime.so.1.31.1: cpu 1.31.1, 29.4 MB, installed in 2.3 s";
        assert_eq!(summary(&installed), expected);
        installed.fetched = false;
        assert!(summary(&installed).ends_with("29.4 MB, already installed"));
    }

    #[test]
    fn arguments_are_understood_in_either_place() {
        for line in ["x --offline install openvino --force", "x install openvino --force --offline"] {
            let harness = Harness::try_parse_from(line.split(' ')).unwrap();
            assert!(harness.runtime.offline, "{line}");
            assert!(matches!(
                harness.runtime.command,
                RuntimeCommand::Install { flavour: Flavour::Openvino, force: true, no_cuda_libraries: false }
            ));
        }
        let harness = Harness::try_parse_from(["x", "install"]).unwrap();
        assert!(matches!(harness.runtime.command, RuntimeCommand::Install { flavour: Flavour::Cpu, force: false, .. }));
        assert!(Harness::try_parse_from(["x", "install", "rocm"]).is_err());
    }
}
