//! Whether this machine has an NVIDIA driver that CUDA 13 runs on. Asked before a CUDA session is made, so that what is
//! missing is named with its fix, which the errors of ONNX Runtime and CUDA leave to the reader.

use std::fmt;
use std::path::Path;

use super::{Found, Hardware, Search};

/// The oldest driver that runs CUDA 13: NVIDIA's CUDA Compatibility guide, minor version compatibility, table 1.
pub const DRIVER_MAJOR_MIN: u32 = 580;

/// A driver version as NVIDIA writes it, `580.95.05`; unknown where neither the kernel nor the library's name has it,
/// as in Windows' Linux.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverVersion(Option<String>);

impl fmt::Display for DriverVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("of unknown version"))
    }
}

/// Why no CUDA session can be made on this machine, whatever is installed beside the driver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// No trace of one.
    #[error(
        "find an NVIDIA GPU: this machine has no NVIDIA driver (no /proc/driver/nvidia/version, no /dev/nvidia0, no \
         libcuda.so.1); install driver {DRIVER_MAJOR_MIN} or newer, or use --provider cpu"
    )]
    Missing,
    /// The container does not see the GPU.
    #[error(
        "find an NVIDIA GPU: this container was given none ({seen}); start it with --gpus all (Docker and Podman, with \
         the NVIDIA Container Toolkit on the host) or ask for the resource nvidia.com/gpu (Kubernetes), or use \
         --provider cpu"
    )]
    NotPassedIn {
        /// What is known of the host's driver.
        seen: String,
    },
    /// The driver is there, and its part for programs is not.
    #[error(
        "find libcuda.so.1: this machine has an NVIDIA GPU (kernel driver {kernel}) but not the driver's library for \
         CUDA on the loader's path; install it (Debian: libcuda1; Ubuntu: libnvidia-compute of the driver's version), \
         in a container set NVIDIA_DRIVER_CAPABILITIES=compute,utility, or use --provider cpu"
    )]
    NoLibrary {
        /// The version of the kernel driver.
        kernel: DriverVersion,
    },
    /// The driver's library is installed, its kernel module is not loaded.
    #[error(
        "find an NVIDIA GPU: libcuda.so.1 is installed but no kernel driver is loaded (no /proc/driver/nvidia/version, \
         no /dev/nvidia0); run nvidia-smi as root to load it and see whether it finds a GPU, or use --provider cpu"
    )]
    NotLoaded,
    /// CUDA 13 does not run on it.
    #[error(
        "use the NVIDIA driver {found}: ONNX Runtime's CUDA provider is built with CUDA 13, which needs driver \
         {DRIVER_MAJOR_MIN} or newer; update the driver, or use --provider cpu"
    )]
    TooOld {
        /// The version of the driver.
        found: DriverVersion,
    },
}

/// Tells whether a CUDA session can be made with a library that was found, as far as the driver goes.
///
/// # Errors
/// What is missing, and what to do.
pub fn gpu_driver(search: &Search, library: &Found) -> Result<DriverVersion, DriverError> {
    driver_for(&Hardware::read(search), library)
}

fn driver_for(hardware: &Hardware, library: &Found) -> Result<DriverVersion, DriverError> {
    match hardware.driver() {
        // Nothing is opened for a library of the user's own, which may be built for an older CUDA and run on this.
        Err(DriverError::TooOld { found }) if library.preload.is_empty() => Ok(found),
        driver => driver,
    }
}

impl Hardware {
    /// The driver that programs built with CUDA 13 would run on.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn driver(&self) -> Result<DriverVersion, DriverError> {
        let kernel = DriverVersion(self.kernel_driver.clone());
        match (&self.driver_library, self.gpus) {
            // Outside of containers libcuda makes the device files itself at first use, where the module is loaded.
            (Some(library), gpus) if gpus > 0 || !self.container && self.kernel_driver.is_some() => {
                // NVIDIA's compatibility packages bring a newer library to an older kernel driver: what CUDA asks is
                // the library.
                let found = DriverVersion(version_in_name(library).map(str::to_owned).or(kernel.0));
                match found.major() {
                    Some(major) if major < DRIVER_MAJOR_MIN => Err(DriverError::TooOld { found }),
                    Some(_) | None => Ok(found),
                }
            }
            (_, 0) if self.container => {
                let seen = match &self.kernel_driver {
                    Some(version) => format!("the host has driver {version}"),
                    None => "no driver of the host is seen".into(),
                };
                Err(DriverError::NotPassedIn { seen })
            }
            (None, 0) if self.kernel_driver.is_none() => Err(DriverError::Missing),
            (None, _) => Err(DriverError::NoLibrary { kernel }),
            (Some(_), _) => Err(DriverError::NotLoaded),
        }
    }
}

