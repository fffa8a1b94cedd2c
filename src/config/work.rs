//! Settings of the work itself: the runtime, batches and threads, images.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::builder::{BoolishValueParser, PossibleValuesParser, TypedValueParser as _};
use clap::{Args, ValueEnum};
use humantime::Duration as Time;

use super::limits;
use super::values::{count, duration, positive_duration, size, size_text};
use crate::pipeline::decode::ScaledDecode;
use crate::pipeline::infer::{CudnnSearch, PrecisionChoice, ProviderChoice};

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

    /// How long an image may have to wait for those before it, as far as that can be known. Above it requests get 503 at once,
    /// instead of 504 after waiting in vain. Default: half of --request-timeout.
    #[arg(long, env = "RESIDUAL_QUEUE_DELAY_MAX", value_name = "TIME", value_parser = positive_duration)]
    pub queue_delay_max: Option<Time>,

    /// Images in one batch, at most. Default: on cpu as many as run in about 10 ms, 1 to 8; 8 on openvino, 32 on GPUs.
    #[arg(long, env = "RESIDUAL_BATCH_IMAGES_MAX", value_name = "N", value_parser = count(1, 1024))]
    pub batch_images_max: Option<usize>,

    /// How long an image waits for company while cores are free. 0s never waits: batches form while cores are busy.
    #[arg(long, env = "RESIDUAL_BATCH_DELAY", value_name = "TIME", default_value_t = limits::BATCH_DELAY.into(), value_parser = duration)]
    pub batch_delay: Time,

    /// A run of a model that takes longer is stopped. Where that does not help, or nobody takes what waits, readiness goes off
    /// until the model answers again. Default: three times --request-timeout.
    #[arg(long, env = "RESIDUAL_STUCK_AFTER", value_name = "TIME", value_parser = positive_duration)]
    pub stuck_after: Option<Time>,

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
