//! Fetching one wheel with pip. pip knows the user's proxies, mirrors and certificates, so this program need not.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::wheel::{PYTHON_ABI, PYTHON_VERSION, Wheel};
use super::{RuntimeError, absolute};

/// How long pip may take for a small wheel; it may have to wait for a mirror.
const FETCH_MAX: Duration = Duration::from_secs(15 * 60);

/// The slowest line that a large wheel is waited for on: 2 Mbit/s.
const FETCH_BYTES_PER_SECOND_MIN: u64 = 250_000;

/// How often to look whether pip is done. Short beside the second that pip itself takes to start.
const FETCH_POLL: Duration = Duration::from_millis(20);

/// How much of the end of pip's complaints is kept, and how many lines of that are shown.
const STDERR_BYTES_MAX: usize = 8 << 10;
const STDERR_LINES_MAX: usize = 12;

/// How long pip may take for a wheel.
pub(crate) fn fetch_max(wheel: &Wheel) -> Duration {
    FETCH_MAX.max(Duration::from_secs(wheel.bytes / FETCH_BYTES_PER_SECOND_MIN))
}

/// Downloads a wheel into `folder`, which is ours alone, and returns its path.
pub(crate) fn download(python: &Path, wheel: &Wheel, folder: &Path) -> Result<PathBuf, RuntimeError> {
    let dest = folder.join("wheel");
    fs::create_dir(&dest).map_err(RuntimeError::io("create", &dest))?;
    let mut child = command(python, wheel, folder, &dest)?.spawn().map_err(|why| match why.kind() {
        io::ErrorKind::NotFound => {
            RuntimeError::NoPython { python: python.to_path_buf(), package: wheel.requirement() }
        }
        _ => RuntimeError::Io { action: "run", path: python.to_path_buf(), why },
    })?;
    // Emptied while pip runs, so that it never waits for us; the thread ends with pip. A file would do, except that the
    // complaint most worth reading, about a full disk, would not fit on that disk.
    let stderr = child.stderr.take().map(|stderr| std::thread::spawn(move || last_lines(stderr)));
    let limit = fetch_max(wheel);
    let status = wait(&mut child, limit).map_err(RuntimeError::io("wait for", python))?;
    match status {
        Some(status) if status.success() => only_wheel(wheel, &dest),
        Some(status) => {
            let stderr = stderr.and_then(|thread| thread.join().ok()).unwrap_or_default();
            Err(explain(python, wheel, status, &stderr))
        }
        None => Err(RuntimeError::PipTooSlow { package: wheel.requirement(), waited: limit }),
    }
}

/// The whole command line, with every option spelled out that a user's pip settings could otherwise turn.
fn command(python: &Path, wheel: &Wheel, folder: &Path, dest: &Path) -> Result<Command, RuntimeError> {
    // pip takes hashes only from a requirements file. With one, it refuses any other file, whatever the index says.
    let requirements = folder.join("requirements.txt");
    let line = format!("{} --hash=sha256:{}\n", wheel.requirement(), wheel.sha256);
    fs::write(&requirements, line).map_err(RuntimeError::io("write", &requirements))?;

    // A bare name is looked up in PATH; a path is relative to our folder, not to the one pip runs in.
    let program = if python.components().count() > 1 { absolute(python.to_path_buf()) } else { python.to_path_buf() };
    let mut command = Command::new(program);
    command
        .args(["-m", "pip", "--disable-pip-version-check", "--no-input", "--no-cache-dir"])
        .args(["download", "--quiet", "--progress-bar", "off"])
        .args(["--no-deps", "--only-binary=:all:", "--require-hashes"])
        .args(["--implementation", "cp", "--python-version", PYTHON_VERSION, "--abi", PYTHON_ABI])
        .args(["--platform", wheel.tag])
        .arg("--dest")
        .arg(dest)
        .arg("--requirement")
        .arg(&requirements)
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        // pip downloads to its temporary folder first. A wheel of 423 MB may not fit on /tmp, and what an ended pip
        // leaves there nobody removes.
        .env("TMPDIR", folder)
        // `-m` looks for modules in the working folder first; ours has none that could pass for pip.
        .current_dir(dest)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Ok(command)
}

/// Waits for the child until the limit, then ends it. `None` says that it had to be ended.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(FETCH_POLL);
    }
}

