//! Settings of what the server tells about itself.

use clap::{Args, ValueEnum};

/// Log level and form.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
pub struct LogSettings {
    /// What to log: error, warn, info, debug, trace, or a filter such as `warn,residual=debug`.
    #[arg(long, env = "RESIDUAL_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// Form of the log lines on stderr.
    #[arg(long, env = "RESIDUAL_LOG_FORMAT", value_name = "FORM", default_value = "text")]
    pub log_format: LogSetting,
}

/// The setting `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogSetting {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
