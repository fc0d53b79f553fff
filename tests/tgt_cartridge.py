"""tgt_cartridge reads tgt's own cartridge files: what is on tape, told without a SCSI command. It writes nothing.

The format, from tgt's usr/bs_ssc.h: headers of 48 bytes, big-endian but for the checksum, chained by absolute offsets:
CRC32C of bytes 4..47 (little-endian), size on disk, block size, type, number, previous, current and next offset.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import crcmod.predefined

HEADER = struct.Struct(">4s3L4Q")
FIRST = 1152  # behind the header of beginning of tape and 1104 bytes of medium auxiliary memory
BLOCK, END_OF_DATA, FILEMARK = 0x02, 0x20, 0x40

_crc32c = crcmod.predefined.mkCrcFun("crc-32c")


@dataclass(frozen=True)
class Entry:
    """One block with its data, or a filemark (data is None)."""

    number: int
    data: bytes | None


def read_cartridge(path: Path, *, after_crash: bool = False) -> list[Entry]:
    """All blocks and filemarks up to end of data; raises ValueError where a header fails its checksum or the chain.

    ``after_crash``: tgtd was killed, so the chain may end without a mark of end of data.
    """
    image = path.read_bytes()
    entries: list[Entry] = []
    offset = FIRST
    while True:
        header = image[offset : offset + HEADER.size].ljust(HEADER.size, b"\0")
        crc, _, size, kind, number, _, current, following = HEADER.unpack(header)
        if int.from_bytes(crc, "little") != _crc32c(header[4:]) or current != offset:
            if after_crash:
                return entries
            raise ValueError(f"{path}: header at {offset} is damaged")
        if kind == END_OF_DATA:
            return entries
        data = image[offset + HEADER.size : offset + HEADER.size + size] if kind == BLOCK else None
        entries.append(Entry(number, data))
        if following <= offset:
            raise ValueError(f"{path}: header at {offset} points back")
        offset = following
