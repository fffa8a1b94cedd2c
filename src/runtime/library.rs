//! What a shared library is, told from its bytes: format, machine, whether it is an ONNX Runtime, which version.
//! Nothing is loaded, so a foreign or hostile file runs no code of its own.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::Version;
use super::version::version_in_name;

/// The symbol that every ONNX Runtime library exports, and that its plugins and providers do not.
const ENTRY_POINT: &[u8] = b"OrtGetApiBase\0";

/// ELF libraries name their version in the symbol version table, as `VERS_1.31.1`.
const VERSION_NODE: &[u8] = b"VERS_";

/// How far into a file the names are looked for. They stand in the first 32 KiB of the official builds, and at the
/// end of ones that were patched; the largest official library is 30 MB, one linked with all providers a few hundred.
const SCAN_BYTES_MAX: u64 = 1 << 30;

/// How much is read at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// How much of a block is kept in front of the next, so that a name across the border is seen. Longer than any name.
const OVERLAP_BYTES: usize = 64;

/// Why a file cannot serve as the ONNX Runtime library.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// There is nothing at the path.
    #[error("there is no such file")]
    Missing,
    /// A folder, a pipe or the like.
    #[error("it is not a regular file")]
    NotAFile,
    /// It could not be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// Neither ELF nor Mach-O.
    #[error("it is not a shared library")]
    NotALibrary,
    /// Built for another processor or system.
    #[error("it is a library for {found}, this machine is {expected}")]
    WrongMachine {
        /// What it was built for.
        found: &'static str,
        /// What this program was built for.
        expected: String,
    },
    /// A library, and not this one.
    #[error("it is a shared library but not ONNX Runtime, which exports OrtGetApiBase")]
    NotOnnxRuntime,
    /// It lacks functions that the bindings call.
    #[error("it is version {found}, at least {} is needed", super::VERSION_MIN)]
    TooOld {
        /// Its version.
        found: Version,
    },
    /// It runs on the CPU only, and more was asked for.
    #[error("it has no libonnxruntime_providers_cuda.so beside it")]
    WithoutCuda,
}

/// Tells whether `path` is an ONNX Runtime for this machine, and its version where that is written anywhere.
pub(crate) fn inspect(path: &Path) -> Result<Option<Version>, Unfit> {
    let mut file = open_for_this_machine(path)?;
    let names = scan(&mut file).map_err(Unfit::Unreadable)?;
    if !names.entry_point {
        return Err(Unfit::NotOnnxRuntime);
    }
    // Mach-O has no symbol versions; there the file name is the only place that says it.
    let version = names.version.or_else(|| path.canonicalize().ok().as_deref().and_then(version_in_name));
    match version {
        Some(found) if found < super::VERSION_MIN => Err(Unfit::TooOld { found }),
        known => Ok(known),
    }
}

/// Tells whether `path` is a shared library that this machine can load at all: what can be asked of a plugin.
pub(crate) fn check_machine(path: &Path) -> Result<(), Unfit> {
    open_for_this_machine(path).map(drop)
}

/// Opens a library, and leaves the file just after the header that says what machine it is for.
fn open_for_this_machine(path: &Path) -> Result<File, Unfit> {
    let refuse = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Unfit::Missing,
        _ => Unfit::Unreadable(error),
    };
    // Asked before opening: opening a named pipe would wait for its writer.
    if !path.metadata().map_err(refuse)?.is_file() {
        return Err(Unfit::NotAFile);
    }
    let mut file = File::open(path).map_err(refuse)?;
    let mut header = [0; 20];
    match file.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Unfit::NotALibrary),
        Err(error) => return Err(Unfit::Unreadable(error)),
    }
    let found = machine(&header).ok_or(Unfit::NotALibrary)?;
    let expected = format!("{} on {}", std::env::consts::ARCH, std::env::consts::OS);
    let fits = match found {
        Machine::Elf(arch) => !cfg!(target_vendor = "apple") && arch == std::env::consts::ARCH,
        Machine::MachO(arch) => cfg!(target_vendor = "apple") && arch == std::env::consts::ARCH,
        Machine::MachOUniversal => cfg!(target_vendor = "apple"),
    };
    if fits { Ok(file) } else { Err(Unfit::WrongMachine { found: found.describe(), expected }) }
}

