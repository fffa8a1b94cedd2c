"""A running server: started, asked until it answers, checked against what it must answer, stopped."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import process
from .errors import Unavailable
from .forms import Answer
from .peers import Peer, Site
from .photos import Photo

START_SECONDS = 120.0
ANSWER_SECONDS = 20.0


@dataclass(frozen=True)
class Server:
    """One peer that is up; nothing else of ours runs but the load."""

    peer: Peer
    port: int
    pid: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.peer.form.path}"

    def pids(self) -> list[int]:
        """Returns all processes that came of the server, those it has cut loose too."""
        return process.tree(self.pid) + process.adopted()

    def cpu_seconds(self) -> float:
        return process.cpu_seconds(self.pids())

    def resident_bytes(self) -> int:
        return process.resident_bytes(self.pids())

    def classify(self, photo: Photo) -> tuple[Answer, dict[str, str]]:
        """Returns the answer for one photo and the headers that came with it."""
        upload = self.peer.form.upload(photo.jpeg)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        with contextlib.closing(connection):
            connection.request("POST", self.peer.form.path, upload.body, upload.headers)
            response = connection.getresponse()
            body = response.read()
        if response.status != 200:
            raise Unavailable(f"{self.peer.name} answered {response.status}: {body[:200]!r} (log: {self.log})")
        try:
            answer = self.peer.form.read(body)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Unavailable(f"{self.peer.name} answered {body[:200]!r}, which is not its form: {error!r}") from error
        return answer, {name.lower(): value for name, value in response.getheaders()}

    def check(self, photos: list[Photo], expected: dict[str, list[float]]) -> float:
        """Holds the answer for each photo to `expected` and returns the largest difference of a score."""
        return max(self._difference(photo, expected[str(photo.path)]) for photo in photos)

    def _difference(self, photo: Photo, scores: list[float]) -> float:
        answer, _ = self.classify(photo)
        if len(answer) != 5:
            raise Unavailable(f"{self.peer.name} answered {len(answer)} classes for {photo.path.name} and not 5")
        best = max(range(len(scores)), key=scores.__getitem__)
        # Two classes may be so close that either is right; the first must be as good as the best.
        if answer[0][0] != best and scores[best] - scores[answer[0][0]] > self.peer.tolerance:
            raise Unavailable(f"{self.peer.name} takes {photo.path.name} for class {answer[0][0]}; it is {best}")
        worst = max(abs(score - scores[index]) for index, score in answer)
        if worst > self.peer.tolerance:
            raise Unavailable(
                f"{self.peer.name} is off by {worst:.3f} in a score of {photo.path.name}; "
                f"at most {self.peer.tolerance} is allowed"
            )
        return worst


@contextlib.contextmanager
def running(peer: Peer, site: Site, photo: Photo) -> Iterator[Server]:
    """Starts a server, waits until it classifies `photo`, and ends it with all its processes when left."""
    folder = site.work.folder("run") / peer.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    log = site.work.folder("logs") / f"{peer.name}.log"
    log.write_text("")
    ports = free_ports(3)
    launch = peer.launch(site, ports, folder)
    child = process.spawn(launch.arguments, log, launch.variables, launch.folder)
    try:
        server = Server(peer, ports[0], child.pid, log)
        deadline = time.monotonic() + START_SECONDS
        while not _answers(server, photo, final=time.monotonic() > deadline):
            if child.poll() is not None:
                raise Unavailable(f"{peer.name} ended with {child.returncode}: {process.tail(log)} (log: {log})")
            time.sleep(0.1)
        yield server
    finally:
        process.stop(child)
        process.stop_adopted()


def _answers(server: Server, photo: Photo, final: bool) -> bool:
    """Whether the server classifies yet; the `final` try lets its error out."""
    try:
        server.classify(photo)
    except (Unavailable, OSError, http.client.HTTPException) as error:
        if final:
            raise Unavailable(
                f"{server.peer.name} does not answer after {START_SECONDS:.0f} s: {error}; "
                f"{process.tail(server.log)} (log: {server.log})"
            ) from error
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Returns ports that nobody listens on, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
