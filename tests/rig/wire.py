"""Raw HTTP/1.1 clients that can also misbehave: one that blocks, and an asynchronous one that keeps its connection."""
from __future__ import annotations

import asyncio
import contextlib
import http.client
import time
from collections.abc import Mapping
from typing import NamedTuple

Address = tuple[str, int]
# A stream reader stops taking from its socket above twice this; heads are far smaller.
HEAD_BYTES_MAX = 64 * 1024


class Answer(NamedTuple):
    """One answer. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


class Unanswered(Exception):
    """The connection ended before a whole answer came."""


def address(text: str) -> Address:
    """`host:port` in parts."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def head(method: str, path: str, headers: Mapping[str, str] = {}, length: int | None = None) -> bytes:
    """The bytes of a request's head. Without a length there is no body."""
    lines = [f"{method} {path} HTTP/1.1", "host: residual"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [] if length is None else [f"content-length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def ask(
    to: Address, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}, seconds: float = 30
) -> Answer:
    """One request on a connection of its own. Raises OSError where there is no answer."""
    began = time.monotonic()
    connection = http.client.HTTPConnection(*to, timeout=seconds)
    with contextlib.closing(connection):
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            read = answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"{method} {path}: {error!r}") from error
        return Answer(answer.status, {n.lower(): v for n, v in answer.getheaders()}, read, time.monotonic() - began)


def get(to: Address, path: str, seconds: float = 30) -> Answer:
    """One question without a body."""
    return ask(to, "GET", path, seconds=seconds)


def post(to: Address, path: str, body: bytes, headers: Mapping[str, str] = {}, seconds: float = 30) -> Answer:
    """One question with a body."""
    return ask(to, "POST", path, body, headers, seconds)


class Connection:
    """One open connection of the asynchronous client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, to: Address, seconds: float = 10) -> Connection:
        """Connects."""
        async with asyncio.timeout(seconds):
            return cls(*await asyncio.open_connection(*to, limit=HEAD_BYTES_MAX))

    async def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}, seconds: float = 30
    ) -> Answer:
        """One request and its answer. Raises Unanswered where the connection ends, TimeoutError where nothing comes."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                self.writer.write(head(method, path, headers, None if body is None else len(body)) + (body or b""))
                # No drain: an early answer must be read even where the server stopped taking the body.
                return await self.answer(began)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise Unanswered(f"{method} {path}: {error!r}") from error

    async def answer(self, began: float | None = None) -> Answer:
        """Reads one answer."""
        began = time.monotonic() if began is None else began
        try:
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Unanswered(repr(error)) from error
        if "transfer-encoding" in headers:
            raise Unanswered("an answer without a length, which this server never gives")
        return Answer(int(lines[0].split()[1]), headers, body, time.monotonic() - began)

    async def send(self, data: bytes) -> None:
        """Sends bytes that may be anything."""
        self.writer.write(data)
        await self.writer.drain()

    async def ended(self, seconds: float) -> bool:
        """Whether the server closes the connection within this time; what it sends before is passed over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                with contextlib.suppress(ConnectionError):
                    while await self.reader.read(65536):
                        pass
                return True
        return False

    def reset(self) -> None:
        """Leaves without a goodbye: what is unread or unsent is thrown away."""
        self.writer.transport.abort()

    async def close(self) -> None:
        """Leaves."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
