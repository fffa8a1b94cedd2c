"""What clients do wrong, one function a fault. Each counts what it sent, and says so where the answer is not the one that is due."""
from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from judge import Ledger
from rig import photos, wire
from traffic import PHOTOS

CLASSIFY = "/api/v1/classify"
V2_INFER, V2_ROUTE = "/v2/models/resnet20-cifar10_image/infer", "/v2/models/{name}/infer"
CAT = PHOTOS["cat"]
BODY_TIMEOUT_SECONDS = 4.0
TOO_LARGE = bytes(24 << 20)
GZIP_BOMB = photos.gzip_bomb(128)
PICTURE_BOMB = photos.picture_bomb(9000)


class Faults:
    """A client that goes wrong in many ways."""

    def __init__(self, to: wire.Address, ledger: Ledger, chance: random.Random):
        self.to, self.ledger, self.chance = to, ledger, chance

    def all(self) -> list[Callable[[], Awaitable[None]]]:
        """Every fault."""
        return [
            self.hangs_up_in_head, self.hangs_up_in_body, self.hangs_up_before_answer, self.hangs_up_in_answer,
            self.sends_slowly, self.sends_too_slowly, self.sends_broken, self.sends_bomb, self.sends_packed_bomb,
            self.sends_too_much, self.asks_wrongly, self.speaks_no_http, self.sends_one_broken_among_good,
        ]

    async def one(self) -> None:
        """Any fault."""
        fault = self.chance.choice(self.all())
        await fault()
        self.ledger.outcomes[f"fault: {fault.__name__.replace('_', ' ')}"] += 1

    async def _due(
        self, route: str, method: str, path: str, body: bytes | None, expected: set[int], headers: dict[str, str] = {}
    ) -> wire.Answer | None:
        connection = await wire.Connection.open(self.to)
        self.ledger.sent[route] += 1
        try:
            answer = await connection.ask(method, path, body, headers)
        except (wire.Unanswered, OSError) as error:
            self.ledger.failed("lost", f"{method} {path} with {len(body or b'')} bytes: {error!r}")
            return None
        finally:
            connection.reset()
        return self._expected(answer, expected, f"{method} {path}")

    def _expected(self, answer: wire.Answer, expected: set[int], what: str) -> wire.Answer | None:
        if answer.status in expected:
            return answer
        if answer.status == 503 and answer.headers.get("retry-after"):
            self.ledger.outcomes["503"] += 1
        else:
            self.ledger.failed("unexpected", f"{what}: {answer.status} {answer.body[:200]!r}, expected {sorted(expected)}")
        return None

    async def hangs_up_in_head(self) -> None:
        """Such a request is none."""
        connection = await wire.Connection.open(self.to)
        head = wire.head("POST", CLASSIFY, length=len(CAT))
        await connection.send(head[: self.chance.randrange(len(head) - 2)])
        await asyncio.sleep(self.chance.random() * 0.05)
        connection.reset()

    async def _leaves(self, path: str, data: bytes, wait: float) -> None:
        connection = await wire.Connection.open(self.to)
        self.ledger.sent[CLASSIFY] += 1
        self.ledger.left[CLASSIFY] += 1
        await connection.send(wire.head("POST", path, length=len(CAT)) + data)
        await asyncio.sleep(wait)
        connection.reset()

    async def hangs_up_in_body(self) -> None:
        """The head has arrived, half of the body has not."""
        await self._leaves(CLASSIFY, CAT[: self.chance.randrange(len(CAT))], self.chance.random() * 0.1)

    async def hangs_up_before_answer(self) -> None:
        """The request is whole, and its image may be anywhere."""
        await self._leaves(f"{CLASSIFY}?model=large", CAT, self.chance.random() * 0.2)

    async def hangs_up_in_answer(self) -> None:
        """The answer is large, and its beginning has been read."""
        connection = await wire.Connection.open(self.to)
        self.ledger.sent["/openapi.json"] += 1
        await connection.send(wire.head("GET", "/openapi.json"))
        if not await asyncio.wait_for(connection.reader.read(100), 30):
            self.ledger.failed("lost", "GET /openapi.json: nothing came")
        connection.reset()

    async def _drips(self, parts: int, pause: float) -> wire.Answer | None:
        connection = await wire.Connection.open(self.to)
        self.ledger.sent[CLASSIFY] += 1
        await connection.send(wire.head("POST", CLASSIFY, length=len(CAT)))
        answered = asyncio.create_task(connection.answer())
        try:
            for part in range(parts):
                await connection.send(CAT[len(CAT) * part // parts:len(CAT) * (part + 1) // parts])
                if (await asyncio.wait({answered}, timeout=pause))[0]:
                    break
            return await asyncio.wait_for(answered, 30)
        except (wire.Unanswered, OSError) as error:
            self.ledger.failed("lost", f"a slow body: {error!r}")
            return None
        finally:
            answered.cancel()
            connection.reset()

    async def sends_slowly(self) -> None:
        """Slowly, but in time."""
        if answer := await self._drips(4, 0.2):
            self._expected(answer, {200}, "a slow body")

    async def sends_too_slowly(self) -> None:
        """Too slowly."""
        if answer := await self._drips(100, BODY_TIMEOUT_SECONDS / 20):
            self._expected(answer, {408}, "a body that is too slow")

    async def sends_broken(self) -> None:
        """Bytes that are no photo any more."""
        await self._due(CLASSIFY, "POST", CLASSIFY, photos.broken(CAT, self.chance), {200, 415, 422})

    async def sends_bomb(self) -> None:
        """81 million pixels in 250 KiB."""
        await self._due(CLASSIFY, "POST", CLASSIFY, PICTURE_BOMB, {413})

    async def sends_packed_bomb(self) -> None:
        """128 MiB in 128 KiB."""
        await self._due(V2_ROUTE, "POST", V2_INFER, GZIP_BOMB, {413}, {"content-encoding": "gzip"})

    async def sends_too_much(self) -> None:
        """24 MiB where 20 are allowed, sent in spite of the answer."""
        await self._due(CLASSIFY, "POST", CLASSIFY, TOO_LARGE, {413})

    async def asks_wrongly(self) -> None:
        """Routes, methods, models and parameters that are none."""
        route, method, path, expected = self.chance.choice([
            ("unknown", "GET", "/nothing/here", 404), ("unknown", "POST", "/etc/passwd", 404),
            (CLASSIFY, "DELETE", CLASSIFY, 405), (CLASSIFY, "POST", f"{CLASSIFY}?model=nobody", 404),
            (CLASSIFY, "POST", f"{CLASSIFY}?top_k=0", 400), ("/v2/models/{name}", "GET", "/v2/models/nobody", 404),
        ])
        await self._due(route, method, path, CAT if method == "POST" else None, {expected})

    async def speaks_no_http(self) -> None:
        """Such bytes are answered with 400, or the connection ends; they are no request."""
        connection = await wire.Connection.open(self.to)
        await connection.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n")
        if not await connection.ended(10):
            self.ledger.failed("unexpected", "a client that speaks TLS keeps its connection for 10 s")
        connection.reset()

    async def sends_one_broken_among_good(self) -> None:
        """A form of three photos, the second one broken."""
        body, headers = photos.multipart([CAT, b"no photo", CAT])
        if answer := await self._due(CLASSIFY, "POST", CLASSIFY, body, {200}, headers):
            if answer.body.count(b'"error"') != 1 or answer.body.count(b'"predictions"') != 2:
                self.ledger.failed("wrong", f"a form with one broken photo: {answer.body[:300]!r}")
