//! Gives a session that is being built its execution provider, with every option spelled out.
//!
//! ONNX Runtime falls back to its CPU provider when another one fails to load. Residual does not: a provider asked for
//! by name is there or the start fails.

use std::path::PathBuf;

use ort::ep;
use ort::session::builder::SessionBuilder;

use super::provider::{CudnnSearch, Precision, PrecisionChoice, Provider};
use super::{Environment, InferError};

/// What a session asks of its provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOptions {
    /// The execution provider.
    pub provider: Provider,
    /// What it multiplies in.
    pub precision: Precision,
    /// Threads inside one run, where the provider computes on cores.
    pub intra_op_threads: usize,
    /// Settings of GPUs.
    pub gpu: GpuOptions,
}

/// Settings of GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuOptions {
    /// Which GPU, as the driver counts them.
    pub device: u32,
    /// How CUDA chooses its convolutions.
    pub cudnn_search: CudnnSearch,
    /// Folder where TensorRT keeps the engines that it built; without one it builds them at every start.
    pub engine_cache: Option<PathBuf>,
}

/// The input's shapes that an engine is built for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EngineShapes {
    pub(super) input: String,
    /// Dimensions of one image.
    pub(super) one: [usize; 4],
    /// Dimensions of the largest batch.
    pub(super) full: [usize; 4],
}

impl Environment {
    /// The precisions of `provider` on this machine, the one for `auto` first.
    ///
    /// # Errors
    /// [`InferError::Provider`] if the provider is not there.
    pub(super) fn precisions(&self, provider: Provider) -> Result<Vec<Precision>, InferError> {
        Ok(match provider {
            Provider::Cpu => vec![Precision::F32],
            Provider::Openvino => {
                let devices = self.openvino_devices()?;
                let offers = devices.iter().map(super::readback::capabilities).next().unwrap_or_default();
                let has = |name: &str| offers.split_whitespace().any(|offer| offer == name);
                let halves = [(Precision::Bf16, "BF16"), (Precision::F16, "FP16")];
                let halves = halves.into_iter().filter(|(_, name)| has(name)).map(|(precision, _)| precision);
                halves.chain([Precision::F32]).collect()
            }
            Provider::Cuda => vec![Precision::Tf32, Precision::F32],
            // TensorRT multiplies f32 in TF32, and its provider has no option that forbids it.
            Provider::Tensorrt => vec![Precision::Tf32, Precision::F16, Precision::Bf16],
        })
    }

    /// The precision that `provider` computes in when `choice` is asked for.
    ///
    /// # Errors
    /// [`InferError::Provider`] or [`InferError::Precision`].
    pub fn precision(&self, provider: Provider, choice: PrecisionChoice) -> Result<Precision, InferError> {
        choice.resolve(provider, &self.precisions(provider)?)
    }
}

impl SessionOptions {
    /// The same with so many threads inside one run.
    pub(super) fn with_threads(&self, intra_op_threads: usize) -> Self {
        Self { intra_op_threads, ..self.clone() }
    }

    /// Registers the provider with a session that is being built.
    pub(super) fn register(
        &self,
        builder: SessionBuilder,
        environment: &Environment,
        shapes: Option<&EngineShapes>,
    ) -> Result<SessionBuilder, InferError> {
        let device = i32::try_from(self.gpu.device).unwrap_or(i32::MAX);
        match self.provider {
            // By name as well: of several devices, the runtime gives a session that names none the one that it likes best.
            Provider::Cpu => {
                builder.with_devices(environment.cpu_devices(), None).map_err(|error| self.provider.unavailable(error))
            }
            Provider::Openvino => {
                // One device: the plugin lists the CPU again for each of its virtual devices.
                let devices: Vec<_> = environment.openvino_devices()?.into_iter().take(1).collect();
                builder
                    .with_devices(devices, Some(&self.openvino_options()))
                    .map_err(|error| self.provider.unavailable(error))
            }
            Provider::Cuda => {
                let search = match self.gpu.cudnn_search {
                    CudnnSearch::Heuristic => ep::cuda::ConvAlgorithmSearch::Heuristic,
                    CudnnSearch::Exhaustive => ep::cuda::ConvAlgorithmSearch::Exhaustive,
                };
                let cuda = ep::CUDA::default()
                    .with_device_id(device)
                    .with_conv_algorithm_search(search)
                    // As much memory as a server has images for, instead of the next power of two.
                    .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested)
                    .with_tf32(self.precision == Precision::Tf32);
                builder
                    .with_execution_providers([cuda.build().error_on_failure()])
                    .map_err(|error| self.provider.unavailable(error))
            }
            Provider::Tensorrt => {
                let mut tensorrt = ep::TensorRT::default()
                    .with_device_id(device)
                    .with_fp16(self.precision == Precision::F16)
                    .with_bf16(self.precision == Precision::Bf16);
                if let Some(shapes) = shapes {
                    let text = |[n, a, b, c]: [usize; 4]| format!("{}:{n}x{a}x{b}x{c}", shapes.input);
                    tensorrt = tensorrt
                        .with_profile_min_shapes(text(shapes.one))
                        .with_profile_opt_shapes(text(shapes.full))
                        .with_profile_max_shapes(text(shapes.full));
                }
                if let Some(folder) = &self.gpu.engine_cache {
                    let folder = folder.to_string_lossy();
                    tensorrt = tensorrt
                        .with_engine_cache(true)
                        .with_engine_cache_path(&folder)
                        .with_timing_cache(true)
                        .with_timing_cache_path(&folder);
                }
                builder
                    .with_execution_providers([
                        tensorrt.build().error_on_failure(),
                        ep::CUDA::default().with_device_id(device).build().error_on_failure(),
                    ])
                    .map_err(|error| self.provider.unavailable(error))
            }
        }
    }

    /// OpenVINO's own properties, as the plugin takes them: JSON by device.
    ///
    /// Its streams and threads are set, because a run of ONNX Runtime is one request of one stream. Threads are not
    /// pinned: two instances of one thread each would both be pinned to the first core (measured on 2 cores: 24 images/s
    /// instead of 49).
    fn openvino_options(&self) -> Vec<(String, String)> {
        let precision = match self.precision {
            Precision::F32 | Precision::Tf32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        };
        let properties = serde_json::json!({ "CPU": {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": self.intra_op_threads.to_string(),
            "NUM_STREAMS": "1",
            "ENABLE_CPU_PINNING": "NO",
        }});
        vec![(format!("{}.load_config", Provider::Openvino.ort_name()), properties.to_string())]
    }
}
