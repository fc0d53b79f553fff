"""jbd2_writer writes the log of a journal into an ext4 image, byte by byte, and says what recovery must make of it.

It knows the format from Linux Documentation/filesystems/ext4, "Journal (jbd2)", and computes its checksums with crcmod.
"""

import os
import re
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import crcmod

MAGIC = 0xC03B3998
DESCRIPTOR, COMMIT, SUPERBLOCK_V1, SUPERBLOCK_V2, REVOKE = 1, 2, 3, 4, 5
COMPAT_CHECKSUM = 1
INCOMPAT_REVOKE, INCOMPAT_64BIT, INCOMPAT_ASYNC, INCOMPAT_CSUM_V2, INCOMPAT_CSUM_V3 = 1, 2, 4, 8, 0x10
INCOMPAT_FAST_COMMIT = 0x20
ESCAPE, SAME_UUID, LAST = 1, 2, 8
CHECKSUMS = INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3
EXT4_NEEDS_RECOVERY = 4
WORD = struct.Struct(">I")

# neither is inverted at the end: the journal's sums are bare registers
crc32c = crcmod.mkCrcFun(0x11EDC6F41, initCrc=0xFFFFFFFF, rev=True, xorOut=0)
crc32_be = crcmod.mkCrcFun(0x104C11DB7, initCrc=0xFFFFFFFF, rev=False, xorOut=0)


@dataclass
class Transaction:
    """Blocks to be written home, in the order of the log, and blocks whose earlier copies are void."""

    blocks: list[tuple[int, bytes]]
    revokes: list[int] = field(default_factory=list)
    seconds: int = 1_700_000_000


@dataclass
class Log:
    """The journal of an image: what to write there, and with which features."""

    compat: int = 0
    incompat: int = INCOMPAT_REVOKE | INCOMPAT_64BIT | INCOMPAT_CSUM_V3
    version: int = SUPERBLOCK_V2
    start: int = 1
    sequence: int = 1
    transactions: Sequence[Transaction] = ()


