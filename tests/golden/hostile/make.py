#!/usr/bin/env python3
"""Writes pictures that no encoder would: each is valid, and costs more than it looks. Python alone.

    python3 tests/golden/hostile/make.py
"""

import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent


class Bits:
    """Bits from the lowest of each byte on, as in WebP's lossless streams (RFC 9649)."""

    def __init__(self):
        self.bits = []

    def number(self, number, bits):
        self.bits += [number >> at & 1 for at in range(bits)]

    def code(self, code, bits):
        """A prefix code, which stands the other way round."""
        self.bits += [code >> at & 1 for at in reversed(range(bits))]

    def bytes(self):
        padded = self.bits + [0] * (-len(self.bits) % 8)
        return bytes(sum(bit << at for at, bit in enumerate(padded[i : i + 8])) for i in range(0, len(padded), 8))


def one_symbol(bits, symbol):
    bits.number(0b101, 3)
    bits.number(symbol, 8)


# The order in which lengths of the code of code lengths stand.
ORDER = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10]


def table_of_1024(bits):
    """Eleven symbols with the lengths 1, 2 ... 9, 10 and 10: 12 bytes of stream, a table of 4 KiB."""
    bits.number(0, 1)
    bits.number(len(ORDER) - 4, 4)
    for symbol in ORDER:
        bits.number(3 if 1 <= symbol <= 6 else 4 if 7 <= symbol <= 10 else 0, 3)
    bits.number(1, 1)
    bits.number(1, 3)
    bits.number(11 - 2, 4)
    for length in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]:
        bits.code(*(length - 1, 3) if length <= 6 else (12 + length - 7, 4))


def webp_of_groups(groups):
    """4x4 pixels, whose only block names the last of so many groups of prefix codes."""
    bits = Bits()
    bits.number(0x2F, 8)
    bits.number(4 - 1, 14)
    bits.number(4 - 1, 14)
    bits.number(0, 1 + 3)
    # No transform, no colour cache; groups for blocks of 4x4, in a picture of one pixel without a cache.
    bits.number(0, 1)
    bits.number(0, 1)
    bits.number(1, 1)
    bits.number(0, 3)
    bits.number(0, 1)
    for symbol in [(groups - 1) & 255, (groups - 1) >> 8, 0, 0, 0]:
        one_symbol(bits, symbol)
    for _ in range(groups * 5):
        table_of_1024(bits)
    # The pixels: the first symbol of each table has the code 0.
    bits.number(0, 4 * 4 * 4)
    stream = bits.bytes()
    stream += b"\0" * (len(stream) % 2)
    chunks = b"WEBPVP8L" + struct.pack("<I", len(stream)) + stream
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


(HERE / "webp-160-groups.webp").write_bytes(webp_of_groups(160))
