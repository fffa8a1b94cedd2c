"""What can go wrong for reasons that the reader of the terminal can do something about."""

from __future__ import annotations


class Unavailable(Exception):
    """A server, or a tool, that cannot be used here; the text says why."""
