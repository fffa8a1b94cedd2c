//! The command line: one file a subcommand. The only folder that prints.

pub mod classify;
pub mod convert;
mod health;
pub mod inspect;
mod model_folder;
pub mod preprocess;
pub mod pull;
pub mod runtime;
mod serve;
pub mod synth;
pub mod tune;

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args as _, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::Settings;

/// Image classification for pretrained ResNets.
///
/// Without a subcommand, `residual` serves: `residual --http-port 9000` is `residual serve --http-port 9000`.
#[derive(Debug, Parser)]
#[command(name = "residual", version, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a model over HTTP.
    ///
    /// Every setting is a flag, a RESIDUAL_* variable and a key of the TOML file given with --config; a flag wins over a
    /// variable, a variable over the file, the file over the default.
    Serve(Box<serve::ServeArgs>),
    /// Ask the server on this machine whether it is ready, or alive.
    ///
    /// Exits with 0 if it is, with 1 if it is not or does not answer: for the health checks of containers.
    Health(health::HealthArgs),
    /// Classify images from files, folders or standard input.
    Classify(classify::ClassifyArgs),
    /// Download a pretrained ResNet by name, or from the Hugging Face hub.
    Pull(pull::PullArgs),
    /// Say what a model is: its name, its blocks, and whether its shortcuts have weights.
    Inspect(inspect::InspectArgs),
    /// Prepare an image as a model would see it, without a model.
    Preprocess(preprocess::PreprocessArgs),
    /// Convert ResNet weights from safetensors to ONNX.
    Convert(convert::ConvertArgs),
    /// Write a ResNet with random weights, for load tests.
    Synth(synth::SynthArgs),
    /// Find the settings that serve a model fastest on this machine.
    Tune(Box<tune::TuneArgs>),
    /// Install, list or locate the ONNX Runtime library.
    Runtime(runtime::RuntimeArgs),
}

/// Runs the program with `arguments` (the first is its own name) and returns its exit code: 0 for success, 1 for a
/// failure, 2 for arguments that are not understood.
#[must_use]
pub fn run(arguments: &[OsString]) -> ExitCode {
    match dispatch(&with_default_subcommand(arguments)) {
        Ok(code) => code,
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(usage) => {
                // Fails only if the terminal is gone, and then nobody reads it.
                let _ = usage.print();
                ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
            }
            Err(error) => {
                // Unlike eprintln!, does not panic where nobody listens.
                let _ = writeln!(std::io::stderr(), "error: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn dispatch(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let matches = command().try_get_matches_from(arguments)?;
    match Cli::from_arg_matches(&matches)?.command {
        // Settings may come from a file as well: serve parses its own arguments again with the file's below them.
        Command::Serve(_) => serve::run(arguments),
        Command::Health(args) => health::run(&args),
        Command::Classify(args) => classify::run(&args),
        Command::Pull(args) => pull::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Inspect(args) => inspect::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Convert(args) => convert::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Synth(args) => synth::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Preprocess(args) => preprocess::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Tune(args) => tune::run(&args, arguments),
        Command::Runtime(args) => runtime::run(&args).map(|()| ExitCode::SUCCESS),
    }
}

/// The whole command line. A variable that is set to nothing counts as unset: that is what `${X:-}` in a compose file
/// makes of it.
fn command() -> clap::Command {
    fn without_empty_variables(command: clap::Command) -> clap::Command {
        command
            .mut_args(|arg| match arg.get_env().map(std::env::var_os) {
                Some(Some(value)) if value.is_empty() => arg.env(None::<&'static str>),
                _ => arg,
            })
            .mut_subcommands(without_empty_variables)
    }
    without_empty_variables(Cli::command())
}

/// `residual` and `residual --flag` mean `residual serve` and `residual serve --flag`; asking for help or the version
/// means the whole program's.
fn with_default_subcommand(arguments: &[OsString]) -> Vec<OsString> {
    let mut arguments = arguments.to_vec();
    let serves = match arguments.get(1).and_then(|first| OsStr::to_str(first)) {
        None => arguments.len() < 2,
        Some(first) => first.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&first),
    };
    if serves {
        let at = arguments.len().min(1);
        arguments.insert(at, OsString::from("serve"));
    }
    arguments
}

/// The command that knows all settings and nothing else, for files to be checked against.
fn settings_command() -> clap::Command {
    Settings::augment_args(clap::Command::new("serve"))
}

/// Settings from `matches` of a command that contains them.
fn settings_from(matches: &clap::ArgMatches) -> Result<Settings, clap::Error> {
    Settings::from_arg_matches(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_subcommand_means_serve() {
        let expanded = |arguments: &[&str]| {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            with_default_subcommand(&arguments).join(OsStr::new(" ")).into_string().unwrap()
        };
        assert_eq!(expanded(&["residual"]), "residual serve");
        assert_eq!(expanded(&["residual", "--http-port", "1"]), "residual serve --http-port 1");
        assert_eq!(expanded(&["residual", "--help"]), "residual --help");
        assert_eq!(expanded(&["residual", "classify", "a.jpg"]), "residual classify a.jpg");
    }
}
