"""One server for all clients: the binary in RESIDUAL_BINARY, on a free port."""
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import threading

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def served(*flags):
    """A running server with these flags, and the address it told."""
    binary = os.environ.get("RESIDUAL_BINARY", str(ROOT / "target" / "debug" / "residual"))
    command = [binary, "serve", "--http-port", "0", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
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
    yield process, re.search(r"ready at (http://\S+)", "".join(log)).group(1)
    process.send_signal(signal.SIGTERM)
    reader.join()
    assert process.wait() == 0, "".join(rest)


@pytest.fixture(scope="session")
def process():
    """The server of the built-in model."""
    with served() as running:
        yield running


@pytest.fixture(scope="session")
def server(process):
    return process[1]


@pytest.fixture(scope="session")
def server_pid(process):
    return process[0].pid


@pytest.fixture(scope="session")
def cat():
    return (ROOT / "tests" / "golden" / "inputs" / "cat.jpg").read_bytes()
