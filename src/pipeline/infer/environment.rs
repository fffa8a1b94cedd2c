//! The loaded ONNX Runtime library. There is one per process, whatever the number of models and servers in it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::device::Device;
use ort::ep::{self, ExecutionProvider as _};

use super::{InferError, Provider};

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
            None => Self::open(library)?,
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

    /// The providers that the library and its plugins bring beside the CPU's and that may be chosen unasked. TensorRT is not
    /// among them: it builds an engine for minutes.
    #[must_use]
    pub fn accelerators(&self) -> Vec<Provider> {
        let cuda = ep::CUDA::is_available().unwrap_or(false).then_some(Provider::Cuda);
        let openvino = self.openvino_devices().is_ok().then_some(Provider::Openvino);
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
            return Err(Provider::Openvino.unavailable(
                "the plugin is loaded, but offers no device on this machine: it needs an Intel CPU or GPU",
            ));
        }
        Ok(devices)
    }
}
