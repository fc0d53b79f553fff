"""xfs_surgery changes single records of an XFS image and makes their checksums right again. It maps nothing.

Paths are found by xfs_db; places are computed here from "XFS Algorithms & Data Structures"; CRC-32C is crcmod's. None
of them knows anything of the reader under test.
"""

import os
import re
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import crcmod.predefined

SUPERBLOCK_CRC, AGF_CRC, AGI_CRC, INODE_CRC = 224, 216, 312, 100
SHORT_CRC, LONG_CRC, DIRECTORY_CRC, ATTRIBUTE_CRC = 52, 64, 4, 12

_crc32c = crcmod.predefined.mkPredefinedCrcFun("crc-32c")


def xfs_db(image: Path, *requests: str) -> str:
    """What xfs_db prints for some requests."""
    arguments = [part for request in requests for part in ("-c", request)]
    return subprocess.run(
        ["xfs_db", "-r", *arguments, os.fspath(image)], capture_output=True, text=True, check=True, errors="replace"
    ).stdout


@dataclass
class Surgeon:
    """An image under the knife. Offsets are bytes on the device."""

    image: Path

    def __post_init__(self) -> None:
        sb = self.read(0, 512)
        self.block_size, self.ag_blocks, self.ag_count = (struct.unpack_from(">I", sb, at)[0] for at in (4, 84, 88))
        version, self.sector_size, self.inode_size = struct.unpack_from(">HHH", sb, 100)
        self.inode_per_block_log, self.ag_block_log = sb[123], sb[124]
        self.dir_block_size = self.block_size << sb[192]
        self.log_start = struct.unpack_from(">Q", sb, 48)[0]
        self.crc = version & 15 == 5
        self.long_header = 72 if self.crc else 24
        self.core = 176 if self.crc else 100

    def read(self, offset: int, size: int) -> bytes:
        with open(self.image, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def write(self, offset: int, data: bytes) -> None:
        with open(self.image, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def seal(self, offset: int, size: int, at: int) -> None:
        """Make the checksum at a place of a record right."""
        record = bytearray(self.read(offset, size))
        record[at : at + 4] = bytes(4)
        self.write(offset + at, struct.pack("<I", _crc32c(bytes(record))))

    # Places.

    def number(self, path: str) -> int:
        """Inode number of a path."""
        found = re.search(r"inode number is (\d+)", xfs_db(self.image, f"path {path}", "inode"))
        assert found, path
        return int(found[1])

    def block(self, number: int) -> int:
        """Offset of a block by XFS's own number."""
        group, first = number >> self.ag_block_log, number & ((1 << self.ag_block_log) - 1)
        return (group * self.ag_blocks + first) * self.block_size

    def inode(self, number: int) -> int:
        """Offset of an inode."""
        index = number & ((1 << self.inode_per_block_log) - 1)
        return self.block(number >> self.inode_per_block_log) + index * self.inode_size

    def fork(self, number: int) -> int:
        """Offset of an inode's data fork."""
        return self.inode(number) + self.core

    def attribute_fork(self, number: int) -> int:
        """Offset of an inode's attribute fork."""
        return self.fork(number) + 8 * self.read(self.inode(number) + 82, 1)[0]

    def header(self, group: int, sector: int) -> int:
        """Offset of a sector of a group: 1 is the AGF, 2 the AGI."""
        return group * self.ag_blocks * self.block_size + sector * self.sector_size

    def inode_tree(self, group: int) -> int:
        """Offset of the root of a group's inode B+tree."""
        root = struct.unpack(">I", self.read(self.header(group, 2) + 20, 4))[0]
        return (group * self.ag_blocks + root) * self.block_size

    def refcount_tree(self, group: int) -> int:
        """Offset of the root of a group's reference count B+tree."""
        root = struct.unpack(">I", self.read(self.header(group, 1) + 88, 4))[0]
        return (group * self.ag_blocks + root) * self.block_size

    def count(self, offset: int) -> int:
        """Records in a block of a B+tree."""
        found: int = struct.unpack(">H", self.read(offset + 6, 2))[0]
        return found

    def records(self, offset: int, count: int) -> list[tuple[int, int, int, int]]:
        """(logical, block, count, unwritten) of extents that stand at an offset."""
        found = []
        for high, low in struct.iter_unpack(">QQ", self.read(offset, 16 * count)):
            whole = high << 64 | low
            found.append((whole >> 73 & (1 << 54) - 1, whole >> 21 & (1 << 52) - 1, low & (1 << 21) - 1, whole >> 127))
        return found

    def put_record(self, offset: int, logical: int, block: int, count: int, unwritten: int = 0) -> None:
        """Write one extent."""
        whole = unwritten << 127 | logical << 73 | block << 21 | count
        self.write(offset, struct.pack(">QQ", whole >> 64, whole & (1 << 64) - 1))

    def nodes(self, number: int, of_attributes: bool = False) -> list[int]:
        """Offsets of the blocks of an inode's extent tree, parents before children."""
        inode = self.read(self.inode(number), self.inode_size)
        start = self.core + (8 * inode[82] if of_attributes else 0)
        end = self.core + 8 * inode[82] if inode[82] and not of_attributes else self.inode_size
        _, count = struct.unpack_from(">HH", inode, start)
        most = (end - start - 4) // 16
        level = [self.block(p) for p in struct.unpack_from(f">{count}Q", inode, start + 4 + 8 * most)]
        found = []
        while level:
            found += level
            level = [child for node in level for child in self.children(node)]
        return found

    def children(self, offset: int) -> list[int]:
        """Offsets of the blocks below a node of an extent tree; of a leaf, none."""
        raw = self.read(offset, self.block_size)
        level, count = struct.unpack_from(">HH", raw, 4)
        most = (self.block_size - self.long_header) // 16
        pointers = struct.unpack_from(f">{count}Q", raw, self.long_header + 8 * most) if level else ()
        return [self.block(pointer) for pointer in pointers]

    # Checksums.

    def fix_superblock(self) -> None:
        self.seal(0, self.sector_size, SUPERBLOCK_CRC)

    def fix_header(self, group: int, sector: int) -> None:
        self.seal(self.header(group, sector), self.sector_size, AGF_CRC if sector == 1 else AGI_CRC)

    def fix_inode(self, number: int) -> None:
        self.seal(self.inode(number), self.inode_size, INODE_CRC)

    def fix_block(self, offset: int, at: int) -> None:
        self.seal(offset, self.dir_block_size if at == DIRECTORY_CRC else self.block_size, at)
