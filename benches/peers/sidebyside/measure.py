"""The rounds: in each, the parts are timed alone and then every server is started, checked, loaded and stopped.

One server is up at a time, so that none pays for what another does in its idle time, and the order turns from round to
round, so that none always meets the same hour.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import process, server
from .environment import SERVERS, Venv
from .errors import Unavailable
from .load import Generator
from .machine import CpuClock, cores
from .peers import Peer, Site
from .photos import Photo
from .server import Server

#: The part of its highest throughput that a server gets at a constant rate.
OPEN_LOAD = 0.7
#: How often each photo is sent to a server that tells its own stage times.
TIMED_REPEATS = 8
#: A closed loop is made longer until so many of the slowest requests fit into it, one after the other.
CLOSED_LATENCIES = 4
#: The parts alone and the expected answers take seconds; longer than this, and something is stuck.
REFERENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Plan:
    """How long everything takes, in seconds, and how often."""

    rounds: int
    alone: float
    warm_up: float
    settle: float
    closed: float
    single: float
    open: float
    connections: int


DEFAULT = Plan(rounds=3, alone=6.0, warm_up=2.0, settle=1.0, closed=8.0, single=3.0, open=10.0, connections=16)
QUICK = Plan(rounds=2, alone=2.0, warm_up=1.0, settle=0.5, closed=2.5, single=1.0, open=3.0, connections=16)


@dataclass(frozen=True)
class Alone:
    """What the parts take without a server; `servers/reference/alone.py` says how each is measured."""

    prepare_ms: float
    one_session_images_per_second: float
    session_per_core_images_per_second: float
    batch_1_ms: float

    @property
    def inference_ms(self) -> float:
        """Milliseconds of one core for one image, in the faster of the two layouts."""
        return 1000 * cores() / max(self.one_session_images_per_second, self.session_per_core_images_per_second)

    def ceiling(self, prepare_ms: float) -> float:
        """Returns the images a second that preparing and inference allow when all cores do nothing else."""
        return 1000 * cores() / (prepare_ms + self.inference_ms)


@dataclass(frozen=True)
class Measured:
    """One server in one round. Milliseconds an image are of one core, over the closed loop."""

    images_per_second: float
    closed_p50_ms: float
    closed_p99_ms: float
    single_p50_ms: float
    open_p50_ms: float
    open_p99_ms: float
    server_ms_per_image: float
    client_ms_per_image: float
    resident_mib: float
    #: Cores that neither the server nor the clients had but somebody else, over the closed loop.
    other_cores: float
    #: Cores that the machine's host kept for others.
    stolen_cores: float
    score_difference: float
    #: Decoding and preprocessing as the server itself tells them, for one photo at a time; none if it does not tell.
    own_prepare_ms: float | None
    start_seconds: float


@dataclass
class Row:
    """A server's rounds, or why there are none."""

    peer: Peer
    versions: str = ""
    rounds: dict[int, Measured] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class Bench:
    """Everything that the rounds share."""

    site: Site
    reference: Venv
    oha: Path
    checked: list[Photo]
    timed: list[Photo]
    plan: Plan
    say: Callable[[str], None]

    def expected(self) -> dict[str, list[float]]:
        """Returns the probabilities of all classes for each photo, by onnxruntime itself."""
        output = self.site.work.folder("run") / "expected.json"
        self._reference("expected.py", [str(output), *(str(photo.path) for photo in self.checked)], None)
        expected: dict[str, list[float]] = json.loads(output.read_text())
        return expected

    def alone(self) -> Alone:
        output = self.site.work.folder("run") / "alone.json"
        self._reference("alone.py", [str(self.plan.alone), *(str(photo.path) for photo in self.timed)], output)
        return Alone(**json.loads(output.read_text()))

    def _reference(self, script: str, arguments: list[str], output: Path | None) -> None:
        log = self.site.work.folder("logs") / f"{script}.log"
        log.write_text("")
        variables = self.reference.variables() | {"PEERS_MODEL": str(self.site.model.onnx)}
        process.call(
            [self.reference.python, str(SERVERS / "reference" / script), *arguments],
            log,
            variables,
            stdout=output,
            what=script,
            seconds=REFERENCE_SECONDS,
        )

    def run(self, rows: list[Row]) -> list[Alone]:
        """Fills the rows, round by round; a server with a problem is left out of the following rounds."""
        expected = self.expected()
        references = []
        for number in range(self.plan.rounds):
            references.append(self.alone())
            turn = number % len(rows)
            for row in rows[turn:] + rows[:turn]:
                if row.problem is None:
                    self.say(f"round {number + 1} of {self.plan.rounds}: {row.peer.name}")
                    try:
                        row.rounds[number] = self.measure(row.peer, expected)
                    except (Unavailable, OSError) as error:
                        row.problem = str(error)
                        self.say(f"  {row.peer.name}: {error}")
        return references

    def measure(self, peer: Peer, expected: dict[str, list[float]]) -> Measured:
        """Starts, checks, loads and stops one server."""
        started = time.monotonic()
        with server.running(peer, self.site, self.timed[0]) as up:
            start_seconds = time.monotonic() - started
            difference = up.check(self.checked, expected)
            generator = Generator(self.oha, up, self.timed, self.site.work.folder("run", f"{peer.name}-load"))
            plan = self.plan
            slowest = generator.warm_up(plan.connections, plan.warm_up)
            began, clock, used = time.monotonic(), CpuClock.read(), up.cpu_seconds()
            closed = generator.closed(
                plan.connections, max(plan.settle, slowest), max(plan.closed, CLOSED_LATENCIES * slowest)
            )
            resident = up.resident_bytes()
            server_seconds, passed = up.cpu_seconds() - used, CpuClock.read()
            seconds = time.monotonic() - began
            single = generator.single(plan.single)
            constant = generator.open(OPEN_LOAD * closed.images_per_second, plan.open)
            own = own_prepare_ms(up, self.timed)
        return Measured(
            images_per_second=closed.images_per_second,
            closed_p50_ms=closed.percentile_ms(50),
            closed_p99_ms=closed.percentile_ms(99),
            single_p50_ms=single.percentile_ms(50),
            open_p50_ms=constant.percentile_ms(50),
            open_p99_ms=constant.percentile_ms(99),
            server_ms_per_image=1000 * server_seconds / closed.answered,
            client_ms_per_image=1000 * closed.client_cpu_seconds / closed.answered,
            resident_mib=resident / 2**20,
            other_cores=max(0.0, passed.busy - clock.busy - server_seconds - closed.client_cpu_seconds) / seconds,
            stolen_cores=(passed.stolen - clock.stolen) / seconds,
            score_difference=difference,
            own_prepare_ms=own,
            start_seconds=start_seconds,
        )


def own_prepare_ms(up: Server, photos: list[Photo]) -> float | None:
    """Returns what decoding and preprocessing take by the server's `Server-Timing`: the mean of the photos' medians."""
    medians = []
    for photo in photos:
        times = []
        for _ in range(TIMED_REPEATS):
            _, headers = up.classify(photo)
            stages = dict(re.findall(r"(\w+);dur=([\d.]+)", headers.get("server-timing", "")))
            if not {"decode", "preprocess"} <= stages.keys():
                return None
            times.append(float(stages["decode"]) + float(stages["preprocess"]))
        medians.append(sorted(times)[len(times) // 2])
    return sum(medians) / len(medians)
