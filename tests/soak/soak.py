"""A bounded soak: mixed traffic with known right answers, and faults among it, against a server that this script starts.

    python tests/soak/soak.py --minutes 10 --seed 1 --binary target/release/residual --out soak.json

It fails on a wrong answer, a lost request, a 500, growth of memory, threads or descriptors that stay, a line at ERROR, metrics that do
not add up, and an end that is not clean. The exit code says so. README.md has the details.
"""
from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import pathlib
import random
import sys
import tempfile
import time
from collections.abc import Coroutine

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import calls  # noqa: E402
import judge  # noqa: E402
import report  # noqa: E402
import traffic  # noqa: E402
from changes import Changes, Repository  # noqa: E402
from faults import BODY_TIMEOUT_SECONDS, Faults  # noqa: E402
from rig import server, wire  # noqa: E402
from rig.server import Server  # noqa: E402

CLIENTS, BAD_CLIENTS = 6, 2
# The large model's queue has 32 places.
BURST = 120
QUEUE_IMAGES = 32
# How often each model is asked. The large one is a hundred times slower.
SHARES = {"resnet20-cifar10": 40, "steady": 20, "swapped": 15, "coming": 10, "loaded": 10, "large": 1}
# Between the best class and the next one: nearer ones could change places with the last bits of a score.
MARGIN_MIN = 20 * judge.SCORE_TOLERANCE
ANSWER_SECONDS = 40.0
SETTLE_SECONDS = 20.0
MUST_HAPPEN = ["ok", "503", "reload", "load", "unload", "pause"]


