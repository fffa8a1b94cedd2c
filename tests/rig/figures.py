"""Figures, for people."""
from __future__ import annotations

import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies; 0 of none."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=1000, method="inclusive")[min(round(share * 1000), 999) - 1]


def milliseconds(seconds: float) -> str:
    """For people."""
    return f"{seconds * 1000:.0f} ms"


def mib(bytes_: float) -> str:
    """For people."""
    return f"{bytes_ / 2**20:.1f} MiB"
