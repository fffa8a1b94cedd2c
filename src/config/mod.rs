//! Settings: default < platform < TOML file < `RESIDUAL_*` variable < flag.
//!
//! The structs below are the one place where a setting is named, typed, bounded and explained. The flag `--batch-delay`,
//! the variable `RESIDUAL_BATCH_DELAY` and the file's key `batch_delay` are the same setting; [`file`] derives the latter
//! from the former, so they cannot disagree.

mod edge;
pub mod file;
pub mod limits;
mod models;
pub mod otel;
pub mod platform;
mod security;
mod telling;
mod values;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, Command, FromArgMatches as _};

pub use edge::{GrpcSettings, HttpSettings};
pub use models::{ModelControl, ModelSettings};
pub use security::SecuritySettings;
pub use telling::{LogSetting, LogSettings, TellingSettings};
pub(crate) use values::{count, positive_duration};
pub use work::{BatchSettings, ExifSetting, ImageSettings, RuntimeSettings, ScaledDecodeSetting};

use crate::apis::Api;
use values::route;

/// Everything `residual serve` can be told.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// TOML file with settings, keys named like the flags (batch_delay = "2ms").
    #[arg(long, value_name = "FILE", env = "RESIDUAL_CONFIG", help_heading = "Settings")]
    pub config: Option<PathBuf>,

    /// Where clients connect.
    #[command(flatten)]
    pub http: HttpSettings,
    /// Where those of gRPC do.
    #[command(flatten)]
    pub grpc: GrpcSettings,
    /// Who may connect and ask.
    #[command(flatten)]
    pub security: SecuritySettings,
    /// What is served,
    #[command(flatten)]
    pub models: ModelSettings,
    /// and on what.
    #[command(flatten)]
    pub runtime: RuntimeSettings,
    /// How images share the machine.
    #[command(flatten)]
    pub batch: BatchSettings,
    /// What uploads may be.
    #[command(flatten)]
    pub image: ImageSettings,
    /// What platforms want that run the server as a container.
    #[command(flatten)]
    pub platforms: PlatformSettings,
    /// What the log says,
    #[command(flatten)]
    pub log: LogSettings,
    /// and what metrics and traces do.
    #[command(flatten)]
    pub telling: TellingSettings,
}

/// What SageMaker and Vertex AI say through their variables, which `platform.rs` reads.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Platforms")]
pub struct PlatformSettings {
    /// Models come and go over SageMaker's multi-model calls, /models. Without --model and --models the server begins with
    /// none. SAGEMAKER_MULTI_MODEL=true turns it on.
    #[arg(long, env = "RESIDUAL_SAGEMAKER_MULTI_MODEL", value_name = "BOOL", num_args = 0..=1, default_value = "false", default_missing_value = "true", require_equals = true, value_parser = BoolishValueParser::new())]
    pub sagemaker_multi_model: bool,

    /// Directory below which models of those calls must lie: clients name paths.
    #[arg(long, env = "RESIDUAL_SAGEMAKER_MODELS_ROOT", value_name = "DIR", default_value = "/opt/ml/models")]
    pub sagemaker_models_root: PathBuf,

    /// Path of Vertex AI's predictions. Default: what AIP_PREDICT_ROUTE says, or none.
    #[arg(long, env = "RESIDUAL_VERTEX_PREDICT_ROUTE", value_name = "PATH", value_parser = route)]
    pub vertex_predict_route: Option<String>,

    /// Path of Vertex AI's health probe. Default: what AIP_HEALTH_ROUTE says, or that of the predictions.
    #[arg(long, env = "RESIDUAL_VERTEX_HEALTH_ROUTE", value_name = "PATH", value_parser = route)]
    pub vertex_health_route: Option<String>,
}

