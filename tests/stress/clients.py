"""Clients that are slow, greedy or too many. Timeouts are set short, so that what takes a minute by default is seen in seconds."""
from __future__ import annotations

import asyncio
import collections
import contextlib
import pathlib
import time

from rig import photos, server, wire
from rig.figures import mib, milliseconds, percentile
from rig.server import Server
from told import Told

CLASSIFY = "/api/v1/classify"
V2_INFER = "/v2/models/resnet20-cifar10_image/infer"
# What a probe waits at most by Kubernetes' default is 1 s; two cores shared with the attacker get some slack.
PROBE_SECONDS = 2.0


async def opened(to: wire.Address, count: int) -> list[wire.Connection]:
    """Many connections, opened a hundred at a time so that the backlog does not overflow."""
    connections: list[wire.Connection] = []
    for begin in range(0, count, 100):
        batch = [wire.Connection.open(to, 30) for _ in range(min(100, count - begin))]
        connections += await asyncio.gather(*batch)
    return connections


async def flooded(to: wire.Address, count: int, seconds: float) -> list[wire.Connection]:
    """As many of `count` connections as the system lets through within this time."""
    tries = await asyncio.gather(*(wire.Connection.open(to, seconds) for _ in range(count)), return_exceptions=True)
    return [one for one in tries if isinstance(one, wire.Connection)]


async def probes(connection: wire.Connection, seconds: float, pause: float = 0.2) -> list[float]:
    """Asks /health/live again and again; returns how long each answer took."""
    took, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        answer = await connection.ask("GET", "/health/live", seconds=30)
        took.append(answer.seconds)
        await asyncio.sleep(pause)
    return took


def reset(connections: list[wire.Connection]) -> None:
    """Leaves all of them."""
    for connection in connections:
        connection.reset()


