"""One fault a scenario, against a server of its own: what was done, what was seen, what must hold.

    python tests/stress/stress.py --list
    python tests/stress/stress.py overload_2x descriptors_run_out
    python tests/stress/stress.py            # all of them

RESIDUAL_BINARY names the program. The exit code is 1 where something did not hold.
"""
from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import clients  # noqa: E402
import frames  # noqa: E402
import life  # noqa: E402
import machine  # noqa: E402
import models  # noqa: E402
import overload  # noqa: E402
from told import Told  # noqa: E402

SCENARIOS = {scenario.__name__: scenario for module in [overload, clients, frames, machine, life, models] for scenario in module.SCENARIOS}


def main() -> int:
    """Runs the scenarios that are named."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", metavar="NAME", help="scenarios; all without any")
    arguments.add_argument("--list", action="store_true", help="say which there are")
    asked = arguments.parse_args()
    if asked.list:
        for name, scenario in SCENARIOS.items():
            print(f"{name:24} {scenario.__doc__.splitlines()[0]}")
        return 0
    if unknown := set(asked.names) - set(SCENARIOS):
        arguments.error(f"no scenario {', '.join(sorted(unknown))}; --list says which there are")
    failed = [name for name in asked.names or SCENARIOS if not run(name)]
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall hold")
    return bool(failed)


def run(name: str) -> bool:
    """Runs one scenario; says whether all held."""
    told, began = Told(name), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="residual-stress-") as scratch:
        SCENARIOS[name](told, pathlib.Path(scratch))
    told.saw(f"took {time.monotonic() - began:.0f} s")
    return not told.broken


if __name__ == "__main__":
    sys.exit(main())