class Writer:
    """An image made by mke2fs without metadata checksums, and its journal."""

    def __init__(self, image: Path, log: Log) -> None:
        self.image = image
        self.log = log
        done = subprocess.run(["debugfs", "-R", "blocks <8>", image], check=True, capture_output=True, text=True)
        places = [int(word) for word in done.stdout.split()]
        done = subprocess.run(["debugfs", "-R", "stat <8>", image], check=True, capture_output=True, text=True)
        nodes = re.findall(r"\(ETB\d+\):(\d+)|\([DT]?IND\):(\d+)", done.stdout)
        self.places = [place for place in places if str(place) not in {word for pair in nodes for word in pair}]
        self.file = open(image, "r+b")  # noqa: SIM115  (run closes it)
        self.file.seek(1024 + 0x18)
        self.size = 1024 << struct.unpack("<I", self.file.read(4))[0]
        self.superblock = bytearray(self.read(0))
        self.last = struct.unpack_from(">I", self.superblock, 0x10)[0]
        self.uuid = bytes(self.superblock[0x30:0x40])
        self.seed = crc32c(self.uuid)
        self.place = log.start
        self.sequence = log.sequence
        self.sum = 0xFFFFFFFF
        self.commits: list[int] = []  # where in the journal each commit block stands
        self.descriptors: list[int] = []

    def read(self, place: int) -> bytes:
        self.file.seek(self.places[place] * self.size)
        return self.file.read(self.size)

    def write(self, place: int, data: bytes) -> None:
        self.file.seek(self.places[place] * self.size)
        self.file.write(data)

    def append(self, data: bytes) -> int:
        """A block at the end of the log, which begins again behind the superblock; where it came to stand."""
        place = self.place
        self.write(place, data)
        self.place = place + 1 if place + 1 < self.last else 1
        return place

    def header(self, kind: int) -> bytes:
        return struct.pack(">III", MAGIC, kind, self.sequence)

    def with_tail(self, data: bytes) -> bytes:
        """A descriptor or revoke block, padded, with its checksum at the end where the features ask for one."""
        if not self.log.incompat & CHECKSUMS:
            return data.ljust(self.size, b"\0")
        data = data.ljust(self.size - 4, b"\0")
        return data + WORD.pack(crc32c(data + bytes(4), self.seed))

    # Everything together.

    def run(self) -> None:
        """Write superblock and log, mark the file system, and put a stale block behind the end."""
        for transaction in self.log.transactions:
            self.transaction(transaction)
            self.sequence = (self.sequence + 1) & 0xFFFFFFFF
        self.append(struct.pack(">III", MAGIC, COMMIT, (self.sequence - 5) & 0xFFFFFFFF).ljust(self.size, b"\0"))
        self.head()
        self.file.seek(1024 + 0x60)
        features = struct.unpack("<I", self.file.read(4))[0]
        self.file.seek(1024 + 0x60)
        self.file.write(struct.pack("<I", features | EXT4_NEEDS_RECOVERY))
        self.file.close()

    def head(self) -> None:
        """The journal superblock."""
        head, log = self.superblock, self.log
        struct.pack_into(">I", head, 4, log.version)
        struct.pack_into(">III", head, 0x14, 1, log.sequence, log.start)
        struct.pack_into(">III", head, 0x24, log.compat, log.incompat, 0)
        head[0x50] = 4 if log.incompat & CHECKSUMS else 0
        head[0xFC:0x100] = bytes(4)
        if log.incompat & CHECKSUMS:
            head[0xFC:0x100] = WORD.pack(crc32c(bytes(head[:1024])))
        self.write(0, bytes(head))

    def transaction(self, transaction: Transaction) -> None:
        self.sum = 0xFFFFFFFF
        width = 8 if self.log.incompat & INCOMPAT_64BIT else 4
        for at in range(0, len(transaction.revokes), 50):
            some = transaction.revokes[at : at + 50]
            body = b"".join(block.to_bytes(width, "big") for block in some)
            self.append(self.with_tail(self.header(REVOKE) + WORD.pack(16 + len(body)) + body))
        blocks = list(transaction.blocks)
        while blocks:
            blocks = blocks[self.descriptor(blocks) :]
        self.commits.append(self.append(self.commit(transaction.seconds)))

    def descriptor(self, blocks: Sequence[tuple[int, bytes]]) -> int:
        """One descriptor block and what it describes, as much as fits; how many blocks that are."""
        room = self.size - 12 - 16 - (4 if self.log.incompat & CHECKSUMS else 0)
        chosen = blocks[: room // len(self.tag(0, 0, bytes(self.size)))]
        copies, tags = [], b""
        for number, (block, data) in enumerate(chosen):
            flags = (SAME_UUID if number else 0) | (LAST if number == len(chosen) - 1 else 0)
            copy = data
            if data[:4] == WORD.pack(MAGIC):
                flags |= ESCAPE
                copy = bytes(4) + data[4:]
            copies.append(copy)
            tags += self.tag(block, flags, copy) + (b"" if number else self.uuid)
        block = self.with_tail(self.header(DESCRIPTOR) + tags)
        self.descriptors.append(self.append(block))
        self.sum = crc32_be(block, self.sum)
        for copy in copies:
            self.append(copy)
            self.sum = crc32_be(copy, self.sum)
        return len(chosen)

    def tag(self, block: int, flags: int, copy: bytes) -> bytes:
        low, high = block & 0xFFFFFFFF, block >> 32
        total = crc32c(copy, crc32c(WORD.pack(self.sequence), self.seed))
        if self.log.incompat & INCOMPAT_CSUM_V3:
            return struct.pack(">IIII", low, flags, high, total)
        short = total & 0xFFFF if self.log.incompat & INCOMPAT_CSUM_V2 else 0
        wide = WORD.pack(high) if self.log.incompat & INCOMPAT_64BIT else b""
        return (
            struct.pack(">IHH", low, short, flags) + wide + (bytes(2) if self.log.incompat & INCOMPAT_CSUM_V2 else b"")
        )

    def commit(self, seconds: int) -> bytes:
        body = bytearray(self.size)
        body[:12] = self.header(COMMIT)
        struct.pack_into(">QI", body, 0x30, seconds, 0)
        if self.log.compat & COMPAT_CHECKSUM:
            body[12:14] = bytes((1, 4))
            struct.pack_into(">I", body, 16, self.sum)
        if self.log.incompat & CHECKSUMS:
            struct.pack_into(">I", body, 16, crc32c(bytes(body), self.seed))
        return bytes(body)

    # Fast commits.

    def fast_place(self, index: int) -> int:
        """The block on the device of one block of the fast commit area, which begins behind a spare one."""
        count = struct.unpack_from(">I", self.superblock, 0x54)[0]
        return self.places[struct.unpack_from(">I", self.superblock, 0x10)[0] - count + 1 + index]

    def fast(self, commits: Sequence[Sequence[tuple[int, bytes]]], tid: int) -> None:
        """Write fast commits: a head before the first, records in whole blocks, each commit closed by its sum."""
        self.last -= struct.unpack_from(">I", self.superblock, 0x54)[0]
        index = 0
        for number, records in enumerate(commits):
            sum_, block = 0, b""
            for tag, value in [*([(9, struct.pack("<II", 0, tid))] if number == 0 else []), *records, (8, b"")]:
                if len(block) + 4 + len(value) + (8 if tag == 8 else 0) > self.size - 4:
                    block += struct.pack("<HH", 7, self.size - 4 - len(block))
                    block = block.ljust(self.size, b"\0")
                    sum_ = crc32c(block, sum_)
                    index, block = self.write_fast(index, block), b""
                if tag == 8:
                    block += struct.pack("<HHI", 8, self.size - 4 - len(block), tid)
                    block += struct.pack("<I", crc32c(block, sum_))
                else:
                    block += struct.pack("<HH", tag, len(value)) + value
            index = self.write_fast(index, block.ljust(self.size, b"\0"))

    def write_fast(self, index: int, block: bytes) -> int:
        self.file.seek(self.fast_place(index) * self.size)
        self.file.write(block)
        return index + 1

    # For damage.

    def flip(self, place: int, offset: int) -> None:
        """Turn one bit of a block of the journal, after run."""
        with open(self.image, "r+b") as file:
            file.seek(self.places[place] * self.size + offset)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes((byte ^ 1,)))


def expected(log: Log, before: dict[int, bytes], count: int | None = None) -> dict[int, bytes]:
    """What the first transactions leave in the blocks of ``before``: the last copy that was not revoked since."""
    transactions = log.transactions[:count]
    after = dict(before)
    for number, transaction in enumerate(transactions):
        later = [block for other in transactions[number:] for block in other.revokes]
        after.update((block, data) for block, data in transaction.blocks if block in after and block not in later)
    return after
