//! One official wheel: what it is called on the package index, and which of its files are worth keeping.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use super::{NOTICES, RuntimeError};

/// More than any of the wheels unpacks to (cuBLAS: 596 MB), and less than a disk that a bad archive would fill.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;

/// More than any of the wheels has (the CPU one: 348), each a few hundred bytes of memory.
const ENTRIES_MAX: usize = 10_000;

/// Wheels are made per Python version, and the shared library inside is the same in all of them. Asking for one version
/// by name lets any Python with pip fetch it, and makes the file, and so its hash, the same everywhere.
pub(crate) const PYTHON_VERSION: &str = "3.12";
pub(crate) const PYTHON_ABI: &str = "cp312";

/// One wheel on the package index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wheel {
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    /// The platform tag to ask pip for, which is also one of those in the file name.
    pub(crate) tag: &'static str,
    /// Of the file that [`PYTHON_ABI`] and the tag select; pip refuses any other.
    pub(crate) sha256: &'static str,
    /// The size of that file.
    pub(crate) bytes: u64,
    /// What the files that are kept take.
    pub(crate) unpacked_bytes: u64,
    /// The folder inside the wheel that holds the libraries.
    pub(crate) folder: &'static str,
    /// A library without which the wheel is not the right one, inside that folder.
    pub(crate) library: &'static str,
    /// How the names of libraries begin that nothing here uses.
    pub(crate) left_behind: &'static [&'static str],
}

impl Wheel {
    /// The requirement as pip reads it: `onnxruntime==1.31.1`.
    pub(crate) fn requirement(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }

    /// Tells whether a wheel's file name has the tag that was asked for. A name may carry several, joined by dots.
    pub(crate) fn fits(&self, file_name: &str) -> bool {
        let tags = file_name.strip_suffix(".whl").and_then(|stem| stem.rsplit('-').next());
        tags.is_some_and(|tags| tags.split('.').any(|tag| tag == self.tag))
    }

    /// Where a file of the wheel goes, relative to the flavour's folder; nothing for a file that is left behind.
    ///
    /// The libraries find each other through `$ORIGIN`, so their places relative to each other stay. The Python
    /// extension module, the largest file of the CPU wheel, does not begin with `lib` and so stays behind.
    fn destination(&self, entry: &Path) -> Option<PathBuf> {
        let name = entry.file_name()?.to_str()?;
        let is_library =
            name.starts_with("lib") && (name.ends_with(".so") || name.contains(".so.") || name.ends_with(".dylib"));
        // OpenVINO's table of measured GPU kernels; its GPU plugin looks for it beside itself.
        let is_data = name == "cache.json";
        if let Ok(inner) = entry.strip_prefix(self.folder)
            && (is_library || is_data)
            && !self.left_behind.iter().any(|start| name.starts_with(start))
        {
            return Some(inner.to_path_buf());
        }
        // Beside the others' it needs a name of its own: each wheel of the CUDA libraries brings its terms as this.
        if name == "License.txt" && entry.parent()?.ends_with("licenses") {
            return Some(format!("{}-License.txt", self.package).into());
        }
        let top = Path::new(self.folder).components().next()?;
        (NOTICES.contains(&name) && entry.parent() == Some(Path::new(&top))).then(|| PathBuf::from(name))
    }

    /// Unpacks the files worth keeping into `folder`, and returns their paths relative to it, sorted.
    pub(crate) fn unpack(&self, wheel: &Path, folder: &Path) -> Result<Vec<PathBuf>, RuntimeError> {
        let bad = |why: String| {
            let file = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
            RuntimeError::BadWheel { file, why }
        };
        let file = File::open(wheel).map_err(RuntimeError::io("open", wheel))?;
        let mut archive = zip::ZipArchive::new(file).map_err(|error| bad(error.to_string()))?;
        if archive.len() > ENTRIES_MAX {
            return Err(bad(format!("it has {} entries, at most {ENTRIES_MAX} allowed", archive.len())));
        }

        let mut unpacked = Vec::new();
        let mut bytes_left = UNPACKED_BYTES_MAX;
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index).map_err(|error| bad(error.to_string()))?;
            let name = PathBuf::from(entry.name().map_err(|error| bad(error.to_string()))?.as_ref());
            if !is_plain_relative(&name) {
                return Err(bad(format!("its entry {} points outside the folder it is unpacked to", name.display())));
            }
            let Some(destination) = self.destination(&name) else { continue };
            if !entry.is_file() {
                return Err(bad(format!("its entry {} is not a regular file", name.display())));
            }
            let path = folder.join(&destination);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(RuntimeError::io("create", parent))?;
            }
            let mut out = File::create_new(&path).map_err(RuntimeError::io("create", &path))?;
            // One byte past the bound tells a file that just fits from one that does not.
            let written = io::copy(&mut entry.by_ref().take(bytes_left + 1), &mut out).map_err(|error| {
                // The archive's own complaints, a wrong checksum for one, arrive as invalid data; the rest is the
                // disk's.
                match error.kind() {
                    io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
                        bad(format!("its entry {} is damaged: {error}", name.display()))
                    }
                    _ => RuntimeError::io("write", &path)(error),
                }
            })?;
            bytes_left = bytes_left
                .checked_sub(written)
                .ok_or_else(|| bad(format!("it unpacks to more than {UNPACKED_BYTES_MAX} bytes")))?;
            // On the disk before the folder gets its final name: a power cut must not leave an empty library there.
            out.sync_all().map_err(RuntimeError::io("write", &path))?;
            unpacked.push(destination);
        }
        if !unpacked.iter().any(|path| path == Path::new(self.library)) {
            return Err(bad(format!("it has no {}/{}", self.folder, self.library)));
        }
        unpacked.sort();
        Ok(unpacked)
    }
}