class Soak:
    """One soak of one server."""

    def __init__(self, running: Server, repository: Repository, seed: int):
        self.running, self.repository = running, repository
        self.ledger, self.chance = judge.Ledger(), random.Random(seed)
        self.right: dict[tuple[str, str], traffic.Scored] = {}
        self.samples: list[judge.Sample] = []
        self.began = time.monotonic()
        self.over = False

    # --- right answers

    async def learn(self) -> None:
        """Asks about each photo with each model's weights while nothing else runs."""
        changes = Changes(self.running, self.repository, judge.Ledger(), self.chance)
        for weights in ("swapped-a", "swapped-b"):
            if self.repository.states["swapped"].now != {weights}:
                await changes.swap()
            await self._learn_one("swapped", weights)
        await changes.swap()
        for model in ("resnet20-cifar10", "steady", "coming", "loaded", "large"):
            await self._learn_one(model, next(iter(self.repository.states[model].now)))

    async def _learn_one(self, model: str, weights: str) -> None:
        connection = await wire.Connection.open(self.running.http)
        for name, photo in traffic.PHOTOS.items():
            answer = await connection.ask("POST", f"/api/v1/classify?model={model}&top_k=2", photo)
            best, next_best = json.loads(answer.body)["predictions"]
            if best["score"] - next_best["score"] >= MARGIN_MIN:
                self.right[weights, name] = best["label"], best["score"]
        await connection.close()
        if not any(known == weights for known, _ in self.right):
            raise SystemExit(f"{weights} cannot tell any of the photos apart")

    # --- good clients

    def _photos(self, model: str, most: int) -> list[str]:
        states = [step for _, step in self.repository.states[model].steps]
        weights = {state for step in states for state in step if state}
        known = [name for name in traffic.PHOTOS if all((each, name) in self.right for each in weights)]
        return [self.chance.choice(known) for _ in range(self.chance.randint(1, most))]

    def _judge(self, what: str, model: str, names: list[str], began: float, status: int, found: object, retry: str) -> None:
        possible = self.repository.states[model].possible(began, time.monotonic())
        if status == 200:
            for name, scored in zip(names, found, strict=True):
                rights = [self.right[weights, name] for weights in possible if weights]
                if not any(judge.same_answer(scored, right) for right in rights):
                    self.ledger.failed("wrong", f"{what} of {model}, {name}: {scored}, right is one of {rights}")
                    return
            self.ledger.outcomes["ok"] += 1
            if model == "resnet20-cifar10":
                self.ledger.seconds.append(time.monotonic() - began)
        elif status in (404, 503) and None in possible:
            self.ledger.outcomes["model away"] += 1
        elif status == 503 and retry:
            self.ledger.outcomes["503"] += 1
        else:
            self.ledger.failed("500" if status >= 500 else "unexpected", f"{what} of {model}: {status} {found!r}"[:300])

    async def ask(self, connection: wire.Connection, kind: str, model: str) -> None:
        """One question, and its answer held against the right one."""
        build, most = traffic.KINDS[kind]
        names = self._photos(model, most)
        question = build(model, names)
        self.ledger.sent[question.route] += 1
        began = time.monotonic()
        answer = await connection.ask("POST", question.path, question.body, question.headers, ANSWER_SECONDS)
        found = question.read(answer) if answer.status == 200 else answer.body[:200]
        self._judge(kind, model, names, began, answer.status, found, answer.headers.get("retry-after", ""))

    async def client(self) -> None:
        """Asks one question after the other on a connection that it keeps."""
        connection = await wire.Connection.open(self.running.http)
        while not self.over:
            kind, (model,) = self.chance.choice(list(traffic.KINDS)), self.chance.choices(list(SHARES), list(SHARES.values()))
            try:
                await self.ask(connection, kind, model)
            except (wire.Unanswered, OSError) as error:
                self.ledger.failed("lost", f"{kind} of {model}: {error!r}")
                connection.reset()
                connection = await wire.Connection.open(self.running.http)
            except (ValueError, KeyError, IndexError, TypeError) as error:
                self.ledger.failed("wrong", f"{kind} of {model}: an answer that cannot be read: {error!r}")
            await asyncio.sleep(self.chance.random() * 0.01)
        await connection.close()

    async def caller(self) -> None:
        """The same over gRPC; now and then it cancels a call."""
        client = calls.Calls(self.running.grpc)
        while not self.over:
            (model,) = self.chance.choices(list(SHARES), list(SHARES.values()))
            names, began = self._photos(model, 3), time.monotonic()
            self.ledger.sent[calls.ROUTE] += 1
            if self.chance.random() < 0.05:
                self.ledger.left[calls.ROUTE] += 1
                await client.leave(model, names, self.chance.random() * 0.01)
                self.ledger.outcomes["fault: cancels a call"] += 1
            else:
                try:
                    status, found, retry = await client.ask(model, names, ANSWER_SECONDS)
                    self._judge("grpc v2", model, names, began, status, found, retry)
                except ConnectionError as error:
                    self.ledger.failed("lost", f"grpc v2 of {model}: {error}")
            await asyncio.sleep(self.chance.random() * 0.02)
        await client.close()

    # --- everything else

    async def bad_client(self) -> None:
        """Makes one fault after the other."""
        faults = Faults(self.running.http, self.ledger, self.chance)
        while not self.over:
            try:
                await faults.one()
            except OSError as error:
                # A client that is about to leave may be told to first.
                self.ledger.outcomes[f"a bad client was cut off: {type(error).__name__}"] += 1
            await asyncio.sleep(self.chance.random() * 0.2)

    async def changer(self) -> None:
        """Makes one change after the other."""
        changes = Changes(self.running, self.repository, self.ledger, self.chance)
        for first in (changes.pause, changes.swap, changes.load_and_unload, changes.load_and_unload, changes.come_and_go):
            await first()
        while not self.over:
            await asyncio.sleep(0.5 + self.chance.random() * 2)
            await changes.one()
        await changes.settle()

    async def burster(self) -> None:
        """Now and then more clients at once than the large model has places."""
        while not self.over:
            connections = [await wire.Connection.open(self.running.http) for _ in range(BURST)]
            asked = [self.ask(connection, "native raw", "large") for connection in connections]
            for result in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(result, BaseException):
                    self.ledger.failed("lost", f"one of a burst: {result!r}")
            self.ledger.outcomes["burst"] += 1
            for connection in connections:
                connection.reset()
            await asyncio.sleep(5 + self.chance.random() * 5)

    def sample(self) -> judge.Sample:
        """How the process is now."""
        running = self.running
        return judge.Sample(
            time.monotonic() - self.began, running.resident_bytes(), running.threads(), running.descriptors()
        )

    async def sampler(self) -> None:
        """Looks at the process twice a second."""
        while not self.over:
            self.samples.append(self.sample())
            await asyncio.sleep(0.5)

    async def run(self, seconds: float) -> None:
        """The load, from begin to end."""
        self.began = time.monotonic()
        work = [self.client() for _ in range(CLIENTS)] + [self.bad_client() for _ in range(BAD_CLIENTS)]
        work += [self.caller() for _ in range(2 if calls.aio else 0)]
        work += [self.changer(), self.burster(), self.sampler()]

        async def until_over(each: Coroutine) -> None:
            try:
                await each
            finally:
                # The clock has run out, or something broke: either ends the others.
                self.over = True

        async with asyncio.TaskGroup() as tasks:
            for each in [asyncio.sleep(seconds), *work]:
                tasks.create_task(until_over(each))

    async def settled(self, before: judge.Sample) -> judge.Sample:
        """Waits until threads and descriptors are as before, for as long as idle threads are kept and a little more."""
        until = time.monotonic() + SETTLE_SECONDS
        while judge.left_over(before, after := self.sample()) and time.monotonic() < until:
            await asyncio.sleep(0.2)
        return after


