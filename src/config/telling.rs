//! Settings of what the server tells about itself: log lines, metrics, traces.

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::values::{collector, ratio};

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

    /// Lines a second, at most, about requests that were answered, at info. 0 leaves them at debug. Above it lines are left out,
    /// and the next one says how many.
    #[arg(long, env = "RESIDUAL_LOG_REQUESTS_PER_SECOND", value_name = "N", default_value_t = 0)]
    pub log_requests_per_second: u32,
}

/// Metrics and traces.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Metrics and traces")]
pub struct TellingSettings {
    /// Show Triton's nv_inference_* counters on /metrics as well, for dashboards and autoscalers that were made for them.
    #[arg(long, env = "RESIDUAL_TRITON_METRICS", value_name = "BOOL", num_args = 0..=1, default_value = "false", default_missing_value = "true", require_equals = true, value_parser = BoolishValueParser::new())]
    pub triton_metrics: bool,

    /// OpenTelemetry collector that takes traces by OTLP over HTTP, http://collector:4318. Without it no trace leaves the server.
    /// Default: what OTEL_EXPORTER_OTLP_ENDPOINT says, or none.
    #[arg(long, env = "RESIDUAL_OTLP_ENDPOINT", value_name = "URL", value_parser = collector)]
    pub otlp_endpoint: Option<String>,

    /// Part of the requests without a trace of their own that are traced, 0 to 1. Where a client sends a trace, the client decides.
    #[arg(long, env = "RESIDUAL_TRACE_RATIO", value_name = "RATIO", default_value_t = 1.0, value_parser = ratio)]
    pub trace_ratio: f64,
}

/// The setting `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogSetting {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