fn only_wheel(wheel: &Wheel, dest: &Path) -> Result<PathBuf, RuntimeError> {
    let entries = fs::read_dir(dest).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut files: Vec<PathBuf> =
        entries.map_err(RuntimeError::io("read", dest))?.into_iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let [path] = files.as_slice() else {
        return Err(RuntimeError::NotOneWheel { package: wheel.requirement(), found: files.len() });
    };
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !wheel.fits(&file) {
        return Err(RuntimeError::WrongWheel { file, expected: wheel.tag });
    }
    Ok(path.clone())
}

fn explain(python: &Path, wheel: &Wheel, status: ExitStatus, stderr: &str) -> RuntimeError {
    let python = python.to_path_buf();
    if stderr.lines().any(|line| line.ends_with("No module named pip")) {
        return RuntimeError::NoPip { python };
    }
    let stderr = if stderr.is_empty() { "(nothing)".into() } else { stderr.to_owned() };
    RuntimeError::PipFailed { python, package: wheel.requirement(), status: status.to_string(), stderr }
}

/// Reads to the end and keeps the last lines. What cannot be read is left out: it only serves to explain an error.
fn last_lines(mut text: impl Read) -> String {
    let mut tail = Vec::new();
    let mut block = [0; 4096];
    while let Ok(len @ 1..) = text.read(&mut block) {
        tail.extend_from_slice(&block[..len]);
        let surplus = tail.len().saturating_sub(STDERR_BYTES_MAX);
        tail.drain(..surplus);
    }
    let text = String::from_utf8_lossy(&tail);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(STDERR_LINES_MAX)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::Flavour;
    use super::super::bundle::Bundle;
    use super::super::fakes::{self, FakePython};
    use super::*;

    fn cpu() -> Wheel {
        *Bundle::for_host(Flavour::Cpu).unwrap().main()
    }

    fn download_with(script: &str) -> RuntimeError {
        let folder = tempfile::tempdir().unwrap();
        let python = FakePython::running(folder.path(), script);
        download(&python.path, &cpu(), folder.path()).unwrap_err()
    }

    #[test]
    fn pip_gets_a_pinned_hash_and_no_say_in_the_platform() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = cpu();
        let command = command(Path::new("python3"), &wheel, folder.path(), Path::new("/dest")).unwrap();
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        let args = args.join(" ");
        assert!(args.starts_with("-m pip --disable-pip-version-check --no-input"), "{args}");
        assert!(args.contains(&format!("--platform {} --dest /dest", wheel.tag)), "{args}");
        let requirements = fs::read_to_string(folder.path().join("requirements.txt")).unwrap();
        assert_eq!(requirements, format!("onnxruntime==1.31.1 --hash=sha256:{}\n", wheel.sha256));
    }

    #[test]
    fn missing_python_says_how_to_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = cpu();
        let error = download(Path::new("/no/such/python3"), &wheel, folder.path()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, RuntimeError::NoPython { .. }), "{text}");
        assert!(text.contains("RESIDUAL_PYTHON") && text.contains("--ort-lib"), "{text}");
    }

    #[test]
    fn missing_pip_is_told_apart_from_a_failing_one() {
        let error = download_with("echo '/usr/bin/python3: No module named pip' >&2; exit 1");
        assert!(matches!(error, RuntimeError::NoPip { .. }), "{error}");
    }

    #[test]
    fn failing_pip_is_quoted_at_its_end() {
        let error = download_with("seq 1000 >&2; echo 'ERROR: No matching distribution found' >&2; exit 3");
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.contains("1000\nERROR: No matching"), "{text}");
        assert!(!text.contains("\n900\n"), "only the last lines are shown: {text}");
    }

    #[test]
    fn success_without_a_wheel_is_an_error() {
        assert!(matches!(download_with("exit 0"), RuntimeError::NotOneWheel { found: 0, .. }));
    }

    #[test]
    fn wheel_for_another_platform_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let python =
            FakePython::serving(folder.path(), "onnxruntime-1.31.1-cp312-cp312-win_amd64.whl", &fakes::zip(&[]));
        let error = download(&python.path, &cpu(), folder.path()).unwrap_err();
        assert!(matches!(error, RuntimeError::WrongWheel { .. }), "{error}");
    }

    #[test]
    fn large_wheel_is_given_the_time_a_slow_line_takes() {
        assert_eq!(fetch_max(&cpu()), FETCH_MAX);
        let large = Wheel { bytes: 423_133_236, ..cpu() };
        assert_eq!(fetch_max(&large), Duration::from_secs(1692));
    }

    #[test]
    fn slow_pip_is_stopped() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert_eq!(wait(&mut child, Duration::ZERO).unwrap(), None);
        assert!(child.try_wait().unwrap().is_some(), "no process is left behind");
    }
}
