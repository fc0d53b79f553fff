"""XFS directories made by an independent encoder, walked; and what of damaged ones is kept."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.xfs_directory import XfsWalk
from tests.xfs_encoder import FILE_TYPES, Fork, Form, Name, directory, local_directory, seal, superblock

ROOT = 128
DIR, REG = 0o040000, 0o100000
DAMAGED = 1
FORMS = [
    Form(5, 4096, 4096),
    Form(5, 1024, 4096),
    Form(5, 1024, 65536),
    Form(5, 65536, 65536),
    Form(4, 512, 512),
    Form(4, 4096, 4096, ftype=False),
    Form(4, 2048, 16384, ftype=False),
]
NAME = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"\0" not in name and b"/" not in name and name not in (b".", b"..")
)
SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Made:
    """A device of the encoder's blocks and a map of its files, without names yet."""

    def __init__(self, folder: Path, form: Form) -> None:
        self.form = form
        self.path = folder / "image"
        self.map = ExtentMap("xfs", bytes(16), form.block_size, 1 << 30)
        self.indexes: dict[int, int] = {}
        self.local: dict[int, bytes] = {}
        self.path.write_bytes(superblock(form))

    def add(self, inode: int, kind: int, fork: Fork | None = None, local: bytes | None = None) -> None:
        """A file; inodes in rising order."""
        index = self.map.add_file(inode, kind | 0o755, link_count=2, rdev=0)
        self.indexes[inode] = index
        if local is not None:
            self.local[index] = local
        if fork is not None:
            size = self.form.block_size
            for extent in fork.extents:
                self.map.add_extent(*extent)
            with open(self.path, "r+b") as image:
                for logical, data in fork.blocks.items():
                    image.seek(fork.physical(logical) * size)
                    image.write(data)

    def walk(self) -> list[tuple[bytes, int]]:
        """(path, inode) of every name."""
        with open(self.path, "r+b") as image:
            image.truncate(max(image.seek(0, 2), 4096 * self.form.block_size))
        with BlockDevice(self.path) as device:
            XfsWalk().names(device, self.map, ROOT, self.local)
        self.map.finish()
        inodes = np.asarray(self.map.files)["inode"]
        files = np.asarray(self.map.names)["file"]
        return sorted((self.map.path_of(i), int(inodes[files[i]])) for i in range(self.map.name_count))

    @property
    def texts(self) -> list[str]:
        """What was found wrong."""
        return [text for _, _, text in self.map.problems]

    def is_damaged(self, inode: int) -> bool:
        """The directory is marked."""
        return bool(np.asarray(self.map.files)["flags"][self.map.find_file(inode)] & DAMAGED)


def fill(names: list[Name], form: Form, alone: bool) -> list[list[Name]]:
    """Names put into blocks in order, as many as fit each."""
    blocks: list[list[Name]] = [[]]
    used = 64 + 32
    for n in names:
        size = (12 + len(n.name) + 7) // 8 * 8 + n.gap
        tail = 8 * (len(blocks[-1]) + 4) + 8 if alone else 0
        if used + size + tail > form.dir_block_size:
            if alone:
                break
            blocks.append([])
            used = 64
        blocks[-1].append(n)
        used += size
    return blocks