impl Settings {
    /// Every setting at its default, whatever the environment says: for benches and tests that start an engine themselves.
    ///
    /// # Panics
    /// Never in a program whose tests pass: the defaults are constants that clap parses.
    #[must_use]
    pub fn defaults() -> Self {
        let command = Self::augment_args(Command::new("defaults")).mut_args(|arg| arg.env(None::<&'static str>));
        let matches =
            command.try_get_matches_from(["defaults"]).expect("every setting has a default or may be left out");
        Self::from_arg_matches(&matches).expect("as above")
    }

    /// Checks what no single flag can: bounds that contradict each other.
    ///
    /// # Errors
    /// A sentence that names both settings and their values.
    pub fn check(&self) -> Result<(), SettingsError> {
        let (http, batch) = (&self.http, &self.batch);
        let contradictions = [
            (
                http.request_images_max > batch.queue_images_max,
                format!(
                    "request_images_max ({}) is above queue_images_max ({}): such a request could never be accepted",
                    http.request_images_max, batch.queue_images_max
                ),
            ),
            (
                *batch.batch_delay >= *http.request_timeout,
                format!(
                    "batch_delay ({}) is not below request_timeout ({}): an image that waits for company would be too late",
                    batch.batch_delay, http.request_timeout
                ),
            ),
            (
                self.queue_delay_max() >= *http.request_timeout,
                format!(
                    "queue_delay_max ({}) is not below request_timeout ({}): images would be accepted that are too late",
                    humantime::format_duration(self.queue_delay_max()),
                    http.request_timeout
                ),
            ),
            (
                self.stuck_after() <= *http.request_timeout,
                format!(
                    "stuck_after ({}) is not above request_timeout ({}): images that wait their time would pass for stuck",
                    humantime::format_duration(self.stuck_after()),
                    http.request_timeout
                ),
            ),
            (
                http.body_bytes_max > http.upload_memory_max,
                format!(
                    "body_bytes_max ({}) is above upload_memory_max ({}): such an upload could never be accepted",
                    http.body_bytes_max, http.upload_memory_max
                ),
            ),
            (
                self.grpc.grpc_message_bytes_max > http.upload_memory_max,
                format!(
                    "grpc_message_bytes_max ({}) is above upload_memory_max ({}): such a message could never be accepted",
                    self.grpc.grpc_message_bytes_max, http.upload_memory_max
                ),
            ),
        ];
        for (set, setting, api) in [
            (self.platforms.sagemaker_multi_model, "sagemaker_multi_model", Api::Sagemaker),
            (self.platforms.vertex_predict_route.is_some(), "vertex_predict_route", Api::Vertex),
        ] {
            if set && !http.apis.has(api) {
                let name = api.name();
                return Err(SettingsError(format!("{setting} is set and apis lacks {name}: nobody could ask for it")));
            }
        }
        if self.platforms.vertex_health_route.is_some() && self.platforms.vertex_predict_route.is_none() {
            let text = "vertex_health_route is set and vertex_predict_route is not: Vertex AI asks at both";
            return Err(SettingsError(text.to_owned()));
        }
        if let Some(text) = self.security.contradiction(http, &self.platforms) {
            return Err(SettingsError(text));
        }
        match contradictions.into_iter().find(|(holds, _)| *holds) {
            Some((_, text)) => Err(SettingsError(text)),
            None => Ok(()),
        }
    }
}

impl Settings {
    /// How long a run may take: its own bound, or some times that of a request, whose images wait at most so long.
    #[must_use]
    pub fn stuck_after(&self) -> Duration {
        self.batch.stuck_after.map_or(*self.http.request_timeout * limits::STUCK_AFTER_TIMEOUTS, |time| *time)
    }

    /// How much work may wait, as time: its own bound, or half of a request's.
    #[must_use]
    pub fn queue_delay_max(&self) -> Duration {
        self.batch.queue_delay_max.map_or(*self.http.request_timeout / 2, |time| *time)
    }

    /// The port of gRPC: its own, or the usual one; any, where that of HTTP is any.
    #[must_use]
    pub fn grpc_port(&self) -> u16 {
        self.grpc.grpc_port.unwrap_or(if self.http.http_port == 0 { 0 } else { limits::GRPC_PORT })
    }
}

/// Settings that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("settings: {0}")]
pub struct SettingsError(String);
