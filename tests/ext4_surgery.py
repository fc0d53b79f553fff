"""ext4_surgery changes single records of an image and makes their checksums right again. It maps nothing.

Records are found by debugfs; CRC-32C is crcmod's. Both know nothing of the reader under test.
"""

import os
import re
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import crcmod.predefined

SUPERBLOCK = 1024
CHECKSUM_TYPE = 0x175
INODE_CHECKSUM = (0x7C, 0x82)

_crc32c = crcmod.predefined.mkPredefinedCrcFun("crc-32c")


def raw_crc(seed: int, data: bytes) -> int:
    """CRC-32C as ext4 uses it: the register itself, no final inversion."""
    return ~_crc32c(data, ~seed & 0xFFFFFFFF) & 0xFFFFFFFF


def debugfs(image: Path, request: str) -> str:
    """What debugfs prints for one request; it ends with 0 even where it refuses, and then says why elsewhere."""
    command = ["debugfs", "-R", request, os.fspath(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, errors="replace")
    assert done.stdout, f"debugfs -R {request!r}: {done.stderr}"
    return done.stdout


@dataclass
class Surgeon:
    """An image under the knife. Offsets are bytes on the device."""

    image: Path

    def __post_init__(self) -> None:
        sb = self.read(SUPERBLOCK, 1024)
        self.block_size = 1024 << struct.unpack_from("<I", sb, 24)[0]
        self.first_data_block = struct.unpack_from("<I", sb, 20)[0]
        self.inode_size = struct.unpack_from("<H", sb, 88)[0]
        self.desc_size = struct.unpack_from("<H", sb, 254)[0] if struct.unpack_from("<I", sb, 96)[0] & 0x80 else 32
        with_seed = struct.unpack_from("<I", sb, 96)[0] & 0x2000
        self.seed = struct.unpack_from("<I", sb, 0x270)[0] if with_seed else raw_crc(0xFFFFFFFF, sb[104:120])

    def read(self, offset: int, size: int) -> bytes:
        with open(self.image, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def write(self, offset: int, data: bytes) -> None:
        with open(self.image, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def number(self, path: str) -> int:
        """Inode number of a path."""
        found = re.search(r"Inode: (\d+)", debugfs(self.image, f"stat {path}"))
        assert found is not None, path
        return int(found[1])

    def inode(self, number: int) -> int:
        """Offset of an inode."""
        found = re.search(r"located at block (\d+), offset 0x([0-9a-f]+)", debugfs(self.image, f"imap <{number}>"))
        assert found is not None, number
        return int(found[1]) * self.block_size + int(found[2], 16)

    def block(self, number: int, logical: int) -> int:
        """Offset of a block of a file or directory."""
        return int(debugfs(self.image, f"bmap <{number}> {logical}")) * self.block_size

    def nodes(self, number: int) -> list[int]:
        """Offsets of the blocks of a file's extent tree."""
        found = re.findall(r"\(ETB\d+\):(\d+)", debugfs(self.image, f"stat <{number}>"))
        return [int(block) * self.block_size for block in found]

    def xattr_block(self, number: int) -> int:
        """Offset of an inode's extended attribute block."""
        low = struct.unpack_from("<I", self.read(self.inode(number), 128), 0x68)[0]
        return int(low) * self.block_size

    def group(self, number: int) -> int:
        """Offset of a group descriptor."""
        return (self.first_data_block + 1) * self.block_size + number * self.desc_size

    def inode_seed(self, number: int) -> int:
        raw = self.read(self.inode(number), 128)
        return raw_crc(self.seed, struct.pack("<I", number) + raw[0x64:0x68])

    # Checksums made right again.

    def fix_superblock(self) -> None:
        sb = self.read(SUPERBLOCK, 1024)
        self.write(SUPERBLOCK + 0x3FC, struct.pack("<I", raw_crc(0xFFFFFFFF, sb[:0x3FC])))

    def fix_group(self, number: int) -> None:
        raw = bytearray(self.read(self.group(number), self.desc_size))
        raw[0x1E:0x20] = bytes(2)
        crc = raw_crc(self.seed, struct.pack("<I", number) + raw) & 0xFFFF
        self.write(self.group(number) + 0x1E, struct.pack("<H", crc))

    def fix_inode(self, number: int) -> None:
        offset = self.inode(number)
        raw = bytearray(self.read(offset, self.inode_size))
        wide = self.inode_size > 128 and struct.unpack_from("<H", raw, 128)[0] >= 4
        raw[0x7C:0x7E] = bytes(2)
        if wide:
            raw[0x82:0x84] = bytes(2)
        crc = raw_crc(self.inode_seed(number), bytes(raw))
        self.write(offset + 0x7C, struct.pack("<H", crc & 0xFFFF))
        if wide:
            self.write(offset + 0x82, struct.pack("<H", crc >> 16))

    def fix_node(self, number: int, offset: int) -> None:
        raw = self.read(offset, self.block_size)
        tail = 12 + 12 * struct.unpack_from("<H", raw, 4)[0]
        if tail + 4 <= self.block_size:
            self.write(offset + tail, struct.pack("<I", raw_crc(self.inode_seed(number), raw[:tail])))

    def fix_directory_block(self, number: int, offset: int) -> None:
        """A block that is no node of a hash tree."""
        raw = self.read(offset, self.block_size)
        self.write(offset + self.block_size - 4, struct.pack("<I", raw_crc(self.inode_seed(number), raw[:-12])))

    def fix_xattr_block(self, offset: int) -> None:
        raw = bytearray(self.read(offset, self.block_size))
        raw[16:20] = bytes(4)
        crc = raw_crc(self.seed, struct.pack("<Q", offset // self.block_size) + raw)
        self.write(offset + 16, struct.pack("<I", crc))
