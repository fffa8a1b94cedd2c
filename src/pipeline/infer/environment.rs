//! The loaded ONNX Runtime library. There is one per process, whatever the number of models and servers in it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::device::Device;
use ort::ep::{self, ExecutionProvider as _};

use super::{InferError, Provider};

/// What the TensorRT provider needs beside the CUDA libraries (`readelf -d`); TensorRT 10, which no wheel holds.
const TENSORRT_LIBRARIES: [&str; 2] = ["libnvinfer.so.10", "libnvonnxparser.so.10"];

/// What to do where the loader finds no CUDA libraries by name.
const CUDA_FIX: &str = "fetch CUDA 13 and cuDNN 9 with `residual runtime install cuda`, add the folder that has them to \
                        LD_LIBRARY_PATH, or use `--provider cpu`";

/// What to do where a fetched library does not open: it misses one of the system's.
const SYSTEM_FIX: &str = "install the system's library that is missed (Debian: libz.so.1 is in zlib1g, libstdc++.so.6 in \
                          libstdc++6), or use `--provider cpu`";

/// What to do where the loader finds no TensorRT. ONNX Runtime 1.31.1 passes 101401, its version, when it asks for it.
const TENSORRT_FIX: &str = "install TensorRT 10 for CUDA 13 (ONNX Runtime is built with 10.14.1) from NVIDIA's packages \
                            libnvinfer10 and libnvonnxparsers10 or take NVIDIA's TensorRT image, or use `--provider cuda`";

static LOADED: Mutex<Option<Environment>> = Mutex::new(None);

/// A handle to the loaded library. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Environment {
    pub(super) ort: ort::environment::Environment,
    library: PathBuf,
    plugin: Option<PathBuf>,
}

impl Environment {
    /// Opens `library` (an ONNX Runtime shared library) and, where given, registers the OpenVINO plugin. Once a library
    /// is open, the same one is returned for the rest of the process.
    ///
    /// # Errors
    /// [`InferError::Library`] if it cannot be opened or is too old, [`InferError::SecondLibrary`] if another one is
    /// open already, [`InferError::Provider`] if the plugin is refused.
    pub fn load(library: &Path, openvino_plugin: Option<&Path>) -> Result<Self, InferError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let mut environment = match &*loaded {
            Some(environment) if environment.library == library => environment.clone(),
            Some(environment) => {
                return Err(InferError::SecondLibrary {
                    loaded: environment.library.display().to_string(),
                    asked: library.display().to_string(),
                });
            }
            None => {
                let environment = Self::open(library)?;
                // Before the plugin: whatever becomes of it, this library is open.
                *loaded = Some(environment.clone());
                environment
            }
        };
        if let (None, Some(plugin)) = (&environment.plugin, openvino_plugin) {
            environment
                .ort
                .register_ep_library("openvino", plugin)
                .map_err(|error| Provider::Openvino.unavailable(error))?;
            environment.plugin = Some(plugin.to_owned());
        }
        *loaded = Some(environment.clone());
        Ok(environment)
    }

    fn open(library: &Path) -> Result<Self, InferError> {
        let failed = |cause: String| InferError::Library { library: library.display().to_string(), cause };
        let ort = ort::init_from(library)
            .map_err(|error| failed(error.to_string()))?
            .with_name("residual")
            .with_telemetry(false)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { ort, library: library.to_owned(), plugin: None })
    }

    /// The library's path.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// The providers beside the CPU's that the library and its plugins bring and that may be chosen unasked, with what keeps
    /// one from being used. TensorRT is not among them: it builds an engine for minutes.
    #[must_use]
    pub fn accelerators(&self) -> Vec<(Provider, Result<(), InferError>)> {
        let cuda = ep::CUDA::is_available().unwrap_or(false).then_some((Provider::Cuda, Ok(())));
        let openvino = self.plugin.is_some().then(|| (Provider::Openvino, self.openvino_devices().map(drop)));
        cuda.into_iter().chain(openvino).collect()
    }

    /// The CPU, as the runtime's own provider offers it.
    pub(super) fn cpu_devices(&self) -> impl Iterator<Item = Device<'_>> {
        self.ort.devices().filter(|device| device.ep().is_ok_and(|name| name == Provider::Cpu.ort_name())).take(1)
    }

    /// The devices of the OpenVINO plugin.
    pub(super) fn openvino_devices(&self) -> Result<Vec<Device<'_>>, InferError> {
        if self.plugin.is_none() {
            return Err(Provider::Openvino.unavailable("its plugin library is not installed"));
        }
        let devices: Vec<_> = self
            .ort
            .devices()
            .filter(|device| device.ep().is_ok_and(|name| name == Provider::Openvino.ort_name()))
            .collect();
        if devices.is_empty() {
            return Err(InferError::Provider {
                provider: Provider::Openvino.name(),
                cause: "the plugin is loaded and offers no device on this machine".to_owned(),
                fix: "it needs an Intel CPU or GPU; use `--provider cpu`",
            });
        }
        Ok(devices)
    }
}

/// Opens what the CUDA and TensorRT providers need, first to last, and keeps it open. ONNX Runtime opens its providers
/// later; the loader then looks for these libraries by name, and takes what the process has open already. A bare name is
/// looked for where the loader looks.
///
/// # Errors
/// [`InferError::Provider`] with what the loader misses and what brings it.
pub fn preload(provider: Provider, libraries: &[PathBuf]) -> Result<(), InferError> {
    let opened = |library: &Path, fix: &'static str| {
        ort::util::preload_dylib(library).map_err(|error| {
            // The loader's own words are the cause behind the error. They begin with what it misses: the library itself,
            // or one that it needs.
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            let library = library.display().to_string();
            let why = why.strip_prefix(&format!("{library}: ")).unwrap_or(&why);
            InferError::Provider { provider: provider.name(), cause: format!("open {library}: {why}"), fix }
        })
    };
    for library in libraries {
        let is_bare = library.components().count() == 1;
        opened(library, if is_bare { CUDA_FIX } else { SYSTEM_FIX })?;
    }
    if provider == Provider::Tensorrt {
        TENSORRT_LIBRARIES.iter().try_for_each(|library| opened(Path::new(library), TENSORRT_FIX))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_library_is_named_with_what_brings_it() {
        let refused = |library: &str| preload(Provider::Cuda, &[library.into()]).unwrap_err().to_string();
        let bare = refused("libno-such-cublas.so.13");
        assert!(bare.contains("provider cuda is not available: open libno-such-cublas.so.13: "), "{bare}");
        assert!(bare.contains("`residual runtime install cuda`"), "{bare}");
        let path = refused("/no/such/libcudnn.so.9");
        assert!(path.contains("/no/such/libcudnn.so.9") && path.contains("zlib1g"), "{path}");
    }

    #[test]
    fn libraries_are_opened_in_order_and_the_first_that_fails_ends_it() {
        // libc is open in every process, under a name that the loader knows.
        let present = if cfg!(target_vendor = "apple") { "libSystem.B.dylib" } else { "libc.so.6" };
        assert!(preload(Provider::Cuda, &[present.into()]).is_ok());
        let error =
            preload(Provider::Cuda, &[present.into(), "libnone-1.so".into(), "libnone-2.so".into()]).unwrap_err();
        assert!(error.to_string().contains("libnone-1.so"), "{error}");
    }
}
