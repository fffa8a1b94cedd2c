"""Processes that are started for the measurement: their trees, what these cost, and their end.

Everything is started through `spawn`. The harness adopts whatever its children leave behind (Linux' subreaper), so that
`stop_all` finds every process that came of them and the CPU time of a server is that of all its processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from pathlib import Path

from .errors import Unavailable

PR_SET_CHILD_SUBREAPER = 36
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
#: How long a process may take to end after SIGTERM.
GRACE_SECONDS = 5.0

_started: list[subprocess.Popen[bytes]] = []


def adopt_orphans() -> None:
    """Makes this process the parent of those whose own parent has ended."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def spawn(
    arguments: list[str],
    log: Path,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdout: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own; stderr goes to `log`, and stdout too unless it has its own file."""
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(log.open("ab"))
        output = stack.enter_context(stdout.open("wb")) if stdout else errors
        try:
            process = subprocess.Popen(
                arguments,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise Unavailable(f"{error.filename} is not there; benches/README.md says what is needed") from error
    _started.append(process)
    return process


def call(
    arguments: list[str],
    log: Path,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdout: Path | None = None,
    what: str | None = None,
    seconds: float | None = None,
) -> None:
    """Runs a process to its end; a failure names `what` failed and the last lines of its log."""
    process = spawn(arguments, log, env, cwd, stdout)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        stop(process)
    if code != 0:
        ended = "was not done in time" if code is None else f"ended with {code}"
        raise Unavailable(f"{what or arguments[0]} {ended}: {tail(log)} (log: {log})")


def tail(log: Path, lines: int = 3) -> str:
    """Returns the last lines of a log that say something, on one line."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return " | ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:]) or "it said nothing"


def tree(root: int) -> list[int]:
    """Returns `root` and its descendants, as they are now."""
    children = _children()
    pending, found = [root], []
    while pending:
        pid = pending.pop()
        found.append(pid)
        pending.extend(children.get(pid, []))
    return found


def adopted() -> list[int]:
    """Returns the orphans that this process has adopted, and their descendants."""
    known = {process.pid for process in _started}
    return [pid for child in _children().get(os.getpid(), []) if child not in known for pid in tree(child)]


def _children() -> dict[int, list[int]]:
    """Returns the children of each process."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    return children


def _stat(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat from the third on (the second may have spaces in it)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pids: list[int]) -> float:
    """Returns the user and system time of processes so far, with that of their children that have ended."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            # utime, stime and, of children waited for, cutime, cstime: fields 14 to 17 of proc(5).
            ticks += sum(int(field) for field in _stat(pid)[11:15])
    return ticks / TICKS_PER_SECOND


def resident_bytes(pids: list[int]) -> int:
    """Returns the memory of processes; a page that several of them share counts once (PSS of proc(5))."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
    return total


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and its descendants: SIGTERM, and SIGKILL for what is still there after `GRACE_SECONDS`."""
    descendants = tree(process.pid)[1:]
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        descendants = tree(process.pid)[1:]
        process.kill()
        process.wait()
    _kill(descendants)
    _started.remove(process)


def stop_adopted() -> None:
    """Ends the orphans. Those that a server leaves behind are its own as long as one server runs at a time."""
    while orphans := adopted():
        _kill(orphans)


def stop_all() -> None:
    """Ends everything that was started and still runs."""
    for process in list(_started):
        stop(process)
    stop_adopted()


def _kill(pids: list[int]) -> None:
    """Kills processes and takes their exit codes, where they are ours to take."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
