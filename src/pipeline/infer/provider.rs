//! Execution providers and the numbers they compute in: what can be asked for, and what it is called.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;

use super::InferError;

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// ONNX Runtime's own CPU kernels.
    Cpu,
    /// Intel OpenVINO, as a plugin library.
    Openvino,
    /// NVIDIA CUDA.
    Cuda,
    /// NVIDIA TensorRT.
    Tensorrt,
}

impl Provider {
    /// The name in settings, metadata and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Openvino => "openvino",
            Self::Cuda => "cuda",
            Self::Tensorrt => "tensorrt",
        }
    }

    /// The name under which ONNX Runtime lists it.
    #[must_use]
    pub fn ort_name(self) -> &'static str {
        match self {
            Self::Cpu => "CPUExecutionProvider",
            Self::Openvino => "OpenVINOExecutionProvider",
            Self::Cuda => "CUDAExecutionProvider",
            Self::Tensorrt => "TensorrtExecutionProvider",
        }
    }

    /// Runs on a GPU, whose instances are streams and take no cores.
    #[must_use]
    pub fn is_gpu(self) -> bool {
        matches!(self, Self::Cuda | Self::Tensorrt)
    }

    /// Images in one batch, at most, where the settings do not say. On the CPU provider the time of one image may make it
    /// less. bf16 on AMX needs 8 to fill its tiles, and a GPU many more.
    #[must_use]
    pub fn batch_images_max(self) -> usize {
        match self {
            Self::Cpu | Self::Openvino => 8,
            Self::Cuda | Self::Tensorrt => 32,
        }
    }

    /// What the operator does when the provider is missing.
    fn fix(self) -> &'static str {
        match self {
            Self::Cpu => "install the CPU library with `residual runtime install cpu`",
            Self::Openvino => "install it with `residual runtime install openvino`, or use `--provider cpu`",
            Self::Cuda => {
                "fetch what it needs with `residual runtime install cuda`, see docs/GPU.md, or use `--provider cpu`"
            }
            Self::Tensorrt => {
                "fetch what CUDA needs with `residual runtime install cuda` and install TensorRT as docs/GPU.md says, or use \
                 `--provider cuda`"
            }
        }
    }

    pub(super) fn unavailable(self, cause: impl fmt::Display) -> InferError {
        let cause = cause.to_string().trim_end_matches('.').to_owned();
        InferError::Provider { provider: self.name(), cause, fix: self.fix() }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the settings say: a provider by name, or the server's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderChoice {
    /// The fastest that is installed and proven; the log says which and why.
    Auto,
    /// This one or a start-up error.
    Named(Provider),
}

impl ProviderChoice {
    /// Every value that [`ProviderChoice::from_str`] takes.
    pub const NAMES: [&'static str; 5] = ["auto", "cpu", "openvino", "cuda", "tensorrt"];
}

impl FromStr for ProviderChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "auto" => Self::Auto,
            "cpu" => Self::Named(Provider::Cpu),
            "openvino" => Self::Named(Provider::Openvino),
            "cuda" => Self::Named(Provider::Cuda),
            "tensorrt" => Self::Named(Provider::Tensorrt),
            _ => return Err(format!("{name:?} is no execution provider; use one of {}", Self::NAMES.join(", "))),
        })
    }
}

/// The numbers that a provider multiplies in. Weights and scores outside of it keep the graph's own types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision, 24 bits of mantissa.
    F32,
    /// f32 whose products are taken of 11 bits of mantissa: what NVIDIA's tensor cores do with f32.
    Tf32,
    /// The upper half of f32, 8 bits of mantissa.
    Bf16,
    /// Half precision, 11 bits of mantissa.
    F16,
}

