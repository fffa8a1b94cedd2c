//! Settings: default < platform < TOML file < `RESIDUAL_*` variable < flag.
//!
//! The structs below are the one place where a setting is named, typed, bounded and explained. The flag `--batch-delay`,
//! the variable `RESIDUAL_BATCH_DELAY` and the file's key `batch_delay` are the same setting; [`file`] derives the latter
//! from the former, so they cannot disagree.

pub mod file;
pub mod limits;
pub mod platform;
mod values;

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::builder::{BoolishValueParser, PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Command, FromArgMatches as _, ValueEnum};
use humantime::Duration as Time;

pub(crate) use values::{count, positive_duration};

use crate::apis::{Api, Apis};
use crate::pipeline::decode::ScaledDecode;
use crate::pipeline::infer::{CudnnSearch, PrecisionChoice, ProviderChoice};
use crate::zoo::{PresetChoice, Wanted};
use values::{duration, message_size, route, size, size_text};

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
    /// What the log says.
    #[command(flatten)]
    pub log: LogSettings,
}

/// Listening, bounds and waits of the HTTP edge.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpSettings {
    /// Address or name to listen on. 0.0.0.0 or :: makes the server reachable from other machines.
    #[arg(long, env = "RESIDUAL_HOST", value_name = "HOST", default_value = "127.0.0.1")]
    pub host: String,

    /// Port of the HTTP API. 0 takes any free port; the log says which.
    #[arg(long, env = "RESIDUAL_HTTP_PORT", value_name = "PORT", default_value_t = 8000)]
    pub http_port: u16,

    /// Size of one upload, at most. Larger ones get 413.
    #[arg(long, env = "RESIDUAL_BODY_BYTES_MAX", value_name = "SIZE", default_value = size_text(limits::BODY_BYTES_MAX), value_parser = size)]
    pub body_bytes_max: ByteSize,

    /// Memory that all uploads hold together. Above it requests get 503.
    #[arg(long, env = "RESIDUAL_UPLOAD_MEMORY_MAX", value_name = "SIZE", default_value = size_text(limits::UPLOAD_MEMORY_MAX), value_parser = size)]
    pub upload_memory_max: ByteSize,

    /// Images in one request, at most. More get 413.
    #[arg(long, env = "RESIDUAL_REQUEST_IMAGES_MAX", value_name = "N", default_value_t = limits::REQUEST_IMAGES_MAX, value_parser = count(1, 4096))]
    pub request_images_max: usize,

    /// Open connections of each port, at most. More wait to be accepted.
    #[arg(long, env = "RESIDUAL_CONNECTIONS_MAX", value_name = "N", default_value_t = limits::CONNECTIONS_MAX, value_parser = count(1, 1_000_000))]
    pub connections_max: usize,

    /// What is spoken beside the native API. v2: Open Inference Protocol over HTTP. grpc: the same over gRPC, on --grpc-port.
    /// huggingface, kserve (v1, TensorFlow Serving), sagemaker, vertex, torchserve: the routes of these. What is not listed
    /// has no routes; none leaves the native API alone.
    #[arg(long, env = "RESIDUAL_APIS", value_name = "LIST", default_value = Apis::all().to_string())]
    pub apis: Apis,

    /// Time for a client to send the head of a request, and how long an idle connection is kept.
    #[arg(long, env = "RESIDUAL_HEADER_TIMEOUT", value_name = "TIME", default_value_t = limits::HEADER_TIMEOUT.into(), value_parser = positive_duration)]
    pub header_timeout: Time,

    /// Time for a client to send the body. Slower ones get 408.
    #[arg(long, env = "RESIDUAL_BODY_TIMEOUT", value_name = "TIME", default_value_t = limits::BODY_TIMEOUT.into(), value_parser = positive_duration)]
    pub body_timeout: Time,

    /// How long a client may take nothing of its answer before the connection is closed.
    #[arg(long, env = "RESIDUAL_WRITE_TIMEOUT", value_name = "TIME", default_value_t = limits::WRITE_TIMEOUT.into(), value_parser = positive_duration)]
    pub write_timeout: Time,

    /// Time for the server to answer, from the end of the upload. Later requests get 504.
    #[arg(long, env = "RESIDUAL_REQUEST_TIMEOUT", value_name = "TIME", default_value_t = limits::REQUEST_TIMEOUT.into(), value_parser = positive_duration)]
    pub request_timeout: Time,

    /// After a signal: keep serving this long with readiness off, so that a balancer can look away first.
    #[arg(long, env = "RESIDUAL_DRAIN_DELAY", value_name = "TIME", default_value_t = limits::DRAIN_DELAY.into(), value_parser = duration)]
    pub drain_delay: Time,

    /// After a signal (and the drain delay): time for requests in flight to finish.
    #[arg(long, env = "RESIDUAL_DRAIN_GRACE", value_name = "TIME", default_value_t = limits::DRAIN_GRACE.into(), value_parser = duration)]
    pub drain_grace: Time,
}

