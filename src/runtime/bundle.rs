//! Which wheels make up a flavour on a machine. What is in a wheel is left to `wheel`, the fetching to `install`.

use super::wheel::Wheel;
use super::{Flavour, RuntimeError};

/// The machines that ONNX Runtime publishes wheels for, of those that this program runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Platform {
    LinuxX86,
    LinuxArm,
    MacosArm,
}

impl Platform {
    pub(crate) const ALL: [Self; 3] = [Self::LinuxX86, Self::LinuxArm, Self::MacosArm];

    /// The machine this program was built for. The Linux wheels need glibc, so a musl build has none.
    pub(crate) fn host() -> Option<Self> {
        match (std::env::consts::OS, std::env::consts::ARCH) {
            ("linux", _) if cfg!(not(target_env = "gnu")) => None,
            ("linux", "x86_64") => Some(Self::LinuxX86),
            ("linux", "aarch64") => Some(Self::LinuxArm),
            ("macos", "aarch64") => Some(Self::MacosArm),
            _ => None,
        }
    }

    /// The machine as its wheels of ONNX Runtime name it.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::LinuxX86 => "manylinux_2_28_x86_64",
            Self::LinuxArm => "manylinux_2_28_aarch64",
            Self::MacosArm => "macosx_14_0_arm64",
        }
    }
}

/// The wheels of one flavour for one machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bundle {
    pub(crate) flavour: Flavour,
    /// The first one holds the file that gets opened, and gives the flavour its version.
    pub(crate) wheels: &'static [Wheel],
}

impl Bundle {
    /// The wheels of a flavour for a machine, where they were published.
    pub(crate) fn of(flavour: Flavour, platform: Platform) -> Option<Self> {
        let wheels = match (flavour, platform) {
            (Flavour::Cpu, Platform::LinuxX86) => CPU_LINUX_X86,
            (Flavour::Cpu, Platform::LinuxArm) => CPU_LINUX_ARM,
            (Flavour::Cpu, Platform::MacosArm) => CPU_MACOS_ARM,
            (Flavour::Openvino, Platform::LinuxX86) => OPENVINO,
            (Flavour::Cuda, Platform::LinuxX86) => CUDA,
            (Flavour::CudaLibraries, Platform::LinuxX86) => CUDA_LIBRARIES,
            (Flavour::Openvino | Flavour::Cuda | Flavour::CudaLibraries, Platform::LinuxArm | Platform::MacosArm) => {
                return None;
            }
        };
        Some(Self { flavour, wheels })
    }

    /// The wheels of a flavour for this machine.
    pub(crate) fn for_host(flavour: Flavour) -> Result<Self, RuntimeError> {
        Platform::host().and_then(|platform| Self::of(flavour, platform)).ok_or_else(|| {
            let available = Platform::ALL.into_iter().filter(|platform| Self::of(flavour, *platform).is_some());
            RuntimeError::UnsupportedPlatform {
                flavour,
                host: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
                available: available.map(Platform::tag).collect::<Vec<_>>().join(", "),
            }
        })
    }

    /// The wheel with the file that gets opened.
    pub(crate) fn main(&self) -> &'static Wheel {
        self.wheels.first().expect("a bundle has a wheel")
    }
}

// Hashes and sizes are those that the package index lists; unpacked sizes count the files that are kept.

const CPU_LINUX_X86: &[Wheel] = &[Wheel {
    package: "onnxruntime",
    version: "1.31.1",
    tag: "manylinux_2_28_x86_64",
    sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
    bytes: 23_760_988,
    unpacked_bytes: 29_705_993,
    folder: "onnxruntime/capi",
    library: "libonnxruntime.so.1.31.1",
    left_behind: &[],
}];

const CPU_LINUX_ARM: &[Wheel] = &[Wheel {
    package: "onnxruntime",
    version: "1.31.1",
    tag: "manylinux_2_28_aarch64",
    sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
    bytes: 21_420_803,
    unpacked_bytes: 25_802_993,
    folder: "onnxruntime/capi",
    library: "libonnxruntime.so.1.31.1",
    left_behind: &[],
}];

const CPU_MACOS_ARM: &[Wheel] = &[Wheel {
    package: "onnxruntime",
    version: "1.31.1",
    tag: "macosx_14_0_arm64",
    sha256: "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c",
    bytes: 20_882_125,
    unpacked_bytes: 33_376_497,
    folder: "onnxruntime/capi",
    library: "libonnxruntime.1.31.1.dylib",
    left_behind: &[],
}];

const OPENVINO: &[Wheel] = &[Wheel {
    package: "onnxruntime-ep-openvino",
    version: "1.8.1",
    tag: "manylinux_2_28_x86_64",
    sha256: "3832643158c8c187fcab6db661cde2a8c06a2b3559d95d0f2411ac0e51c5e924",
    bytes: 52_587_628,
    unpacked_bytes: 164_649_591,
    folder: "onnxruntime_ep_openvino",
    library: "libonnxruntime_providers_openvino_plugin.so",
    left_behind: &[],
}];

