#!/usr/bin/env python3
"""How replicas, cores, batches and instances relate, and what more load than capacity does: the tables of docs/SCALING.md.

    cargo build --release && python3 benches/scaling.py          # about ten minutes; --quick for a look

Starts servers pinned to cores with taskset, a ResNet-50 with random weights in each (as fast as a trained one), and asks them in
turns, so that a busy machine is unfair to nobody; what counts are the ratios within a table. The program that asks runs on the
same cores: of a model as large as this one it takes a few hundredths. Needs Linux, Python 3.11 and the binary.
"""
import argparse
import contextlib
import os
import pathlib
import re
import signal
import statistics
import subprocess
import tempfile
import threading
from typing import NamedTuple

import load

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Connections for each core when a server is to be kept busy: one is being answered, one waits, the others are on their way.
CONNECTIONS_A_CORE = 6
SHARES = (0.5, 0.8, 1.0, 1.5, 2.0, 4.0)


class Setup(NamedTuple):
    """One way to use the machine."""

    name: str
    replicas: list  # for each its cores
    flags: tuple = ()

    @property
    def cores(self):
        return {core for cores in self.replicas for core in cores}


class Replica:
    """A server on cores of its own."""

    def __init__(self, binary, model, cores, flags):
        command = ["taskset", "--cpu-list", ",".join(map(str, cores)), binary, "serve", "--http-port", "0", "--apis", "none"]
        self.process = subprocess.Popen([*command, "--model", model, *flags], stderr=subprocess.PIPE, text=True)
        log = []
        for line in self.process.stderr:
            log.append(line)
            if found := re.search(r"ready at (http://\S+)", line):
                self.url = found.group(1)
                break
        else:
            raise SystemExit(f"{' '.join(command)} did not start:\n" + "".join(log))
        # Read away whatever it logs, so that a full pipe cannot hold it up; ends with the server.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


@contextlib.contextmanager
def running(setups, options):
    """All setups at once: those that are not asked sleep."""
    with contextlib.ExitStack() as stack:
        urls = {}
        for setup in setups:
            replicas = []
            for cores in setup.replicas:
                replicas.append(Replica(options.binary, options.model, cores, setup.flags))
                stack.callback(replicas[-1].stop)
            urls[setup.name] = [replica.url for replica in replicas]
        for asked in urls.values():
            load.saturate(asked, options.photo, 1.0, 2)
        yield urls


def compare(title, setups, options):
    """Capacity and the time of a lone request, by setup."""
    alone, busy = {setup.name: [] for setup in setups}, {setup.name: [] for setup in setups}
    with running(setups, options) as urls:
        for _ in range(options.rounds):
            for setup in setups:
                alone[setup.name].append(load.saturate(urls[setup.name], options.photo, options.seconds / 2, 1).quantile(0.5))
            for setup in setups:
                connections = CONNECTIONS_A_CORE * len(setup.cores)
                report = load.saturate(urls[setup.name], options.photo, options.seconds, connections)
                refuse_failures(setup.name, report)
                busy[setup.name].append(report)
    first = statistics.median(report.goodput for report in busy[setups[0].name])
    print(f"\n### {title}\n\n| setup | images/s | x the first | one request alone, ms | p99 when busy, ms |\n| --- | ---: | ---: | ---: | ---: |")
    for setup in setups:
        goodput = statistics.median(report.goodput for report in busy[setup.name])
        late = statistics.median(report.quantile(0.99) for report in busy[setup.name])
        lone = statistics.median(alone[setup.name])
        print(f"| {setup.name} | {goodput:.2f} | {goodput / first:.2f} | {lone * 1e3:.1f} | {late * 1e3:.0f} |", flush=True)
    return first


def refuse_failures(name, report):
    """Refusals are an answer; whatever else there is means that the numbers are of something else."""
    others = set(report.outcomes) - {"200", "503", "504"}
    if others or not report.outcomes.get("200"):
        raise SystemExit(f"{name} answered {report.outcomes}")


def overload(setup, options):
    """Offered load against goodput, as shares of capacity."""
    with running([setup], options) as urls:
        asked = urls[setup.name]
        connections = CONNECTIONS_A_CORE * len(setup.cores)
        capacity = statistics.median(
            load.saturate(asked, options.photo, options.seconds, connections).goodput for _ in range(options.rounds)
        )
        print(f"\n### Offered load, {setup.name}: capacity {capacity:.2f} images/s\n")
        print("| offered x capacity | goodput x capacity | refused | too late | p50, ms | p99 of the accepted, ms |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        for share in SHARES:
            report = load.offer(asked, options.photo, share * capacity, 2 * options.seconds, 512)
            refuse_failures(setup.name, report)
            refused, late = (report.outcomes.get(status, 0) / report.offered for status in ("503", "504"))
            times = " | ".join(f"{report.quantile(at) * 1e3:.0f}" for at in (0.5, 0.99))
            print(f"| {share} | {report.goodput / capacity:.2f} | {refused:.1%} | {late:.1%} | {times} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "target/release/residual"))
    parser.add_argument("--architecture", default="resnet50", help="what `residual synth` makes")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of three seconds")
    parser.add_argument("--photo", type=pathlib.Path, default=ROOT / "tests/golden/inputs/cat.jpg")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds = 3.0, 1
    options.photo = options.photo.read_bytes()
    cores = sorted(os.sched_getaffinity(0))
    everything = Setup(f"1 replica, {len(cores)} cores", [cores])
    with tempfile.TemporaryDirectory() as folder:
        options.model = str(pathlib.Path(folder) / options.architecture)
        subprocess.run([options.binary, "synth", options.architecture, "-o", options.model], check=True, stdout=subprocess.DEVNULL)
        print(f"{options.architecture}, {len(cores)} cores, {options.rounds} rounds of {options.seconds:g} s, medians")
        if len(cores) > 1:
            one = Setup("1 replica, 1 core", [cores[:1]])
            each = Setup(f"{len(cores)} replicas, 1 core each", [[core] for core in cores])
            crowded = Setup(f"{len(cores)} replicas, the same {len(cores)} cores", [cores] * len(cores))
            compare("Cores and replicas", [one, everything, each, crowded], options)
        batches = [
            Setup("as the model's speed asks", [cores]),
            *(Setup(f"--batch-images-max {most}", [cores], ("--batch-images-max", str(most))) for most in (1, 2, 4, 8)),
            Setup("8, --batch-delay 20ms", [cores], ("--batch-images-max", "8", "--batch-delay", "20ms")),
        ]
        compare("Batches", batches, options)
        counts = sorted({1, len(cores), 2 * len(cores)})
        instances = [
            Setup("as the load asks", [cores]),
            *(Setup(f"--instances {count}", [cores], ("--instances", str(count))) for count in counts),
        ]
        compare("Instances", instances, options)
        overload(everything, options)


if __name__ == "__main__":
    main()
