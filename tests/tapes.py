"""tapes makes and takes apart test tapes with parts that are not ours: Python's tarfile, crcmod, a .tap splitter."""

import io
import json
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import crcmod.predefined

BLOCK = 4096
crc32c = crcmod.predefined.mkPredefinedCrcFun("crc-32c")


def cksum(data: bytes) -> int:
    """POSIX cksum, bit by bit from IEEE 1003.1: an oracle, not fast."""
    size = len(data)
    while size:
        data, size = data + bytes([size & 0xFF]), size >> 8
    run = crcmod.mkCrcFun(0x104C11DB7, initCrc=0xFFFFFFFF, rev=False, xorOut=0xFFFFFFFF)
    return int(run(data))


@dataclass
class Segment:
    """A segment under construction: tarfile writes it, the manifest is made from what was added."""

    number: int = 1
    block_size: int = BLOCK
    backup: str = "00000000-0000-4000-8000-000000000001"
    stream: io.BytesIO = field(default_factory=io.BytesIO)
    members: list[dict[str, Any]] = field(default_factory=list)
    sums: list[bytes] = field(default_factory=list)

    def _write(self, info: tarfile.TarInfo, data: bytes) -> int:
        at = self.stream.tell()
        self.stream.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        self.stream.write(data + bytes(-len(data) % 512))
        return at

    def add(
        self,
        path: bytes,
        data: bytes = b"",
        kind: str = "file",
        *,
        mode: int = 0o644,
        target: bytes = b"",
        mtime: float = 1_700_000_000,
        pax: dict[str, str] | None = None,
        stored: bytes | None = None,
        device: tuple[int, int] = (0, 0),
        uid: int = 0,
        gid: int = 0,
        **extra: Any,
    ) -> None:
        """Add a member; ``stored`` is the archive data where they differ from the content."""
        types = {
            "file": tarfile.REGTYPE,
            "dir": tarfile.DIRTYPE,
            "symlink": tarfile.SYMTYPE,
            "link": tarfile.LNKTYPE,
            "chr": tarfile.CHRTYPE,
            "blk": tarfile.BLKTYPE,
            "fifo": tarfile.FIFOTYPE,
        }
        text = path.decode("utf-8", "surrogateescape")
        info = tarfile.TarInfo(text)
        info.type, info.mode, info.mtime, info.uid, info.gid = types[kind], mode, mtime, uid, gid
        info.linkname = target.decode("utf-8", "surrogateescape")
        info.devmajor, info.devminor = device
        info.pax_headers = dict(pax or {})
        stored = data if stored is None else stored
        info.size = len(stored)
        at = self._write(info, stored)
        record = {"kind": "member", "path": text, "type": kind, "size": len(data), "mode": mode}
        record |= {"block": at // self.block_size, "offset": at % self.block_size, "stored": len(stored), "extents": 0}
        if kind == "file":
            record["crc32c"] = f"{crc32c(data):08x}"
            if b"\n" not in path:
                self.sums.append(b"%d %d %s\n" % (cksum(data), len(data), path))
        if target:
            record["target"] = info.linkname
        self.members.append(record | extra)

    def control(self, path: str, data: bytes, kind: str) -> None:
        """Add a member of the archive's own."""
        info = tarfile.TarInfo(path)
        info.size = len(data)
        info.pax_headers = {"SPLITREEL.kind": kind}
        self._write(info, data)

    def manifest(self) -> bytes:
        """The manifest of what was added so far."""
        records = [
            {
                "kind": "segment",
                "backup": self.backup,
                "segment": self.number,
                "block_size": self.block_size,
                "members": len(self.members),
            },
            *self.members,
        ]
        data = self.stream.getvalue()
        whole = len(data) // self.block_size
        crcs = [f"{crc32c(data[i * self.block_size : (i + 1) * self.block_size]):08x}" for i in range(whole)]
        for first in range(0, whole, 64):
            records.append({"kind": "blocks", "first": first, "crc32c": "".join(crcs[first : first + 64])})
        return sealed(records)

    def close(self, *, with_manifest: bool = True) -> bytes:
        """The whole segment, padded to blocks."""
        if with_manifest:
            self.control(f".splitreel/segment-{self.number:04d}.manifest", self.manifest(), "manifest")
            self.control(f".splitreel/segment-{self.number:04d}.cksums", b"".join(self.sums), "cksums")
        self.stream.write(bytes(1024))
        data = self.stream.getvalue()
        return data + bytes(-len(data) % self.block_size)


def sealed(records: list[dict[str, Any]]) -> bytes:
    """Records as JSON lines with the line that vouches for them."""
    body = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    return body + json.dumps({"kind": "end", "crc32c": f"{crc32c(body):08x}"}).encode() + b"\n"


def sparse(size: int, pieces: list[tuple[int, bytes]], name: str) -> tuple[bytes, bytes, dict[str, str]]:
    """Content, stored data and pax records of a GNU sparse 1.0 member."""
    content = bytearray(size)
    numbers = [len(pieces)]
    for offset, data in pieces:
        content[offset : offset + len(data)] = data
        numbers += [offset, len(data)]
    head = b"".join(b"%d\n" % number for number in numbers)
    stored = head + bytes(-len(head) % 512) + b"".join(data for _, data in pieces)
    pax = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
    }
    return bytes(content), stored, pax


def split_tap(image: bytes) -> Iterator[list[bytes]]:
    """The tape files of a SIMH .tap image, each a list of its blocks; the last may have no filemark."""
    at, blocks = 0, []
    while at < len(image):
        (size,) = struct.unpack_from("<I", image, at)
        if size == 0xFFFFFFFF:
            break
        if size == 0:
            yield blocks
            blocks = []
            at += 4
            continue
        length = size & 0x00FFFFFF
        blocks.append(image[at + 4 : at + 4 + length])
        at += 8 + length + (length & 1)
        assert image[at - 4 : at] == struct.pack("<I", size)
    if blocks:
        yield blocks


class MemoryDrive:
    """A drive over a list of blocks and filemarks (None), with what volume and restore ask of one."""

    def __init__(self, objects: list[bytes | None] | None = None) -> None:
        self.objects = list(objects or [])
        self.at = 0
        self.max_block = 1 << 20

    @property
    def tape(self) -> "MemoryDrive":
        return self

    def rewind(self) -> None:
        self.at = 0

    def read(self, capacity: int) -> bytes | int:
        if self.at >= len(self.objects):
            return 4
        item = self.objects[self.at]
        self.at += 1
        assert item is None or len(item) <= capacity
        return 3 if item is None else item

    def write(self, block: bytes) -> int:
        self.objects[self.at :] = [bytes(block)]
        self.at += 1
        return 0

    def filemarks(self, count: int, immediate: bool = False) -> int:
        self.objects[self.at :] = [None] * count
        self.at += count
        return 0
