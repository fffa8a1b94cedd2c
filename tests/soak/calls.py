"""The same questions over gRPC, with messages written by hand, where grpcio is there (pip install grpcio)."""
from __future__ import annotations

import asyncio
import struct

from traffic import PHOTOS, Scored, decoded, _rows

try:
    import grpc.aio as aio
    from grpc import StatusCode
except ImportError:
    aio = None

# What the server's own errors carry, and those that say when to come back.
CODE, PUSHBACK = "residual-code", "grpc-retry-pushback-ms"
ROUTE = "/inference.GRPCInferenceService/ModelInfer"
# Field numbers of proto/: ModelInferRequest, ModelInferResponse and their tensors.
MODEL_NAME, INPUTS, RAW_INPUTS, OUTPUTS, RAW_OUTPUTS = 1, 5, 7, 5, 6
TENSOR_NAME, TENSOR_TYPE, TENSOR_SHAPE = 1, 2, 3


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def message(model: str, names: list[str]) -> bytes:
    """A ModelInferRequest about photos."""
    data = b"".join(struct.pack("<I", len(PHOTOS[name])) + PHOTOS[name] for name in names)
    shape = _field(TENSOR_SHAPE, _varint(len(names)))
    tensor = _field(TENSOR_NAME, b"image") + _field(TENSOR_TYPE, b"BYTES") + shape
    return _field(MODEL_NAME, f"{model}_image".encode()) + _field(INPUTS, tensor) + _field(RAW_INPUTS, data)


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """The fields of a message that have bytes; numbers are passed over."""
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        length = varint()
        if key & 7 == 2:
            found.append((key >> 3, data[at:at + length]))
            at += length
    return found


def answer(data: bytes) -> list[Scored]:
    """Class and score of each photo in a ModelInferResponse."""
    fields = _fields(data)
    names = [dict(_fields(value))[TENSOR_NAME].decode() for number, value in fields if number == OUTPUTS]
    raw = [value for number, value in fields if number == RAW_OUTPUTS]
    return _rows({name: decoded(name, value) for name, value in zip(names, raw)})


class Calls:
    """One channel to the server."""

    def __init__(self, to: tuple[str, int]):
        self.channel = aio.insecure_channel(f"{to[0]}:{to[1]}", options=[("grpc.enable_retries", 0)])
        self.infer = self.channel.unary_unary(ROUTE)

    async def ask(self, model: str, names: list[str], seconds: float) -> tuple[int, list[Scored] | str, str]:
        """The HTTP status that means the same, the answer or the message, and when to come back. Raises ConnectionError
        where it was not the server that refused: its errors carry a code."""
        try:
            return 200, answer(await self.infer(message(model, names), timeout=seconds)), ""
        except aio.AioRpcError as error:
            told = dict(error.trailing_metadata() or ())
            if CODE not in told:
                raise ConnectionError(f"{error.code()}: {error.details()}") from error
            same = {StatusCode.NOT_FOUND: 404, StatusCode.UNAVAILABLE: 503, StatusCode.RESOURCE_EXHAUSTED: 503}
            return same.get(error.code(), 500), f"{error.code()}: {error.details()}", told.get(PUSHBACK, "")

    async def leave(self, model: str, names: list[str], seconds: float) -> None:
        """Cancels a call after this time, if it is not answered by then."""
        call = self.infer(message(model, names))
        await asyncio.sleep(seconds)
        call.cancel()
        # Its status comes whatever became of it, and is no error here.
        await call.code()

    async def close(self) -> None:
        """Leaves."""
        await self.channel.close()
