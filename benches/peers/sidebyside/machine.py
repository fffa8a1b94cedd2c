"""What machine this is, and how busy it was with other things."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from .process import TICKS_PER_SECOND

#: Instruction sets that change how fast ONNX Runtime is, as /proc/cpuinfo names them.
NOTABLE_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8")


def cores() -> int:
    """Returns the number of cores that this process and its children may use."""
    return len(os.sched_getaffinity(0))


def describe() -> str:
    """Returns processor, cores, notable instruction sets, memory and kernel in one line."""
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    flags = set(facts.get("flags", "").split())
    notable = ", ".join(flag for flag in NOTABLE_FLAGS if flag in flags) or "no vector extensions of note"
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    return (
        f"{facts.get('model name', platform.machine())}, {cores()} of {os.cpu_count()} cores, {notable}; "
        f"{kib / 1024**2:.0f} GiB; Linux {platform.release()}"
    )


@dataclass(frozen=True)
class CpuClock:
    """Seconds of cores since the machine's start, over all of its processes."""

    busy: float
    stolen: float

    @staticmethod
    def read() -> CpuClock:
        # user nice system idle iowait irq softirq steal; proc(5)
        fields = [int(field) / TICKS_PER_SECOND for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        user, nice, system, _, _, irq, softirq, stolen = fields
        return CpuClock(user + nice + system + irq + softirq, stolen)