const CUDA: &[Wheel] = &[Wheel {
    package: "onnxruntime-gpu",
    version: "1.31.1",
    tag: "manylinux_2_28_x86_64",
    sha256: "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
    bytes: 255_569_273,
    unpacked_bytes: 314_785_345,
    folder: "onnxruntime/capi",
    library: "libonnxruntime.so.1.31.1",
    left_behind: &[],
}];

/// What the CUDA provider of ONNX Runtime 1.31.1 links to or opens, in the versions it was built with: CUDA 13.0 (its
/// `build_and_package_info.py`; the versions of the parts are those of CUDA 13.0 Update 2) and cuDNN 9.14 (the number
/// 91400 that the provider compares with the library's). Newer ones of the same major version would load as well;
/// these run on every driver that CUDA 13 runs on, without the limits that NVIDIA puts on newer minor versions.
///
/// cuFFT, and nvJitLink behind it, are left out: the provider opens cuFFT for the operators Rfft and Irfft alone.
/// docs/decisions/0010-cuda-libraries-from-wheels.md has the whole account.
const CUDA_LIBRARIES: &[Wheel] = &[
    Wheel {
        package: "nvidia-cuda-runtime",
        version: "13.0.96",
        tag: "manylinux2014_x86_64",
        sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        bytes: 2_243_632,
        unpacked_bytes: 763_550,
        folder: "nvidia/cu13/lib",
        library: "libcudart.so.13",
        left_behind: &[],
    },
    Wheel {
        package: "nvidia-cublas",
        version: "13.1.0.3",
        tag: "manylinux_2_27_x86_64",
        sha256: "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171",
        bytes: 423_133_236,
        unpacked_bytes: 595_832_838,
        folder: "nvidia/cu13/lib",
        library: "libcublas.so.13",
        // A stand-in for a CPU BLAS; nothing here asks for it.
        left_behind: &["libnvblas."],
    },
    Wheel {
        package: "nvidia-cudnn-cu13",
        version: "9.14.0.64",
        tag: "manylinux_2_27_x86_64",
        sha256: "024ce8f7571d322991ecadbe82907df2e89b5f36597d03436413ec6dd7c9fe54",
        bytes: 350_763_257,
        unpacked_bytes: 472_456_422,
        folder: "nvidia/cudnn/lib",
        library: "libcudnn.so.9",
        left_behind: &[],
    },
    // cuDNN compiles some of its kernels at run time with this.
    Wheel {
        package: "nvidia-cuda-nvrtc",
        version: "13.0.88",
        tag: "manylinux2010_x86_64",
        sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
        bytes: 90_215_200,
        unpacked_bytes: 113_777_942,
        folder: "nvidia/cu13/lib",
        library: "libnvrtc.so.13",
        // A second build of the same compiler, used only where a program asks for it by that name; 114 MB.
        left_behind: &["libnvrtc.alt.", "libnvrtc-builtins.alt."],
    },
    Wheel {
        package: "nvidia-curand",
        version: "10.4.0.35",
        tag: "manylinux_2_27_x86_64",
        sha256: "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
        bytes: 59_544_258,
        unpacked_bytes: 132_757_590,
        folder: "nvidia/cu13/lib",
        library: "libcurand.so.10",
        left_behind: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::super::{OPENVINO_PLUGIN_VERSION, RUNTIME_VERSION};
    use super::*;

    fn bundles() -> impl Iterator<Item = Bundle> {
        Flavour::ALL
            .into_iter()
            .flat_map(|flavour| Platform::ALL.into_iter().filter_map(move |platform| Bundle::of(flavour, platform)))
    }

    #[test]
    fn every_wheel_has_a_whole_hash_and_sizes() {
        assert_eq!(bundles().count(), 6);
        for wheel in bundles().flat_map(|bundle| bundle.wheels) {
            assert_eq!(wheel.sha256.len(), 64, "{wheel:?}");
            assert!(wheel.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()), "{wheel:?}");
            assert!(wheel.bytes > 0 && wheel.unpacked_bytes > 0, "{wheel:?}");
        }
    }

    #[test]
    fn wheels_of_onnx_runtime_are_those_of_the_version_that_is_looked_for() {
        for bundle in bundles() {
            let expected = match bundle.flavour {
                Flavour::Cpu | Flavour::Cuda => RUNTIME_VERSION.to_string(),
                Flavour::Openvino => OPENVINO_PLUGIN_VERSION.to_string(),
                Flavour::CudaLibraries => "13.0.96".into(),
            };
            assert_eq!(bundle.main().version, expected);
        }
    }
}
