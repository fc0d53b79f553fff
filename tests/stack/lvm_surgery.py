"""lvm_surgery changes LVM metadata on an image, with checksums put right by crcmod."""

import struct
from collections.abc import Callable
from pathlib import Path

import crcmod

crc = crcmod.mkCrcFun(0x104C11DB7, initCrc=0xF597A6CF, rev=True, xorOut=0)
LABEL = 512
HEADER_SIZE = 512


class Area:
    """The metadata area of a physical volume: its text, and where it stands in the ring."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start = self._start()
        with path.open("rb") as file:
            file.seek(self.start)
            header = file.read(HEADER_SIZE)
            self.size = struct.unpack_from("<Q", header, 32)[0]
            self.at, self.length = struct.unpack_from("<QQ", header, 40)
            ring = file.read(self.size - HEADER_SIZE)
        turned = ring[self.at - HEADER_SIZE :] + ring[: self.at - HEADER_SIZE]
        self.text = turned[: self.length].rstrip(b"\0").decode()

    def _start(self) -> int:
        with self.path.open("rb") as file:
            file.seek(LABEL)
            label = file.read(512)
        offset = struct.unpack_from("<I", label, 20)[0] + 40
        while struct.unpack_from("<Q", label, offset)[0]:
            offset += 16
        return int(struct.unpack_from("<Q", label, offset + 16)[0])

    def write(
        self, change: Callable[[str], str] | bytes, *, at: int = 0, flags: int = 0, precommitted: bytes = b""
    ) -> None:
        """Put a changed text at a place in the ring, and the header that points to it."""
        text = change if isinstance(change, bytes) else change(self.text).encode() + b"\0"
        at = at or self.at
        with self.path.open("r+b") as file:
            for index, byte in enumerate((text, precommitted)):
                place = at if index == 0 else HEADER_SIZE
                before_end = min(len(byte), self.size - place)
                file.seek(self.start + place)
                file.write(byte[:before_end])
                file.seek(self.start + HEADER_SIZE)
                file.write(byte[before_end:])
            location = struct.pack("<QQII", at, len(text), crc(text), flags)
            if precommitted:
                location += struct.pack("<QQII", HEADER_SIZE, len(precommitted), crc(precommitted), 0)
            body = b" LVM2 x[5A%r0N*>" + struct.pack("<IQQ", 1, self.start, self.size) + location
            body = body.ljust(HEADER_SIZE - 4, b"\0")
            file.seek(self.start)
            file.write(struct.pack("<I", crc(body)) + body)


def change_all(paths: list[Path], change: Callable[[str], str], **more: int) -> None:
    """The same change on every physical volume."""
    for path in paths:
        Area(path).write(change, **more)
