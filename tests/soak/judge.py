"""Whether a soak went well: pure functions of what was counted and measured. test_judge.py shows that each can say no."""
from __future__ import annotations

import collections
import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

# Scores of one photo differ in the last bits with the batch that it shares and the instance that computes it.
SCORE_TOLERANCE = 1e-4
# Memory may grow by this much in the second half of a soak. Between bursts it is 5 MiB up and down, as models come and go,
# of which the slope over half of 10 minutes keeps 3. A leak of 300 bytes a request is above it in these five minutes, at
# 140 requests a second; in an hour one of 50 bytes.
GROWTH_BYTES_MAX = 12 << 20
# Bursts of uploads and decodes are no growth: what counts is the floor between them, in so many windows a soak.
WINDOWS = 60
# A soak with fewer windows in its second half says nothing of memory.
WINDOWS_MIN = 8
STOP_SECONDS_MAX = 10.0


@dataclasses.dataclass
class Sample:
    """How the server's process was at one moment, in seconds since the start of the load."""

    at: float
    resident_bytes: int
    threads: int
    descriptors: int


@dataclasses.dataclass
class Ledger:
    """What was sent and what came back. Routes are named as the metrics name them."""

    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    # Requests of which the server must have read the head, by route; and of these, ones whose client left.
    sent: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    left: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    seconds: list[float] = dataclasses.field(default_factory=list)
    # What must not happen, in words; the first of each kind are kept.
    failures: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def failed(self, kind: str, text: str) -> None:
        """Notes what must not happen."""
        self.outcomes[kind] += 1
        kept = self.failures.setdefault(kind, [])
        if len(kept) < 5:
            kept.append(text)


def same_answer(found: tuple[str, float], right: tuple[str, float]) -> bool:
    """The same class, and the same score but for the last bits. NaN is no score."""
    return found[0] == right[0] and math.isfinite(found[1]) and abs(found[1] - right[1]) <= SCORE_TOLERANCE


def theil_sen(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between all pairs of points: a third of them may be anywhere (Theil 1950, Sen 1968)."""
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(points) for b in points[i + 1:] if b[0] != a[0]]
    return statistics.median(slopes) if slopes else 0.0


def floors(samples: Sequence[Sample], windows: int = WINDOWS) -> list[tuple[float, float]]:
    """The least memory in each of the windows, with the middle of the window."""
    if not samples:
        return []
    began, width = samples[0].at, max(samples[-1].at - samples[0].at, 1e-9) / windows
    least: dict[int, float] = {}
    for sample in samples:
        window = min(int((sample.at - began) / width), windows - 1)
        least[window] = min(sample.resident_bytes, least.get(window, math.inf))
    return [(began + (window + 0.5) * width, bytes_) for window, bytes_ in sorted(least.items())]


@dataclasses.dataclass
class Memory:
    """How memory went in the second half."""

    slope_mib_per_hour: float
    grown_bytes: float
    first_bytes: float
    last_bytes: float
    windows: int


def memory(samples: Sequence[Sample]) -> Memory:
    """The slope of the floors of the second half, when caches, pools and arenas have got their size."""
    points = floors(samples)
    half = points[len(points) // 2:]
    slope = theil_sen(half)
    span = half[-1][0] - half[0][0] if half else 0.0
    first, last = (half[0][1], half[-1][1]) if half else (0.0, 0.0)
    return Memory(slope * 3600 / 2**20, slope * span, first, last, len(half))


def grown(samples: Sequence[Sample]) -> list[str]:
    """What is wrong with memory."""
    found = memory(samples)
    if found.windows < WINDOWS_MIN:
        return [f"memory was measured in {found.windows} windows of the second half, which says nothing"]
    if found.grown_bytes <= GROWTH_BYTES_MAX:
        return []
    text = f"memory grew by {found.grown_bytes / 2**20:.1f} MiB in the second half, {found.slope_mib_per_hour:.0f} MiB/h"
    return [f"{text}; allowed are {GROWTH_BYTES_MAX / 2**20:.0f} MiB"]


def left_over(before: Sample, after: Sample) -> list[str]:
    """Threads and descriptors that have not gone with the load."""
    each = [("threads", before.threads, after.threads), ("descriptors", before.descriptors, after.descriptors)]
    return [f"{now} {name} after the load, {then} before it" for name, then, now in each if now > then]


def miscounted(counted: Mapping[str, float], ledger: Ledger) -> list[str]:
    """Routes whose count is not what was sent. Of requests whose client left, the head may not have arrived."""
    problems = []
    for route in sorted(set(counted) | set(ledger.sent)):
        sent, has = ledger.sent[route], counted.get(route, 0.0)
        if not sent - ledger.left[route] <= has <= sent:
            problems.append(f"{route}: {has:.0f} requests counted, {sent} sent, {ledger.left[route]} of them abandoned")
    return problems


def still_held(gauges: Mapping[str, float]) -> list[str]:
    """Gauges that must be back at zero."""
    return [f"{name} is {value:g} after the load" for name, value in gauges.items() if value != 0]


def still_connected(sockets: Sequence[str]) -> list[str]:
    """Connections that the server still has."""
    return [f"still connected: {', '.join(sockets)}"] if sockets else []


def unanswered(ledger: Ledger) -> list[str]:
    """What must not have happened to a request."""
    return [f"{len(kept)} or more {kind}: {kept[0]}" if len(kept) == 5 else f"{len(kept)} {kind}: {kept[0]}"
            for kind, kept in sorted(ledger.failures.items())]


def never_tried(ledger: Ledger, wanted: Iterable[str]) -> list[str]:
    """What a soak must have met, or it has shown nothing."""
    return [f"{name} never happened" for name in wanted if not ledger.outcomes[name]]


def badly_ended(code: int, seconds: float) -> list[str]:
    """What is wrong with the end."""
    problems = [f"the server ended with {code}"] if code else []
    return problems + ([f"it took {seconds:.1f} s to end"] if seconds > STOP_SECONDS_MAX else [])


def loud(errors: Sequence[Mapping[str, object]]) -> list[str]:
    """Lines at ERROR, and lines that are no log lines."""
    return [f"{len(errors)} lines at ERROR, the first: {dict(errors[0])}"] if errors else []
