"""The Markdown page: the table, what it was measured on, and what the parts take alone."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from . import machine, photos
from .environment import OHA_VERSION
from .measure import OPEN_LOAD, Alone, Bench, Measured, Row

#: More of a core than this in other programs' hands makes the page say that the machine was not quiet.
QUIET_CORES = 0.1


@dataclass(frozen=True)
class Figures:
    """One quantity over the rounds, shown as the median with the range."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.values)

    def show(self, digits: int) -> str:
        text = f"{self.median:.{digits}f}"
        if len(self.values) > 1:
            text += f" ({min(self.values):.{digits}f} to {max(self.values):.{digits}f})"
        return text


def figures(row: Row, pick: Callable[[Measured], float]) -> Figures:
    return Figures([pick(each) for each in row.rounds.values()])


def is_ours(row: Row) -> bool:
    return row.peer.name.startswith("residual")


def of_ceiling(row: Row, alone: list[Alone]) -> Figures:
    """Returns images a second as a part of what the parts alone allowed in the same round.

    Preparing counts as the server itself tells it, or else as Pillow does it.
    """
    return Figures(
        [
            each.images_per_second / alone[number].ceiling(each.own_prepare_ms or alone[number].prepare_ms)
            for number, each in row.rounds.items()
        ]
    )


def of_parts(row: Row, alone: list[Alone]) -> Figures:
    """Returns what one client waits, over preparing and one image's inference with all cores in the same round."""
    return Figures(
        [
            each.single_p50_ms / ((each.own_prepare_ms or alone[number].prepare_ms) + alone[number].batch_1_ms)
            for number, each in row.rounds.items()
        ]
    )


