"""What the servers need, made once and kept: Python environments, the load generator, Residual, the models."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from . import process
from .errors import Unavailable

PEERS = Path(__file__).resolve().parent.parent
SERVERS = PEERS / "servers"
REPOSITORY = PEERS.parent.parent
OHA_VERSION = "1.16.0"
#: Environments and builds that take longer than this are stuck.
INSTALL_SECONDS = 3600.0


@dataclass(frozen=True)
class Work:
    """The folder in which environments, models, logs and raw figures are kept."""

    root: Path

    def folder(self, *names: str) -> Path:
        """Returns a folder below the root, made if it is not there."""
        path = self.root.joinpath(*names)
        path.mkdir(parents=True, exist_ok=True)
        return path


def default_work() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "residual-peers"


@dataclass(frozen=True)
class Venv:
    """A Python environment of one server."""

    root: Path

    @property
    def python(self) -> str:
        return str(self.root / "bin" / "python")

    def program(self, name: str) -> str:
        return str(self.root / "bin" / name)

    def variables(self) -> dict[str, str]:
        """Returns the environment variables for its programs: this environment first, and the shared module."""
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        return kept | {
            "PATH": f"{self.root / 'bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "VIRTUAL_ENV": str(self.root),
            "PYTHONPATH": str(SERVERS / "common"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def version(self, package: str) -> str:
        """Returns the version of an installed package."""
        for folder in self.root.glob("lib/python3*/site-packages"):
            for found in importlib.metadata.distributions(name=package, path=[str(folder)]):
                return found.version
        raise Unavailable(f"{self.root} has no {package}; remove that folder and run again")

    def python_version(self) -> str:
        return subprocess.run(
            [self.python, "-c", "import platform; print(platform.python_version())"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()


def venv(work: Work, name: str, python: str) -> Venv:
    """Returns the environment of `servers/name`, made if there is none for these requirements and this Python."""
    folder = SERVERS / name
    files = [SERVERS / "common" / "requirements.txt", folder / "requirements.txt", folder / "constraints.txt"]
    made = Venv(work.folder("environments") / name)
    stamp = made.root / "made-from"
    wanted = hashlib.sha256(b"\0".join([python.encode(), *(file.read_bytes() for file in files)])).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return made
    log = work.folder("logs") / f"install-{name}.log"
    log.write_text("")
    shutil.rmtree(made.root, ignore_errors=True)
    # Without pip inside: Debian's Python has no ensurepip, and one pip can install into all of them.
    process.call(
        [python, "-m", "venv", "--without-pip", str(made.root)], log, what=f"making an environment with {python}"
    )
    process.call(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            made.python,
            "install",
            "--disable-pip-version-check",
            "-r",
            str(files[0]),
            "-r",
            str(files[1]),
            "-c",
            str(files[2]),
        ],
        log,
        what=f"installing {name} with pip",
        seconds=INSTALL_SECONDS,
    )
    stamp.write_text(wanted)
    return made


def oha(work: Work) -> Path:
    """Returns the load generator, built by cargo if it is not there."""
    root = work.folder("tools") / f"oha-{OHA_VERSION}"
    binary = root / "bin" / "oha"
    if not binary.exists():
        log = work.folder("logs") / "install-oha.log"
        log.write_text("")
        process.call(
            ["cargo", "install", "--locked", "oha", "--version", OHA_VERSION, "--root", str(root)],
            log,
            what="building oha with cargo",
            seconds=INSTALL_SECONDS,
        )
    return binary


def residual(work: Work, binary: Path | None) -> Path:
    """Returns the binary that was named, or builds this checkout's."""
    if binary is not None:
        if not os.access(binary, os.X_OK):
            raise Unavailable(f"{binary} is not a program; give the path of residual with --residual")
        return binary.resolve()
    log = work.folder("logs") / "build-residual.log"
    log.write_text("")
    process.call(
        ["cargo", "build", "--release", "--locked"],
        log,
        cwd=REPOSITORY,
        what="building residual with cargo",
        seconds=INSTALL_SECONDS,
    )
    target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    return (target if target.is_absolute() else REPOSITORY / target) / "release" / "residual"


@dataclass(frozen=True)
class Model:
    """A network as a folder that Residual reads; the ONNX file in it is what every server gets."""

    title: str
    folder: Path

    @property
    def onnx(self) -> Path:
        return self.folder / "model.onnx"


def models(work: Work, binary: Path, reference: Venv, network: str, photos: list[Path]) -> dict[str, Model]:
    """Returns the network in `f32` and in `int8`, made for these photos if they are not there."""
    script = SERVERS / "reference" / "model.py"
    recipe = hashlib.sha256(script.read_bytes())
    recipe.update((SERVERS / "reference" / "constraints.txt").read_bytes())
    for photo in photos:
        recipe.update(photo.read_bytes())
    root = work.folder("models") / f"{network}-{recipe.hexdigest()[:12]}"
    made = {"f32": Model(f"{network}, f32", root / "f32"), "int8": Model(f"{network}, int8 (QDQ)", root / "int8")}
    if root.exists():
        return made
    log = work.folder("logs") / f"model-{network}.log"
    log.write_text("")
    unfinished = root.with_name("unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    process.call([str(binary), "synth", network, "--output", str(unfinished / "synth")], log, what="residual synth")
    for kind in made:
        (unfinished / kind).mkdir()
        shutil.copy(unfinished / "synth" / "residual.toml", unfinished / kind)
    process.call(
        [
            reference.python,
            str(script),
            *(str(unfinished / name / "model.onnx") for name in ("synth", *made)),
            *map(str, photos),
        ],
        log,
        env=reference.variables(),
        what="making the models",
    )
    shutil.rmtree(unfinished / "synth")
    unfinished.rename(root)
    return made
