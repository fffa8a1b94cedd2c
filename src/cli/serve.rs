//! `residual serve`: gathers the settings from all their places, then hands over to [`crate::serve`].

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::config::{LogSetting, Settings, file, otel, platform};
use crate::telemetry::logging::{self, Delivery, LogFormat};

/// Arguments of `residual serve`.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    settings: Settings,

    /// Print the settings that result, as a settings file, and exit.
    #[arg(long, help_heading = "Settings")]
    print_config: bool,
}

/// Settings with all their places, and what they come from.
struct Gathered {
    settings: Settings,
    matches: ArgMatches,
    from_file: Vec<OsString>,
    from_platform: Vec<(platform::Decision, OsString)>,
}

/// The settings of a server that is started here and now without flags.
pub(super) fn settings_of_environment() -> anyhow::Result<Settings> {
    Ok(gather(&["residual".into(), "serve".into()])?.settings)
}

/// A variable that is set to nothing counts as unset.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn gather(arguments: &[OsString]) -> anyhow::Result<Gathered> {
    let matches = serve_matches(arguments)?;
    let from_file = match matches.get_one::<std::path::PathBuf>("config") {
        Some(path) => file::flags(path, &super::settings_command(), &matches)?,
        None => Vec::new(),
    };
    let decisions = platform::decide(variable, std::path::Path::is_dir);
    let from_platform = platform::flags(decisions, &super::settings_command(), &matches, &from_file)?;
    // Their flags are added to the command line's; none is in both, since what was given was left out.
    let platform_flags = from_platform.iter().map(|(_, flag)| flag);
    let all: Vec<OsString> = arguments.iter().chain(&from_file).chain(platform_flags).cloned().collect();
    let matches = serve_matches(&all)?;
    let settings = super::settings_from(&matches)?;
    settings.check()?;
    Ok(Gathered { settings, matches, from_file, from_platform })
}

/// Runs `residual serve` with `arguments`, the whole command line.
pub(super) fn run(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let Gathered { settings, matches, from_file, from_platform } = gather(arguments)?;
    if matches.get_flag("print_config") {
        std::io::stdout()
            .write_all(file::print(&super::settings_command(), &matches, &from_file, &from_platform).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let format = match settings.log.log_format {
        LogSetting::Text => LogFormat::Text,
        LogSetting::Json => LogFormat::Json,
    };
    logging::init(format, &settings.log.log, Delivery::Queued)
        .map_err(|error| anyhow::anyhow!("--log {:?} is no log filter: {error}", settings.log.log))?;
    if let Some(name) = otel::not_followed(&variable).filter(|_| settings.telling.otlp_endpoint.is_none()) {
        tracing::warn!(
            "{name} asks for a protocol that is not spoken here, so no traces are sent; unset it and give the collector's port of OTLP over HTTP with --otlp-endpoint"
        );
    }
    if !from_platform.is_empty() {
        let decided: Vec<String> = from_platform.iter().map(|(decision, _)| decision.to_string()).collect();
        tracing::info!("the platform decides {}", decided.join(", "));
    }
    let ended = crate::serve::run(&settings);
    logging::flush();
    ended
}

fn serve_matches(arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let matches = super::command().try_get_matches_from(arguments)?;
    let (_, serve) = matches.subcommand().expect("the caller has seen the subcommand serve");
    Ok(serve.clone())
}
