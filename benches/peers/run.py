#!/usr/bin/env python3
"""Measures image-classification servers side by side and writes the table to `benches/results/`.

Each server is set up as its own documentation has it, and gets the same ONNX file, the same photos and the same load.
The first run installs them (a few gigabytes, mostly torch for TorchServe) into a folder of the user's cache.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True

from sidebyside import environment, measure, photos, process, report  # noqa: E402
from sidebyside.environment import PEERS, REPOSITORY, Work  # noqa: E402
from sidebyside.errors import Unavailable  # noqa: E402
from sidebyside.peers import Site, all_peers  # noqa: E402

NETWORKS = ("resnet50", "resnet18")
#: So many photos are in the load; each has a client process of its own.
TIMED_PHOTOS = 4
OUR_PHOTOS = REPOSITORY / "tests" / "golden" / "inputs"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    measured = parser.add_argument_group("what is measured")
    measured.add_argument("--model", choices=NETWORKS, default=NETWORKS[0], help="the network (default: %(default)s)")
    measured.add_argument("--int8", action="store_true", help="quantised by onnxruntime's own tool: int8, QDQ")
    measured.add_argument("--only", metavar="NAMES", help="rows, separated by commas; --list shows them")
    measured.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        default=OUR_PHOTOS,
        help=f"folder of JPEGs (default: the two of tests/golden/inputs); all are checked, "
        f"{TIMED_PHOTOS} of them are in the load",
    )
    measured.add_argument("--residual-args", metavar="FLAGS", default="", help="more flags for `residual serve`")
    times = parser.add_argument_group("how long")
    times.add_argument("--quick", action="store_true", help="five minutes instead of fifteen")
    for each in dataclasses.fields(measure.Plan):
        times.add_argument(
            f"--{each.name.replace('_', '-')}",
            type=int if each.type == "int" else float,
            metavar="N",
            help=PLAN_HELP[each.name] + f" (default: {getattr(measure.DEFAULT, each.name):g}, "
            f"quick: {getattr(measure.QUICK, each.name):g})",
        )
    places = parser.add_argument_group("places")
    places.add_argument("--residual", type=Path, metavar="FILE", help="the binary (default: built by cargo)")
    places.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        default=environment.default_work(),
        help="environments, logs and raw figures (default: %(default)s)",
    )
    places.add_argument("--output", type=Path, metavar="FILE", help="the page (default: in benches/results/)")
    places.add_argument(
        "--python", default=sys.executable, metavar="FILE", help="Python of the servers (default: this)"
    )
    places.add_argument(
        "--triton-python",
        default="/usr/bin/python3.11",
        metavar="FILE",
        help="Python of PyTriton, whose interpreter starts only from Debian's own (default: %(default)s)",
    )
    parser.add_argument("--list", action="store_true", help="name the rows and exit")
    parser.add_argument("--install-only", action="store_true", help="install and make everything, measure nothing")
    return parser.parse_args()


PLAN_HELP = {
    "rounds": "rounds over all servers",
    "alone": "seconds for each of the parts alone",
    "warm_up": "seconds of load before anything counts",
    "settle": "seconds of each closed loop that do not count, at least",
    "closed": "seconds of the closed loop, at least",
    "single": "seconds with one connection",
    "open": "seconds at a constant rate",
    "connections": "connections of the closed loop",
}


def plan_of(given: argparse.Namespace) -> measure.Plan:
    base = measure.QUICK if given.quick else measure.DEFAULT
    changes = {each.name: getattr(given, each.name) for each in dataclasses.fields(base)}
    changes = {name: value for name, value in changes.items() if value is not None}
    if wrong := [name for name, value in changes.items() if value <= 0]:
        raise Unavailable(f"--{wrong[0].replace('_', '-')} must be above zero")
    return dataclasses.replace(base, **changes)


def rows_of(only: str | None) -> list[measure.Row]:
    peers = all_peers()
    names = only.split(",") if only else [peer.name for peer in peers]
    if unknown := set(names) - {peer.name for peer in peers}:
        raise Unavailable(
            f"--only {sorted(unknown)[0]}: no such row; there are {', '.join(peer.name for peer in peers)}"
        )
    return [measure.Row(peer) for peer in peers if peer.name in names]


def command_of(given: argparse.Namespace, plan: measure.Plan) -> str:
    """Returns the command with what changes the measurement; paths of this machine are left out."""
    base = measure.QUICK if given.quick else measure.DEFAULT
    words = ["python3", "benches/peers/run.py"]
    words += ["--model", given.model] if given.model != NETWORKS[0] else []
    words += ["--int8"] if given.int8 else []
    words += ["--only", given.only] if given.only else []
    words += ["--photos", given.photos.resolve().name] if given.photos != OUR_PHOTOS else []
    words += [f"--residual-args={given.residual_args}"] if given.residual_args else []
    words += ["--quick"] if given.quick else []
    for each in dataclasses.fields(plan):
        if getattr(plan, each.name) != getattr(base, each.name):
            words += [f"--{each.name.replace('_', '-')}", f"{getattr(plan, each.name):g}"]
    return shlex.join(words)


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def main() -> int:
    given = arguments()
    if given.list:
        for peer in all_peers():
            print(f"{peer.name:16} {peer.title}")
        return 0
    plan, rows = plan_of(given), rows_of(given.only)
    work = Work(given.work.resolve())
    checked = photos.read_folder(given.photos.resolve())

    say(f"installing what is missing into {work.root}")
    reference = environment.venv(work, "reference", given.python)
    oha = environment.oha(work)
    binary = environment.residual(work, given.residual)
    made = environment.models(work, binary, reference, given.model, [photo.path for photo in checked])
    site = Site(
        work=work,
        python=given.python,
        triton_python=given.triton_python,
        residual=binary,
        residual_arguments=tuple(shlex.split(given.residual_args)),
        model=made["int8" if given.int8 else "f32"],
    )
    for row in rows:
        try:
            row.versions = row.peer.install(site)
        except (Unavailable, OSError) as error:
            row.problem = str(error)
            say(f"  {row.peer.name}: {error}")
    if given.install_only:
        return finish(rows)

    load_before = os.getloadavg()[0]
    bench = measure.Bench(site, reference, oha, checked, photos.choose(checked, TIMED_PHOTOS), plan, say)
    alone = bench.run(rows)
    text = report.page(bench, rows, alone, command_of(given, plan), load_before)
    name = f"{datetime.date.today().isoformat()}-{given.model}{'-int8' if given.int8 else ''}"
    output = given.output or PEERS.parent / "results" / f"{name}.md"
    output.write_text(text)
    raw = work.folder("raw") / f"{name}-{time.strftime('%H%M%S')}.json"
    raw.write_text(
        json.dumps(
            {
                "alone": [dataclasses.asdict(each) for each in alone],
                "servers": {
                    row.peer.name: {str(number): dataclasses.asdict(each) for number, each in row.rounds.items()}
                    for row in rows
                },
            },
            indent=1,
        )
    )
    print(text)
    say(f"wrote {output}; raw figures in {raw}")
    return finish(rows)


def finish(rows: list[measure.Row]) -> int:
    """Returns the exit code: 1 if a row that was asked for is missing."""
    return 1 if any(row.problem for row in rows) else 0


def guarded() -> int:
    """Runs `main` and ends every process that came of it, however it ends."""
    process.adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return main()
    except Unavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the servers are stopped", file=sys.stderr)
        return 130
    finally:
        process.stop_all()


if __name__ == "__main__":
    sys.exit(guarded())
