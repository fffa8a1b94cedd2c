"""Photos: their bytes and, from the header, their sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import Unavailable

SUFFIXES = (".jpg", ".jpeg")
#: JPEG markers that start a frame and hold its size: SOF0 to SOF15 without DHT, JPG and DAC (ITU-T T.81, table B.1).
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Photo:
    """A JPEG file, upright, with its width and height in pixels."""

    path: Path
    jpeg: bytes
    width: int
    height: int

    @staticmethod
    def read(path: Path) -> Photo:
        jpeg = path.read_bytes()
        width, height = frame_size(jpeg, path)
        return Photo(path, jpeg, width, height)


def frame_size(jpeg: bytes, path: Path) -> tuple[int, int]:
    """Walks a JPEG's segments to the frame and returns its width and height."""
    at = 2
    while jpeg[:2] == b"\xff\xd8" and at + 9 <= len(jpeg) and jpeg[at] == 0xFF:
        if jpeg[at + 1] in FRAME_MARKERS:
            return int.from_bytes(jpeg[at + 7 : at + 9]), int.from_bytes(jpeg[at + 5 : at + 7])
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    raise Unavailable(f"{path} is not a JPEG with a frame; give a folder of JPEGs with --photos")


def read_folder(folder: Path) -> list[Photo]:
    """Returns the JPEGs of a folder, the lightest first."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise Unavailable(f"{folder} has no .jpg or .jpeg; give a folder of JPEGs with --photos")
    return sorted((Photo.read(path) for path in paths), key=lambda photo: len(photo.jpeg))


def choose(photos: list[Photo], count: int) -> list[Photo]:
    """Returns at most `count` of the photos, one from the middle of each of as many ranges of weight."""
    if len(photos) <= count:
        return photos
    return [photos[(2 * index + 1) * len(photos) // (2 * count)] for index in range(count)]


def describe(photos: list[Photo]) -> str:
    """Returns how heavy and how large the photos are, in one line."""
    mean = sum(len(photo.jpeg) for photo in photos) / len(photos)
    each = ", ".join(f"{photo.width}x{photo.height} {len(photo.jpeg) / 1000:.0f} KB" for photo in photos)
    return f"{len(photos)} JPEGs, {mean / 1000:.0f} KB on average ({each})"