def page(bench: Bench, rows: list[Row], alone: list[Alone], command: str, load_before: float) -> str:
    """Returns the whole page; rows without rounds say why."""
    done = [row for row in rows if row.rounds and row.problem is None]
    model, plan = bench.site.model, bench.plan
    parts = [
        f"# {model.title}: servers side by side",
        f"`{command}`, {datetime.date.today().isoformat()}",
        "\n".join(
            [
                f"- machine: {machine.describe()}",
                f"- quiet: {_quiet(done, load_before)}",
                f"- model: {model.title}, {model.onnx.stat().st_size / 1e6:.0f} MB, random weights, input "
                "`[N,3,224,224]`; the same file for all",
                f"- photos: {photos.describe(bench.timed)}",
                f"- load: oha {OHA_VERSION}; {plan.connections} connections for at least {plan.closed:g} s, one "
                f"connection for {plan.single:g} s, constant rate for {plan.open:g} s; {_rounds(plan.rounds)}",
            ]
        ),
        _table(done, alone),
        _missing(rows),
        "## Columns\n" + _legend(plan.connections),
        "## What the parts take alone\n" + _alone(done, alone),
        "## Versions and answers\n" + _versions(bench, done),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _rounds(count: int) -> str:
    return f"{count} rounds, medians (and ranges) of them" if count > 1 else "one round"


def _table(done: list[Row], alone: list[Alone]) -> str:
    peers = [figures(row, lambda each: each.images_per_second).median for row in done if not is_ours(row)]
    lines = [
        "| server | images/s | x best peer | of the ceiling | p50, p99 ms | one client p50 ms | x parts | "
        f"p50, p99 ms at {OPEN_LOAD:.0%} | x one client | core ms/image: server, client | MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in done:
        speed = figures(row, lambda each: each.images_per_second)
        cells = [
            row.peer.title,
            speed.show(1),
            f"{speed.median / max(peers):.2f}" if peers else "",
            of_ceiling(row, alone).show(2),
            f"{figures(row, lambda each: each.closed_p50_ms).median:.0f}, "
            f"{figures(row, lambda each: each.closed_p99_ms).show(0)}",
            figures(row, lambda each: each.single_p50_ms).show(1),
            of_parts(row, alone).show(2),
            f"{figures(row, lambda each: each.open_p50_ms).median:.1f}, "
            f"{figures(row, lambda each: each.open_p99_ms).show(0)}",
            figures(row, lambda each: each.open_p99_ms / each.single_p50_ms).show(1),
            f"{figures(row, lambda each: each.server_ms_per_image).show(1)}, "
            f"{figures(row, lambda each: each.client_ms_per_image).median:.2f}",
            figures(row, lambda each: each.resident_mib).show(0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _missing(rows: list[Row]) -> str:
    return "\n".join(f"- {row.peer.title}: not run: {row.problem}" for row in rows if row.problem is not None)


def _alone(done: list[Row], alone: list[Alone]) -> str:
    prepare = Figures([each.prepare_ms for each in alone])
    lines = [
        "| part | |",
        "| --- | --- |",
        f"| decode, resize, normalise with Pillow and numpy, one core | {prepare.show(2)} ms |",
    ]
    for row in done:
        own = [each.own_prepare_ms for each in row.rounds.values() if each.own_prepare_ms is not None]
        if own:
            lines.append(f"| the same in {row.peer.title}, by its `Server-Timing` | {Figures(own).show(2)} ms |")
    one = Figures([each.one_session_images_per_second for each in alone])
    many = Figures([each.session_per_core_images_per_second for each in alone])
    batch_1 = Figures([each.batch_1_ms for each in alone])
    ceiling = Figures([each.ceiling(each.prepare_ms) for each in alone])
    lines += [
        f"| ONNX Runtime, one session with all cores, batch 8 | {one.show(1)} images/s |",
        f"| ONNX Runtime, for each core a process with one thread, batch 8 | {many.show(1)} images/s |",
        f"| ONNX Runtime, one session with all cores, batch 1 | {batch_1.show(1)} ms |",
        f"| ceiling with Pillow | {ceiling.show(1)} images/s |",
    ]
    return "\n".join(lines)


def _legend(connections: int) -> str:
    part = f"{OPEN_LOAD:.0%}"
    return f"""
- **images/s**, **p50, p99**: {connections} connections, each sending its next photo when it has the answer
- **x best peer**: images/s over those of the fastest server that is not Residual
- **of the ceiling**: images/s over `cores / (prepare + inference)`, the core-seconds of the parts alone in the same
  round: preparing as the server tells it, or else as Pillow does it; inference by ONNX Runtime's CPU provider in the
  faster of the two layouts below
- **one client p50**: one connection, one request after the other
- **x parts**: that over preparing and the inference of one image with all cores, in the same round
- **at {part}**: a constant rate of {part} of this server's own images/s in the same round; a late request counts from
  when it should have been sent
- **x one client**: that p99 over one client's p50
- **core ms/image**: user and system time of all processes of the server, and of the clients
- **MiB**: memory of all processes of the server under load, shared pages once
""".strip()


def _versions(bench: Bench, done: list[Row]) -> str:
    lines = [
        f"The answers for {len(bench.checked)} photos were held to onnxruntime's own before each round. The last "
        "number is the largest difference of a score.\n"
    ]
    for row in done:
        difference = max(each.score_difference for each in row.rounds.values())
        lines.append(f"- {row.peer.title}: {row.versions}; {row.peer.form.title}; {difference:.1e}")
    return "\n".join(lines)


def _quiet(done: list[Row], load_before: float) -> str:
    others = [each.other_cores for row in done for each in row.rounds.values()]
    stolen = [each.stolen_cores for row in done for each in row.rounds.values()]
    if not others:
        return "nothing was measured"
    text = (
        f"other programs had {median(others):.2f} cores (at most {max(others):.2f}), the host took "
        f"{median(stolen):.2f} (at most {max(stolen):.2f}); load average before {load_before:.1f}"
    )
    if max(*others, *stolen) > QUIET_CORES:
        text = f"**no, trust the ratios little**: {text}"
    return text
