//! Settings of which models are served.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use humantime::Duration as Time;

use super::limits;
use super::values::duration;
use crate::zoo::{PresetChoice, Wanted};

/// Which models are served.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Models")]
pub struct ModelSettings {
    /// Directory whose entries are models: directories in any known layout, and .onnx files.
    #[arg(long, env = "RESIDUAL_MODELS", value_name = "DIR")]
    pub models: Option<PathBuf>,

    /// A model file or directory, under its own name or the one given; may be repeated. Without it and --models:
    /// builtin (ResNet-20, ten CIFAR-10 classes).
    #[arg(long, env = "RESIDUAL_MODEL", value_name = "[NAME=]PATH")]
    pub model: Vec<Wanted>,

    /// The model of requests that name none. Default: the first --model, or the only model there is.
    #[arg(long, env = "RESIDUAL_DEFAULT_MODEL", value_name = "NAME")]
    pub default_model: Option<String>,

    /// How images are prepared, whatever the model's files say: a preset such as torchvision-v2, for one model or for all;
    /// may be repeated. docs/RECIPES.md lists them.
    #[arg(long, env = "RESIDUAL_PRESET", value_name = "[MODEL=]PRESET")]
    pub preset: Vec<PresetChoice>,

    /// Whether clients may load and unload models over the APIs that can. auto: only where --host (or --admin-host, where
    /// there is an --admin-port) is this machine alone.
    #[arg(long, env = "RESIDUAL_MODEL_CONTROL", value_name = "MODE", default_value = "auto")]
    pub model_control: ModelControl,

    /// Look for new, changed and removed models this often and swap them in. 0s looks only on SIGHUP.
    #[arg(long, env = "RESIDUAL_WATCH", value_name = "TIME", num_args = 0..=1, default_value_t = limits::WATCH_OFF.into(), default_missing_value = limits::WATCH_INTERVAL, require_equals = true, value_parser = duration)]
    pub watch: Time,
}

impl ModelSettings {
    /// The models that are named, or the built-in one where nothing is.
    #[must_use]
    pub fn wanted(&self) -> Vec<Wanted> {
        match (self.model.is_empty(), &self.models) {
            (true, None) => vec![Wanted::builtin()],
            _ => self.model.clone(),
        }
    }
}

/// The setting `--model-control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModelControl {
    /// Where only this machine can connect.
    Auto,
    /// Everybody who can connect may.
    On,
    /// Nobody may.
    Off,
}
