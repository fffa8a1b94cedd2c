"""Load on one server, by oha: one process for each photo, all of the same kind for all servers.

oha writes the start and the duration of every request, so that what several of its processes saw is put together
exactly, and no percentiles are averaged.
"""

from __future__ import annotations

import csv
import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from . import process
from .errors import Unavailable
from .photos import Photo
from .server import Server

#: What an oha may take beyond its own time, for answers that are late.
LATE_SECONDS = 60.0
#: Connections at a constant rate, in all: enough that no request waits for one unless the server is far behind.
OPEN_CONNECTIONS = 64
#: Requests at the start of a connection that do not count when one connection is measured.
FIRST_REQUESTS = 2


@dataclass(frozen=True)
class Request:
    """One answered request, in seconds; it started `start` after its oha did."""

    start: float
    duration: float

    @property
    def end(self) -> float:
        return self.start + self.duration


@dataclass(frozen=True)
class Seen:
    """What the clients saw under one load, and what they cost."""

    durations: list[float]
    answered: int
    images_per_second: float
    client_cpu_seconds: float

    def percentile_ms(self, percent: float) -> float:
        """Returns the smallest duration that at least `percent` of the requests did not exceed."""
        ordered = sorted(self.durations)
        rank = max(1, -(-len(ordered) * percent // 100))
        return 1000 * ordered[int(rank) - 1]


class Generator:
    """The load generator with the photos' bodies for one server."""

    def __init__(self, oha: Path, server: Server, photos: list[Photo], folder: Path) -> None:
        self._oha = oha
        self._server = server
        self._folder = folder
        self._jobs: list[list[str]] = []
        for index, photo in enumerate(photos):
            upload = server.peer.form.upload(photo.jpeg)
            body = folder / f"body-{index}"
            body.write_bytes(upload.body)
            headers = [
                part
                for name, value in upload.headers.items()
                if name != "Content-Type"
                for part in ("-H", f"{name}: {value}")
            ]
            self._jobs.append(["-D", str(body), "-T", upload.headers["Content-Type"], *headers])

    def warm_up(self, connections: int, seconds: float) -> float:
        """Keeps `connections` busy and returns what the slowest request took, in seconds."""
        requests = self._busy(connections, seconds)
        return self._seen([request.duration for request in requests], len(requests), 0.0, 0.0).percentile_ms(100) / 1000

    def closed(self, connections: int, settle: float, seconds: float) -> Seen:
        """Keeps `connections` busy and counts what ends within `seconds`, after `settle` seconds that do not count.

        Answers come in bursts of a batch. The rate is therefore taken from the last answer before the window to the
        last one within it, so that it does not depend on where the window cuts a burst.
        """
        before = _client_cpu_seconds()
        requests = self._busy(connections, settle + seconds)
        counted = [request for request in requests if settle < request.end <= settle + seconds]
        first = max((request.end for request in requests if request.end <= settle), default=0.0)
        last = max((request.end for request in counted), default=first)
        rate = len(counted) / (last - first) if last > first else 0.0
        return self._seen([request.duration for request in counted], len(requests), rate, before)

    def _busy(self, connections: int, seconds: float) -> list[Request]:
        """Keeps `connections` busy, each photo with its part of them, and returns all requests."""
        count = len(self._jobs)
        shares = [connections // count + (index < connections % count) for index in range(count)]
        loads = [
            [*job, "-c", str(share), "-z", _milliseconds(seconds), "-w"]
            for job, share in zip(self._jobs, shares, strict=True)
            if share
        ]
        return [request for each in self._run(loads, 0.0, seconds) for request in each]

    def single(self, seconds: float) -> Seen:
        """Sends one request after the other, each photo for its part of `seconds`."""
        before = _client_cpu_seconds()
        part = seconds / len(self._jobs)
        counted, answered = [], 0
        for job in self._jobs:
            [requests] = self._run([[*job, "-c", "1", "-z", _milliseconds(part), "-w"]], 0.0, part)
            answered += len(requests)
            counted += [request.duration for request in requests[FIRST_REQUESTS:] or requests]
        return self._seen(counted, answered, 1 / (sum(counted) / max(1, len(counted))) if counted else 0.0, before)

    def open(self, rate: float, seconds: float) -> Seen:
        """Sends `rate` requests a second however slow the answers are.

        A request that could not be sent in time counts from when it should have been (coordinated omission). Each photo
        has an equal part of the rate; the processes start apart, so that the requests are spread evenly.
        """
        count = max(1, round(rate * seconds / len(self._jobs)))
        loads = [
            [
                *job,
                "-c",
                str(max(1, OPEN_CONNECTIONS // len(self._jobs))),
                "-n",
                str(count),
                "-q",
                f"{rate / len(self._jobs):.4f}",
                "--latency-correction",
            ]
            for job in self._jobs
        ]
        before = _client_cpu_seconds()
        requests = [request for each in self._run(loads, 1 / rate, seconds) for request in each]
        if len(requests) != count * len(loads):
            raise Unavailable(
                f"{self._server.peer.name} left {count * len(loads) - len(requests)} of "
                f"{count * len(loads)} requests without an answer (log: {self._server.log})"
            )
        return self._seen([request.duration for request in requests], len(requests), rate, before)

    def _seen(self, durations: list[float], answered: int, rate: float, cpu_before: float) -> Seen:
        if not durations:
            raise Unavailable(
                f"{self._server.peer.name} answered no request within the time that counts (log: {self._server.log})"
            )
        return Seen(durations, answered, rate, _client_cpu_seconds() - cpu_before)

    def _run(self, loads: list[list[str]], apart: float, seconds: float) -> list[list[Request]]:
        """Runs one oha for each load, started `apart` seconds after each other, and returns what each saw."""
        log = self._folder / "oha.log"
        outputs = [self._folder / f"oha-{index}.csv" for index in range(len(loads))]
        running = []
        try:
            start = time.monotonic()
            for index, (load, output) in enumerate(zip(loads, outputs, strict=True)):
                time.sleep(max(0.0, start + index * apart - time.monotonic()))
                arguments = [
                    str(self._oha),
                    "--no-tui",
                    "--output-format",
                    "csv",
                    "--worker-threads",
                    "1",
                    "--disable-compression",
                    "-m",
                    "POST",
                    *load,
                    self._server.url,
                ]
                running.append(process.spawn(arguments, log, stdout=output))
            for each in running:
                if each.wait(seconds + LATE_SECONDS) != 0:
                    raise Unavailable(f"oha ended with {each.returncode}: {process.tail(log)}")
        except subprocess.TimeoutExpired as error:
            raise Unavailable(
                f"{self._server.peer.name} owed answers {LATE_SECONDS:.0f} s after the load's end "
                f"(log: {self._server.log})"
            ) from error
        finally:
            for each in running:
                process.stop(each)
        return [self._read(output) for output in outputs]

    def _read(self, output: Path) -> list[Request]:
        with output.open(newline="") as file:
            rows = list(csv.DictReader(file))
        refused = [row["status"] for row in rows if row["status"] != "200"]
        if refused:
            raise Unavailable(
                f"{self._server.peer.name} answered {len(refused)} of {len(rows)} requests with "
                f"{', '.join(sorted(set(refused)))} (log: {self._server.log})"
            )
        return [Request(float(row["request-start"]), float(row["request-duration"])) for row in rows]


def _client_cpu_seconds() -> float:
    """Returns the CPU time of processes that have been waited for; during a load these are the ohas."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _milliseconds(seconds: float) -> str:
    """Returns a duration as oha reads it; it takes no fractions."""
    return f"{round(1000 * seconds)}ms"
