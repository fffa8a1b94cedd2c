//! What the machine has that ONNX Runtime's faster providers ask for, read from its files. What follows from it is said
//! in `driver` and `advice`.

use std::fs;
use std::path::{Path, PathBuf};

use super::Search;

/// The driver's library that every CUDA program opens.
const DRIVER_LIBRARY: &str = "libcuda.so.1";

/// The processor's and the NVIDIA driver's traces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// The processor says that it is Intel's. The OpenVINO plugin offers no device on any other.
    pub intel: bool,
    /// It multiplies matrices of bf16 (AMX).
    pub amx: bool,
    /// The version of NVIDIA's kernel driver, which all containers of a machine see.
    pub kernel_driver: Option<String>,
    /// The driver's library with the links resolved: the real name has the version, `libcuda.so.580.95.05`.
    pub driver_library: Option<PathBuf>,
    /// GPUs that this process may open.
    pub gpus: usize,
    /// The process runs in a container, where the GPU has to be passed in.
    pub container: bool,
}

impl Hardware {
    /// Reads this machine. The driver's library is looked for where the loader would.
    #[must_use]
    pub fn read(search: &Search) -> Self {
        let below = Self::below(Path::new("/"), &search.system_dirs);
        // containerd leaves no file that says what it is; Kubernetes sets this in every pod.
        Self { container: below.container || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(), ..below }
    }

    fn below(root: &Path, library_dirs: &[PathBuf]) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let cpu = text("proc/cpuinfo");
        let field = |name: &str| {
            let line = cpu.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
            line.split_once(':').map(|(_, value)| value.trim())
        };
        let library = library_dirs.iter().map(|folder| folder.join(DRIVER_LIBRARY)).find(|path| path.exists());
        Self {
            intel: field("vendor_id") == Some("GenuineIntel"),
            amx: field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "amx_bf16")),
            kernel_driver: driver_version(&text("proc/driver/nvidia/version")).map(str::to_owned),
            driver_library: library.map(|path| path.canonicalize().unwrap_or(path)),
            gpus: gpus(&root.join("dev")),
            container: [".dockerenv", "run/.containerenv"].iter().any(|name| root.join(name).exists()),
        }
    }
}

/// The version in the first line of `/proc/driver/nvidia/version`, whose words differ between the open and the closed
/// kernel module: the first word made of numbers and dots.
fn driver_version(text: &str) -> Option<&str> {
    let is_version = |word: &&str| {
        word.contains('.') && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    text.lines().next()?.split_whitespace().find(is_version)
}

/// The GPUs among the device files: `/dev/nvidia0` and so on; `/dev/dxg` is what Linux in Windows has instead.
fn gpus(dev: &Path) -> usize {
    let Ok(entries) = dev.read_dir() else { return 0 };
    let is_gpu = |name: &str| {
        let number = name.strip_prefix("nvidia").unwrap_or_default();
        name == "dxg" || !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_gpu)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn processor_is_told_by_vendor_and_flags() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Hardware::below(root.path(), &[]), Hardware::default());
        let cpuinfo =
            "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Some\nflags\t\t: fpu amx_bf16 avx512f\n";
        write(root.path(), "proc/cpuinfo", cpuinfo);
        let hardware = Hardware::below(root.path(), &[]);
        assert!(hardware.intel && hardware.amx);
        write(root.path(), "proc/cpuinfo", "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx512_bf16\n");
        let hardware = Hardware::below(root.path(), &[]);
        assert!(!hardware.intel && !hardware.amx);
    }

    #[test]
    fn driver_is_told_by_its_module_its_library_and_its_devices() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (some@host)\nGCC version: 13.3.0\n",
        );
        for name in ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"] {
            write(root.path(), &format!("dev/{name}"), "");
        }
        write(root.path(), ".dockerenv", "");
        let lib = root.path().join("lib");
        write(root.path(), "lib/libcuda.so.580.95.05", "");
        std::os::unix::fs::symlink("libcuda.so.580.95.05", lib.join("libcuda.so.1")).unwrap();
        let hardware = Hardware::below(root.path(), &["/none".into(), lib.clone()]);
        assert_eq!(hardware.kernel_driver.as_deref(), Some("580.95.05"));
        assert_eq!(hardware.driver_library, lib.canonicalize().ok().map(|lib| lib.join("libcuda.so.580.95.05")));
        assert_eq!(hardware.gpus, 2);
        assert!(hardware.container);
    }

    #[test]
    fn both_kernel_modules_say_their_version() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\n";
        assert_eq!(driver_version(closed), Some("535.129.03"));
        assert_eq!(driver_version("NVRM version: a x86_64 kernel of 2.\n"), None);
        assert_eq!(driver_version(""), None);
    }
}
