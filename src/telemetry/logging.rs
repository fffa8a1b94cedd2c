//! Log lines: to stderr, as text for people or JSON for collectors.

mod lines;

use std::io::IsTerminal as _;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use lines::Lines;

/// Lines of a server that wait to be written, all together. A reader that is slower for longer misses some; they are counted.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// How long the end of the process waits for its last lines.
const FLUSH_TIME: Duration = Duration::from_secs(1);

static LINES: Lines = Lines::new(WAITING_BYTES_MAX);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line an event; coloured on a terminal.
    Text,
    /// One JSON object an event.
    Json,
}

/// Who writes log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Whoever logs, and waits until the line is out: right for a command.
    Direct,
    /// A thread of their own, so that a full pipe or a slow disk holds up no request. [`flush`] before the process ends.
    Queued,
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
pub fn init(format: LogFormat, filter: &str, delivery: Delivery) -> Result<(), FilterError> {
    // ONNX Runtime reports its optimiser's every step as info; only its warnings concern an operator.
    check_levels(filter)?;
    let filter = EnvFilter::try_new(format!("ort=warn,{filter}")).map_err(|error| FilterError(error.to_string()))?;
    let writer = match delivery {
        // Without a descriptor or a thread of our own the process can still log as commands do.
        Delivery::Queued if LINES.start() => BoxMakeWriter::new(&LINES),
        Delivery::Queued | Delivery::Direct => BoxMakeWriter::new(std::io::stderr),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
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

/// Waits until queued lines are out, for a second at most.
pub fn flush() {
    LINES.flush(FLUSH_TIME);
}

/// Queued lines that were lost since the process began: too many waited, or stderr refused them.
#[must_use]
pub fn dropped_lines() -> u64 {
    LINES.dropped()
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
