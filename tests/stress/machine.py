"""What the machine runs out of: descriptors, disk; and clocks that jump."""
from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import time

from clients import flooded, reset
from rig import photos, server, wire
from rig.figures import milliseconds
from rig.server import Server
from told import Told

CLASSIFY = "/api/v1/classify"
DESCRIPTORS = 64
# Where Debian's package `libfaketime` puts it; FAKETIME_LIBRARY names another place.
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


def descriptors_run_out(told: Told, scratch: pathlib.Path) -> None:
    """The process may open 64 files; 200 clients connect and stay."""
    server.synth("resnet20", scratch / "models")
    with server.running("--models", str(scratch / "models"), before=_limited) as running:
        asyncio.run(_descriptors_run_out(told, running, scratch))
        told.holds(running.stop().code == 0, "it ends with 0")


async def _descriptors_run_out(told: Told, running: Server, scratch: pathlib.Path) -> None:
    cat = photos.photo("cat")
    steady = await wire.Connection.open(running.http)
    await steady.ask("POST", CLASSIFY, cat)
    told.did(f"RLIMIT_NOFILE {DESCRIPTORS}: 200 connections are opened and stay for 4 s; {running.descriptors()} descriptors before")
    cpu, flood = running.cpu_seconds(), await flooded(running.http, 200, 3)
    lines = len(running.log)
    answers = [await steady.ask("POST", CLASSIFY, cat) for _ in range(20)]
    server.synth("resnet20", scratch / "models", seed=3)
    running.send(signal.SIGHUP)
    await asyncio.sleep(4)
    told.saw(f"{running.descriptors()} descriptors; {running.cpu_seconds() - cpu:.2f} s of computing")
    told.saw(f"{len(running.log) - lines} log lines in 4 s: {sorted({entry.get('message', str(entry))[:110] for entry in running.log[lines:]})}")
    told.holds({answer.status for answer in answers} == {200}, "the client that was there goes on being answered")
    told.holds(len(running.log) - lines < 20, "the log is not flooded: fewer than 20 lines in 4 s")
    told.holds(any("accept" in entry.get("message", "") for entry in running.log), "the log says that connections cannot be accepted")
    told.holds(running.cpu_seconds() - cpu < 4, "no core is burned by trying again")
    reset(flood)
    began = time.monotonic()
    answer = await (await wire.Connection.open(running.http)).ask("POST", CLASSIFY, cat)
    told.saw(f"when they leave, a new client is answered with {answer.status} after {milliseconds(time.monotonic() - began)}")
    told.holds(answer.status == 200 and time.monotonic() - began < 2, "within 2 s")
    running.send(signal.SIGHUP)
    await asyncio.sleep(3)
    models = await asyncio.to_thread(running.get_json, "/api/v1/models")
    told.holds(all("problem" not in model for model in models["models"]), "and a reload finds all models well")


