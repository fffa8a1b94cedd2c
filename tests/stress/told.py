"""What a scenario did, what was seen, and whether what must hold did."""
from __future__ import annotations


class Told:
    """The account of one scenario, printed as it goes."""

    def __init__(self, name: str):
        self.broken: list[str] = []
        print(f"== {name}", flush=True)

    def did(self, text: str) -> None:
        """What was done to the server."""
        print(f"   did    {text}", flush=True)

    def saw(self, text: str) -> None:
        """What came of it: figures."""
        print(f"   saw    {text}", flush=True)

    def holds(self, fact: bool, text: str) -> None:
        """What must hold."""
        print(f"   {'holds ' if fact else 'BROKEN'} {text}", flush=True)
        if not fact:
            self.broken.append(text)

    def skips(self, text: str) -> None:
        """What could not be tried here, and why."""
        print(f"   skips  {text}", flush=True)
