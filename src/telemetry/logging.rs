//! Log lines: to stderr, as text for people or JSON for collectors.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line an event; coloured on a terminal.
    Text,
    /// One JSON object an event.
    Json,
}

/// Starts logging for this process. `filter` is a `tracing` filter such as `info` or `residual=debug`.
///
/// # Errors
/// If the filter cannot be parsed; the text says where.
pub fn init(format: LogFormat, filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    // ONNX Runtime reports its optimiser's every step as info; only its warnings concern an operator.
    let filter = EnvFilter::try_new(format!("ort=warn,{filter}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(format == LogFormat::Text && std::io::stderr().is_terminal());
    // A second call (tests start several servers in one process) keeps the first subscriber.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