def counted(running: Server) -> collections.Counter[str]:
    """Requests by route, as the server counts them."""
    return collections.Counter(running.metrics().by("residual_requests_total", "route"))


def held(running: Server) -> dict[str, float]:
    """What is in use; the question itself and its connection are not counted."""
    page = running.metrics()
    gauges = ["residual_upload_memory_bytes", "residual_decode_memory_bytes", "residual_queue_images"]
    found = {name: page.sum(name) for name in gauges}
    for name in ("residual_requests_in_flight", "residual_connections"):
        found[name] = page.sum(name) - 1
    return found


async def soak(running: Server, repository: Repository, seconds: float, seed: int) -> report.Report:
    """Learns the right answers, loads, waits until it is over, judges."""
    it = Soak(running, repository, seed)
    await it.learn()
    before_counts, before = counted(running), it.sample()
    it.ledger.sent["/metrics"] += 1
    problems: list[str] = []
    after = before
    try:
        await it.run(seconds)
        after = await it.settled(before)
        problems = quiet(running, it.ledger, before_counts)
    except* (OSError, wire.Unanswered) as errors:
        problems = [f"the load broke off: {errors.exceptions[0]!r}"]
    if seconds >= report.MEMORY_SECONDS_MIN:
        problems += judge.grown(it.samples)
    stopped = running.stop()
    problems += [
        *judge.unanswered(it.ledger), *judge.never_tried(it.ledger, MUST_HAPPEN), *judge.left_over(before, after),
        *judge.loud(running.errors()), *judge.badly_ended(*stopped),
    ]
    return report.Report(it.ledger, it.samples, before, after, stopped, seconds, seed, problems)


def quiet(running: Server, ledger: judge.Ledger, before: collections.Counter[str]) -> list[str]:
    """What the server still does after the load, and what it has counted wrongly."""
    gauges, sockets = held(running), running.sockets()
    ledger.sent["/metrics"] += 1
    counts = counted(running)
    counts.subtract(before)
    return [*judge.still_connected(sockets), *judge.still_held(gauges), *judge.miscounted(counts, ledger)]


def main() -> int:
    """Runs a soak and says how it went."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--seed", type=int, default=1, help="which faults come when")
    arguments.add_argument("--binary", help="the program; default: RESIDUAL_BINARY, or the newest build")
    arguments.add_argument("--out", type=pathlib.Path, help="also write the report as JSON")
    asked = arguments.parse_args()
    if asked.binary:
        os.environ["RESIDUAL_BINARY"] = str(pathlib.Path(asked.binary).resolve())
    with tempfile.TemporaryDirectory(prefix="residual-soak-") as scratch:
        repository = Repository(pathlib.Path(scratch))
        large = server.synth("resnet18", pathlib.Path(scratch))
        flags = ["--model", "builtin", "--model", f"large={large}", "--models", str(repository.folder)]
        flags += ["--default-model", "resnet20-cifar10", "--queue-images-max", str(QUEUE_IMAGES)]
        flags += ["--body-timeout", f"{BODY_TIMEOUT_SECONDS:g}s", "--provider", "cpu"]
        with server.running(*flags) as running:
            told = asyncio.run(soak(running, repository, asked.minutes * 60, asked.seed))
    print(told.text())
    if asked.out:
        asked.out.write_text(json.dumps(told.document(), indent=1) + "\n")
    return bool(told.problems)


if __name__ == "__main__":
    sys.exit(main())
