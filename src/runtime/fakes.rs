//! Stand-ins for tests: libraries that have only what is looked at, wheels of them, and a Python whose pip copies a
//! file.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::bundle::Bundle;
use super::wheel::Wheel;

use super::{Flavour, Search};

/// The first bytes of a shared library for this machine.
pub(crate) fn library_head() -> Vec<u8> {
    let mut head = vec![0; 20];
    let arm = cfg!(target_arch = "aarch64");
    if cfg!(target_vendor = "apple") {
        head[..4].copy_from_slice(&[0xcf, 0xfa, 0xed, 0xfe]);
        head[4..8].copy_from_slice(&if arm { 0x0100_000c_u32 } else { 0x0100_0007 }.to_le_bytes());
    } else {
        head[..4].copy_from_slice(b"\x7fELF");
        head[18..].copy_from_slice(&if arm { 183_u16 } else { 62 }.to_le_bytes());
    }
    head
}

/// What a scan takes for ONNX Runtime of the given version.
pub(crate) fn library(version: &str) -> Vec<u8> {
    [library_head(), b"\0OrtGetApiBase\0VERS_".to_vec(), version.as_bytes().to_vec(), vec![0; 100]].concat()
}

/// A zip archive.
pub(crate) fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A wheel for this machine, with its file name: its library beside things that are left behind.
fn packed(wheel: &Wheel, library: &[u8]) -> (String, Vec<u8>) {
    let name = format!("{}-{}-cp312-cp312-{}.whl", wheel.package.replace('-', "_"), wheel.version, wheel.tag);
    let mut entries = vec![
        (format!("{}/__init__.py", wheel.folder), b"python".to_vec()),
        (format!("{}/{}", wheel.folder, wheel.library), library.to_vec()),
    ];
    if wheel.package.starts_with("onnxruntime") {
        for provider in ["shared", "cuda"] {
            entries.push((format!("{}/libonnxruntime_providers_{provider}.so", wheel.folder), library_head()));
        }
    }
    let entries: Vec<_> = entries.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    (name, zip(&entries))
}

/// The first wheel of the flavour for this machine, with its file name.
pub(crate) fn wheel(flavour: Flavour) -> (String, Vec<u8>) {
    packed(Bundle::for_host(flavour).unwrap().main(), &library("1.31.1"))
}

/// A script that answers to `-m pip download`.
pub(crate) struct FakePython {
    pub(crate) path: PathBuf,
    calls: PathBuf,
}

impl FakePython {
    /// An interpreter that runs these shell commands, with the folder that pip would download to in `$dest`.
    pub(crate) fn running(folder: &Path, commands: &str) -> Self {
        let (path, calls) = (folder.join("python3"), folder.join("calls"));
        let script = format!(
            "#!/bin/sh\necho call >> '{}'\n\
             while [ $# -gt 0 ]; do [ \"$1\" = --dest ] && dest=$2; shift; done\n{commands}\n",
            calls.display()
        );
        // Written by another process: a file that this one has open for writing, in any thread that forks meanwhile,
        // cannot be executed ("text file busy").
        let mut child = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        Self { path, calls }
    }

    /// An interpreter whose pip brings this file.
    pub(crate) fn serving(folder: &Path, name: &str, bytes: &[u8]) -> Self {
        let served = folder.join("served");
        std::fs::write(&served, bytes).unwrap();
        Self::running(folder, &format!("cp '{}' \"$dest/{name}\"", served.display()))
    }

    /// An interpreter whose pip brings every wheel of the flavour, the one that it is asked for.
    pub(crate) fn serving_all(folder: &Path, flavour: Flavour) -> Self {
        let cases: String = Bundle::for_host(flavour)
            .unwrap()
            .wheels
            .iter()
            .map(|wheel| {
                let (name, bytes) = packed(wheel, &library("1.31.1"));
                let served = folder.join(wheel.package);
                std::fs::write(&served, bytes).unwrap();
                format!(
                    "grep -q '^{}==' \"$dest/../requirements.txt\" && cp '{}' \"$dest/{name}\"\n",
                    wheel.package,
                    served.display()
                )
            })
            .collect();
        Self::running(folder, &format!("{cases}exit 0"))
    }

    /// How often it was run.
    pub(crate) fn calls(&self) -> usize {
        std::fs::read_to_string(&self.calls).map_or(0, |text| text.lines().count())
    }
}

/// A search that sees nothing of this machine: all its places are below `folder`, and its pip brings the CPU wheel.
pub(crate) fn search(folder: &Path) -> (Search, FakePython) {
    let (name, bytes) = wheel(Flavour::Cpu);
    let python = FakePython::serving(folder, &name, &bytes);
    let search = Search {
        ort_lib: None,
        flavour: Flavour::Cpu,
        offline: false,
        cache_dir: Some(folder.join("cache")),
        python: python.path.clone(),
        executable_dir: Some(folder.join("bin")),
        system_dirs: vec![folder.join("lib")],
    };
    (search, python)
}