/// The object formats, with the processor in Rust's spelling.
#[derive(Clone, Copy)]
enum Machine {
    Elf(&'static str),
    MachO(&'static str),
    MachOUniversal,
}

impl Machine {
    fn describe(self) -> &'static str {
        match self {
            Self::Elf("x86_64") => "x86_64 on linux",
            Self::Elf("aarch64") => "aarch64 on linux",
            Self::Elf(_) => "another processor on linux",
            Self::MachO("x86_64") => "x86_64 on macos",
            Self::MachO("aarch64") => "aarch64 on macos",
            Self::MachO(_) => "another processor on macos",
            Self::MachOUniversal => "macos",
        }
    }
}

/// Reads the machine from the head of a file; magic numbers and codes from elf.h and mach/machine.h.
fn machine(header: &[u8; 20]) -> Option<Machine> {
    match header[..4] {
        [0x7f, b'E', b'L', b'F'] => Some(Machine::Elf(match u16::from_le_bytes([header[18], header[19]]) {
            62 => "x86_64",
            183 => "aarch64",
            _ => "other",
        })),
        [0xcf, 0xfa, 0xed, 0xfe] => {
            Some(Machine::MachO(match u32::from_le_bytes([header[4], header[5], header[6], header[7]]) {
                0x0100_0007 => "x86_64",
                0x0100_000c => "aarch64",
                _ => "other",
            }))
        }
        [0xca, 0xfe, 0xba, 0xbe] => Some(Machine::MachOUniversal),
        _ => None,
    }
}

/// What the scan of a file came across.
#[derive(Default)]
struct Names {
    entry_point: bool,
    version: Option<Version>,
}

/// Reads until both names are found, the file ends or the bound is met.
fn scan(file: &mut impl Read) -> io::Result<Names> {
    let mut file = file.take(SCAN_BYTES_MAX);
    let mut names = Names::default();
    let mut window: Vec<u8> = Vec::with_capacity(OVERLAP_BYTES + BLOCK_BYTES);
    loop {
        let kept = window.len().min(OVERLAP_BYTES);
        window.drain(..window.len() - kept);
        if (&mut file).take(BLOCK_BYTES as u64).read_to_end(&mut window)? == 0 {
            return Ok(names);
        }
        names.entry_point = names.entry_point || positions(&window, ENTRY_POINT).next().is_some();
        names.version =
            names.version.or_else(|| positions(&window, VERSION_NODE).find_map(|at| version_at(&window, at)));
        if names.entry_point && names.version.is_some() {
            return Ok(names);
        }
    }
}

/// The version behind a `VERS_`, up to the zero byte that ends the name. No zero byte yet: the next window has it.
fn version_at(window: &[u8], at: usize) -> Option<Version> {
    let text = &window[at + VERSION_NODE.len()..];
    let end = text.iter().take(OVERLAP_BYTES).position(|&byte| byte == 0)?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

/// Where `needle` stands in `haystack`. The search for its first byte is a straight loop that compiles to vector
/// code; comparing every window with the needle took five times as long.
fn positions<'a>(haystack: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let at = from + haystack[from..].iter().position(|byte| *byte == needle[0])?;
            from = at + 1;
            if haystack[at..].starts_with(needle) {
                return Some(at);
            }
        }
    })
}

/// Whether a file name is one under which the loader, or a person, would keep the ONNX Runtime library.
pub(crate) fn is_library_name(name: &str) -> bool {
    name.strip_prefix("libonnxruntime.")
        .is_some_and(|rest| rest == "so" || rest.starts_with("so.") || rest == "dylib" || rest.ends_with(".dylib"))
}

#[cfg(test)]
mod tests {
    use super::super::fakes;
    use super::*;

    fn inspect_bytes(bytes: &[u8]) -> Result<Option<Version>, Unfit> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libonnxruntime.so");
        std::fs::write(&path, bytes).unwrap();
        inspect(&path)
    }

    #[test]
    fn version_comes_from_the_symbol_version() {
        let found = inspect_bytes(&fakes::library("1.31.1")).unwrap();
        assert_eq!(found, Some(Version { major: 1, minor: 31, patch: 1 }));
    }

    #[test]
    fn version_across_two_blocks_is_seen() {
        for shift in 0..=20 {
            let mut bytes = fakes::library_head();
            bytes.extend_from_slice(ENTRY_POINT);
            bytes.resize(20 + BLOCK_BYTES - shift, b'V');
            bytes.extend_from_slice(b"VERS_1.30.12\0");
            let found = inspect_bytes(&bytes).unwrap();
            assert_eq!(found, Some(Version { major: 1, minor: 30, patch: 12 }), "shift {shift}");
        }
    }

    #[test]
    fn too_old_is_refused_and_the_oldest_allowed_is_not() {
        assert!(matches!(inspect_bytes(&fakes::library("1.23.9")), Err(Unfit::TooOld { .. })));
        assert!(inspect_bytes(&fakes::library("1.24.0")).is_ok());
        assert!(inspect_bytes(&fakes::library("2.0.0")).is_ok());
    }

    #[test]
    fn foreign_files_are_told_apart() {
        let mut foreign = fakes::library_head();
        foreign.extend_from_slice(b"\0VERS_1.31.1\0");
        assert!(matches!(inspect_bytes(&foreign), Err(Unfit::NotOnnxRuntime)));
        assert!(matches!(inspect_bytes(b""), Err(Unfit::NotALibrary)));
        assert!(matches!(inspect_bytes(b"<html>sign in to the network</html>"), Err(Unfit::NotALibrary)));
        let mut other = fakes::library("1.31.1");
        other[18] = 0xf3; // RISC-V in ELF; in Mach-O the code stands at 4
        other[4] = 0xf3;
        assert!(matches!(inspect_bytes(&other), Err(Unfit::WrongMachine { .. })));
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(inspect(folder.path()), Err(Unfit::NotAFile)));
        assert!(matches!(inspect(&folder.path().join("none")), Err(Unfit::Missing)));
    }

    #[test]
    fn file_name_tells_the_version_when_the_bytes_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = [fakes::library_head(), ENTRY_POINT.to_vec()].concat();
        std::fs::write(folder.path().join("libonnxruntime.so.1.26.0"), bytes).unwrap();
        std::os::unix::fs::symlink("libonnxruntime.so.1.26.0", folder.path().join("libonnxruntime.so")).unwrap();
        let found = inspect(&folder.path().join("libonnxruntime.so")).unwrap();
        assert_eq!(found, Some(Version { major: 1, minor: 26, patch: 0 }));
    }

    #[test]
    fn only_the_library_itself_has_its_name() {
        for name in ["libonnxruntime.so", "libonnxruntime.so.1", "libonnxruntime.1.31.1.dylib"] {
            assert!(is_library_name(name), "{name}");
        }
        for name in
            ["libonnxruntime_providers_shared.so", "libonnxruntime.a", "onnxruntime.dll", "libonnxruntime.sorry"]
        {
            assert!(!is_library_name(name), "{name}");
        }
    }
}