/// The port of gRPC and its bounds. Waits, memory and connections are those of the HTTP edge.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "gRPC")]
pub struct GrpcSettings {
    /// Port of the gRPC API. 0 takes any free port; the log says which. Default: 8001; where --http-port is 0, any free port.
    #[arg(long, env = "RESIDUAL_GRPC_PORT", value_name = "PORT")]
    pub grpc_port: Option<u16>,

    /// Size of one gRPC message, unpacked, at most. Larger ones get RESOURCE_EXHAUSTED.
    #[arg(long, env = "RESIDUAL_GRPC_MESSAGE_BYTES_MAX", value_name = "SIZE", default_value = size_text(limits::GRPC_MESSAGE_BYTES_MAX), value_parser = message_size)]
    pub grpc_message_bytes_max: ByteSize,

    /// gRPC calls that are open at once, on all connections together: as many with tensors, as many that are answered once
    /// without (health, metadata), and as many watches. More of a kind get RESOURCE_EXHAUSTED.
    #[arg(long, env = "RESIDUAL_GRPC_CALLS_MAX", value_name = "N", default_value_t = limits::GRPC_CALLS_MAX, value_parser = count(1, 1_000_000))]
    pub grpc_calls_max: usize,

    /// Requests of one gRPC stream that are answered beside each other. More wait in the connection.
    #[arg(long, env = "RESIDUAL_GRPC_STREAM_REQUESTS_MAX", value_name = "N", default_value_t = limits::GRPC_STREAM_REQUESTS_MAX, value_parser = count(1, 4096))]
    pub grpc_stream_requests_max: usize,

    /// How long a client may send nothing on a gRPC stream. Longer silent ones end with DEADLINE_EXCEEDED.
    #[arg(long, env = "RESIDUAL_GRPC_STREAM_TIMEOUT", value_name = "TIME", default_value_t = limits::GRPC_STREAM_TIMEOUT.into(), value_parser = positive_duration)]
    pub grpc_stream_timeout: Time,
}

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

    /// Whether clients may load and unload models over the APIs that can. auto: only where --host is this machine alone.
    #[arg(long, env = "RESIDUAL_MODEL_CONTROL", value_name = "MODE", default_value = "auto")]
    pub model_control: ModelControl,

    /// Look for new, changed and removed models this often and swap them in. 0s looks only on SIGHUP.
    #[arg(long, env = "RESIDUAL_WATCH", value_name = "TIME", num_args = 0..=1, default_value_t = limits::WATCH_OFF.into(), default_missing_value = limits::WATCH_INTERVAL, require_equals = true, value_parser = duration)]
    pub watch: Time,
}

/// The runtime library and the provider.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Runtime")]
pub struct RuntimeSettings {
    /// Execution provider. auto takes the fastest that is installed and gives the classes that the CPU provider gives; one
    /// that is named and not there is an error, never a silent fallback.
    #[arg(long, env = "RESIDUAL_PROVIDER", value_name = "NAME", default_value = "auto",
          value_parser = PossibleValuesParser::new(ProviderChoice::NAMES).try_map(|name| name.parse::<ProviderChoice>()))]
    pub provider: ProviderChoice,

    /// What the provider multiplies in. auto is f32 on cpu, what the processor is fastest in on openvino, tf32 on GPUs; one
    /// that is named and not there is an error.
    #[arg(long, env = "RESIDUAL_PRECISION", value_name = "NAME", default_value = "auto",
          value_parser = PossibleValuesParser::new(PrecisionChoice::NAMES).try_map(|name| name.parse::<PrecisionChoice>()))]
    pub precision: PrecisionChoice,

    /// Which GPU, as nvidia-smi counts them.
    #[arg(long, env = "RESIDUAL_DEVICE", value_name = "N", default_value_t = 0)]
    pub device: u32,

    /// How the CUDA provider finds the fastest convolution for each batch size: exhaustive tries all, which takes seconds at
    /// the start for each.
    #[arg(long, env = "RESIDUAL_CUDNN_SEARCH", value_name = "MODE", default_value = "heuristic")]
    pub cudnn_search: CudnnSearch,

    /// ONNX Runtime library to load, instead of looking for one. Without it, ORT_DYLIB_PATH is looked at first.
    #[arg(long, env = "RESIDUAL_ORT_LIB", value_name = "FILE")]
    pub ort_lib: Option<PathBuf>,

    /// Never fetch anything. Without a runtime in place the start fails and says what to do.
    #[arg(long, env = "RESIDUAL_OFFLINE", value_name = "BOOL", num_args = 0..=1, default_value = "false", default_missing_value = "true", require_equals = true, value_parser = BoolishValueParser::new())]
    pub offline: bool,
}

