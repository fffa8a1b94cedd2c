//! Which flavour would be much faster on this machine and is not installed: one line for the log of a start.

use std::fmt;
use std::path::Path;

use super::bundle::Bundle;
use super::{Flavour, Hardware, Search};

/// A flavour that would be much faster here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The flavour to install.
    pub flavour: Flavour,
    /// What this machine has that the installed flavours do not use.
    pub because: String,
    /// What installing it brings.
    pub gain: &'static str,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flavour, because, gain } = self;
        write!(f, "{because}: `{}` {gain}", flavour.install_command())
    }
}

/// Looks at this machine and at what is installed.
#[must_use]
pub fn faster_here(search: &Search) -> Option<Advice> {
    advise(&Hardware::read(search), |flavour| Bundle::for_host(flavour).is_ok() && !is_installed(search, flavour))
}

/// The flavour to install on a machine, of those that could be.
///
/// Only what was measured, or is plain, is said: an NVIDIA GPU, and AMX, with which ResNet-50 in batches of 8 went from
/// 38 to 199 images/s on two cores and ResNet-18 from 87 to 503 (OpenVINO plugin 1.8.1 in bf16 beside the CPU provider
/// of ONNX Runtime 1.31.1 in f32). On CPUs that are not Intel's the plugin offers no device.
fn advise(hardware: &Hardware, is_to_be_had: impl Fn(Flavour) -> bool) -> Option<Advice> {
    if let Ok(driver) = hardware.driver()
        && is_to_be_had(Flavour::Cuda)
    {
        let because = format!("this machine has an NVIDIA GPU with driver {driver}");
        return Some(Advice { flavour: Flavour::Cuda, because, gain: "lets it run the models" });
    }
    (hardware.intel && hardware.amx && is_to_be_had(Flavour::Openvino)).then(|| Advice {
        flavour: Flavour::Openvino,
        because: "this CPU has AMX".into(),
        gain: "makes ResNets about 5 times faster",
    })
}

/// Whether a flavour is there in some form. A damaged one counts: whoever uses it is told.
fn is_installed(search: &Search, flavour: Flavour) -> bool {
    let file = match flavour {
        Flavour::Cpu | Flavour::CudaLibraries => None,
        Flavour::Openvino => Some("libonnxruntime_providers_openvino_plugin.so"),
        Flavour::Cuda => Some("libonnxruntime_providers_cuda.so"),
    };
    let given = search.ort_lib.as_deref().and_then(Path::parent);
    let mut folders = given.into_iter().chain(search.executable_dir.as_deref());
    file.is_some_and(|file| folders.any(|folder| folder.join(file).exists()))
        || search.cache().is_ok_and(|cache| cache.folder(flavour).exists())
}

#[cfg(test)]
mod tests {
    use super::super::fakes;
    use super::super::install::{Refresh, install};
    use super::*;

    fn amx() -> Hardware {
        Hardware { intel: true, amx: true, ..Hardware::default() }
    }

    fn gpu() -> Hardware {
        Hardware { gpus: 1, driver_library: Some("/lib/libcuda.so.580.95.05".into()), ..Hardware::default() }
    }

    #[test]
    fn advice_reads_as_one_line() {
        let text = |hardware: &Hardware| advise(hardware, |_| true).map(|advice| advice.to_string());
        assert_eq!(
            text(&amx()).unwrap(),
            "this CPU has AMX: `residual runtime install openvino` makes ResNets about 5 times faster"
        );
        assert_eq!(
            text(&gpu()).unwrap(),
            "this machine has an NVIDIA GPU with driver 580.95.05: `residual runtime install cuda` lets it run the models"
        );
    }

    #[test]
    fn nothing_is_advised_where_it_would_not_help() {
        let advised = |hardware: Hardware| advise(&hardware, |_| true).map(|advice| advice.flavour);
        assert_eq!(advised(Hardware::default()), None);
        assert_eq!(advised(Hardware { intel: true, ..Hardware::default() }), None);
        assert_eq!(advised(Hardware { intel: false, ..amx() }), None, "the plugin refuses other vendors' CPUs");
        let old = Hardware { driver_library: Some("/lib/libcuda.so.535.1".into()), ..gpu() };
        assert_eq!(advised(old), None, "CUDA 13 does not run on it");
    }

    #[test]
    fn gpu_comes_first_and_what_is_installed_is_passed_over() {
        let both = Hardware { intel: true, amx: true, ..gpu() };
        let advised =
            |installed: &[Flavour]| advise(&both, |flavour| !installed.contains(&flavour)).map(|advice| advice.flavour);
        assert_eq!(advised(&[]), Some(Flavour::Cuda));
        assert_eq!(advised(&[Flavour::Cuda]), Some(Flavour::Openvino));
        assert_eq!(advised(&[Flavour::Cuda, Flavour::Openvino]), None);
    }

    #[test]
    fn installed_is_what_lies_in_the_cache_or_beside_the_library() {
        let folder = tempfile::tempdir().unwrap();
        let (mut search, _python) = fakes::search(folder.path());
        assert!(!is_installed(&search, Flavour::Cpu));
        install(&search, Flavour::Cpu, Refresh::IfNeeded, &|_| {}).unwrap();
        assert!(is_installed(&search, Flavour::Cpu) && !is_installed(&search, Flavour::Openvino));
        std::fs::write(folder.path().join("libonnxruntime_providers_openvino_plugin.so"), "").unwrap();
        search.ort_lib = Some(folder.path().join("libonnxruntime.so"));
        assert!(is_installed(&search, Flavour::Openvino) && !is_installed(&search, Flavour::Cuda));
    }
}
