//! What can go wrong between "we need ONNX Runtime" and a path to it. Each text says what was found, what was
//! expected and what to do next. The texts are whole: a cause is quoted inside, not chained behind, where the advice
//! would come before the reason.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Damage, Flavour, RUNTIME_VERSION, Unfit, VERSION_MIN};

/// Why there is no usable ONNX Runtime library.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The path given by the user cannot be used. Never passed over in silence: the user meant this file.
    #[error(
        "use {path} as ONNX Runtime (given by --ort-lib or ORT_DYLIB_PATH): {why}; give the path of a \
         libonnxruntime.so {VERSION_MIN} or newer, or leave it out to have one found"
    )]
    GivenUnfit {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        why: Unfit,
    },

    /// Nothing was found, and fetching is forbidden.
    #[error(
        "find ONNX Runtime {RUNTIME_VERSION}: no usable one beside the executable, in {cache} or on the system's \
         library path, and offline mode forbids fetching it; run `{}` where there is a network, or give the path of \
         libonnxruntime.so with --ort-lib", Flavour::Cpu.install_command()
    )]
    Offline {
        /// The cache folder that was looked into.
        cache: String,
    },

    /// An install was asked for, and forbidden.
    #[error(
        "install the {flavour} flavour of ONNX Runtime: it is not in {cache} yet and offline mode forbids fetching it; \
         leave out --offline, unset RESIDUAL_OFFLINE, or copy that folder from a machine that has it"
    )]
    FetchForbidden {
        /// What was to be installed.
        flavour: Flavour,
        /// The cache folder.
        cache: String,
    },

    /// A flavour that is only ever used when asked for by name is not there.
    #[error(
        "find the {flavour} flavour of ONNX Runtime {RUNTIME_VERSION}: not installed in {cache}; run `{}`, or ask for \
         the cpu provider", .flavour.install_command()
    )]
    NotInstalled {
        /// What was looked for.
        flavour: Flavour,
        /// The cache folder that was looked into.
        cache: String,
    },

    /// What the cache holds is not what was installed there.
    #[error(
        "use the cached ONNX Runtime in {folder}: {damage}; fetch it again with \
         `{} --force`", .flavour.install_command()
    )]
    Damaged {
        /// The flavour whose folder is damaged.
        flavour: Flavour,
        /// Its folder.
        folder: PathBuf,
        /// What was found, and what was expected.
        damage: Damage,
    },

    /// No cache folder is known.
    #[error(
        "find a cache folder: neither XDG_CACHE_HOME nor HOME is set; set RESIDUAL_CACHE_DIR to a \
         writable folder"
    )]
    NoCacheFolder,

    /// The cache folder cannot be written to.
    #[error(
        "write to the cache folder {folder}: {why}; make it writable or set RESIDUAL_CACHE_DIR to a folder that is"
    )]
    CacheNotWritable {
        /// The folder or file that could not be made.
        folder: PathBuf,
        /// What the system said.
        why: io::Error,
    },

    /// Another process has held the install lock for too long.
    #[error(
        "lock {lock}: another process has held it for {} s while installing; wait for it, or end it and try again",
        .waited.as_secs()
    )]
    Locked {
        /// The lock file.
        lock: PathBuf,
        /// How long this process waited.
        waited: Duration,
    },

    /// There is no Python to run pip with.
    #[error(
        "run {python}: not found, and pip is what fetches the ONNX Runtime wheel; install Python 3 with pip (Debian: \
         apt install python3-pip) or name one in RESIDUAL_PYTHON, or unpack libonnxruntime.so from the {package} wheel \
         or an ONNX Runtime release by hand and give its path with --ort-lib"
    )]
    NoPython {
        /// The interpreter that was tried.
        python: PathBuf,
        /// The wheel that was wanted.
        package: String,
    },

    /// Python is there, its pip is not.
    #[error(
        "run {python} -m pip: this Python has no pip; install it (Debian: apt install python3-pip; elsewhere: \
         {python} -m ensurepip) or name another Python in RESIDUAL_PYTHON"
    )]
    NoPip {
        /// The interpreter that was tried.
        python: PathBuf,
    },

    /// pip ran and failed.
    #[error(
        "fetch {package} with {python} -m pip: it ended with {status} and said:\n{stderr}\n\
         check the network, the proxy, the free space and pip's index settings, and that pip is 20 or newer; \
         or give the path of a libonnxruntime.so with --ort-lib"
    )]
    PipFailed {
        /// The interpreter that was used.
        python: PathBuf,
        /// The wheel that was wanted.
        package: String,
        /// Its exit status.
        status: String,
        /// The last lines of what it said.
        stderr: String,
    },

    /// pip ran for longer than allowed.
    #[error(
        "fetch {package} with pip: not done after {} s, so it was stopped; check the network and try again",
        .waited.as_secs()
    )]
    PipTooSlow {
        /// The wheel that was wanted.
        package: String,
        /// How long it was given.
        waited: Duration,
    },

    /// pip succeeded and left no wheel, or several.
    #[error(
        "fetch {package} with pip: it left {found} wheels, expected 1; try again with another Python in RESIDUAL_PYTHON"
    )]
    NotOneWheel {
        /// The wheel that was wanted.
        package: String,
        /// How many there were.
        found: usize,
    },

    /// The wheel is for another kind of machine.
    #[error(
        "use the wheel {file}: it is not for this machine, expected one for {expected}; check which index pip is set to"
    )]
    WrongWheel {
        /// The wheel's file name.
        file: String,
        /// The platform tag that was asked for.
        expected: &'static str,
    },

    /// The wheel cannot be unpacked, or should not be.
    #[error(
        "unpack the wheel {file}: {why}; run the command again, and if it repeats check which index \
         pip is set to"
    )]
    BadWheel {
        /// The wheel's file name.
        file: String,
        /// What is wrong with it.
        why: String,
    },

    /// There is no wheel for this machine.
    #[error(
        "install the {flavour} flavour on {host}: no wheel of it exists for this platform, only for {available}; give \
         the path of a libonnxruntime built for this machine with --ort-lib"
    )]
    UnsupportedPlatform {
        /// What was wanted.
        flavour: Flavour,
        /// This machine.
        host: String,
        /// The machines it exists for.
        available: String,
    },

    /// The disk has no room for what is to be fetched and unpacked.
    #[error(
        "fetch to {folder}: {} MB needed there while it is unpacked, found {} MB free; make room, or set \
         RESIDUAL_CACHE_DIR to a folder on a larger disk", .needed_bytes.div_ceil(1_000_000), .free_bytes / 1_000_000
    )]
    DiskFull {
        /// The cache folder.
        folder: PathBuf,
        /// At the worst moment.
        needed_bytes: u64,
        /// What the file system gives this user.
        free_bytes: u64,
    },

    /// The system refused something in the cache folder, a full disk for instance.
    #[error(
        "{action} {path}: {why}; check the disk's free space and rights, or set RESIDUAL_CACHE_DIR to another folder"
    )]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
}

impl RuntimeError {
    /// Names the action and the path of a system error, for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |why| Self::Io { action, path, why }
    }
}
