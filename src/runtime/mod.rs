//! Finding the ONNX Runtime shared library, and fetching it when there is none.
//!
//! The program opens ONNX Runtime at run time; this module says which file that is. [`find`] looks in a fixed order,
//! [`install`] downloads the official Python wheel with pip and unpacks its shared libraries into the user's cache.
//! Loading the library, and choosing a provider, is left to `pipeline::infer`.

mod advice;
mod bundle;
mod cache;
mod cuda;
mod driver;
mod error;
#[cfg(test)]
mod fakes;
mod hardware;
mod install;
mod library;
mod locate;
mod pip;
mod receipt;
mod room;
mod search;
mod version;
mod wheel;

use std::fmt;
use std::path::PathBuf;

pub use advice::{Advice, faster_here};
pub use cuda::cuda_libraries_folder;
pub use driver::{DRIVER_MAJOR_MIN, DriverError, DriverVersion, gpu_driver};
pub use error::RuntimeError;
pub use hardware::Hardware;
pub use install::{Installed, Refresh, find_or_install, install};
pub use library::Unfit;
pub use locate::{Candidate, Found, Source, State, candidates, find, openvino_plugin};
pub use receipt::{Damage, Depth};
pub use room::{Room, room};
pub use search::Search;
pub use version::Version;

/// The ONNX Runtime this program is built and measured with; fetched libraries are exactly this version.
pub const RUNTIME_VERSION: Version = Version { major: 1, minor: 31, patch: 1 };

/// The oldest library that can be used: the bindings ask for version 24 of the C API, which 1.24.0 was first to offer.
pub const VERSION_MIN: Version = Version { major: 1, minor: 24, patch: 0 };

/// The OpenVINO plugin that goes with [`RUNTIME_VERSION`]; plugins count their versions themselves.
pub const OPENVINO_PLUGIN_VERSION: Version = Version { major: 1, minor: 8, patch: 1 };

/// Which build of ONNX Runtime, or which addition to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// The library with the CPU provider alone; runs everywhere.
    Cpu,
    /// The OpenVINO plugin provider, used together with the CPU library. Faster on Intel CPUs, and on AMX by a lot.
    Openvino,
    /// The library with the CUDA and TensorRT providers; needs an NVIDIA driver, CUDA 13 and cuDNN 9.
    Cuda,
    /// CUDA 13 and cuDNN 9 as far as the CUDA provider needs them; opened before it where they are installed.
    CudaLibraries,
}

impl Flavour {
    /// Every flavour, the most common first.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Openvino, Self::Cuda, Self::CudaLibraries];

    /// The flavour whose wheel holds the ONNX Runtime library itself: the OpenVINO plugin runs on the CPU library, and
    /// only the CUDA one has a use for the CUDA libraries.
    pub fn library(self) -> Self {
        match self {
            Self::Cpu | Self::Openvino => Self::Cpu,
            Self::Cuda | Self::CudaLibraries => Self::Cuda,
        }
    }

    /// The word for it on the command line, in the settings file and in the cache folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Openvino => "openvino",
            Self::Cuda => "cuda",
            Self::CudaLibraries => "cuda-libraries",
        }
    }

    /// The command that fetches it, for messages that say what to do next.
    pub fn install_command(self) -> String {
        format!("residual runtime install {self}")
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which files beside a cached library are there for people, not for the loader. They stay with the library because
/// an image built from this cache passes the library on, and its licence asks for its notices to come along.
const NOTICES: [&str; 3] = ["LICENSE", "ThirdPartyNotices.txt", "third-party-programs.txt"];

/// An absolute path where the current folder allows one, for messages that will be read in another folder.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