impl DriverVersion {
    fn major(&self) -> Option<u32> {
        self.0.as_deref()?.split('.').next()?.parse().ok()
    }
}

/// `580.95.05` of `libcuda.so.580.95.05`; nothing of `libcuda.so.1` and `libcuda.so.1.1`.
fn version_in_name(library: &Path) -> Option<&str> {
    let version = library.file_name()?.to_str()?.strip_prefix("libcuda.so.")?;
    let major: u32 = version.split('.').next()?.parse().ok()?;
    (major > 1).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::*;

    fn machine(kernel: &str, library: &str, gpus: usize) -> Hardware {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Hardware {
            kernel_driver: some(kernel),
            driver_library: some(library).map(|name| format!("/usr/lib/{name}").into()),
            gpus,
            ..Hardware::default()
        }
    }

    fn refused(hardware: &Hardware) -> DriverError {
        hardware.driver().unwrap_err()
    }

    #[test]
    fn driver_of_cuda_13_is_taken_from_its_first_version_on() {
        let version = |kernel, library| machine(kernel, library, 1).driver().map(|version| version.to_string());
        assert_eq!(version("580.65.06", "libcuda.so.580.65.06"), Ok("580.65.06".into()));
        assert_eq!(version("600.1", "libcuda.so.1"), Ok("600.1".into()));
        let error = refused(&machine("575.57.08", "libcuda.so.575.57.08", 1)).to_string();
        assert!(error.contains("driver 575.57.08") && error.contains("driver 580 or newer"), "{error}");
        assert!(matches!(refused(&machine("535.129.03", "libcuda.so.1", 8)), DriverError::TooOld { .. }));
    }

    #[test]
    fn library_of_the_users_own_may_be_built_for_an_older_driver() {
        let old = machine("535.129.03", "libcuda.so.535.129.03", 1);
        let given = Found {
            library: "/opt/libonnxruntime.so".into(),
            version: None,
            source: Source::Explicit,
            provider_plugin: None,
            preload: Vec::new(),
        };
        assert_eq!(driver_for(&old, &given).unwrap().to_string(), "535.129.03");
        assert_eq!(driver_for(&machine("", "", 0), &given), Err(DriverError::Missing));
        let fetched = Found { preload: vec!["libcudart.so.13".into()], ..given };
        assert!(matches!(driver_for(&old, &fetched), Err(DriverError::TooOld { .. })));
    }

    #[test]
    fn compatibility_library_counts_for_the_older_kernel_driver() {
        let compat = machine("535.129.03", "libcuda.so.580.95.05", 1);
        assert_eq!(compat.driver().unwrap().to_string(), "580.95.05");
    }

    #[test]
    fn windows_linux_has_no_version_and_is_not_held_against_it() {
        let version = machine("", "libcuda.so.1.1", 1).driver().unwrap();
        assert_eq!(version.to_string(), "of unknown version");
    }

    #[test]
    fn what_is_missing_is_told_apart() {
        assert_eq!(refused(&machine("", "", 0)), DriverError::Missing);
        assert_eq!(refused(&machine("", "libcuda.so.580.95.05", 0)), DriverError::NotLoaded);
        assert!(matches!(refused(&machine("580.95.05", "", 1)), DriverError::NoLibrary { .. }));
        assert!(matches!(refused(&machine("580.95.05", "", 0)), DriverError::NoLibrary { .. }));
    }

    #[test]
    fn device_files_are_made_at_first_use_but_not_in_containers() {
        let fresh = machine("580.95.05", "libcuda.so.580.95.05", 0);
        assert_eq!(fresh.driver().unwrap().to_string(), "580.95.05");
        let in_container = Hardware { container: true, ..fresh };
        assert!(matches!(refused(&in_container), DriverError::NotPassedIn { .. }));
    }

    #[test]
    fn container_without_a_gpu_is_told_how_to_get_one() {
        let in_container = |kernel| Hardware { container: true, ..machine(kernel, "", 0) };
        let error = refused(&in_container("580.95.05")).to_string();
        assert!(error.contains("the host has driver 580.95.05") && error.contains("--gpus all"), "{error}");
        assert!(matches!(refused(&in_container("")), DriverError::NotPassedIn { .. }));
        let without_library = Hardware { gpus: 1, ..in_container("580.95.05") };
        let error = refused(&without_library).to_string();
        assert!(error.contains("NVIDIA_DRIVER_CAPABILITIES=compute,utility"), "{error}");
    }
}
