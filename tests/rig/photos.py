"""Photos to send: real ones, ones that are made here, and ones that are broken on purpose."""
from __future__ import annotations

import gzip
import random
import struct
import zlib

from .server import ROOT

MULTIPART_BOUNDARY = "residual-rig-5f2b"


def photo(name: str) -> bytes:
    """A JPEG that is checked in: `cat` (451 x 300) or `coffee`."""
    return (ROOT / "tests" / "golden" / "inputs" / f"{name}.jpg").read_bytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes) -> bytes:
    """An RGB PNG of these rows, each with its filter byte in front, whatever size they claim to have."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 6)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def noise(width: int, height: int, seed: int) -> bytes:
    """A PNG of smooth stripes with noise on them: two seeds give two pictures."""
    random_bytes = random.Random(seed)
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            base = (x * 7 + y * 3 + seed * 31) % 256
            rows += bytes(((base + random_bytes.randrange(32)) % 256, base, (base * 5) % 256))
    return png(width, height, bytes(rows))


def plain(red: int, green: int, blue: int) -> bytes:
    """A PNG of 8 x 8 pixels of one colour."""
    return png(8, 8, (b"\0" + bytes((red, green, blue)) * 8) * 8)


def picture_bomb(side: int) -> bytes:
    """A PNG of one colour: `side` squared times three bytes in about a thousandth of that."""
    packer = zlib.compressobj(9)
    row = b"\0" + bytes(3 * side)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def gzip_bomb(unpacked_mib: int) -> bytes:
    """Zeros, packed to about a thousandth; as gzip."""
    return gzip.compress(bytes(unpacked_mib << 20), 9)


def broken(whole: bytes, random_bytes: random.Random) -> bytes:
    """A photo that is cut short, has bytes overwritten, or is none at all."""
    kind = random_bytes.randrange(3)
    if kind == 0:
        return whole[: random_bytes.randrange(1, len(whole) // 2)]
    if kind == 1:
        return bytes(random_bytes.randrange(256) for _ in range(200))
    # The header stays whole, so that the decoder gets to the damage.
    damaged = bytearray(whole[: len(whole) // 3])
    return bytes(damaged) + b"\xff\xd9"


def multipart(photos: list[bytes]) -> tuple[bytes, dict[str, str]]:
    """A form with one file each, and the header that it needs."""
    parts = b""
    for index, data in enumerate(photos):
        disposition = f'content-disposition: form-data; name="image"; filename="{index}"'
        parts += f"--{MULTIPART_BOUNDARY}\r\n{disposition}\r\n\r\n".encode() + data + b"\r\n"
    body = parts + f"--{MULTIPART_BOUNDARY}--\r\n".encode()
    return body, {"content-type": f"multipart/form-data; boundary={MULTIPART_BOUNDARY}"}
