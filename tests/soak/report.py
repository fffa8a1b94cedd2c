"""What a soak found, for people and as JSON."""
from __future__ import annotations

import dataclasses

import calls
import judge
from rig.server import Stopped
from rig.figures import mib, milliseconds, percentile

# A shorter soak says nothing of memory: pools and arenas get their size in the first minutes.
MEMORY_SECONDS_MIN = 480.0


@dataclasses.dataclass
class Report:
    """All figures of one soak."""

    ledger: judge.Ledger
    samples: list[judge.Sample]
    before: judge.Sample
    after: judge.Sample
    stopped: Stopped
    seconds: float
    seed: int
    problems: list[str]

    def document(self) -> dict:
        """As JSON."""
        memory, outcomes = judge.memory(self.samples), self.ledger.outcomes
        return {
            "seconds": self.seconds,
            "seed": self.seed,
            "grpc": calls.aio is not None,
            "requests": sum(self.ledger.sent.values()),
            "requests_by_route": dict(sorted(self.ledger.sent.items())),
            "outcomes": dict(sorted(outcomes.items())),
            "wrong": outcomes["wrong"],
            "lost": outcomes["lost"],
            "latency_ms": {f"p{share * 100:g}": percentile(self.ledger.seconds, share) * 1000 for share in (0.5, 0.99)},
            "memory": dataclasses.asdict(memory),
            "memory_floors_mib": [[round(at), round(bytes_ / 2**20, 1)] for at, bytes_ in judge.floors(self.samples)],
            "memory_judged": self.seconds >= MEMORY_SECONDS_MIN,
            "before": dataclasses.asdict(self.before),
            "after": dataclasses.asdict(self.after),
            "most": {
                "resident_bytes": max(sample.resident_bytes for sample in self.samples),
                "threads": max(sample.threads for sample in self.samples),
                "descriptors": max(sample.descriptors for sample in self.samples),
            },
            "stop": self.stopped._asdict(),
            "problems": self.problems,
        }

    def text(self) -> str:
        """For people."""
        told, memory = self.document(), judge.memory(self.samples)
        lines = [f"soak of {self.seconds:.0f} s, seed {self.seed}: {told['requests']} requests"]
        lines += [f"  {count:9} {name}" for name, count in told["outcomes"].items()]
        lines += ["  gRPC was not asked: there is no grpcio"] if not calls.aio else []
        lines += [f"  wrong {told['wrong']}, lost {told['lost']}"]
        p50, p99 = (percentile(self.ledger.seconds, share) for share in (0.5, 0.99))
        lines += [f"  answers of the built-in model beside all this: p50 {milliseconds(p50)}, p99 {milliseconds(p99)}"]
        judged = "" if told["memory_judged"] else f" (not judged below {MEMORY_SECONDS_MIN / 60:.0f} minutes)"
        slope = f"{memory.slope_mib_per_hour:+.1f} MiB/h in the second half, {mib(memory.first_bytes)} to {mib(memory.last_bytes)}"
        lines += [f"  memory: {slope}{judged}; peak {mib(told['most']['resident_bytes'])}"]
        for name in ("threads", "descriptors"):
            lines += [f"  {name}: {told['before'][name]} before, at most {told['most'][name]}, {told['after'][name]} after"]
        lines += [f"  ended with {self.stopped.code} after {self.stopped.seconds:.2f} s"]
        lines += [f"  FAILED: {problem}" for problem in self.problems] or ["  passed"]
        return "\n".join(lines)