/// Tells whether a path stays below the folder it is joined to: names only, no root, no `..`.
pub(crate) fn is_plain_relative(path: &Path) -> bool {
    path.components().next().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::super::bundle::{Bundle, Platform};
    use super::super::{Flavour, fakes};
    use super::*;

    fn linux(flavour: Flavour) -> Wheel {
        *Bundle::of(flavour, Platform::LinuxX86).unwrap().main()
    }

    fn unpack(entries: &[(&str, &[u8])]) -> Result<Vec<PathBuf>, RuntimeError> {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("some.whl");
        fs::write(&wheel, fakes::zip(entries)).unwrap();
        let into = folder.path().join("into");
        fs::create_dir(&into).unwrap();
        let unpacked = linux(Flavour::Cpu).unpack(&wheel, &into);
        let strays: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(strays.len(), 2, "nothing is written beside the folder: {strays:?}");
        unpacked
    }

    #[test]
    fn libraries_and_notices_are_kept_and_python_is_not() {
        let unpacked = unpack(&[
            ("onnxruntime/__init__.py", b"python"),
            ("onnxruntime/LICENSE", b"MIT"),
            ("onnxruntime/tools/LICENSE", b"other"),
            ("onnxruntime/capi/libonnxruntime.so.1.31.1", b"library"),
            ("onnxruntime/capi/libonnxruntime_providers_shared.so", b"library"),
            ("onnxruntime/capi/onnxruntime_pybind11_state.cpython-312-x86_64-linux-gnu.so", b"python"),
            ("onnxruntime.libs/libgomp.so.1", b"elsewhere"),
        ]);
        let expected = ["LICENSE", "libonnxruntime.so.1.31.1", "libonnxruntime_providers_shared.so"];
        assert_eq!(unpacked.unwrap(), expected.map(PathBuf::from));
    }

    #[test]
    fn openvino_keeps_its_data_and_its_layout() {
        let wheel = linux(Flavour::Openvino);
        let kept = |name: &str| wheel.destination(Path::new(name));
        assert_eq!(kept("onnxruntime_ep_openvino/cache.json"), Some("cache.json".into()));
        assert_eq!(kept("onnxruntime_ep_openvino/libtbb.so.12"), Some("libtbb.so.12".into()));
        assert_eq!(kept("onnxruntime_ep_openvino/sub/libx.so"), Some("sub/libx.so".into()));
        assert_eq!(kept("onnxruntime_ep_openvino/third-party-programs.txt"), Some("third-party-programs.txt".into()));
        assert_eq!(kept("onnxruntime_ep_openvino/__init__.py"), None);
        assert_eq!(kept("onnxruntime_ep_openvino-1.8.1.dist-info/RECORD"), None);
    }

    #[test]
    fn cuda_libraries_keep_their_terms_and_leave_what_nothing_uses() {
        let bundle = Bundle::of(Flavour::CudaLibraries, Platform::LinuxX86).unwrap();
        let wheel = |package| bundle.wheels.iter().find(|wheel| wheel.package == package).unwrap();
        let kept = |package, name: &str| wheel(package).destination(Path::new(name));
        assert_eq!(kept("nvidia-cublas", "nvidia/cu13/lib/libcublasLt.so.13"), Some("libcublasLt.so.13".into()));
        assert_eq!(kept("nvidia-cublas", "nvidia/cu13/lib/libnvblas.so.13"), None);
        assert_eq!(kept("nvidia-cuda-nvrtc", "nvidia/cu13/lib/libnvrtc.so.13"), Some("libnvrtc.so.13".into()));
        assert_eq!(kept("nvidia-cuda-nvrtc", "nvidia/cu13/lib/libnvrtc.alt.so.13"), None);
        assert_eq!(kept("nvidia-cuda-runtime", "nvidia/cu13/lib/libcudart_static.a"), None);
        assert_eq!(kept("nvidia-cuda-runtime", "nvidia/cu13/include/cuda_fp8.h"), None);
        assert_eq!(
            kept("nvidia-curand", "nvidia_curand-10.4.0.35.dist-info/licenses/License.txt"),
            Some("nvidia-curand-License.txt".into())
        );
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for name in ["../libevil.so", "/tmp/libevil.so", "onnxruntime/capi/../../../libevil.so"] {
            let error = unpack(&[(name, b"evil"), ("onnxruntime/capi/libonnxruntime.so.1.31.1", b"library")]);
            assert!(error.unwrap_err().to_string().contains("points outside"), "{name}");
        }
        assert!(is_plain_relative(Path::new("a/b.so")));
        assert!(!is_plain_relative(Path::new("")));
    }

    #[test]
    fn wheel_without_the_library_is_refused() {
        let error = unpack(&[("onnxruntime/capi/libother.so", b"library")]).unwrap_err();
        assert!(error.to_string().contains("it has no onnxruntime/capi/libonnxruntime.so.1.31.1"), "{error}");
    }

    #[test]
    fn page_of_a_captive_portal_is_no_wheel() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("some.whl");
        fs::write(&wheel, b"<html>sign in</html>").unwrap();
        let error = linux(Flavour::Cpu).unpack(&wheel, folder.path()).unwrap_err();
        assert!(matches!(error, RuntimeError::BadWheel { .. }), "{error}");
    }

    #[test]
    fn file_name_must_carry_the_platform() {
        let wheel = linux(Flavour::Cpu);
        assert!(wheel.fits("onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_x86_64.whl"));
        assert!(wheel.fits("onnxruntime-1.31.1-cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"));
        assert!(!wheel.fits("onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_aarch64.whl"));
        assert!(!wheel.fits("onnxruntime-1.31.1.tar.gz"));
    }
}
