"""Fast commits: what is read equals what the kernel makes of them, of records made here and of crashes."""

import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.mapping import open_filesystem
from tests import crash, oracle
from tests import ext4_images as images
from tests import jbd2_writer as jbd2
from tests.ext4_surgery import Surgeon

pytestmark = pytest.mark.root

ADD_RANGE, DEL_RANGE, CREAT, LINK, UNLINK, INODE, PAD, TAIL, HEAD = range(1, 10)
BLOCK = 1024
ROOT, FILE, NEW = 2, 12, 40  # inodes: the root, the file that is there, the first of those to come
SPARE = 20_000  # blocks from here on are free
TID = 5
Records = list[tuple[int, bytes]]


def add_range(number: int, logical: int, physical: int, count: int, unwritten: bool = False) -> tuple[int, bytes]:
    return ADD_RANGE, struct.pack("<IIHHI", number, logical, count + 32768 * unwritten, 0, physical)


def del_range(number: int, logical: int, count: int) -> tuple[int, bytes]:
    return DEL_RANGE, struct.pack("<III", number, logical, count)


def entry(tag: int, parent: int, number: int, name: bytes) -> tuple[int, bytes]:
    return tag, struct.pack("<II", parent, number) + name


class Base:
    """An image with one file, and what fast commits write of inodes."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.image = folder / "base"
        self.places: list[int] = []  # blocks on the device that the last fast commits begin in
        content = folder / "content"
        content.mkdir()
        (content / "data").write_bytes(b"data" * 5000)
        made = ("-b", "1024", "-O", "fast_commit,^metadata_csum,uninit_bg,^resize_inode", "-J", "size=1", "-g", "8192")
        images.make_image(self.image, 32, *made, *options, "-d", str(content))
        surgeon = Surgeon(self.image)
        self.raw = surgeon.read(surgeon.inode(FILE), 160)
        with open(self.image, "r+b") as file:
            for block in range(SPARE, SPARE + 2000):
                file.seek(block * BLOCK)
                file.write(struct.pack("<I", block) * 256)

    def inode(self, number: int, mode: int = 0o100644, size: int = 0, links: int = 1) -> tuple[int, bytes]:
        raw = bytearray(self.raw)
        struct.pack_into("<H", raw, 0, mode)
        struct.pack_into("<I", raw, 4, size)
        struct.pack_into("<H", raw, 26, links)
        struct.pack_into("<I", raw, 0x64, 1000 + number)
        return INODE, struct.pack("<I", number) + raw

    def file(self, number: int, name: bytes, blocks: int = 3) -> Records:
        """What the kernel records of a new file, in its order."""
        inode = self.inode(number, size=blocks * BLOCK - 100)
        return [
            inode,
            add_range(number, 0, SPARE + number % 100 * 10, blocks),
            entry(CREAT, ROOT, number, name),
            inode,
        ]

    def folder(self, number: int, name: bytes, parent: int = ROOT) -> Records:
        return [self.inode(number, 0o40755, BLOCK, 2), entry(CREAT, parent, number, name)]

    def with_commits(self, folder: Path, *commits: Records, tid: int = TID) -> Path:
        """A copy whose journal holds no whole transaction, and these fast commits."""
        copy = Path(shutil.copy(self.image, folder / "image"))
        log = jbd2.Log(incompat=jbd2.INCOMPAT_REVOKE | jbd2.INCOMPAT_FAST_COMMIT, sequence=TID)
        writer = jbd2.Writer(copy, log)
        writer.fast(commits, tid)
        writer.run()
        self.places = [writer.fast_place(index) for index in range(len(commits))]
        return copy


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    images.need_ext4()
    return Base(tmp_path_factory.mktemp("fast"))


def read(image: Path) -> dict[bytes, oracle.Entry]:
    entries, damaged = crash.read_raw([image])
    assert damaged == []
    return entries


# Records made here.


def many_extents(base: Base, count: int) -> Records:
    """A file of every other block, more than an inode holds."""
    ranges = [add_range(NEW, 2 * n, SPARE + 2 * n, 1) for n in range(count)]
    return [
        base.inode(NEW, size=2 * count * BLOCK),
        *ranges,
        entry(CREAT, ROOT, NEW, b"new"),
    ]


def many_names(base: Base, count: int, size: int) -> Records:
    made: Records = []
    for number in range(NEW, NEW + count):
        made += base.file(number, b"%03d" % number + b"x" * (size - 3), 1)
    return made


SCENARIOS: dict[str, Callable[[Base], list[Records]]] = {
    "a file": lambda b: [b.file(NEW, b"new")],
    "two commits": lambda b: [b.file(NEW, b"one"), b.file(NEW + 1, b"two")],
    "a directory": lambda b: [b.folder(NEW, b"folder") + b.folder(NEW + 1, b"in", NEW)],
    "a hard link": lambda b: [[entry(LINK, ROOT, FILE, b"second"), b.inode(FILE, size=20_000, links=2)]],
    "a name twice": lambda b: [[entry(LINK, ROOT, FILE, b"data")]],
    "no such file": lambda b: [[entry(LINK, ROOT, NEW, b"none"), entry(UNLINK, ROOT, NEW, b"data")]],
    "no such name": lambda b: [[entry(UNLINK, ROOT, FILE, b"nothing")]],
    "no such directory": lambda b: [[entry(LINK, NEW, FILE, b"lost")]],
    "a rename": lambda b: [[entry(LINK, ROOT, FILE, b"moved"), entry(UNLINK, ROOT, FILE, b"data")]],
    "a removal": lambda b: [[entry(UNLINK, ROOT, FILE, b"data")]],
    "an inode used again": lambda b: [[entry(UNLINK, ROOT, FILE, b"data"), *b.file(FILE, b"again")]],
    "another's name": lambda b: [
        [*b.file(NEW, b"new"), entry(LINK, ROOT, NEW, b"also"), entry(UNLINK, ROOT, NEW, b"data")]
    ],
    "a hole": lambda b: [[del_range(FILE, 3, 5), b.inode(FILE, size=20_000)]],
    "a longer file": lambda b: [[add_range(FILE, 20, SPARE, 100), b.inode(FILE, size=120 * BLOCK)]],
    "a shorter file": lambda b: [[del_range(FILE, 2, 18), b.inode(FILE, size=1500)]],
    "other blocks": lambda b: [[add_range(FILE, 4, SPARE, 7), b.inode(FILE, size=20_000)]],
    "unwritten": lambda b: [[add_range(FILE, 4, SPARE, 7, unwritten=True), b.inode(FILE, size=20_000)]],
    "written now": lambda b: [
        [add_range(FILE, 4, SPARE, 7, unwritten=True), add_range(FILE, 6, SPARE + 2, 2), b.inode(FILE, size=20_000)]
    ],
    "a tree of two levels": lambda b: [many_extents(b, 150)],
    "a tree of three levels": lambda b: [many_extents(b, 700)],
    "a full directory": lambda b: [many_names(b, 15, 200)],
    "many names": lambda b: [many_names(b, 60, 60)],
    "a group never used": lambda b: [b.file(2 * 2048 + 9, b"far")],
    "nothing": lambda b: [[]],
}


@pytest.mark.parametrize("make", SCENARIOS.values(), ids=SCENARIOS)
def test_records_do_what_the_kernel_does_with_them(
    base: Base, tmp_path: Path, make: Callable[[Base], list[Records]]
) -> None:
    image = base.with_commits(tmp_path, *make(base))

    assert crash.recover([image]) is not None
    assert crash.compare([image]) == []


def test_files_and_names_are_there(base: Base, tmp_path: Path) -> None:
    """Without a kernel to ask: the scenarios above do change what is read."""
    commits = [base.file(NEW, b"new"), [entry(UNLINK, ROOT, FILE, b"data"), *base.folder(NEW + 1, b"folder")]]
    found = read(base.with_commits(tmp_path, *commits))

    assert set(found) == {b"", b"lost+found", b"new", b"folder"}
    assert found[b"new"].size == 3 * BLOCK - 100
    assert found[b"new"].extents == [(0, (SPARE + NEW * 10) * BLOCK, 3 * BLOCK - 100, 0)]


def test_how_many_is_said(base: Base, tmp_path: Path) -> None:
    image = base.with_commits(tmp_path, base.file(NEW, b"one"), base.file(NEW + 1, b"two"))
    with BlockDevice(image) as device:
        warnings = open_filesystem(device).warnings  # type: ignore[attr-defined]

    assert warnings == ["journal replayed in memory: 0 transactions, 0 blocks, 2 fast commits"]


def test_fast_commits_of_an_older_transaction_are_left_alone(base: Base, tmp_path: Path) -> None:
    """The area is never cleared: its head says which transaction it belongs to."""
    image = base.with_commits(tmp_path, base.file(NEW, b"new"), tid=TID - 1)

    assert b"new" not in read(image)
    assert crash.compare([image]) == []


@pytest.mark.parametrize(
    "records",
    [
        [entry(CREAT, ROOT, NEW, b"no inode")],
        [(INODE, struct.pack("<I", NEW) + bytes(160))],
        [add_range(FILE, 0, 1 << 20, 9)],
        [(LINK, struct.pack("<II", FILE, FILE) + b"in a file")],
    ],
    ids=["a name of no file", "an inode of no type", "blocks outside", "a name in a file"],
)
def test_records_that_cannot_be_are_refused(base: Base, tmp_path: Path, records: Records) -> None:
    image = base.with_commits(tmp_path, records)

    with pytest.raises(errors.Corrupt):
        read(image)


def test_a_file_without_extents_is_refused_by_name(base: Base, tmp_path: Path) -> None:
    image = base.with_commits(tmp_path, [add_range(FILE, 0, SPARE, 1)])
    surgeon = Surgeon(image)
    surgeon.write(surgeon.inode(FILE) + 0x20, struct.pack("<I", 0))
    surgeon.write(surgeon.inode(FILE) + 0x28, bytes(60))

    with pytest.raises(errors.NeedsRecovery, match="without extents"):
        read(image)


# Damage and crashes.


def test_damage_is_judged_as_the_kernel_judges_it(base: Base, tmp_path: Path) -> None:
    """One bit wrong anywhere in two fast commits: the first damaged is refused, the second is left out."""
    rng = random.Random(4)
    commits = (base.file(NEW, b"one") + base.folder(NEW + 2, b"folder"), base.file(NEW + 1, b"two"))
    verdicts = set()
    for _ in range(16):
        image = base.with_commits(tmp_path, *commits)
        with open(image, "r+b") as file:
            file.seek(rng.choice(base.places) * BLOCK + rng.randrange(700))
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes((byte ^ 1 << rng.randrange(8),)))
        verdicts.add(crash.recover([image]) is None)

        assert crash.compare([image]) == []
    assert verdicts == {True, False}


@pytest.mark.parametrize("kind", [kind for kind in crash.KINDS if "fast" in kind.name], ids=lambda kind: kind.name)
def test_crashes_are_read_as_the_kernel_recovers_them(kind: crash.Kind) -> None:
    crash.need_crashes()
    busy = replace(kind, megabytes=32)
    _, lines = crash.compare_many(busy, 4, seed=2, steps=60)

    assert lines == []