@given(st.data())
@SHARED
def test_names_of_directories_in_blocks_come_back(tmp_path: Path, data: st.DataObject) -> None:
    """Block, leaf and node directories, in one extent or in pieces of a block, with holes and unused space."""
    form = data.draw(st.sampled_from(FORMS))
    names = data.draw(st.lists(NAME, max_size=25, unique=True))
    kinds = [data.draw(st.sampled_from([k for k in FILE_TYPES if k != DIR])) for _ in names]
    gaps = [data.draw(st.sampled_from([0, 0, 8, 16, 48])) for _ in names]
    entries = [Name(ROOT + 1 + i, *row) for i, row in enumerate(zip(names, kinds, gaps, strict=True))]
    alone = data.draw(st.booleans())
    blocks = fill(entries, form, alone)
    per = form.dir_block_size // form.block_size
    fork = Fork(
        form, ROOT, run=data.draw(st.sampled_from([1, per, 3 * per, max(per // 2, 1), per + 1, 1 << 20])), base=64
    )
    if fork.run == 1 << 20:
        fork.run, fork.base = 1 << 11, 64 - (1 << 11)
    directory(
        fork,
        ROOT,
        blocks,
        alone,
        sorted([0, *data.draw(st.permutations(range(1, len(blocks) + 3)))[: len(blocks) - 1]]),
    )
    made = Made(tmp_path, form)
    made.add(ROOT, DIR, fork)
    for entry in entries:
        made.add(entry.inode, entry.type)
    held = [entry for block in blocks for entry in block]

    assert made.walk() == sorted([(b"", ROOT), *((entry.name, entry.inode) for entry in held)])
    assert made.texts == []


@given(st.data())
@SHARED
def test_names_of_directories_in_inodes_come_back(tmp_path: Path, data: st.DataObject) -> None:
    """Inode numbers of four bytes, or of eight as soon as one needs them; with and without types."""
    form = Form(4, 4096, 4096, ftype=data.draw(st.booleans()))
    names = data.draw(st.lists(NAME, max_size=12, unique=True))
    high = data.draw(st.booleans()) << 33
    entries = [Name(ROOT + 1 + i + high, name, REG) for i, name in enumerate(names)]
    made = Made(tmp_path, form)
    made.add(ROOT, DIR, local=local_directory(form, ROOT, entries))
    for entry in entries:
        made.add(entry.inode, REG)

    assert made.walk() == sorted([(b"", ROOT), *((entry.name, entry.inode) for entry in entries)])
    assert made.texts == []


def one_block(tmp_path: Path, form: Form = FORMS[0]) -> tuple[Made, Fork]:
    """A root of one block with three files and a folder in it, not yet added."""
    fork = Fork(form, ROOT, run=1 << 11, base=64 - (1 << 11))
    names = [Name(ROOT + 1 + i, b"file%d" % i, REG) for i in range(3)] + [Name(ROOT + 4, b"folder", DIR)]
    directory(fork, ROOT, [names], True, [0])
    return Made(tmp_path, form), fork


def finish(made: Made, fork: Fork) -> list[bytes]:
    """Paths found."""
    made.add(ROOT, DIR, fork)
    for i in range(3):
        made.add(ROOT + 1 + i, REG)
    made.add(ROOT + 4, DIR, local=local_directory(made.form, ROOT, []))
    return [path for path, _ in made.walk()]


def change(fork: Fork, at: int, value: bytes) -> None:
    """Other bytes in the first block, with the checksum it then must have."""
    block = bytearray(fork.blocks[0])
    block[at : at + len(value)] = value
    if fork.form.crc:
        block[4:8] = bytes(4)
        fork.blocks[0] = seal(block, 4)
    else:
        fork.blocks[0] = bytes(block)


EVERYTHING = [b"", b"file0", b"file1", b"file2", b"folder"]
FILE0, FILE1 = 96, 120  # offsets of entries behind . and .., 16 and 24 bytes


def test_the_sample_is_whole(tmp_path: Path) -> None:
    """What the tests below damage."""
    made, fork = one_block(tmp_path)
    assert fork.blocks[0][FILE0 + 9 : FILE0 + 14] == b"file0"

    assert finish(made, fork) == EVERYTHING
    assert made.texts == []


@pytest.mark.parametrize(
    ("at", "value", "word", "kept"),
    [
        (0, b"XDD3", "form", [b""]),
        (0, b"XD2B", "magic", [b""]),
        (8, bytes(8), "elsewhere", [b""]),
        (24, bytes(16), "another file system", [b""]),
        (40, bytes(8), "another inode", [b""]),
        (4088, b"\xff" * 4, "leaf entries", [b""]),
        (FILE0 + 8, b"\xff", "place", [b""]),
        (FILE0 + 8, b"\0", "place", [b""]),
        (FILE0 + 22, b"\0\0", "place", [b""]),
        (FILE0, b"\xff\xff\0\0", "odd length", [b""]),
        (FILE0, b"\xff\xff\0\x0c", "odd length", [b""]),
        (FILE0, b"\xff\xff\xff\xf8", "fit", [b""]),
        (FILE0 + 10, b"/", "slash", [b"", b"file1", b"file2", b"folder"]),
        (FILE0 + 10, b"\0", "null", [b"", b"file1", b"file2", b"folder"]),
        (FILE0, struct.pack(">Q", 999), "not in use", [b"", b"file1", b"file2", b"folder"]),
        (FILE0, b"\xee" * 8, "not in use", [b"", b"file1", b"file2", b"folder"]),
        (FILE0, struct.pack(">Q", ROOT), "another name", [b"", b"file1", b"file2", b"folder"]),
    ],
)
def test_damage_is_told_and_the_rest_is_read(
    tmp_path: Path, at: int, value: bytes, word: str, kept: list[bytes]
) -> None:
    """A block that is not what it should be costs its names, an entry that cannot be passed those behind it."""
    made, fork = one_block(tmp_path)
    change(fork, at, value)

    assert finish(made, fork) == kept
    assert any(word in text for text in made.texts)
    assert made.is_damaged(ROOT)


@pytest.mark.parametrize(
    ("at", "value", "word"),
    [
        (64, struct.pack(">Q", 999), "entry ."),
        (80, struct.pack(">Q", 999), "another parent"),
        (FILE0 + 14, b"\x03", "file type is not"),
        (FILE0 + 14, b"\x09", "file type is none"),
    ],
)
def test_what_costs_no_name_is_told(tmp_path: Path, at: int, value: bytes, word: str) -> None:
    """Numbers and types that the walk does not need."""
    made, fork = one_block(tmp_path)
    change(fork, at, value)

    assert finish(made, fork) == EVERYTHING
    assert [word in text for text in made.texts] == [True]
    assert not made.is_damaged(ROOT)


def test_a_checksum_that_does_not_match_costs_the_block(tmp_path: Path) -> None:
    made, fork = one_block(tmp_path)
    fork.blocks[0] = fork.blocks[0][:200] + b"!" + fork.blocks[0][201:]

    assert finish(made, fork) == [b""]
    assert made.is_damaged(ROOT)


def test_a_whiteout_is_a_character_device(tmp_path: Path) -> None:
    """File type 8 stands for a device 0:0, which overlay file systems leave."""
    made, fork = one_block(tmp_path)
    change(fork, FILE0 + 14, b"\x08")
    made.add(ROOT, DIR, fork)
    made.add(ROOT + 1, 0o020000)
    for inode in (ROOT + 2, ROOT + 3):
        made.add(inode, REG)
    made.add(ROOT + 4, DIR, local=local_directory(made.form, ROOT, []))

    assert [path for path, _ in made.walk()] == EVERYTHING
    assert made.texts == []


@pytest.mark.parametrize("lost", [0, 1, 2, 3, 5, 6])
def test_a_directory_block_with_a_hole_costs_this_block(tmp_path: Path, lost: int) -> None:
    """Two directory blocks of four file system blocks, one of which is not mapped, in pieces or not."""
    form = Form(5, 1024, 4096)
    for run in (1, 3, 1 << 11):
        folder = tmp_path / str(run)
        folder.mkdir()
        fork = Fork(form, ROOT, run=run, base=64 if run < 8 else 64 - run)
        blocks = [[Name(ROOT + 1 + i, b"n%d" % i, REG) for i in range(k, k + 3)] for k in (0, 3)]
        directory(fork, ROOT, blocks, False, [0, 1])
        del fork.blocks[lost]
        made = Made(folder, form)
        made.add(ROOT, DIR, fork)
        for i in range(6):
            made.add(ROOT + 1 + i, REG)

        assert [path for path, _ in made.walk()] == [
            b"",
            *((b"n3", b"n4", b"n5") if lost < 4 else (b"n0", b"n1", b"n2")),
        ]
        assert made.is_damaged(ROOT)


@pytest.mark.parametrize("cut", [0, 1, 2, 5, 6, 9, 20])
def test_a_directory_that_does_not_fit_its_inode(tmp_path: Path, cut: int) -> None:
    """Cut short anywhere, and with a byte too much."""
    form = Form()
    whole = local_directory(form, ROOT, [Name(ROOT + 1 + i, b"n%d" % i, REG) for i in range(3)])
    for local in (whole[:cut], whole + b"\0"):
        folder = tmp_path / str(len(local))
        folder.mkdir()
        made = Made(folder, form)
        made.add(ROOT, DIR, local=local)
        for i in range(3):
            made.add(ROOT + 1 + i, REG)
        found = [path for path, _ in made.walk()]

        assert found == [b"", b"n0", b"n1", b"n2"][: len(found)]
        assert made.is_damaged(ROOT)


@given(st.data())
@SHARED
def test_any_change_of_bytes_ends_in_names(tmp_path: Path, data: st.DataObject) -> None:
    """Version 4, which has no checksums: nothing that stands in a block is trusted to be in range."""
    made, fork = one_block(tmp_path, FORMS[4])
    block = bytearray(fork.blocks[0])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, 508))
        block[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    fork.blocks[0] = bytes(block)

    assert b"" in finish(made, fork)


@given(st.binary(max_size=120))
@SHARED
def test_any_bytes_in_an_inode_end_in_names(tmp_path: Path, local: bytes) -> None:
    made = Made(tmp_path, Form())
    made.add(ROOT, DIR, local=local)
    for i in range(5):
        made.add(ROOT + 1 + i, REG)

    assert b"" in [path for path, _ in made.walk()]
