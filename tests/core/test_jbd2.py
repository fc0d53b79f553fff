"""Journals that were not emptied: what is read equals what the kernel recovers, of logs made here and of crashes."""

import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel import errors
from splitreel.cli import inspect
from splitreel.core.device import BlockDevice
from splitreel.core.filesystem import Filesystem
from splitreel.mapping import open_filesystem
from tests import crash
from tests import ext4_images as images
from tests import jbd2_writer as jbd2
from tests.ext4_surgery import debugfs

pytestmark = pytest.mark.root

BLOCK = 1024
BLOCKS = 120  # of the file that the logs write to
REVOKE, WIDE, V2, V3 = jbd2.INCOMPAT_REVOKE, jbd2.INCOMPAT_64BIT, jbd2.INCOMPAT_CSUM_V2, jbd2.INCOMPAT_CSUM_V3
FORMATS = {
    "superblock v1": jbd2.Log(version=jbd2.SUPERBLOCK_V1, incompat=0),
    "plain": jbd2.Log(incompat=REVOKE),
    "64bit": jbd2.Log(incompat=REVOKE | WIDE),
    "checksum v1": jbd2.Log(compat=jbd2.COMPAT_CHECKSUM, incompat=REVOKE),
    "checksum v2": jbd2.Log(incompat=REVOKE | V2),
    "checksum v2 64bit": jbd2.Log(incompat=REVOKE | WIDE | V2),
    "checksum v3": jbd2.Log(incompat=REVOKE | V3),
    "checksum v3 64bit": jbd2.Log(incompat=REVOKE | WIDE | V3),
}


