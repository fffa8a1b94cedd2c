"""HTTP/2 spoken badly on the gRPC port: resets, pings, settings and headers without end, and answers that nobody takes."""
from __future__ import annotations

import asyncio
import contextlib
import pathlib
import struct
import time
from collections.abc import Iterator

from clients import PROBE_SECONDS, probes, until_connections, until_gauge
from rig import server, wire
from rig.figures import mib, milliseconds
from rig.server import Server
from told import Told

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Types and flags of frames (RFC 9113, section 6).
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS = 1, 4
CANCEL = 8
FLOOD_SECONDS = 4.0
# Written at once, so that the loop's own work is small beside the server's.
BLOCK = 256


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """One header field, written out and not to be remembered (RFC 7541, section 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


CALL = b"".join(literal(*field) for field in [
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/inference.GRPCInferenceService/ServerMetadata"),
    (b":authority", b"residual"), (b"content-type", b"application/grpc"), (b"te", b"trailers"),
])
EMPTY_MESSAGE = bytes(5)


def _resets() -> Iterator[bytes]:
    stream = 1
    while True:
        yield frame(HEADERS, END_HEADERS, stream, CALL) + frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))
        stream += 2


def _continuations() -> Iterator[bytes]:
    yield frame(HEADERS, 0, 1, CALL)
    while True:
        yield frame(CONTINUATION, 0, 1, literal(b"x-padding", b"y" * 100) * 20)


def _repeated(part: bytes) -> Iterator[bytes]:
    while True:
        yield part


def _calls() -> Iterator[bytes]:
    for stream in range(1, 2 * 200, 2):
        yield frame(HEADERS, END_HEADERS, stream, CALL) + frame(DATA, END_STREAM, stream, EMPTY_MESSAGE)


def http2_floods(told: Told, _scratch: pathlib.Path) -> None:
    """Four ways to keep an HTTP/2 server busy for nothing, 8 connections each."""
    with server.running() as running:
        asyncio.run(_http2_floods(told, running))
        told.holds(not running.errors(), "no line at ERROR")


async def _http2_floods(told: Told, running: Server) -> None:
    steady = await wire.Connection.open(running.http)
    floods = {
        "HEADERS and RST_STREAM for stream after stream": _resets,
        "one head in CONTINUATION frames without end": _continuations,
        "PING frames, no answer is read": lambda: _repeated(frame(PING, 0, 0, bytes(8))),
        "SETTINGS frames, no answer is read": lambda: _repeated(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535))),
    }
    for name, frames in floods.items():
        before, cpu = running.peak_bytes(), running.cpu_seconds()
        asked = asyncio.create_task(probes(steady, FLOOD_SECONDS))
        sent = await asyncio.gather(*(_flood(running.grpc, frames(), FLOOD_SECONDS) for _ in range(8)))
        took = await asked
        ended = sum(closed for _, closed in sent)
        told.did(f"8 connections: {name}, for {FLOOD_SECONDS:g} s")
        told.saw(f"{sum(count for count, _ in sent)} frames went through, {ended} of 8 connections were ended by the server")
        told.saw(f"{running.cpu_seconds() - cpu:.1f} s of computing, memory peaked {mib(running.peak_bytes() - before)} higher")
        told.saw(f"a probe took {milliseconds(max(took))} at most")
        told.holds(running.peak_bytes() - before < 32 << 20, "memory stays bounded")
        told.holds(max(took) < PROBE_SECONDS, "probes are answered meanwhile")
    told.holds(await until_connections(running, 2), "all places come back")


async def _flood(to: wire.Address, frames: Iterator[bytes], seconds: float) -> tuple[int, bool]:
    """Sends frames until the time is over, the server stops taking them, or it ends the connection."""
    connection = await wire.Connection.open(to)
    # What the server answers is never read.
    connection.writer.transport.pause_reading()
    connection.writer.write(PREFACE + frame(SETTINGS, 0, 0))
    count, until = 0, time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            block = b"".join(next(frames) for _ in range(BLOCK))
            async with asyncio.timeout(max(until - time.monotonic(), 0.01)):
                await connection.send(block)
            count += BLOCK
            await asyncio.sleep(0)
    except TimeoutError:
        return count, False
    except OSError:
        return count, True
    finally:
        connection.reset()
    return count, False


def http2_unread(told: Told, _scratch: pathlib.Path) -> None:
    """Clients make 200 calls on each of 50 connections and open no window for the answers."""
    with server.running("--write-timeout", "3s") as running:
        asyncio.run(_http2_unread(told, running))
        told.holds(not running.errors(), "no line at ERROR")


async def _http2_unread(told: Told, running: Server) -> None:
    steady, before = await wire.Connection.open(running.http), running.peak_bytes()
    connections = [await wire.Connection.open(running.grpc) for _ in range(50)]
    no_window = frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
    for connection in connections:
        connection.writer.write(PREFACE + no_window + b"".join(_calls()))
    told.did("50 connections of 200 calls each, with a window of 0 for the answers; --write-timeout 3s")
    began = time.monotonic()
    took = await probes(steady, 2.0)
    ended = await asyncio.gather(*(connection.ended(12) for connection in connections))
    told.saw(f"{sum(ended)} of 50 were ended within {time.monotonic() - began:.1f} s; memory peaked {mib(running.peak_bytes() - before)} higher")
    told.holds(all(ended), "each is ended once its client has taken nothing for the write timeout")
    told.holds(running.peak_bytes() - before < 160 << 20, "memory stays within 12 KiB a call and some")
    told.holds(max(took) < PROBE_SECONDS, "probes are answered meanwhile")
    with contextlib.suppress(OSError):
        for connection in connections:
            connection.reset()
    told.holds(await until_connections(running, 2), "all places come back")
    told.holds(await until_gauge(running, "residual_requests_in_flight", 1, 5), "no call is left in flight")


SCENARIOS = [http2_floods, http2_unread]
