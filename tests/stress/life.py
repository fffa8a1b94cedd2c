"""Signals at bad moments: the server ends within its grace, with 0, and what it has accepted is answered."""
from __future__ import annotations

import asyncio
import json
import pathlib
import shutil
import signal
import threading
import time

from rig import photos, server, wire
from rig.server import Server, Stopped
from told import Told

CLASSIFY = "/api/v1/classify"
# Without requests in flight nothing is waited for but a run of the model, or the load that is under way.
QUICK_SECONDS = 8.0


def _ended(told: Told, stopped: Stopped, most: float = QUICK_SECONDS) -> None:
    told.saw(f"it ended after {stopped.seconds:.2f} s with {stopped.code}")
    told.holds(stopped.code == 0, "it ended with 0")
    told.holds(stopped.seconds < most, f"within {most:g} s")


def _no_panic(told: Told, running: Server) -> None:
    words = [entry for entry in running.errors() if "panicked" in json.dumps(entry) or entry.get("level") is None]
    told.holds(not words, f"no panic, and no word but log lines: {words}")


def sigterm_in_warm_up(told: Told, scratch: pathlib.Path) -> None:
    """SIGTERM at five moments of a start with a large model."""
    model = server.synth("resnet50", scratch)
    for wait in (0.05, 0.2, 0.5, 1.0, 2.0):
        starting = server.start("--model", str(model))
        time.sleep(wait)
        told.did(f"SIGTERM {wait} s after the start")
        stopped = starting.stop()
        if wait == 0.05 and stopped.code == -signal.SIGTERM:
            told.saw("it came before the program had begun to listen for signals")
            continue
        _ended(told, stopped)
        _no_panic(told, starting)


def sigterm_in_load(told: Told, scratch: pathlib.Path) -> None:
    """SIGTERM while a client loads a large model over v2."""
    model = server.synth("resnet50", scratch)
    with server.running("--model", str(model)) as running:
        answers: list[wire.Answer | OSError] = []
        load = threading.Thread(target=_kept(answers, running, "/v2/repository/models/resnet50/load", b"{}"))
        load.start()
        time.sleep(0.4)
        told.did("SIGTERM 0.4 s into POST /v2/repository/models/resnet50/load")
        stopped = running.stop()
        load.join()
        told.saw(f"the load was answered with {_named(answers[0])}")
        told.holds(isinstance(answers[0], wire.Answer), "whoever asked for it is answered")
        _ended(told, stopped)
        _no_panic(told, running)


def sigterm_in_swap(told: Told, scratch: pathlib.Path) -> None:
    """SIGTERM while SIGHUP replaces a large model, with requests in flight."""
    server.synth("resnet18", scratch / "models")
    other = server.synth("resnet18", scratch / "other", seed=1)
    with server.running("--models", str(scratch / "models")) as running:
        shutil.copy(other / "model.onnx", scratch / "models" / "resnet18" / "model.onnx")
        running.send(signal.SIGHUP)
        answers: list[wire.Answer | OSError] = []
        clients = [threading.Thread(target=_kept(answers, running, CLASSIFY, photos.photo("cat"))) for _ in range(6)]
        for client in clients:
            client.start()
        time.sleep(0.25)
        told.did("SIGHUP with other weights in place, 6 photos, and 0.25 s later SIGTERM")
        stopped = running.stop()
        for client in clients:
            client.join()
        told.saw(f"the photos were answered with {[_named(answer) for answer in answers]}")
        told.holds(all(isinstance(a, wire.Answer) and a.status in (200, 503) for a in answers), "each photo is answered")
        _ended(told, stopped)
        _no_panic(told, running)


def sigterm_in_upload(told: Told, _scratch: pathlib.Path) -> None:
    """SIGTERM in the middle of uploads: one goes on, one stalls, one has only sent half of its head."""
    with server.running("--drain-grace", "5s") as running:
        stopped = asyncio.run(_sigterm_in_upload(told, running))
        _ended(told, stopped, 5 + 2)
        _no_panic(told, running)