def disk_full(told: Told, scratch: pathlib.Path) -> None:
    """The log goes to a full disk, and cache and temporary folder are full, too."""
    model = server.synth("resnet18", scratch)
    _disk_full(told, model, "/dev/full", {})
    small = scratch / "full"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        told.skips(f"a full tmpfs: {mounted.stderr.decode().strip()}")
        return
    try:
        (small / "log").touch()
        with contextlib.suppress(OSError), open(small / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        there = {"RESIDUAL_CACHE_DIR": str(small / "cache"), "TMPDIR": str(small), "HOME": str(small)}
        _disk_full(told, model, str(small / "log"), there | {"RESIDUAL_ORT_LIB": _runtime_library()})
    finally:
        subprocess.run(["umount", str(small)], check=True)


def _runtime_library() -> str:
    """The library that the program takes, so that it is found where the cache is full."""
    return subprocess.run([server.binary(), "runtime", "path"], check=True, capture_output=True, text=True).stdout.strip()


def _disk_full(told: Told, model: pathlib.Path, log: str, environment: dict[str, str]) -> None:
    flags = ["--model", "builtin", "--model", str(model), "--log", "debug"]
    with server.running(*flags, stderr=log, **environment) as running:
        told.did(f"stderr is {'/dev/full' if log == '/dev/full' else 'a file on a full tmpfs, and so are cache, TMPDIR and HOME'}; --log debug")
        path = f"{CLASSIFY}?model=resnet20-cifar10"
        answers = [wire.post(running.http, path, photos.photo("cat")) for _ in range(50)]
        answers.append(wire.post(running.http, path, photos.picture_bomb(4000)))
        told.holds({answer.status for answer in answers} == {200}, "51 photos are classified")
        load = wire.post(running.http, "/v2/repository/models/resnet18/load", b"{}")
        told.holds(load.status == 200, f"a model is loaded again (seen: {load.status} {load.body[:200]!r})")
        running.send(signal.SIGHUP)
        time.sleep(0.5)
        told.holds(wire.get(running.http, "/metrics").status == 200, "metrics are there after a reload")
        stopped = running.stop()
        told.holds(stopped.code == 0, f"it ends with 0 (seen: {stopped.code} after {stopped.seconds:.1f} s)")


def clock_stops(told: Told, scratch: pathlib.Path) -> None:
    """The process is stopped for 3 s with requests in flight, a second longer than their deadline, and goes on."""
    model = server.synth("resnet18", scratch)
    with server.running("--model", "builtin", "--model", str(model), "--request-timeout", "2s") as running:
        asyncio.run(_clock_stops(told, running))
        told.holds(not running.errors(), "no line at ERROR")
        told.holds(running.stop().code == 0, "it ends with 0")


async def _clock_stops(told: Told, running: Server) -> None:
    cat, path = photos.photo("cat"), f"{CLASSIFY}?model=resnet18"
    connections = [await wire.Connection.open(running.http) for _ in range(12)]
    asked = [asyncio.create_task(connection.ask("POST", path, cat)) for connection in connections]
    await asyncio.sleep(0.15)
    await asyncio.to_thread(running.paused, 3.0)
    told.did("12 photos for ResNet-18, SIGSTOP after 0.15 s, SIGCONT 3 s later; --request-timeout 2s")
    answers = await asyncio.gather(*asked)
    statuses = sorted(answer.status for answer in answers)
    told.saw(f"they were answered with {statuses}")
    told.holds(set(statuses) <= {200, 504} and statuses[-1] == 504, "in time, or with 504")
    after = [await connection.ask("POST", path, cat) for connection in connections[:4]]
    told.holds({answer.status for answer in after} == {200}, "the same connections are served afterwards")
    page = await asyncio.to_thread(running.metrics)
    told.holds(page.sum("residual_requests_in_flight") == 1, "nothing is left in flight")


def clock_jumps(told: Told, scratch: pathlib.Path) -> None:
    """The wall clock jumps an hour forth and two back; the monotonic one goes on."""
    libraries = [os.environ["FAKETIME_LIBRARY"]] if "FAKETIME_LIBRARY" in os.environ else glob.glob(FAKETIME)
    if not libraries:
        told.skips("no libfaketime here: apt-get install libfaketime, or FAKETIME_LIBRARY names it")
        return
    control = scratch / "clock"
    control.write_text("+0")
    faked = {
        "LD_PRELOAD": libraries[0], "FAKETIME_TIMESTAMP_FILE": str(control), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    server.synth("resnet20", scratch / "models")
    with server.running("--models", str(scratch / "models"), "--watch=200ms", **faked) as running:
        cat = photos.photo("cat")
        right = wire.post(running.http, CLASSIFY, cat)
        stamps = []
        for jump in ("+3600s", "-7200s", "+0"):
            control.write_text(jump)
            answers = [wire.post(running.http, CLASSIFY, cat) for _ in range(30)]
            told.holds({a.body for a in answers} == {right.body}, f"{jump}: 30 photos get the same answer")
            told.holds(max(a.seconds for a in answers) < 1, f"{jump}: within a second each")
            server.synth("resnet20", scratch / "models", seed=len(stamps) + 1)
            stamps.append(running.until_logged("replaced model", 20)["timestamp"])
            running.log.clear()
            right = wire.post(running.http, CLASSIFY, cat)
        told.did("the wall clock jumps +1 h, -2 h and back; at each place a model is replaced under --watch=200ms")
        told.saw(f"the log's times: {stamps}")
        told.holds(stamps[0][:13] != stamps[1][:13], "the server saw the jumps, as its log shows")
        told.holds(not running.errors(), "no line at ERROR")
        stopped = running.stop()
        told.holds(stopped.code == 0 and stopped.seconds < 5, f"it ends with 0 (after {stopped.seconds:.1f} s)")


def nothing_leaves(told: Told, scratch: pathlib.Path) -> None:
    """A server that was asked for nothing outside writes nothing below its home, looks up no name, connects to nobody."""
    home, calls = scratch / "home", scratch / "calls"
    home.mkdir()
    strace = shutil.which("strace")
    # -D: the server is this script's child, and strace its grandchild.
    wrapper = (strace, "-D", "-f", "-qq", "-e", "trace=connect,sendto", "-o", str(calls)) if strace else ()
    environment = {"HOME": str(home), "RESIDUAL_ORT_LIB": _runtime_library(), "XDG_CACHE_HOME": str(home / ".cache")}
    with server.running("--offline", wrapper=wrapper, **environment) as running:
        answers = [wire.post(running.http, CLASSIFY, photos.photo("cat")) for _ in range(50)]
        told.holds({answer.status for answer in answers} == {200}, "50 photos are classified")
        time.sleep(12)
        told.did("--offline with an empty home, 50 photos, 12 s of rest")
        running.stop()
    written = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
    told.holds(not written, f"nothing was written below its home (seen: {written})")
    if not strace:
        told.skips("what it connects to: there is no strace")
        return
    time.sleep(0.5)
    outside = [line for line in calls.read_text().splitlines() if "AF_INET" in line and "127.0.0.1" not in line]
    told.holds(not outside, f"it connected to nobody and looked up no name (seen: {outside[:2]})")


SCENARIOS = [descriptors_run_out, disk_full, clock_stops, clock_jumps, nothing_leaves]
