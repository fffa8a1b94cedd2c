"""One server for all clients: the binary in RESIDUAL_BINARY, on a free port."""
import os
import pathlib
import re
import signal
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def server():
    binary = os.environ.get("RESIDUAL_BINARY", str(ROOT / "target" / "debug" / "residual"))
    process = subprocess.Popen([binary, "serve", "--http-port", "0"], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    log = []
    for line in process.stderr:
        log.append(line)
        if line.lstrip().startswith("try "):
            break
    else:
        pytest.fail("the server did not start:\n" + "".join(log))
    yield re.search(r"ready at (http://\S+)", "".join(log)).group(1)
    process.send_signal(signal.SIGTERM)
    # Reading to the end, so that a full pipe cannot hold up the server.
    rest = process.stderr.read()
    assert process.wait() == 0, rest


@pytest.fixture(scope="session")
def cat():
    return (ROOT / "tests" / "golden" / "inputs" / "cat.jpg").read_bytes()