/// Queue, batches and threads.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Batching and threads")]
pub struct BatchSettings {
    /// Images that may wait for the model, in preparation or prepared. Above it requests get 503 at once.
    #[arg(long, env = "RESIDUAL_QUEUE_IMAGES_MAX", value_name = "N", default_value_t = limits::QUEUE_IMAGES_MAX, value_parser = count(1, 1_000_000))]
    pub queue_images_max: usize,

    /// Images in one batch, at most. Default: on cpu as many as run in about 10 ms, 1 to 8; 8 on openvino, 32 on GPUs.
    #[arg(long, env = "RESIDUAL_BATCH_IMAGES_MAX", value_name = "N", value_parser = count(1, 1024))]
    pub batch_images_max: Option<usize>,

    /// How long an image waits for company while cores are free. 0s never waits: batches form while cores are busy.
    #[arg(long, env = "RESIDUAL_BATCH_DELAY", value_name = "TIME", default_value_t = limits::BATCH_DELAY.into(), value_parser = duration)]
    pub batch_delay: Time,

    /// Instances of each model. Default: as the load asks, from one with all cores to one for each core; two streams on a
    /// GPU.
    #[arg(long, env = "RESIDUAL_INSTANCES", value_name = "N", value_parser = count(1, 256))]
    pub instances: Option<usize>,

    /// ONNX Runtime threads inside one run of an instance. Default: as the load asks, or the cores divided by --instances.
    #[arg(long, env = "RESIDUAL_INTRA_OP_THREADS", value_name = "N", value_parser = count(1, 256))]
    pub intra_op_threads: Option<usize>,

    /// Images that are decoded and resized at the same time. Default: the number of cores.
    #[arg(long, env = "RESIDUAL_DECODE_THREADS", value_name = "N", value_parser = count(1, 256))]
    pub decode_threads: Option<usize>,
}

/// Bounds of one image and of all decodes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Images")]
pub struct ImageSettings {
    /// Width of an image in pixels, at most; read from its header.
    #[arg(long, env = "RESIDUAL_IMAGE_WIDTH_MAX", value_name = "PIXELS", default_value_t = limits::IMAGE_WIDTH_MAX, value_parser = clap::value_parser!(u32).range(1..))]
    pub image_width_max: u32,

    /// Height of an image in pixels, at most; read from its header.
    #[arg(long, env = "RESIDUAL_IMAGE_HEIGHT_MAX", value_name = "PIXELS", default_value_t = limits::IMAGE_HEIGHT_MAX, value_parser = clap::value_parser!(u32).range(1..))]
    pub image_height_max: u32,

    /// Width times height of an image, at most.
    #[arg(long, env = "RESIDUAL_IMAGE_PIXELS_MAX", value_name = "PIXELS", default_value_t = limits::IMAGE_PIXELS_MAX, value_parser = clap::value_parser!(u64).range(1..))]
    pub image_pixels_max: u64,

    /// Memory that all decodes hold together; images wait for it.
    #[arg(long, env = "RESIDUAL_DECODE_MEMORY_MAX", value_name = "SIZE", default_value = size_text(limits::DECODE_MEMORY_MAX), value_parser = size)]
    pub decode_memory_max: ByteSize,

    /// Whether to turn a photo upright as its EXIF orientation says. `ignore` is what evaluations on ImageNet do.
    #[arg(long, env = "RESIDUAL_EXIF_ORIENTATION", value_name = "MODE", default_value = "apply")]
    pub exif_orientation: ExifSetting,

    /// Whether JPEGs above 4 megapixels are decoded smaller where the recipe shrinks them anyway: about twice as fast, and samples
    /// differ from the exact ones by a few of 255 levels. `off` decodes every pixel.
    #[arg(long, env = "RESIDUAL_SCALED_DECODE", value_name = "MODE", default_value = "auto")]
    pub scaled_decode: ScaledDecodeSetting,
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

/// The setting `--scaled-decode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScaledDecodeSetting {
    /// Decode large photos smaller.
    Auto,
    /// Decode every pixel.
    Off,
}

impl From<ScaledDecodeSetting> for ScaledDecode {
    fn from(setting: ScaledDecodeSetting) -> Self {
        match setting {
            ScaledDecodeSetting::Auto => Self::Auto,
            ScaledDecodeSetting::Off => Self::Off,
        }
    }
}

/// The setting `--exif-orientation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExifSetting {
    /// Turn the picture upright.
    Apply,
    /// Leave it as it is stored.
    Ignore,
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
        match contradictions.into_iter().find(|(holds, _)| *holds) {
            Some((_, text)) => Err(SettingsError(text)),
            None => Ok(()),
        }
    }
}

impl Settings {
    /// The port of gRPC: its own, or the usual one; any, where that of HTTP is any.
    #[must_use]
    pub fn grpc_port(&self) -> u16 {
        self.grpc.grpc_port.unwrap_or(if self.http.http_port == 0 { 0 } else { limits::GRPC_PORT })
    }
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

/// Settings that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("settings: {0}")]
pub struct SettingsError(String);
