//! Log lines: to stderr, as text for people or JSON for collectors.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line an event; coloured on a terminal.
    Text,
    /// One JSON object an event.
    Json,
}

/// A text that is no log filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FilterError(String);

/// A word alone must be a level. `tracing` would take any other for the name of a module, and a misspelt level would
/// silence the whole program.
fn check_levels(filter: &str) -> Result<(), FilterError> {
    let words = filter.split(',').map(str::trim).filter(|part| !part.contains(['=', '[', ':']));
    match words.into_iter().find(|word| word.parse::<LevelFilter>().is_err()) {
        None => Ok(()),
        Some(word) => {
            Err(FilterError(format!("{word:?} is no level; there are off, error, warn, info, debug and trace")))
        }
    }
}

/// Starts logging for this process. `filter` is a `tracing` filter such as `info` or `residual=debug`.
///
/// # Errors
/// If the filter cannot be parsed; the text says where.
pub fn init(format: LogFormat, filter: &str) -> Result<(), FilterError> {
    // ONNX Runtime reports its optimiser's every step as info; only its warnings concern an operator.
    check_levels(filter)?;
    let filter = EnvFilter::try_new(format!("ort=warn,{filter}")).map_err(|error| FilterError(error.to_string()))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        // A full disk or a collector that went away loses lines. Telling so on the same stream would panic.
        .log_internal_errors(false)
        .with_ansi(format == LogFormat::Text && std::io::stderr().is_terminal());
    // A second call (tests start several servers in one process) keeps the first subscriber.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_alone_is_a_level() {
        for good in ["info", "WARN", "off", "warn,residual=debug", "residual::http=trace"] {
            assert_eq!(check_levels(good), Ok(()), "{good}");
        }
        assert!(check_levels("verbose").unwrap_err().to_string().contains("\"verbose\" is no level"));
        assert!(check_levels("info,loud").is_err());
    }
}