class Base:
    """A small image with one file, and where its blocks are."""

    def __init__(self, folder: Path, size: int = BLOCK) -> None:
        self.size = size
        self.image = folder / "base"
        content = folder / "content"
        content.mkdir()
        (content / "data").write_bytes(b"".join(struct.pack("<I", n) * (size // 4) for n in range(1, BLOCKS + 1)))
        options = ("-b", str(size), "-O", "^metadata_csum,^64bit,^resize_inode", "-J", f"size={size >> 10}")
        images.make_image(self.image, 8 * size >> 10, *options, "-d", str(content))
        self.places = [int(word) for word in debugfs(self.image, "blocks /data").split()]
        with open(self.image, "rb") as file:
            self.before = {}
            for place in self.places:
                file.seek(place * size)
                self.before[place] = file.read(size)

    def with_log(self, folder: Path, log: jbd2.Log) -> tuple[Path, jbd2.Writer]:
        """A copy with a log in its journal."""
        copy = Path(shutil.copy(self.image, folder / "image"))
        writer = jbd2.Writer(copy, log)
        writer.run()
        return copy, writer

    def content(self, after: dict[int, bytes]) -> bytes:
        return b"".join(after[place] for place in self.places)

    def random_log(self, rng: random.Random, form: jbd2.Log) -> jbd2.Log:
        """Transactions over the file's blocks: some begin as journal blocks do, some are revoked, and written again."""
        transactions = []
        for number in range(rng.randrange(1, 9)):
            blocks = []
            for place in rng.sample(self.places, rng.choice((1, 3, 40, 90))):
                data = rng.randbytes(self.size)
                blocks.append((place, struct.pack(">I", jbd2.MAGIC) + data[4:] if rng.random() < 0.2 else data))
            revokes = rng.sample(self.places, rng.choice((0, 0, 5, 60))) if form.incompat & REVOKE else []
            transactions.append(jbd2.Transaction(blocks, revokes, 1_700_000_000 + number))
        sequence = rng.choice((1, 77, 0xFFFFFFFD))
        return replace(form, start=rng.randrange(1, 1024), sequence=sequence, transactions=transactions)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    images.need_ext4()
    return Base(tmp_path_factory.mktemp("journal"))


def read_data(image: Path) -> bytes:
    """The file's bytes, read where the map says."""
    with BlockDevice(image) as device:
        filesystem = open_filesystem(device)
        extent_map = filesystem.map()
        assert extent_map.problems == []
        index = inspect.find_file(extent_map, b"data")
        return b"".join(inspect.file_pieces(extent_map, index, filesystem.device))


def kernel_data(image: Path) -> bytes | None:
    """The file's bytes after the kernel recovered a copy; None where it refuses."""
    copy = Path(shutil.copy(image, image.with_suffix(".copy")))
    point = copy.with_suffix(".mnt")
    point.mkdir(exist_ok=True)
    with crash.attached(copy) as loop:
        done = subprocess.run(["mount", "-t", "ext4", "-o", "ro", loop, point], check=False, capture_output=True)
        if done.returncode != 0:
            return None
        try:
            return (point / "data").read_bytes()
        finally:
            images.unmount(point)


def verdict(image: Path) -> bytes | None:
    """The file's bytes as read_data reads them; None where the journal is refused."""
    try:
        return read_data(image)
    except errors.Corrupt:
        return None


# Logs made here.


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_a_log_is_replayed_as_the_kernel_replays_it(base: Base, tmp_path: Path, form: jbd2.Log, seed: int) -> None:
    """Revokes, escapes, copies of copies, wrapping, every width of tag: the last valid copy is what is read."""
    log = base.random_log(random.Random(seed), form)
    image, _ = base.with_log(tmp_path, log)
    wanted = base.content(jbd2.expected(log, base.before))

    assert read_data(image) == wanted
    assert kernel_data(image) == wanted


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(FORMATS)), st.integers(0, 2**32))
def test_any_log_leaves_its_last_copies(base: Base, name: str, seed: int) -> None:
    """Also without a kernel to ask: what the encoder says is what is read."""
    log = base.random_log(random.Random(seed), FORMATS[name])
    image, _ = base.with_log(base.image.parent, log)

    assert read_data(image) == base.content(jbd2.expected(log, base.before))


@pytest.mark.parametrize("size", [4096, 65536])
def test_blocks_of_any_size(tmp_path: Path, size: int) -> None:
    """Tags fill larger descriptors; blocks of 64 KiB few kernels mount."""
    images.need_ext4()
    base = Base(tmp_path, size)
    log = base.random_log(random.Random(size), FORMATS["checksum v3 64bit"])
    image, _ = base.with_log(tmp_path, log)

    assert read_data(image) == base.content(jbd2.expected(log, base.before))


def damaged_logs(base: Base, folder: Path, form: jbd2.Log) -> Iterator[tuple[str, Path]]:
    """One log with one bit turned: of every kind of block, in the first, a middle and the last transaction."""
    rng = random.Random(5)
    blocks = [[(place, rng.randbytes(BLOCK)) for place in rng.sample(base.places, 5)] for _ in range(5)]
    made = [jbd2.Transaction(some, [base.places[0]], 1_700_000_000 + n) for n, some in enumerate(blocks)]
    log = replace(form, start=1000, sequence=9, transactions=made)
    for number in (0, 4):
        for what, shift, offset in (
            ("revoke", -1, 900),
            ("revoked block", -1, 17),
            ("tag", 0, 20),
            ("descriptor", 0, 1000),
            ("block", 2, 500),
            ("escape", 3, 1),
            ("commit", 6, 17),
            ("commit time", 6, 0x34),
            ("commit's end", 6, 1000),
            ("sequence", 6, 11),
            ("magic", 0, 0),
        ):
            image, writer = base.with_log(folder, log)
            place = writer.descriptors[number] + shift
            writer.flip(place if 1 <= place < 1024 else (place - 1) % 1023 + 1, offset)
            yield f"{what} of transaction {number}", image


@pytest.mark.parametrize("name", ["plain", "checksum v1", "checksum v2", "checksum v3 64bit"])
def test_damage_is_judged_as_the_kernel_judges_it(base: Base, tmp_path: Path, name: str) -> None:
    """A log with one bit wrong ends, is refused, or says something else: the same for both."""
    refused = 0
    for what, image in damaged_logs(base, tmp_path, FORMATS[name]):
        truth = kernel_data(image)
        refused += truth is None

        assert verdict(image) == truth, what
    assert refused > 0 or name == "plain"


def test_a_transaction_whose_time_is_behind_ends_the_log(base: Base, tmp_path: Path) -> None:
    """Stale blocks behind the end have bad checksums and older times: no damage."""
    made = [
        jbd2.Transaction([(place, bytes([number]) * BLOCK)], [], 1_700_000_000 - (number == 2))
        for number, place in enumerate(base.places[:3])
    ]
    log = replace(FORMATS["checksum v3 64bit"], transactions=made)
    image, writer = base.with_log(tmp_path, log)
    writer.flip(writer.descriptors[2], 1000)
    wanted = base.content(jbd2.expected(log, base.before, 2))

    assert read_data(image) == wanted
    assert kernel_data(image) == wanted


def test_asynchronous_commits_may_lack_their_blocks(base: Base, tmp_path: Path) -> None:
    """With async_commit a bad sum of the last transaction means that it was not finished; it is left out."""
    form = replace(FORMATS["checksum v1"], incompat=REVOKE | jbd2.INCOMPAT_ASYNC)
    log = replace(base.random_log(random.Random(3), form), start=1)
    image, writer = base.with_log(tmp_path, log)
    writer.flip(writer.descriptors[-1] + 1, 500)
    wanted = base.content(jbd2.expected(log, base.before, len(log.transactions) - 1))

    assert read_data(image) == wanted
    assert kernel_data(image) == wanted


# Journals that are refused, or need help.


def opened(image: Path, *others: Path) -> Filesystem:
    """The file system, its devices closed again."""
    with BlockDevice(image) as device:
        return open_filesystem(device, others=[BlockDevice(other) for other in others])


def simple(base: Base, **changes: int) -> jbd2.Log:
    made = [jbd2.Transaction([(base.places[0], b"n" * BLOCK)])]
    return replace(FORMATS["checksum v3"], transactions=made, **changes)


def test_an_unknown_journal_feature_is_refused_by_its_bit(base: Base, tmp_path: Path) -> None:
    image, _ = base.with_log(tmp_path, simple(base, incompat=REVOKE | V3 | 0x400))

    with pytest.raises(errors.Unsupported, match="incompat 0x400"):
        opened(image)


def test_a_block_outside_the_file_system_is_refused(base: Base, tmp_path: Path) -> None:
    """Nothing is read beyond the device, whatever a tag says."""
    log = replace(simple(base), transactions=[jbd2.Transaction([(8192, b"n" * BLOCK)])])
    image, _ = base.with_log(tmp_path, log)

    with pytest.raises(errors.Corrupt, match="outside the file system"):
        opened(image)


@pytest.mark.parametrize(("offset", "value"), [(0x0C, 4096), (0x10, 1025), (0x10, 1023), (0x14, 0), (0x14, 1024)])
def test_journal_superblocks_out_of_bounds_are_refused(base: Base, tmp_path: Path, offset: int, value: int) -> None:
    """Block size, length and first block, each beyond what the journal has."""
    image, writer = base.with_log(tmp_path, replace(simple(base), incompat=REVOKE))
    with open(image, "r+b") as file:
        file.seek(writer.places[0] * BLOCK + offset)
        file.write(struct.pack(">I", value))

    with pytest.raises(errors.Corrupt):
        opened(image)
    assert kernel_data(image) is None


def test_a_log_without_an_end_is_refused(base: Base, tmp_path: Path) -> None:
    """Descriptors of one transaction all round the ring: the walk ends all the same."""
    image, writer = base.with_log(tmp_path, replace(simple(base), incompat=REVOKE))
    block = struct.pack(">IIIIHH", jbd2.MAGIC, jbd2.DESCRIPTOR, 1, 0, 0, jbd2.LAST | jbd2.SAME_UUID).ljust(BLOCK, b"\0")
    with open(image, "r+b") as file:
        for place in writer.places[1:]:
            file.seek(place * BLOCK)
            file.write(block)

    with pytest.raises(errors.Corrupt, match="without an end"):
        opened(image)


def test_a_damaged_journal_inode_is_found_by_the_superblocks_copy(base: Base, tmp_path: Path) -> None:
    image, _ = base.with_log(tmp_path, simple(base))
    subprocess.run(["debugfs", "-w", "-R", "clri <8>", image], check=True, capture_output=True)

    assert any("superblock's copy" in text for text in opened(image).warnings)  # type: ignore[attr-defined]
    assert read_data(image)[:BLOCK] == b"n" * BLOCK


def test_what_was_replayed_is_said(base: Base, tmp_path: Path) -> None:
    image, _ = base.with_log(tmp_path, simple(base))

    assert opened(image).warnings == [  # type: ignore[attr-defined]
        "journal replayed in memory: 1 transactions, 1 blocks"
    ]


def test_an_empty_journal_needs_nothing(base: Base, tmp_path: Path) -> None:
    """needs_recovery with s_start 0: as right after a mount."""
    image, writer = base.with_log(tmp_path, simple(base))
    with open(image, "r+b") as file:
        file.seek(writer.places[0] * BLOCK)
        head = bytearray(file.read(BLOCK))
        head[0x1C:0x20] = head[0xFC:0x100] = bytes(4)
        head[0xFC:0x100] = struct.pack(">I", jbd2.crc32c(bytes(head)))
        file.seek(writer.places[0] * BLOCK)
        file.write(head)

    assert opened(image).warnings == []  # type: ignore[attr-defined]
    assert read_data(image) == base.content(base.before)


def test_a_live_device_is_mapped_without_its_journal(base: Base, tmp_path: Path) -> None:
    """A hint needs no replay, and refuses nothing."""
    image, _ = base.with_log(tmp_path, simple(base))
    with BlockDevice(image) as device:
        filesystem = open_filesystem(device, live=True)

        assert filesystem.device is device
        assert filesystem.map().problems == []


def test_a_journal_that_goes_on_is_noticed(base: Base, tmp_path: Path) -> None:
    """The journal's superblock moves with every checkpoint: then the mirror is the live device."""
    image, writer = base.with_log(tmp_path, simple(base))
    with BlockDevice(image) as device:
        filesystem = open_filesystem(device)
        writer.flip(0, 0x1B)

        with pytest.raises(errors.Stale):
            filesystem.map()


def test_a_transaction_written_while_it_is_mapped_is_noticed(base: Base, tmp_path: Path) -> None:
    """The superblocks stay as they are for many transactions: the log itself says that the device is the live one."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    log = simple(base)
    image, _ = base.with_log(first, log)
    more = [*log.transactions, jbd2.Transaction([(base.places[1], b"m" * BLOCK)])]
    later, _ = base.with_log(second, replace(log, transactions=more))
    with BlockDevice(image) as device:
        filesystem = open_filesystem(device)
        assert filesystem.map().problems == []
        image.write_bytes(later.read_bytes())

        with pytest.raises(errors.Stale):
            filesystem.map()


def test_a_journal_elsewhere_is_asked_for(tmp_path: Path) -> None:
    """Its UUID is said, and a device with another journal is not taken for it."""
    kind = next(kind for kind in crash.KINDS if kind.name == "external")
    image, journal = crash.format_image(kind, tmp_path)
    with open(image, "r+b") as file:
        file.seek(1024 + 0x60)
        features = struct.unpack("<I", file.read(4))[0]
    debugfs_set = f"set_super_value feature_incompat {features | 4}"
    subprocess.run(["debugfs", "-w", "-R", debugfs_set, image], check=True, capture_output=True)
    with open(journal, "rb") as file:
        file.seek(1024 + 0x68)
        uuid = file.read(16).hex()

    with pytest.raises(errors.NeedsRecovery, match=uuid[:8]) as caught:
        opened(image, image)
    assert "--with" in caught.value.advice
    assert opened(image, image, journal).warnings == []  # type: ignore[attr-defined]


# Crashes.


ALWAYS = ("current", "journal-data-1k", "writeback", "checksum-v1", "async-commit", "ext3", "wraps", "external-1k")


@pytest.mark.parametrize("kind", [kind for kind in crash.KINDS if kind.name in ALWAYS], ids=lambda kind: kind.name)
def test_crashes_are_read_as_the_kernel_recovers_them(kind: crash.Kind) -> None:
    """At random moments of busy file systems. ``python -m tests.crash`` runs all kinds, and any number of crashes."""
    crash.need_crashes()
    dirty, lines = crash.compare_many(kind, 2, seed=1, steps=40)

    assert lines == []
    assert dirty > 0
