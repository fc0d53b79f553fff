"""source makes extent maps over plain image files, and the archive that a plan promises, by Python alone."""

import json
import random
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import crcmod.predefined
import numpy as np

from splitreel.core.extent import ExtentMap, pack_nanoseconds
from splitreel.core.plan import Plan

UNWRITTEN = 0x800
BACKUP = "01234567-89ab-cdef-0123-456789abcdef"
S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK = (
    0o100000,
    0o040000,
    0o120000,
    0o020000,
    0o060000,
    0o010000,
    0o140000,
)


class Source:
    """A file system that exists as a map and an image alone: what is in it is known without any reader."""

    def __init__(self, block_size: int = 4096, seed: int = 1) -> None:
        self.block_size = block_size
        self.random = random.Random(seed)
        self.records: list[dict[str, Any]] = []
        self.extents: list[list[tuple[int, int, int]]] = []
        self.names: list[tuple[int, int, bytes]] = []
        self.content: dict[bytes, bytes] = {}
        self.blocks: list[bytes] = []
        self.index: dict[bytes, int] = {}
        self.add(b"", S_IFDIR | 0o755)

    def add(self, path: bytes, mode: int, file: int | None = None, **attributes: Any) -> int:
        """Add a name, and a file unless one is given; its directory must be there. Returns the file's index."""
        head, _, base = path.rpartition(b"/")
        if file is None:
            file = len(self.records)
            self.records.append({"mode": mode, **attributes})
            self.extents.append([])
        self.index[path] = len(self.names)
        self.names.append((self.index[head] if path else 0, file, base))
        return file

    def file(
        self,
        path: bytes,
        layout: Iterable[tuple[int, int, int]] = (),
        size: int | None = None,
        mode: int = 0o644,
        **attributes: Any,
    ) -> bytes:
        """A regular file of (logical, count, flags) extents in blocks, with random data; returns what it reads as."""
        layout = list(layout)
        end = max((logical + count for logical, count, _ in layout), default=0) * self.block_size
        size = end if size is None else size
        file = self.add(path, S_IFREG | mode, size=size, **attributes)
        data = bytearray(max(end, size))
        for logical, count, flags in layout:
            for block in range(logical, logical + count):
                stuff = self.random.randbytes(self.block_size)
                if not flags & UNWRITTEN:
                    data[block * self.block_size : (block + 1) * self.block_size] = stuff
                self.extents[file].append((block, len(self.blocks), flags))
                self.blocks.append(stuff)
        self.content[path] = bytes(data[:size])
        return self.content[path]

    def finish(self, image: Path, scatter: bool = True) -> ExtentMap:
        """Write the image, blocks in random order (or as they came), and return the sealed map."""
        places = list(range(1, len(self.blocks) + 1))
        if scatter:
            # Runs of a few blocks stay together, so that extents of more than one block exist.
            runs = [places[i : i + 5] for i in range(0, len(places), 5)]
            self.random.shuffle(runs)
            places = [place for run in runs for place in run]
        size = (len(self.blocks) + 2) * self.block_size
        with image.open("wb") as out:
            out.truncate(size)
            for place, stuff in zip(places, self.blocks, strict=True):
                out.seek(place * self.block_size)
                out.write(stuff)
        result = ExtentMap("test", bytes(16), self.block_size, size)
        for number, (record, extents) in enumerate(zip(self.records, self.extents, strict=True)):
            nanoseconds = record.pop("mtime_ns", 0)
            record.setdefault("link_count", sum(1 for _, file, _ in self.names if file == number))
            result.add_file(number + 2, record.pop("mode"), mtime=pack_nanoseconds(nanoseconds), **record)
            for block, index, flags in extents:
                result.add_extent(block, places[index], 1, flags)
        for parent, file, base in self.names:
            result.add_name(parent, file, base)
        result.finish()
        return result


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX ACL as getxattr shows it: (tag, permissions, id) each."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


crc32c = crcmod.predefined.mkCrcFun("crc-32c")


def posix_cksum(data: bytes) -> int:
    """cksum(1) by crcmod: IEEE 1003.1, the length follows the data, lowest byte first."""
    length = len(data)
    tail = length.to_bytes((length.bit_length() + 7) // 8, "little")
    return int(crcmod.mkCrcFun(0x104C11DB7, initCrc=0xFFFFFFFF, rev=False, xorOut=0xFFFFFFFF)(data + tail))


def numbered(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(plan.members), np.asarray(plan.segments)


def member_content(plan: Plan, source: Source, index: int) -> bytes:
    """Logical content of a member that is a file or a part of one."""
    member = numbered(plan)[0][index]
    path = plan.map.path_of(int(member["name"]))
    first = next(p for p in source.content if plan.map.find(p) >= 0 and same_file(plan, p, path))
    start = int(member["start"])
    return source.content[first][start : start + int(member["size"])]


def same_file(plan: Plan, one: bytes, other: bytes) -> bool:
    names = np.asarray(plan.map.names)
    return bool(names[plan.map.find(one)]["file"] == names[plan.map.find(other)]["file"])


def written_pieces(plan: Plan, index: int) -> list[tuple[int, int]]:
    """(offset, size) of the data of a member in its own content, from the map's columns, merged."""
    member = numbered(plan)[0][index]
    file = np.asarray(plan.map.files)[np.asarray(plan.map.names)[member["name"]]["file"]]
    first = int(file["first_extent"])
    start, end = int(member["start"]), int(member["start"] + member["size"])
    pieces: list[tuple[int, int]] = []
    for extent in np.asarray(plan.map.extents)[first : first + int(file["extent_count"])]:
        low = max(int(extent["logical"]) * plan.map.block_size, start)
        high = min(int(extent["logical"] + extent["count"]) * plan.map.block_size, end)
        if low >= high or extent["flags"] & UNWRITTEN:
            continue
        if pieces and sum(pieces[-1]) == low - start:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + high - low)
        else:
            pieces.append((low - start, high - low))
    return pieces


def padding(size: int, unit: int = 512) -> bytes:
    return bytes(-size % unit)


def member_data(plan: Plan, source: Source, index: int) -> bytes:
    """Archive data of a member without the zeros behind it: sparse map, then pieces."""
    member = numbered(plan)[0][index]
    if chr(member["kind"]) != "0":
        return b""
    content = member_content(plan, source, index)
    pieces = written_pieces(plan, index)
    data = b"".join(content[at : at + size] for at, size in pieces)
    if len(data) == len(content):
        return data
    if not pieces or sum(pieces[-1]) < len(content):
        pieces.append((len(content), 0))
    text = "".join(f"{number}\n" for number in (len(pieces), *(n for piece in pieces for n in piece))).encode()
    return text + padding(len(text)) + data


def members_archive(plan: Plan, source: Source, segment: int) -> bytes:
    """The members of a segment as the plan's headers and the map's data make them: what precedes the manifest."""
    members, segments = numbered(plan)
    first = int(segments[segment]["first_member"])
    out = bytearray()
    for index in range(first, first + int(segments[segment]["members"])):
        place = int(members[index]["block"]) * plan.block_size + int(members[index]["offset"])
        assert place == len(out), f"member {index} is planned at {place}, not {len(out)}"
        data = member_data(plan, source, index)
        assert len(data) == members[index]["stored"]
        out += plan.header(index) + data + padding(len(data))
    assert len(out) == segments[segment]["manifest_start"]
    return bytes(out)


def manifest_records(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
