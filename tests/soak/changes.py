"""Models that come, go and change while questions about them are under way, and a process that stands still for a second."""
from __future__ import annotations

import asyncio
import os
import pathlib
import random
import shutil
import signal

from judge import Ledger
from rig import server, wire
from rig.server import Server
from timeline import Timeline

PAUSE_SECONDS = 1.0
# A change waits for others, and for cores that all clients share.
CHANGE_SECONDS = 60.0
# Weights of each model by name: what `residual synth --seed` is told. `swapped` has the one or the other.
SEEDS = {"steady": 1, "swapped-a": 2, "swapped-b": 3, "coming": 4, "loaded": 5}


class Repository:
    """The folder that the server takes its models from, and which weights each of them may have now."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.aside = folder / "models", folder / "aside"
        for name, seed in SEEDS.items():
            made = server.synth("resnet20", folder / "made", seed)
            place = (self.aside if name.startswith("swapped") else self.folder) / name
            shutil.copytree(made, place)
        shutil.copytree(self.aside / "swapped-a", self.folder / "swapped")
        self.states = {
            "resnet20-cifar10": Timeline("builtin"), "large": Timeline("large"), "steady": Timeline("steady"),
            "swapped": Timeline("swapped-a"), "coming": Timeline("coming"), "loaded": Timeline("loaded"),
        }

    def put(self, weights: str) -> None:
        """Gives `swapped` these weights, in one step as a careful operator does."""
        fresh = self.aside / "fresh.onnx"
        shutil.copy(self.aside / weights / "model.onnx", fresh)
        os.replace(fresh, self.folder / "swapped" / "model.onnx")

    def show(self, shown: bool) -> None:
        """Lets `coming` appear or vanish."""
        here, there = self.folder / "coming", self.aside / "coming"
        if shown != here.exists():
            os.rename(*((there, here) if shown else (here, there)))


class Changes:
    """Makes one change after the other."""

    def __init__(self, running: Server, repository: Repository, ledger: Ledger, chance: random.Random):
        self.running, self.repository, self.ledger, self.chance = running, repository, ledger, chance

    async def one(self) -> None:
        """Any change."""
        await self.chance.choice([self.swap, self.come_and_go, self.load_and_unload, self.pause])()

    async def settle(self) -> None:
        """Brings everything back to how it was at the start."""
        for name, right in (("swapped", "swapped-a"), ("coming", "coming"), ("loaded", "loaded")):
            if self.repository.states[name].now != {right}:
                await {"swapped": self.swap, "coming": self.come_and_go, "loaded": self.load_and_unload}[name]()

    async def hang_up(self, model: str, state: str | None) -> None:
        """SIGHUP, and waiting for the line that says that it is done."""
        states, said = self.repository.states[model], self._said()
        states.changing(state)
        self.running.send(signal.SIGHUP)
        async with asyncio.timeout(CHANGE_SECONDS):
            while self._said() == said:
                await asyncio.sleep(0.01)
        states.settled(state)
        self.ledger.outcomes["reload"] += 1

    def _said(self) -> int:
        return sum(entry.get("message", "").startswith("SIGHUP: looked") for entry in list(self.running.log))

    async def swap(self) -> None:
        """Other weights for `swapped`."""
        weights = "swapped-b" if self.repository.states["swapped"].now == {"swapped-a"} else "swapped-a"
        self.repository.put(weights)
        await self.hang_up("swapped", weights)

    async def come_and_go(self) -> None:
        """`coming` vanishes, or comes again."""
        state = None if self.repository.states["coming"].now == {"coming"} else "coming"
        self.repository.show(state is not None)
        await self.hang_up("coming", state)

    async def load_and_unload(self) -> None:
        """`loaded` is unloaded by a client, or loaded again."""
        states = self.repository.states["loaded"]
        state = None if states.now == {"loaded"} else "loaded"
        verb = "load" if state else "unload"
        states.changing(state)
        connection = await wire.Connection.open(self.running.http)
        self.ledger.sent[f"/v2/repository/models/{{name}}/{verb}"] += 1
        try:
            answer = await connection.ask("POST", f"/v2/repository/models/loaded/{verb}", b"{}", seconds=CHANGE_SECONDS)
            if answer.status != 200:
                self.ledger.failed("unexpected", f"{verb}: {answer.status} {answer.body[:200]!r}")
        except (wire.Unanswered, OSError) as error:
            self.ledger.failed("lost", f"{verb}: {error!r}")
        connection.reset()
        states.settled(state)
        self.ledger.outcomes[verb] += 1

    async def pause(self) -> None:
        """The process stands still: all deadlines come nearer at once."""
        await asyncio.to_thread(self.running.paused, PAUSE_SECONDS)
        self.ledger.outcomes["pause"] += 1
