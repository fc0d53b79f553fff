"""tapfile reads and writes SIMH .tap files in plain Python: the oracle for what the software drive leaves on disk."""

import struct
from pathlib import Path

FILEMARK = None


def parse(path: Path) -> list[bytes | None]:
    """Every object of a tape in order: a block's bytes, or FILEMARK. A torn or wrong record is a ValueError."""
    data = path.read_bytes()
    objects: list[bytes | None] = []
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        if size == 0:
            objects.append(FILEMARK)
            at += 4
            continue
        padded = size + size % 2
        block = data[at + 4 : at + 4 + size]
        (trailer,) = struct.unpack_from("<I", data, at + 4 + padded)
        if trailer != size or len(block) != size:
            raise ValueError(f"record at {at}: {size} before it, {trailer} behind it")
        objects.append(block)
        at += 8 + padded
    return objects


def encode(objects: list[bytes | None]) -> bytes:
    """A .tap file that holds these objects."""
    parts = []
    for block in objects:
        length = struct.pack("<I", len(block or b""))
        parts.append(length if block is None else length + block + b"\0" * (len(block) % 2) + length)
    return b"".join(parts)
