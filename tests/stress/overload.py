"""More work than the machine can do: what is accepted is answered in time, the rest is refused at the door."""
from __future__ import annotations

import collections
import pathlib

from load import Sent, drive
from rig import photos, server
from rig.figures import milliseconds, percentile
from told import Told

PATH = "/api/v1/classify"
CAPACITY_SECONDS = 6.0
LOAD_SECONDS = 25.0
# From here on the queue is as full as it gets, so that the figures are of a server that has been overloaded for a while.
SETTLE_SECONDS = 12.0
# Share of the capacity that must be left of useful answers. The clients compute on the same cores.
GOODPUT_MIN = 0.8
REQUEST_TIMEOUT = 10.0
SLACK_SECONDS = 0.5  # of a client that shares two cores with the server it times


def _overload(told: Told, scratch: pathlib.Path, times: float, *flags: str) -> None:
    model = server.synth("resnet50", scratch)
    cat = scratch / "cat.jpg"
    cat.write_bytes(photos.photo("cat"))
    with server.running("--model", str(model), *flags) as running:
        drive(running.http, PATH, cat, connections=4, seconds=1.0)
        closed = drive(running.http, PATH, cat, connections=8, seconds=CAPACITY_SECONDS)
        capacity = sum(sent.status == 200 for sent in closed) / CAPACITY_SECONDS
        told.saw(f"capacity {capacity:.1f} images/s, closed loop of 8 connections, ResNet-50 with random weights")
        rate = times * capacity
        told.did(f"open loop at {times:g} times that, {rate:.0f} requests/s for {LOAD_SECONDS:.0f} s, from another process")
        sent = drive(running.http, PATH, cat, rate=rate, seconds=LOAD_SECONDS)
        _judge(told, sent, capacity)
        page = running.metrics()
        told.holds(page.sum("residual_requests_in_flight") == 1, "nothing but this question is in flight afterwards")
        after = drive(running.http, PATH, cat, connections=1, seconds=1.0)
        told.holds({one.status for one in after} == {200}, "the next requests are answered")
        told.saw(f"after it a request takes {milliseconds(percentile([one.seconds for one in after], 0.5))}")
        told.holds(not running.errors(), "no line at ERROR")


def _judge(told: Told, sent: list[Sent], capacity: float) -> None:
    began = min(one.due for one in sent)
    settled = [one for one in sent if one.due - began >= SETTLE_SECONDS]
    seconds = LOAD_SECONDS - SETTLE_SECONDS
    by_status = collections.Counter(one.status for one in settled)
    accepted = [one.seconds for one in settled if one.status == 200]
    refused = [one for one in settled if one.status == 503]
    goodput = len(accepted) / seconds / capacity
    told.saw(f"after {SETTLE_SECONDS:.0f} s: {dict(sorted(by_status.items()))} of {len(settled)}; 503 {len(refused) / len(settled):.0%}")
    told.saw(f"goodput {goodput:.0%} of the capacity")
    told.saw(f"accepted: p50 {milliseconds(percentile(accepted, 0.5))}, p99 {milliseconds(percentile(accepted, 0.99))}")
    told.saw(f"refused: p99 after {milliseconds(percentile([one.seconds for one in refused], 0.99))}")
    told.holds(set(by_status) <= {200, 503}, "each is answered or refused at the door: no 504, no 500, none lost")
    told.holds(goodput >= GOODPUT_MIN, f"goodput is at least {GOODPUT_MIN:.0%} of the capacity")
    told.holds(bool(refused) and all(one.retry_after for one in refused), "503 comes, with Retry-After")
    told.holds(max(accepted, default=0.0) <= REQUEST_TIMEOUT + SLACK_SECONDS, "accepted ones kept within the deadline")
    told.holds(percentile([one.seconds for one in refused], 0.99) < 1.0, "99 of 100 refusals come within a second")


def overload_2x(told: Told, scratch: pathlib.Path) -> None:
    """Twice the capacity, in an open loop, default settings and a slow model."""
    _overload(told, scratch, 2.0)


def overload_10x(told: Told, scratch: pathlib.Path) -> None:
    """Ten times the capacity, in an open loop, default settings and a slow model."""
    _overload(told, scratch, 10.0)


SCENARIOS = [overload_2x, overload_10x]
