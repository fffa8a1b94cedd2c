"""Servers for the clients: the binary in RESIDUAL_BINARY, on free ports."""
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import threading
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("RESIDUAL_BINARY", str(ROOT / "target" / "debug" / "residual"))
TINY = ROOT / "tests" / "models"


def pytest_ignore_collect(collection_path, config):
    """KServe's client and Triton's bring the same messages in differently named files, which protobuf refuses in one process;
    so that one is run by its name: pytest tests/clients/test_kserve.py"""
    return collection_path.name == "test_kserve.py" and not any("test_kserve" in asked for asked in config.args) or None


class Running(NamedTuple):
    process: subprocess.Popen
    url: str  # http://host:port, or https
    grpc: str | None  # host:port; none where gRPC is switched off

    @property
    def address(self):
        """Host and port of the HTTP API, as clients want it that add the scheme themselves."""
        return self.url.removeprefix("http://")

    def resident_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextlib.contextmanager
def served(*flags, command="serve", http_port=0, **environment):
    """A running server with these flags, on free ports. With `http_port=None` the environment names the port."""
    ports = ["--grpc-port", "0"] + ([] if http_port is None else ["--http-port", str(http_port)])
    process = subprocess.Popen(
        [BINARY, command, *ports, *flags], stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | environment
    )
    log = []
    for line in process.stderr:
        log.append(line)
        if line.lstrip().startswith("try "):
            break
    else:
        pytest.fail("the server did not start:\n" + "".join(log))
    # Whatever it logs from here on is kept, so that a full pipe cannot hold it up.
    rest = []
    reader = threading.Thread(target=lambda: rest.extend(process.stderr))
    reader.start()
    told = "".join(log)
    grpc = re.search(r"^ +grpc +(\S+)$", told, re.MULTILINE)
    try:
        yield Running(process, re.search(r"ready at (https?://\S+)", told).group(1), grpc and grpc.group(1))
    finally:
        process.send_signal(signal.SIGTERM)
        reader.join()
    assert process.wait() == 0, "".join(rest)


@pytest.fixture(scope="session")
def running():
    """The server of the built-in model."""
    with served() as running:
        yield running


@pytest.fixture(scope="session")
def server(running):
    return running.url


@pytest.fixture(scope="session")
def tiny():
    """A server of the tiny models, whose right answers anyone can tell, one for each kind of input."""
    names = ["colours", "nhwc", "half", "bytes", "multi-label", "fixed-batch-4", "nan"]
    # A model that answers NaN to the dark photo of the provider's proof must be told which provider to take.
    with served(*(flag for name in names for flag in ("--model", str(TINY / name))), "--provider", "cpu") as running:
        yield running


def photo(name):
    return (ROOT / "tests" / "golden" / "inputs" / f"{name}.jpg").read_bytes()


@pytest.fixture(scope="session")
def cat():
    return photo("cat")


@pytest.fixture(scope="session")
def coffee():
    return photo("coffee")
