"""One server under test: started on free ports, watched from outside through /proc and its own log, stopped with its exit code."""
from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from . import wire

ROOT = pathlib.Path(__file__).resolve().parents[2]
# How long a server may take until it is ready: a debug build with three models on two busy cores takes half of it.
READY_SECONDS = 120.0
# Of include/net/tcp_states.h.
TCP_STATES = {1: "ESTABLISHED", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING"}


def binary() -> str:
    """The program under test: RESIDUAL_BINARY, else the newest build of this checkout."""
    if named := os.environ.get("RESIDUAL_BINARY"):
        return named
    builds = [path for kind in ("release", "debug") if (path := ROOT / "target" / kind / "residual").is_file()]
    if not builds:
        raise SystemExit("no binary: build one with cargo build --release, or name one in RESIDUAL_BINARY")
    return str(max(builds, key=lambda path: path.stat().st_mtime))


class Stopped(NamedTuple):
    """How a server ended."""

    code: int
    seconds: float


class Server:
    """A running server. `log` holds every line that it wrote, as JSON objects, or as {"text": line} where it was none."""

    def __init__(self, process: subprocess.Popen, http: wire.Address | None = None):
        self.process = process
        self.log: list[dict] = []
        self.grpc: wire.Address | None = None
        self._http = http
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        if process.stderr is not None:
            self._reader.start()

    @property
    def http(self) -> wire.Address:
        """Host and port of the HTTP API."""
        if self._http is None:
            raise RuntimeError("the server is not ready yet")
        return self._http

    def _read(self) -> None:
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"text": line.rstrip()}
            self.log.append(entry)
            if entry.get("message") == "ready":
                self._http = wire.address(entry["address"])
                self.grpc = wire.address(entry["grpc"]) if "grpc" in entry else None
                self._ready.set()
        self._ready.set()

    def until_ready(self) -> Server:
        """Waits for the line that says so, or asks /health/ready where the log goes elsewhere."""
        if self.process.stderr is not None:
            if not self._ready.wait(READY_SECONDS) or self._http is None:
                self.process.kill()
                raise RuntimeError("the server did not start:\n" + "\n".join(map(str, self.log[-20:])))
            return self
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if wire.get(self.http, "/health/ready", seconds=2).status == 200:
                    return self
            time.sleep(0.05)
        self.process.kill()
        raise RuntimeError(f"the server did not become ready; its exit code is {self.process.poll()}")

    def until_logged(self, text: str, seconds: float) -> dict:
        """The first log line whose message contains `text`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for entry in list(self.log):
                if text in entry.get("message", ""):
                    return entry
            time.sleep(0.01)
        raise TimeoutError(f"no log line with {text!r} within {seconds} s")

    def errors(self) -> list[dict]:
        """Log lines that would wake somebody, and lines that are no log lines: a panic, a message of the runtime."""
        return [entry for entry in list(self.log) if entry.get("level") in (None, "ERROR")]

    def metrics(self) -> Metrics:
        """What /metrics says now."""
        return Metrics(wire.get(self.http, "/metrics").body.decode())

    def get_json(self, path: str) -> dict | list:
        """The document at `path`."""
        return json.loads(wire.get(self.http, path).body)

    def _status(self, name: str) -> int:
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE).group(1))

    def resident_bytes(self) -> int:
        """Memory that the process holds."""
        return self._status("VmRSS") * 1024

    def peak_bytes(self) -> int:
        """The most memory that it has ever held."""
        return self._status("VmHWM") * 1024

    def threads(self) -> int:
        """Its threads."""
        return self._status("Threads")

    def descriptors(self) -> int:
        """Its open files and sockets."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def sockets(self) -> list[str]:
        """Its TCP connections with their states, as `PORT from PEER STATE`; CLOSE_WAIT is one whose client has left."""
        own = set()
        for entry in pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if (target := os.readlink(entry)).startswith("socket:["):
                    own.add(target[8:-1])
        rows = [line.split() for line in pathlib.Path(f"/proc/{self.process.pid}/net/tcp").read_text().splitlines()[1:]]
        ports = {row[9]: [int(row[at].rpartition(":")[2], 16) for at in (1, 2)] for row in rows}
        states = {row[9]: TCP_STATES.get(int(row[3], 16), row[3]) for row in rows}
        named = {self._http and self._http[1]: "http", self.grpc and self.grpc[1]: "grpc"}
        return [
            f"{named.get(ports[inode][0], ports[inode][0])} from {ports[inode][1]} {states[inode]}"
            for inode in sorted(own & set(ports)) if states[inode] != "LISTEN"
        ]

    def cpu_seconds(self) -> float:
        """Time that all its threads computed."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def paused(self, seconds: float) -> None:
        """Stops the process for a while, as a laptop's lid or a hypervisor does: all its clocks jump."""
        self.send(signal.SIGSTOP)
        time.sleep(seconds)
        self.send(signal.SIGCONT)

    def stop(self, seconds: float = 40.0) -> Stopped:
        """Asks it to end, and waits; kills it where it does not."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
        return self.ended(seconds, began)

    def ended(self, seconds: float = 40.0, began: float | None = None) -> Stopped:
        """Waits for its end."""
        began = time.monotonic() if began is None else began
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        took = time.monotonic() - began
        if self._reader.is_alive():
            self._reader.join(5)
        return Stopped(code, took)


class Metrics:
    """One page of Prometheus text."""

    LINE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$")
    LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')

    def __init__(self, text: str):
        self.samples: list[tuple[str, dict[str, str], float]] = []
        for line in text.splitlines():
            if line and not line.startswith("#") and (parts := self.LINE.match(line)):
                name, labels, value = parts.groups()
                self.samples.append((name, dict(self.LABEL.findall(labels or "")), float(value)))

    def sum(self, name: str, **labels: str) -> float:
        """All samples of this name with these labels together; 0 where there are none."""
        return sum(value for found, has, value in self.samples if found == name and labels.items() <= has.items())

    def by(self, name: str, label: str) -> dict[str, float]:
        """The samples of a name, added up by one of their labels."""
        sums: dict[str, float] = {}
        for found, labels, value in self.samples:
            if found == name:
                sums[labels.get(label, "")] = sums.get(labels.get(label, ""), 0.0) + value
        return sums


def free_port() -> int:
    """A port that nobody listens on now: for servers whose log does not come back to say which they took."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def start(
    *flags: str,
    stderr: str | int = subprocess.PIPE,
    before: Callable[[], None] | None = None,
    wrapper: tuple[str, ...] = (),
    **environment: str,
) -> Server:
    """Starts a server without waiting for it. `stderr` may be a path; `before` runs in the child, `wrapper` in front of it."""
    own_log = stderr != subprocess.PIPE
    http = ("127.0.0.1", free_port()) if own_log else None
    command = [*wrapper, binary(), "serve", "--http-port", str(http[1] if http else 0), "--grpc-port", "0"]
    with contextlib.ExitStack() as files:
        target = files.enter_context(open(stderr, "w")) if isinstance(stderr, str) else stderr
        process = subprocess.Popen(
            [*command, "--log-format", "json", *flags],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=target, text=not own_log,
            env=os.environ | environment, preexec_fn=before, cwd=ROOT,
        )
    return Server(process, http)


@contextlib.contextmanager
def running(*flags: str, **options) -> Iterator[Server]:
    """A server that is ready, and gone afterwards whatever happens."""
    server = start(*flags, **options)
    try:
        yield server.until_ready()
    finally:
        if server.process.poll() is None:
            server.stop()


def synth(network: str, folder: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """A model of this shape with random weights, written by the program itself."""
    path = folder / network
    command = [binary(), "synth", network, "--seed", str(seed), "--output", str(path), "--force"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path
