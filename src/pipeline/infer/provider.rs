//! Execution providers: what can be asked for, and how a session gets it.
//!
//! ONNX Runtime falls back to its CPU provider when another one fails to load. Residual does not: a provider asked for
//! by name is there or the start fails.

use std::fmt;
use std::str::FromStr;

use ort::ep;
use ort::session::builder::SessionBuilder;
use serde::Serialize;

use super::{Environment, InferError};

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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

    /// What the operator does when the provider is missing.
    fn fix(self) -> &'static str {
        match self {
            Self::Cpu => "install the CPU library with `residual runtime install cpu`",
            Self::Openvino => "install it with `residual runtime install openvino`, or use `--provider cpu`",
            Self::Cuda => {
                "install the library with `residual runtime install cuda`, check that the NVIDIA driver, CUDA and cuDNN \
                 are there, or use `--provider cpu`"
            }
            Self::Tensorrt => {
                "install the library with `residual runtime install cuda`, check that the NVIDIA driver, CUDA and \
                 TensorRT are there, or use `--provider cpu`"
            }
        }
    }

    pub(super) fn unavailable(self, cause: impl fmt::Display) -> InferError {
        let cause = cause.to_string().trim_end_matches('.').to_owned();
        InferError::Provider { provider: self.name(), cause, fix: self.fix() }
    }

    /// Registers this provider with a session that is being built.
    pub(super) fn register(
        self,
        builder: SessionBuilder,
        environment: &Environment,
    ) -> Result<SessionBuilder, InferError> {
        match self {
            Self::Cpu => Ok(builder),
            Self::Openvino => {
                let devices: Vec<_> = environment.openvino_devices()?;
                builder.with_devices(devices, None).map_err(|error| self.unavailable(error))
            }
            Self::Cuda => builder
                .with_execution_providers([ep::CUDA::default().build().error_on_failure()])
                .map_err(|error| self.unavailable(error)),
            Self::Tensorrt => builder
                .with_execution_providers([ep::TensorRT::default().build().error_on_failure()])
                .map_err(|error| self.unavailable(error)),
        }
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
    /// Residual chooses and logs what it chose and why.
    Auto,
    /// This one or a start-up error.
    Named(Provider),
}

impl ProviderChoice {
    /// Every value that [`ProviderChoice::from_str`] takes.
    pub const NAMES: [&'static str; 5] = ["auto", "cpu", "openvino", "cuda", "tensorrt"];

    /// The provider to use and the reason, for the log.
    ///
    /// `auto` is the CPU provider in f32: the only one whose numbers are those the model was published with on every
    /// machine. Faster providers compute in other precisions and are used when they are named.
    #[must_use]
    pub fn resolve(self) -> (Provider, &'static str) {
        match self {
            Self::Auto => (Provider::Cpu, "auto: exact f32 everywhere"),
            Self::Named(provider) => (provider, "asked for by name"),
        }
    }
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
    }
}