impl Precision {
    /// The name in settings, metadata and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// How far the scores of one sample may differ between batches, relative to the largest score.
    ///
    /// A kernel may add in another order when the batch is larger. ONNX Runtime 1.31's CPU provider on AVX2 does not:
    /// scores of ResNet-20 and of a graph like ResNet-50 were equal in every bit for 1, 2, 8 and 32 images. 1e-4 leaves
    /// room for processors whose kernels do, and is far below what one image's pixels do to another's scores. A step of
    /// f16 and of tf32 is 5e-4, of bf16 4e-3.
    #[must_use]
    pub fn tolerance(self) -> f32 {
        match self {
            Self::F32 => 1e-4,
            Self::Tf32 | Self::Bf16 | Self::F16 => 1e-2,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the settings say: a precision by name, or whatever the provider is fastest in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PrecisionChoice {
    /// f32 on the CPU provider, TF32 on GPUs, and what this processor is fastest in with OpenVINO.
    #[default]
    Auto,
    /// This one or a start-up error.
    Named(Precision),
}

impl PrecisionChoice {
    /// Every value that [`PrecisionChoice::from_str`] takes.
    pub const NAMES: [&'static str; 5] = ["auto", "f32", "tf32", "bf16", "f16"];

    /// The precision to ask `provider` for, which offers these, the one for `auto` first.
    ///
    /// # Errors
    /// [`InferError::Precision`] if it does not have the one that is named.
    pub(super) fn resolve(self, provider: Provider, offered: &[Precision]) -> Result<Precision, InferError> {
        match self {
            Self::Auto => Ok(offered.first().copied().unwrap_or(Precision::F32)),
            Self::Named(precision) if offered.contains(&precision) => Ok(precision),
            Self::Named(precision) => Err(InferError::Precision {
                provider: provider.name(),
                found: precision.name(),
                offered: offered.iter().map(|precision| precision.name()).collect::<Vec<_>>().join(", "),
            }),
        }
    }
}

impl FromStr for PrecisionChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "auto" => Self::Auto,
            "f32" => Self::Named(Precision::F32),
            "tf32" => Self::Named(Precision::Tf32),
            "bf16" => Self::Named(Precision::Bf16),
            "f16" => Self::Named(Precision::F16),
            _ => return Err(format!("{name:?} is no precision; use one of {}", Self::NAMES.join(", "))),
        })
    }
}

/// How the CUDA provider looks for the fastest convolution of each shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum CudnnSearch {
    /// By cuDNN's own estimate; at once.
    #[default]
    Heuristic,
    /// By trying all; seconds for each new batch size.
    Exhaustive,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_understood_and_no_other() {
        for name in ProviderChoice::NAMES {
            let choice: ProviderChoice = name.parse().unwrap();
            if let ProviderChoice::Named(provider) = choice {
                assert_eq!(provider.name(), name);
            }
        }
        assert_eq!(
            "coreml".parse::<ProviderChoice>().unwrap_err(),
            "\"coreml\" is no execution provider; use one of auto, cpu, openvino, cuda, tensorrt"
        );
        for name in PrecisionChoice::NAMES {
            if let PrecisionChoice::Named(precision) = name.parse().unwrap() {
                assert_eq!(precision.name(), name);
            }
        }
        assert!("int4".parse::<PrecisionChoice>().unwrap_err().contains("auto, f32, tf32, bf16, f16"));
    }

    #[test]
    fn a_precision_that_is_named_is_there_or_an_error() {
        let openvino = [Precision::Bf16, Precision::F32];
        let auto = PrecisionChoice::Auto;
        assert_eq!(auto.resolve(Provider::Openvino, &openvino), Ok(Precision::Bf16));
        assert_eq!(auto.resolve(Provider::Openvino, &[Precision::F32]), Ok(Precision::F32));
        let named = PrecisionChoice::Named(Precision::Bf16);
        assert_eq!(named.resolve(Provider::Openvino, &openvino), Ok(Precision::Bf16));
        let error = named.resolve(Provider::Cpu, &[Precision::F32]).unwrap_err().to_string();
        assert_eq!(error, "precision bf16 is not to be had from provider cpu on this machine; use one of auto, f32");
    }
}