async def until_gauge(running: Server, name: str, most: float, seconds: float = 15.0) -> bool:
    """Whether a gauge comes down to this."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (await asyncio.to_thread(running.metrics)).sum(name) <= most:
            return True
        await asyncio.sleep(0.1)
    return False


async def until_connections(running: Server, most: float, seconds: float = 15.0) -> bool:
    """Whether the open connections come down to this many (the one that asks counts)."""
    return await until_gauge(running, "residual_connections", most, seconds)


def slow_heads(told: Told, _scratch: pathlib.Path) -> None:
    """Slow-loris: 400 clients send their heads a byte at a time."""
    with server.running("--header-timeout", "3s") as running:
        asyncio.run(_slow_heads(told, running))
        told.holds(not running.errors(), "no line at ERROR")


async def _slow_heads(told: Told, running: Server) -> None:
    steady = await wire.Connection.open(running.http)
    await steady.ask("GET", "/health/live")
    before = running.resident_bytes()
    slow = await opened(running.http, 400)
    told.did("400 connections, each sends a byte of its head every 0.5 s; --header-timeout 3s")
    began, bytes_ = time.monotonic(), wire.head("POST", CLASSIFY, {"x": "y" * 200}, 10)

    async def drip(connection: wire.Connection) -> float:
        with contextlib.suppress(OSError):
            for byte in bytes_:
                await connection.send(bytes([byte]))
                if await connection.ended(0.5):
                    break
        return time.monotonic() - began

    asked = asyncio.create_task(probes(steady, 4.0))
    ended = await asyncio.gather(*(drip(connection) for connection in slow))
    took = await asked
    told.saw(f"they were closed after {min(ended):.1f} to {max(ended):.1f} s; memory {mib(running.resident_bytes() - before)} more")
    told.saw(f"a probe beside them took {milliseconds(max(took))} at most")
    told.holds(max(ended) < 3 + 2, "each is closed within the header timeout, however regularly it sends")
    told.holds(max(took) < PROBE_SECONDS, "probes are answered meanwhile")
    told.holds(await until_connections(running, 2), "their places come back")


def slow_bodies(told: Told, _scratch: pathlib.Path) -> None:
    """200 clients announce 1 MiB each and send a byte at a time."""
    with server.running("--body-timeout", "3s") as running:
        asyncio.run(_slow_bodies(told, running))
        told.holds(not running.errors(), "no line at ERROR")


async def _slow_bodies(told: Told, running: Server) -> None:
    slow = await opened(running.http, 200)
    told.did("200 uploads of 1 MiB, a byte every 0.5 s; --body-timeout 3s")
    cat, memory = photos.photo("cat"), []

    async def drip(connection: wire.Connection) -> wire.Answer:
        began = time.monotonic()
        await connection.send(wire.head("POST", CLASSIFY, length=1 << 20))
        sending = asyncio.create_task(dripping(connection))
        try:
            return await asyncio.wait_for(connection.answer(began), 15)
        finally:
            sending.cancel()

    async def dripping(connection: wire.Connection) -> None:
        with contextlib.suppress(OSError):
            while True:
                await connection.send(b"\xff")
                await asyncio.sleep(0.5)

    async def beside() -> list[wire.Answer]:
        answers = []
        connection = await wire.Connection.open(running.http)
        for _ in range(10):
            answers.append(await connection.ask("POST", CLASSIFY, cat))
            memory.append((await asyncio.to_thread(running.metrics)).sum("residual_upload_memory_bytes"))
            await asyncio.sleep(0.2)
        await connection.close()
        return answers

    asked = asyncio.create_task(beside())
    answers = await asyncio.gather(*(drip(connection) for connection in slow))
    others = await asked
    codes = collections.Counter(answer.status for answer in answers)
    told.saw(f"answers {dict(codes)} after {max(answer.seconds for answer in answers):.1f} s at most")
    told.saw(f"uploads held {mib(max(memory))} at most; photos beside them took {milliseconds(max(o.seconds for o in others))} at most")
    told.holds(codes == {408: 200}, "each gets 408")
    told.holds(max(answer.seconds for answer in answers) < 3 + 2, "within the body timeout")
    told.holds({answer.status for answer in others} == {200}, "photos beside them are classified")
    told.holds(max(memory) <= 200 * 128 * 1024, "memory is held for what has come, not for what was announced")
    reset(slow)
    told.holds(await until_connections(running, 1), "their places come back")
    left = running.metrics().sum("residual_upload_memory_bytes")
    told.holds(left == 0, "the memory of uploads comes back")


def slow_readers(told: Told, _scratch: pathlib.Path) -> None:
    """50 clients ask for large answers, over and over, and read none."""
    with server.running("--write-timeout", "3s") as running:
        asyncio.run(_slow_readers(told, running))
        told.holds(not running.errors(), "no line at ERROR")


async def _slow_readers(told: Told, running: Server) -> None:
    before = running.resident_bytes()
    slow = await opened(running.http, 50)
    question = wire.head("GET", "/openapi.json") * 200  # each answer has tens of kilobytes
    told.did("50 connections ask for /openapi.json 200 times at once and read nothing; --write-timeout 3s")
    for connection in slow:
        connection.writer.transport.pause_reading()
        connection.writer.write(question)
    steady = await wire.Connection.open(running.http)
    took = await probes(steady, 3.0)
    told.saw(f"memory {mib(running.resident_bytes() - before)} more; a probe took {milliseconds(max(took))} at most")
    told.holds(running.resident_bytes() - before < 64 << 20, "memory stays bounded: answers wait to be asked for, not in memory")
    told.holds(max(took) < PROBE_SECONDS, "probes are answered meanwhile")
    began = time.monotonic()
    gone = await until_connections(running, 2, 25)
    told.saw(f"the last was closed {time.monotonic() - began:.1f} s after the probes")
    told.holds(gone, "they are closed after the write timeout, and their places come back")
    reset(slow)


def giant_uploads(told: Told, _scratch: pathlib.Path) -> None:
    """Uploads of 200 MiB, with their length and without it."""
    with server.running() as running:
        asyncio.run(_giant_uploads(told, running))
        told.holds(not running.errors(), "no line at ERROR")


async def _giant_uploads(told: Told, running: Server) -> None:
    before, most = running.resident_bytes(), 0
    announced = await wire.Connection.open(running.http)
    answer = await announced.ask("POST", CLASSIFY, headers={"expect": "100-continue", "content-length": str(200 << 20)})
    told.did("200 MiB announced with Expect: 100-continue")
    told.holds(answer.status == 413, f"413 before a byte of it is sent (seen: {answer.status})")
    block, chunk = bytes(1 << 20), b"100000\r\n" + bytes(1 << 20) + b"\r\n"

    async def giant(head: bytes, part: bytes, end: bytes) -> tuple[int, int]:
        nonlocal most
        connection = await wire.Connection.open(running.http)
        await connection.send(head)
        answered, sent = asyncio.create_task(connection.answer()), 0
        with contextlib.suppress(OSError):
            for _ in range(200):
                await asyncio.wait_for(connection.send(part), 10)
                sent += 1
                most = max(most, running.resident_bytes())
            await connection.send(end)
        status = (await asyncio.wait_for(answered, 10)).status
        connection.reset()
        return status, sent

    length = wire.head("POST", CLASSIFY, length=200 << 20)
    chunked = wire.head("POST", CLASSIFY, {"transfer-encoding": "chunked"})
    for kind, head, part, end in [("with its length", length, block, b""), ("in chunks", chunked, chunk, b"0\r\n\r\n")]:
        answers = await asyncio.gather(*(giant(head, part, end) for _ in range(8)), return_exceptions=True)
        told.did(f"8 clients at once send 200 MiB each {kind}")
        told.saw(f"{collections.Counter(map(str, answers))}")
        told.holds(all(isinstance(a, tuple) and a[0] in (413, 503) for a in answers), "each gets to read 413 (or 503: uploads full)")
    told.saw(f"memory {mib(most - before)} more at most")
    told.holds(most - before < 256 + 64 << 20, "memory stays within upload_memory_max")
    cat = await (await wire.Connection.open(running.http)).ask("POST", CLASSIFY, photos.photo("cat"))
    told.holds(cat.status == 200, "a photo afterwards is classified")
    told.holds(running.metrics().sum("residual_upload_memory_bytes") == 0, "the memory of uploads comes back")


def packed_bombs(told: Told, _scratch: pathlib.Path) -> None:
    """Bodies and pictures that explode when they are unpacked."""
    with server.running() as running:
        _packed_bombs(told, running)
        told.holds(not running.errors(), "no line at ERROR")


def _packed_bombs(told: Told, running: Server) -> None:
    before = running.peak_bytes()
    bombs = {
        "1 GiB of zeros as gzip over v2": (V2_INFER, photos.gzip_bomb(1024), {"content-encoding": "gzip"}, {413}),
        "the same to a route that unpacks nothing": (CLASSIFY, photos.gzip_bomb(64), {"content-encoding": "gzip"}, {415}),
        "a PNG of 20000 x 20000": (CLASSIFY, photos.picture_bomb(20000), {}, {413}),
        "a PNG of 7900 x 7900, within the bounds": (CLASSIFY, photos.picture_bomb(7900), {}, {200}),
        "a PNG whose header claims 60000 x 1": (CLASSIFY, photos.png(60000, 1, bytes(10)), {}, {413}),
        "a PNG with a megabyte of pixels too many": (CLASSIFY, photos.png(8, 8, bytes(1 << 20)), {}, {200, 422}),
    }
    for name, (path, body, headers, expected) in bombs.items():
        began = running.cpu_seconds()
        answer = wire.post(running.http, path, body, headers)
        told.did(f"{name}: {len(body) / 1024:.0f} KiB")
        told.saw(f"{answer.status} after {milliseconds(answer.seconds)}, {running.cpu_seconds() - began:.2f} s of computing")
        told.holds(answer.status in expected, f"the answer is {' or '.join(map(str, sorted(expected)))}")
    told.saw(f"memory peaked {mib(running.peak_bytes() - before)} above the start's")
    told.holds(running.peak_bytes() - before < 512 << 20, "which is less than half of decode_memory_max")
    cat = wire.post(running.http, CLASSIFY, photos.photo("cat"))
    told.holds(cat.status == 200, "a photo afterwards is classified")


def connection_flood(told: Told, _scratch: pathlib.Path) -> None:
    """2500 connections that say nothing, where 1024 are allowed."""
    with server.running() as running:
        asyncio.run(_connection_flood(told, running))
        told.holds(not running.errors(), "no line at ERROR")


async def _connection_flood(told: Told, running: Server) -> None:
    steady = await wire.Connection.open(running.http)
    await steady.ask("GET", "/health/live")
    before = running.resident_bytes()
    flood = await flooded(running.http, 2500, 4)
    told.did(f"2500 connections, {len(flood)} of which the system let through, say nothing; connections_max and header_timeout are the defaults, 1024 and 65 s")
    took = await probes(steady, 2.0)
    told.saw(f"on the connection that was there a probe took {milliseconds(max(took))} at most")
    told.holds(max(took) < PROBE_SECONDS, "it goes on being answered")
    told.saw(f"{running.descriptors()} descriptors, memory {mib(running.resident_bytes() - before)} more")
    told.holds(running.descriptors() < 1024 + 128, "no more connections are held than are allowed")
    told.holds(running.resident_bytes() - before < 64 << 20, "memory stays bounded")
    began = time.monotonic()
    try:
        await (await wire.Connection.open(running.http)).ask("GET", "/health/live", seconds=10)
        told.saw(f"a new connection was answered after {milliseconds(time.monotonic() - began)}")
        told.holds(True, "a new connection is answered within 10 s, though all places are taken")
    except (TimeoutError, wire.Unanswered) as error:
        told.saw(f"a new connection: {error!r} after {time.monotonic() - began:.1f} s")
        told.holds(False, "a new connection is answered within 10 s, though all places are taken")
    reset(flood)
    left = await until_connections(running, 3)
    told.holds(left, "when the flood leaves, its places come back")
    cat = await (await wire.Connection.open(running.http)).ask("POST", CLASSIFY, photos.photo("cat"))
    told.holds(cat.status == 200, "a photo afterwards is classified")


def idle_connections(told: Told, _scratch: pathlib.Path) -> None:
    """4000 connections that have asked once and are kept."""
    with server.running("--connections-max", "5000", "--header-timeout", "20s") as running:
        asyncio.run(_idle_connections(told, running))
        told.holds(not running.errors(), "no line at ERROR")


async def _idle_connections(told: Told, running: Server) -> None:
    cat = photos.photo("cat")
    warm = await opened(running.http, 20)
    await asyncio.gather(*(connection.ask("POST", CLASSIFY, cat) for connection in warm))
    before, count = running.resident_bytes(), 4000
    idle = await opened(running.http, count)
    for begin in range(0, count, 100):
        await asyncio.gather(*(one.ask("GET", "/health/live") for one in idle[begin:begin + 100]))
    each = (running.resident_bytes() - before) / count
    told.did(f"{count} connections ask once and stay; --connections-max 5000 --header-timeout 20s")
    told.saw(f"{each / 1024:.1f} KiB each, {mib(running.resident_bytes())} in all")
    told.holds(each < 40 * 1024, "an idle connection takes less than 40 KiB")
    answers = [await warm[0].ask("POST", CLASSIFY, cat) for _ in range(20)]
    told.saw(f"a photo beside them takes {milliseconds(percentile([a.seconds for a in answers], 0.5))}")
    told.holds({a.status for a in answers} == {200}, "photos are classified beside them")
    began = time.monotonic()
    gone = await until_connections(running, 21, 30)
    told.saw(f"they were closed within {time.monotonic() - began:.1f} s")
    told.holds(gone, "idle connections are closed after the header timeout")
    reset(idle + warm)


SCENARIOS = [
    slow_heads, slow_bodies, slow_readers, giant_uploads, packed_bombs, connection_flood, idle_connections,
]
