"""xfs_encoder makes XFS metadata from nothing: superblocks, attribute forks, directories, symlinks. It reads none.

Written from "XFS Algorithms & Data Structures" alone and apart from the reader, so that each proves the other.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import crcmod.predefined

_crc32c = crcmod.predefined.mkPredefinedCrcFun("crc-32c")
UUID = bytes(range(16, 32))
LEAF_SPACE = 1 << 35  # bytes: where a directory's leaves begin
LOCAL, ROOT, SECURE, PARENT, INCOMPLETE = 1, 2, 4, 8, 128
FILE_TYPES = {0o100000: 1, 0o040000: 2, 0o020000: 3, 0o060000: 4, 0o010000: 5, 0o140000: 6, 0o120000: 7}


class Form(NamedTuple):
    """What one file system is made with; sizes in bytes."""

    version: int = 5
    block_size: int = 4096
    dir_block_size: int = 4096
    ftype: bool = True

    @property
    def crc(self) -> bool:
        """Version 5: blocks say what they are."""
        return self.version == 5


def seal(block: bytearray, at: int) -> bytes:
    """The block with its checksum, little-endian, at an offset that holds zeros."""
    struct.pack_into("<I", block, at, _crc32c(bytes(block)))
    return bytes(block)


def superblock(form: Form) -> bytes:
    """The first 32768 bytes of a file system of two groups, with an external log."""
    log = form.block_size.bit_length() - 1
    group = max((1 << 24) >> log, 64)
    inode_log = 9 if form.crc else 8
    block = bytearray(32768)
    struct.pack_into(">IIQQQ16sQQQQ", block, 0, 0x58465342, form.block_size, 2 * group, 0, 0, UUID, 0, 0, 0, 0)
    struct.pack_into(">Q", block, 56, 16 << (log - inode_log))  # root
    struct.pack_into(">IIIII", block, 80, 1, group, 2, 0, 0)
    bits = 5 | 0xB480 if form.crc else 4 | 0xB480
    inodes = form.block_size >> inode_log
    struct.pack_into(">HHHH", block, 100, bits, 512, 1 << inode_log, inodes)
    struct.pack_into("BBBBB", block, 120, log, 9, inode_log, log - inode_log, (group - 1).bit_length())
    struct.pack_into("B", block, 192, (form.dir_block_size // form.block_size).bit_length() - 1)
    features2 = 0x88 | (0x100 if form.crc else 0) | (0x200 if form.ftype and not form.crc else 0)
    struct.pack_into(">II", block, 200, features2, features2)
    struct.pack_into(">IIII", block, 208, 0, 0, 1 if form.ftype else 0, 0)
    if form.crc:
        struct.pack_into("<I", block, 224, _crc32c(bytes(block[:512])))
    return bytes(block)


@dataclass
class Fork:
    """Blocks of one fork: where each one stands, and what is in them. Runs of `run` blocks lie swapped in pairs."""

    form: Form
    owner: int
    run: int = 1 << 20
    base: int = 1000
    blocks: dict[int, bytes] = field(default_factory=dict)

    def physical(self, logical: int) -> int:
        """Linear block of a block of the fork."""
        far = LEAF_SPACE // self.form.block_size
        if logical >= far:
            return 3500 + logical - far
        return self.base + ((logical // self.run) ^ 1) * self.run + logical % self.run

    def daddr(self, logical: int) -> int:
        """The same in units of 512 bytes."""
        return self.physical(logical) * (self.form.block_size // 512)

    def put(self, logical: int, data: bytes) -> None:
        """Store whole blocks from a logical one on."""
        size = self.form.block_size
        for at in range(0, len(data), size):
            self.blocks[logical + at // size] = data[at : at + size]

    @property
    def extents(self) -> list[tuple[int, int, int]]:
        """(logical, physical, count), merged where adjacent both ways."""
        rows: list[tuple[int, int, int]] = []
        for logical in sorted(self.blocks):
            physical = self.physical(logical)
            if rows and (rows[-1][0] + rows[-1][2], rows[-1][1] + rows[-1][2]) == (logical, physical):
                rows[-1] = (*rows[-1][:2], rows[-1][2] + 1)
            else:
                rows.append((logical, physical, 1))
        return rows

    @property
    def bytes(self) -> bytes:
        """All blocks in the order of the extents."""
        return b"".join(self.blocks[logical] for logical in sorted(self.blocks))


# Extended attributes.


class Attr(NamedTuple):
    """One attribute as it is stored; remote: its value lies in blocks of its own."""

    flags: int
    name: bytes
    value: bytes
    remote: bool = False


def shortform(attrs: list[Attr]) -> bytes:
    """An attribute fork in the inode."""
    body = b"".join(struct.pack("BBB", len(a.name), len(a.value), a.flags) + a.name + a.value for a in attrs)
    return struct.pack(">HBB", 4 + len(body), len(attrs), 0) + body


def _blkinfo(fork: Fork, logical: int, magic: int, forward: int, back: int) -> bytes:
    if not fork.form.crc:
        return struct.pack(">IIHH", forward, back, magic, 0)
    magic &= 0x3FFF
    return struct.pack(
        ">IIHHIQQ16sQ", forward, back, magic, 0, 0, fork.daddr(logical), 77, UUID, fork.owner
    )  # fmt: skip


def _put_da(fork: Fork, logical: int, head: bytes, tail: bytes = b"") -> None:
    block = bytearray(head + bytes(fork.form.block_size - len(head) - len(tail)) + tail)
    fork.put(logical, seal(block, 12) if fork.form.crc else bytes(block))


def remote_blocks(fork: Fork, logical: int, value: bytes) -> int:
    """Store a value in blocks of its own; how many it takes."""
    size = fork.form.block_size
    room = size - 56 if fork.form.crc else size
    for count, at in enumerate(range(0, len(value), room)):
        piece = value[at : at + room]
        head = b""
        if fork.form.crc:
            place = fork.daddr(logical + count)
            head = struct.pack(">4sIII16sQQQ", b"XARM", at, len(piece), 0, UUID, fork.owner, place, 2**64 - 1)
        block = bytearray(head + piece + b"\xee" * (size - len(head) - len(piece)))
        fork.put(logical + count, seal(block, 12) if fork.form.crc else bytes(block))
    return -(-len(value) // room)


def leaf(fork: Fork, logical: int, attrs: list[Attr], places: list[int], forward: int = 0, back: int = 0) -> None:
    """Store one leaf; places: block of each remote value."""
    size = fork.form.block_size
    entries, names = b"", b""
    for number, (attr, place) in enumerate(zip(attrs, places, strict=True)):
        if attr.remote:
            item = struct.pack(">IIB", place, len(attr.value), len(attr.name)) + attr.name
        else:
            item = struct.pack(">HB", len(attr.value), len(attr.name)) + attr.name + attr.value
        names = item + bytes(-len(item) % 4) + names
        flags = attr.flags | (0 if attr.remote else LOCAL)
        entries += struct.pack(">IHBB", number, (size - len(names)) & 0xFFFF, flags, 0)
    head = _blkinfo(fork, logical, 0xFBEE, forward, back)
    head += struct.pack(">HHHBB12x", len(attrs), len(names), (size - len(names)) & 0xFFFF, 0, 0)
    head += bytes(4 if fork.form.crc else 0)
    assert len(head) + len(entries) + len(names) <= size, "more attributes than a leaf holds"
    _put_da(fork, logical, head + entries, names)


def node(fork: Fork, logical: int, level: int, children: list[int]) -> None:
    """Store one node."""
    head = _blkinfo(fork, logical, 0xFEBE, 0, 0) + struct.pack(">HH", len(children), level)
    head += bytes(4 if fork.form.crc else 0)
    _put_da(fork, logical, head + b"".join(struct.pack(">II", number, child) for number, child in enumerate(children)))


def attr_tree(fork: Fork, leaves: list[list[Attr]], levels: int = 1) -> None:
    """A whole attribute fork: one leaf alone, or leaves below so many levels of nodes; values behind them."""
    first = 0 if len(leaves) == 1 else levels
    numbers = [first + i for i in range(len(leaves))]
    free = numbers[-1] + 1
    for i, attrs in enumerate(leaves):
        places = []
        for attr in attrs:
            places.append(free if attr.remote else 0)
            free += remote_blocks(fork, free, attr.value) if attr.remote else 0
        forward = numbers[i + 1] if i + 1 < len(leaves) else 0
        leaf(fork, numbers[i], attrs, places, forward, numbers[i - 1] if i else 0)
    for level in range(levels if len(leaves) > 1 else 0):
        node(fork, level, levels - level, numbers if level == levels - 1 else [level + 1])


# Symlinks.


def symlink_blocks(fork: Fork, target: bytes) -> None:
    """The blocks of a symlink: a header in each extent, a checksum over all of it."""
    size = fork.form.block_size
    head = 56 if fork.form.crc else 0
    count = -(-len(target) // (size - head))
    for logical in range(count):
        fork.blocks[logical] = b""  # so that the extents are known
    done = 0
    for first, _, blocks in fork.extents:
        piece = target[done : done + blocks * size - head]
        block = bytearray(piece + bytes(blocks * size - head - len(piece)))
        if fork.form.crc:
            place = fork.daddr(first)
            block[:0] = struct.pack(">4sIII16sQQQ", b"XSLM", done, len(piece), 0, UUID, fork.owner, place, 5)
            block = bytearray(seal(block, 12))
        fork.put(first, bytes(block))
        done += len(piece)
    assert done == len(target)


# Directories.


class Name(NamedTuple):
    """One entry: the inode, its name and type (S_IFMT bits); or so many bytes of unused space before it."""

    inode: int
    name: bytes
    type: int
    gap: int = 0


def local_directory(form: Form, parent: int, names: list[Name]) -> bytes:
    """A directory in its inode."""
    wide = any(number >= 2**32 for number in [parent, *(n.inode for n in names)])
    number = ">Q" if wide else ">I"
    body = struct.pack("BB", len(names), sum(n.inode >= 2**32 for n in names) or wide) + struct.pack(number, parent)
    for at, n in enumerate(names):
        kind = bytes([FILE_TYPES[n.type]]) if form.ftype else b""
        body += struct.pack(">BH", len(n.name), 96 + 16 * at) + n.name + kind + struct.pack(number, n.inode)
    return body


def _entry(form: Form, at: int, n: Name) -> bytes:
    kind = bytes([FILE_TYPES[n.type]]) if form.ftype else b""
    head = struct.pack(">QB", n.inode, len(n.name)) + n.name + kind
    return head + bytes(-(len(head) + 2) % 8) + struct.pack(">H", at)


def _unused(at: int, size: int) -> bytes:
    return struct.pack(">HH", 0xFFFF, size) + b"\xdd" * (size - 6) + struct.pack(">H", at) if size else b""


def _data_block(fork: Fork, logical: int, names: list[Name], leaves: int | None) -> bytes:
    form = fork.form
    size = form.dir_block_size
    tail = b""
    if leaves is not None:
        tail = b"\xcc" * 8 * leaves + struct.pack(">II", leaves, 0)
    magic = {(True, True): b"XDB3", (True, False): b"XDD3", (False, True): b"XD2B", (False, False): b"XD2D"}
    head = magic[form.crc, leaves is not None]
    if form.crc:
        head += struct.pack(">IQQ16sQ", 0, fork.daddr(logical), 9, UUID, fork.owner)
    head += bytes(16 if form.crc else 12)
    for n in names:
        head += _unused(len(head), n.gap)
        head += _entry(form, len(head), n)
    rest = size - len(head) - len(tail)
    assert rest >= 0, "more entries than a block holds"
    block = bytearray(head + _unused(len(head), rest) + tail)
    return seal(block, 4) if form.crc else bytes(block)


def directory(fork: Fork, parent: int, blocks: list[list[Name]], alone: bool, places: Iterable[int]) -> None:
    """A directory of blocks at the given directory blocks: alone with its leaf inside, or with a leaf far behind."""
    per = fork.form.dir_block_size // fork.form.block_size
    dots = [Name(fork.owner, b".", 0o040000), Name(parent, b"..", 0o040000)]
    for number, (place, names) in enumerate(zip(places, blocks, strict=True)):
        held = dots + names if number == 0 else names
        fork.put(place * per, _data_block(fork, place * per, held, len(held) if alone else None))
    if not alone:
        far = LEAF_SPACE // fork.form.block_size
        fork.put(far, b"\xff" * fork.form.dir_block_size)  # never read, so anything