async def _sigterm_in_upload(told: Told, running: Server) -> Stopped:
    cat = photos.photo("cat")
    going, stalled, heading = [await wire.Connection.open(running.http) for _ in range(3)]
    await going.send(wire.head("POST", CLASSIFY, length=len(cat)) + cat[: len(cat) // 2])
    await stalled.send(wire.head("POST", CLASSIFY, length=len(cat)) + cat[: len(cat) // 2])
    await heading.send(wire.head("POST", CLASSIFY, length=len(cat))[:40])
    await asyncio.sleep(0.2)
    running.send(signal.SIGTERM)
    began = time.monotonic()
    told.did("SIGTERM beside half an upload that goes on after 1 s, one that stalls, and half a head; --drain-grace 5s")
    await asyncio.sleep(1.0)
    await going.send(cat[len(cat) // 2:])
    answer = await asyncio.wait_for(going.answer(), 10)
    told.saw(f"the upload that went on was answered with {answer.status}")
    told.holds(answer.status == 200, "an upload that was accepted before the signal is answered")
    return await asyncio.to_thread(running.ended, 20, began)


def sigterm_among_idle(told: Told, _scratch: pathlib.Path) -> None:
    """SIGTERM while nothing is asked, but connections are open in every state."""
    beginnings = {
        "says nothing": (False, b""), "kept after an answer": (False, wire.head("GET", "/health/live")),
        "half a head": (False, wire.head("POST", CLASSIFY, length=10)[:40]), "gRPC, says nothing": (True, b""),
    }
    for name, (grpc, begun) in beginnings.items():
        with server.running() as running:
            stopped = asyncio.run(_sigterm_beside(running, grpc, begun))
            told.did(f"SIGTERM beside a connection that is idle: {name}; drain_grace is the default, 25 s")
            _ended(told, stopped)


async def _sigterm_beside(running: Server, grpc: bool, begun: bytes) -> Stopped:
    connection = await wire.Connection.open(running.grpc if grpc else running.http)
    await connection.send(begun)
    await asyncio.sleep(0.3)
    stopped = await asyncio.to_thread(running.stop)
    connection.reset()
    return stopped


def sigterm_twice(told: Told, scratch: pathlib.Path) -> None:
    """SIGTERM twice, with slow work in flight: the second one ends it at once."""
    model = server.synth("resnet50", scratch)
    with server.running("--model", str(model)) as running:
        answers: list[wire.Answer | OSError] = []
        clients = [threading.Thread(target=_kept(answers, running, CLASSIFY, photos.photo("cat"))) for _ in range(40)]
        for client in clients:
            client.start()
        time.sleep(0.3)
        running.send(signal.SIGTERM)
        time.sleep(0.2)
        began = time.monotonic()
        running.send(signal.SIGTERM)
        stopped = running.ended(20, began)
        told.did("40 photos, SIGTERM, and 0.2 s later SIGTERM again")
        told.saw(f"it ended {stopped.seconds:.2f} s after the second one, with {stopped.code}")
        told.holds(stopped.code == 130, "it ended with 130")
        told.holds(stopped.seconds < 1.0, "within a second")
        for client in clients:
            client.join()
        _no_panic(told, running)


def sigterm_under_load(told: Told, scratch: pathlib.Path) -> None:
    """SIGTERM under more load than it can serve: nobody is left without an answer."""
    model = server.synth("resnet18", scratch)
    with server.running("--model", str(model)) as running:
        stopped = asyncio.run(_sigterm_under_load(told, running))
        _ended(told, stopped, 15)
        told.holds(not running.errors(), "no line at ERROR")


async def _sigterm_under_load(told: Told, running: Server) -> Stopped:
    cat, seen, going = photos.photo("cat"), {"200": 0, "503": 0, "refused": 0, "lost": 0, "idle closed": 0, "other": 0}, True

    async def client() -> None:
        connection, asked, failed = await wire.Connection.open(running.http), 0, False
        while going:
            try:
                answer = await connection.ask("POST", CLASSIFY, cat)
                seen[str(answer.status) if answer.status in (200, 503) else "other"] += 1
                asked += 1
            except wire.Unanswered:
                # A connection that was idle may be closed just as its client asks again.
                seen["idle closed"] += asked > 0
                failed, answer = asked == 0, None
            if answer is None or answer.headers.get("connection") == "close":
                try:
                    connection, asked = await wire.Connection.open(running.http), 0
                except OSError:
                    # Whoever was in the backlog as the process ended is refused like whoever comes later.
                    seen["refused"] += 1
                    return
                seen["lost"] += failed
                failed = False

    clients = [asyncio.create_task(client()) for _ in range(40)]
    await asyncio.sleep(2)
    told.did("40 connections ask one photo after the other; SIGTERM after 2 s")
    stopped = await asyncio.to_thread(running.stop)
    going = False
    await asyncio.gather(*clients)
    told.saw(f"{seen}")
    told.holds(seen["200"] > 0 and seen["other"] == 0, "each answer was 200 or 503")
    told.holds(seen["lost"] == 0, "no request on a new connection was lost")
    return stopped


def _kept(answers: list, running: Server, path: str, body: bytes):
    to = running.http

    def ask() -> None:
        try:
            answers.append(wire.post(to, path, body))
        except OSError as error:
            answers.append(error)

    return ask


def _named(answer: wire.Answer | OSError) -> str:
    return str(answer.status) if isinstance(answer, wire.Answer) else repr(answer)


SCENARIOS = [
    sigterm_in_warm_up, sigterm_in_load, sigterm_in_swap, sigterm_in_upload, sigterm_among_idle,
    sigterm_twice, sigterm_under_load,
]
