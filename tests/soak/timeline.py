"""Which state a model may have been in while a request was under way: what an answer is held against where models change."""
from __future__ import annotations

import time


class Timeline:
    """States and when they began; during a change both the old and the new one are possible. None is no model at all."""

    def __init__(self, state: str | None, at: float = 0.0):
        self.steps: list[tuple[float, frozenset[str | None]]] = [(at, frozenset({state}))]

    @property
    def now(self) -> frozenset[str | None]:
        """What is possible now."""
        return self.steps[-1][1]

    def changing(self, state: str | None, at: float | None = None) -> None:
        """A change to `state` is asked for."""
        self.steps.append((time.monotonic() if at is None else at, self.now | {state}))

    def settled(self, state: str | None, at: float | None = None) -> None:
        """It is done: nothing else is possible for requests that begin from here on."""
        self.steps.append((time.monotonic() if at is None else at, frozenset({state})))

    def possible(self, began: float, ended: float) -> set[str | None]:
        """All states that there may have been between the two moments."""
        found: set[str | None] = set()
        ends = [at for at, _ in self.steps[1:]] + [float("inf")]
        for (at, states), until in zip(self.steps, ends):
            if at <= ended and until >= began:
                found |= states
        return found
