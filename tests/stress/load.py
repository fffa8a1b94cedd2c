"""Load from a process of its own, so that counting answers takes no time from whoever judges them: an open loop, which sends at
its own pace whatever comes back, or a closed loop, whose connections ask again once they are answered.

    python tests/stress/load.py open  HOST:PORT PATH FILE --rate 200 --seconds 10
    python tests/stress/load.py closed HOST:PORT PATH FILE --connections 8 --seconds 5
"""
from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import subprocess
import sys
import time
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from rig import wire  # noqa: E402

# Nobody waits longer; above the server's own deadline, so that its answer is what is seen.
CLIENT_SECONDS = 30.0


class Sent(NamedTuple):
    """What became of one request: when it was due, its status (0 without an answer), how long it took, its Retry-After."""

    due: float
    status: int
    seconds: float
    retry_after: str


class Load:
    """Requests of one kind to one server."""

    def __init__(self, to: wire.Address, path: str, body: bytes):
        self.to, self.path, self.body = to, path, body
        self.idle: list[wire.Connection] = []
        self.sent: list[Sent] = []

    async def one(self, due: float) -> None:
        """One request, timed from the moment in which it was due: a late start is part of what a client waits."""
        status, retry = 0, ""
        try:
            connection = self.idle.pop() if self.idle else await wire.Connection.open(self.to)
            answer = await connection.ask("POST", self.path, self.body, seconds=CLIENT_SECONDS)
            status, retry = answer.status, answer.headers.get("retry-after", "")
            if answer.headers.get("connection") == "close":
                connection.reset()
            else:
                self.idle.append(connection)
        except (wire.Unanswered, OSError):
            pass
        self.sent.append(Sent(due, status, time.monotonic() - due, retry))

    async def open_loop(self, rate: float, seconds: float) -> None:
        """`rate` requests a second, evenly."""
        began = time.monotonic()
        running = set()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            running.add(task := asyncio.create_task(self.one(due)))
            task.add_done_callback(running.discard)
        while running:
            await asyncio.wait(running)

    async def closed_loop(self, connections: int, seconds: float) -> None:
        """As many requests at a time as there are connections."""
        until = time.monotonic() + seconds

        async def client() -> None:
            while (now := time.monotonic()) < until:
                await self.one(now)

        await asyncio.gather(*(client() for _ in range(connections)))


def drive(to: wire.Address, path: str, file: pathlib.Path, **how: float) -> list[Sent]:
    """Runs this file as a process: with `rate` an open loop, with `connections` a closed one."""
    kind = "open" if "rate" in how else "closed"
    options = [word for name, value in how.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, __file__, kind, f"{to[0]}:{to[1]}", path, str(file), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=how["seconds"] + 2 * CLIENT_SECONDS)
    return [Sent(*row) for row in json.loads(done.stdout)]


def main() -> None:
    """Runs a load and prints what became of each request, as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("kind", choices=["open", "closed"])
    arguments.add_argument("to", type=wire.address)
    arguments.add_argument("path")
    arguments.add_argument("file", type=pathlib.Path)
    arguments.add_argument("--rate", type=float, default=10.0)
    arguments.add_argument("--connections", type=int, default=4)
    arguments.add_argument("--seconds", type=float, default=5.0)
    asked = arguments.parse_args()
    load = Load(asked.to, asked.path, asked.file.read_bytes())
    if asked.kind == "open":
        asyncio.run(load.open_loop(asked.rate, asked.seconds))
    else:
        asyncio.run(load.closed_loop(asked.connections, asked.seconds))
    json.dump(load.sent, sys.stdout)


if __name__ == "__main__":
    main()
