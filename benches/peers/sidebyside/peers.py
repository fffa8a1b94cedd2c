"""The servers: what each is, what it needs, and the command that starts it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import environment, forms, process
from .environment import SERVERS, Model, Venv, Work
from .errors import Unavailable
from .machine import cores

#: Images in one batch, for the servers that batch; Residual's default.
BATCH = 8
#: Tolerance of scores. With the models used here, another filter or a crop that is off by a pixel changes most photos'
#: scores by more, and a decoder that differs by a step in 255 here and there by less.
SAME = 0.01
#: Where a provider may compute in bf16, with its 8 bits of precision.
SIMILAR = 0.1


@dataclass(frozen=True)
class Site:
    """What all servers are given: places, programs and the model."""

    work: Work
    python: str
    triton_python: str
    residual: Path
    residual_arguments: tuple[str, ...]
    model: Model


@dataclass(frozen=True)
class Launch:
    """A command ready to run; `ports[0]` is where the server will answer."""

    arguments: list[str]
    variables: dict[str, str]
    folder: Path


@dataclass(frozen=True)
class Peer:
    """One row of the table."""

    name: str
    title: str
    form: forms.Form
    #: How far a score may lie from onnxruntime's own.
    tolerance: float
    #: Installs what is missing and returns the versions that matter.
    install: Callable[[Site], str]
    #: Makes the command for three free ports and an empty folder.
    launch: Callable[[Site, list[int], Path], Launch]


def _venv(site: Site, name: str) -> Venv:
    return environment.venv(site.work, name, site.triton_python if name == "pytriton" else site.python)


def _install(name: str, *packages: str) -> Callable[[Site], str]:
    """Returns the function that makes the environment `name` and tells the versions of packages in it."""

    def install(site: Site) -> str:
        made = _venv(site, name)
        versions = [f"{package} {made.version(package)}" for package in (*packages, "onnxruntime", "pillow", "numpy")]
        return ", ".join([*versions, f"Python {made.python_version()}"])

    return install


def _install_torchserve(site: Site) -> str:
    if shutil.which("java") is None:
        raise Unavailable("TorchServe needs Java; on Debian: apt-get install openjdk-17-jre-headless")
    return _install("torchserve", "torchserve", "torch")(site)


def _python(site: Site, name: str, ports: list[int], **more: str) -> tuple[Venv, dict[str, str]]:
    """Returns an environment and the variables that our scripts read."""
    made = _venv(site, name)
    given = {
        "PEERS_MODEL": str(site.model.onnx),
        "PEERS_PORT": str(ports[0]),
        "PEERS_PORT_2": str(ports[1]),
        "PEERS_PORT_3": str(ports[2]),
    }
    return made, made.variables() | given | more


def _fastapi(workers: Callable[[], int]) -> Callable[[Site, list[int], Path], Launch]:
    def launch(site: Site, ports: list[int], folder: Path) -> Launch:
        made, variables = _python(site, "fastapi", ports, PEERS_WORKERS=str(workers()))
        arguments = [
            made.program("uvicorn"),
            "app:app",
            "--app-dir",
            str(SERVERS / "fastapi"),
            "--host",
            "127.0.0.1",
            "--port",
            str(ports[0]),
            "--workers",
            str(workers()),
            "--no-access-log",
        ]
        return Launch(arguments, variables, folder)

    return launch


def _litserve(site: Site, ports: list[int], folder: Path) -> Launch:
    made, variables = _python(site, "litserve", ports)
    return Launch([made.python, str(SERVERS / "litserve" / "server.py")], variables, folder)


def _bentoml(site: Site, ports: list[int], folder: Path) -> Launch:
    made, variables = _python(site, "bentoml", ports, BENTOML_HOME=str(folder), BENTOML_DO_NOT_TRACK="True")
    arguments = [
        made.program("bentoml"),
        "serve",
        "service:ResNet",
        "--working-dir",
        str(SERVERS / "bentoml"),
        "--host",
        "127.0.0.1",
        "--port",
        str(ports[0]),
    ]
    return Launch(arguments, variables, folder)


def _pytriton(site: Site, ports: list[int], folder: Path) -> Launch:
    made, variables = _python(site, "pytriton", ports, PYTRITON_HOME=str(folder))
    return Launch([made.python, str(SERVERS / "pytriton" / "server.py")], variables, folder)


def _torchserve(site: Site, ports: list[int], folder: Path) -> Launch:
    made, variables = _python(site, "torchserve", ports)
    sources = SERVERS / "torchserve"
    # A worker for each core, as its guide for CPUs has it. YAML has no way to ask for the number of cores.
    model_config = folder / "model-config.yaml"
    model_config.write_text(f"minWorkers: {cores()}\nmaxWorkers: {cores()}\nbatchSize: {BATCH}\nmaxBatchDelay: 5\n")
    store = folder / "store"
    store.mkdir()
    process.call(
        [
            made.program("torch-model-archiver"),
            "--model-name",
            "resnet",
            "--version",
            "1.0",
            "--handler",
            str(sources / "handler.py"),
            "--config-file",
            str(model_config),
            "--export-path",
            str(store),
        ],
        folder / "archive.log",
        env=variables,
        cwd=folder,
        what="torch-model-archiver",
    )
    inference, management, metrics = (f"http://127.0.0.1:{port}" for port in ports)
    settings = folder / "config.properties"
    settings.write_text(
        f"inference_address={inference}\nmanagement_address={management}\nmetrics_address={metrics}\n"
        "disable_token_authorization=true\nmetrics_mode=prometheus\n"
    )
    arguments = [
        made.program("torchserve"),
        "--foreground",
        "--no-config-snapshots",
        "--model-store",
        str(store),
        "--models",
        "resnet=resnet.mar",
        "--ts-config",
        str(settings),
        "--log-config",
        str(sources / "log4j2.xml"),
    ]
    # Its process id and sockets lie where temporary files do.
    return Launch(arguments, variables | {"TMPDIR": str(folder)}, folder)


def _residual_version(site: Site) -> str:
    log = site.work.folder("logs") / "residual-version.log"
    log.write_text("")
    process.call([str(site.residual), "--version"], log, what="residual --version")
    return process.tail(log)


def _residual(provider: str) -> Callable[[Site, list[int], Path], Launch]:
    def launch(site: Site, ports: list[int], folder: Path) -> Launch:
        arguments = [
            str(site.residual),
            "serve",
            "--http-port",
            str(ports[0]),
            "--provider",
            provider,
            "--model",
            f"resnet={site.model.folder}",
            *site.residual_arguments,
        ]
        return Launch(arguments, dict(os.environ), folder)

    return launch


def all_peers() -> list[Peer]:
    """Returns the rows of the table in their order."""
    fastapi = _install("fastapi", "fastapi", "uvicorn")
    return [
        Peer("fastapi", "FastAPI + onnxruntime, 1 worker", forms.FASTAPI, SAME, fastapi, _fastapi(lambda: 1)),
        Peer(
            "fastapi-workers",
            f"FastAPI + onnxruntime, {cores()} workers",
            forms.FASTAPI,
            SAME,
            fastapi,
            _fastapi(cores),
        ),
        Peer("litserve", "LitServe, batching", forms.LITSERVE, SAME, _install("litserve", "litserve"), _litserve),
        Peer("bentoml", "BentoML, adaptive batching", forms.BENTOML, SAME, _install("bentoml", "bentoml"), _bentoml),
        Peer(
            "pytriton",
            "Triton (PyTriton), dynamic batching",
            forms.TRITON,
            SAME,
            _install("pytriton", "nvidia-pytriton"),
            _pytriton,
        ),
        Peer(
            "torchserve",
            f"TorchServe, {cores()} workers, batching",
            forms.TORCHSERVE,
            SAME,
            _install_torchserve,
            _torchserve,
        ),
        Peer("residual-cpu", "Residual, `--provider cpu`", forms.RESIDUAL, SAME, _residual_version, _residual("cpu")),
        Peer("residual-auto", "Residual, as it starts", forms.RESIDUAL, SIMILAR, _residual_version, _residual("auto")),
    ]
