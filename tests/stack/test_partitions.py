"""Partition tables, against the tools that write them."""

import random
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel.errors import Corrupt, SplitreelError, Unsupported
from tests.stack.parts import (
    MEGABYTE,
    blank,
    content,
    partitioned,
    places,
    put_ext2,
    read,
    run,
    seen_by_fdisk,
)
from tests.support import need_programs, need_root

LOGICAL = """label: dos
start=2048, size=2048, type=83
start=6144, size=8192, type=82
start=20480, size=100000, type=f
start=22528, size=2048, type=83
start=26624, size=4096, type=83
start=40960, size=2048, type=83
"""


@pytest.fixture(autouse=True)
def tools() -> None:
    need_programs("fdisk", "sgdisk", "mke2fs")


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_an_mbr_with_logical_partitions_is_numbered_as_fdisk_does(tmp_path: Path) -> None:
    path = partitioned(tmp_path / "disk", LOGICAL)
    put_ext2(path, 2048 * 512, tmp_path / "tree")
    table, warnings = read(path)

    assert places(table) == seen_by_fdisk(path)
    assert set(places(table)) == {1, 2, 3, 5, 6, 7}
    assert table is not None and (table.kind, table.sector_size) == ("MBR", 512)
    assert [entry.number for entry in table.partitions if entry.extended] == [3]
    assert warnings == []


def test_an_mbr_of_4096_byte_sectors(tmp_path: Path) -> None:
    path = partitioned(tmp_path / "disk", LOGICAL.replace("100000", "60000"), 512 * MEGABYTE, 4096)
    put_ext2(path, 2048 * 4096, tmp_path / "tree")
    table, _ = read(path)

    assert places(table) == seen_by_fdisk(path, 4096)
    assert table is not None and table.sector_size == 4096


def test_an_mbr_that_fits_either_sector_size_is_not_guessed(tmp_path: Path) -> None:
    path = partitioned(tmp_path / "disk", "label: dos\nstart=2048, size=2048, type=83\n")

    with pytest.raises(Unsupported, match=r"512 and with 4096"):
        read(path)


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_a_gpt_is_read_as_fdisk_reads_it(tmp_path: Path, sector_size: int) -> None:
    script = "label: gpt\nstart=2048, size=512\nstart=4096, size=1000, name=x\nstart=6000\n"
    path = partitioned(tmp_path / "disk", script, 64 * MEGABYTE, sector_size)
    table, warnings = read(path)

    assert places(table) == seen_by_fdisk(path, sector_size)
    assert table is not None and (table.kind, table.sector_size) == ("GPT", sector_size)
    assert warnings == []


def test_numbers_of_a_gpt_have_gaps(tmp_path: Path) -> None:
    path = blank(tmp_path / "disk", 64 * MEGABYTE)
    run("sgdisk", "-n", "2:2048:+4M", "-n", "7:0:+8M", "-n", "100:0:0", path)

    assert set(places(read(path)[0])) == {2, 7, 100}
    assert places(read(path)[0]) == seen_by_fdisk(path)


def make_gpt(tmp_path: Path) -> Path:
    return partitioned(tmp_path / "disk", "label: gpt\nstart=2048, size=4096\nstart=8192, size=8192\n")


@pytest.mark.parametrize("offset", [512 + 8, 512 + 16, 512 + 24, 512 + 72, 512 + 80, 1024 + 32, 1024 + 128, 512])
def test_a_bad_primary_gpt_gives_way_to_its_backup(tmp_path: Path, offset: int) -> None:
    path = make_gpt(tmp_path)
    before = places(read(path)[0])
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x41]))
    table, warnings = read(path)

    assert places(table) == before
    assert len(warnings) == 1 and "its backup in sector 131071 is used" in warnings[0]


def test_a_gpt_with_both_copies_bad_is_refused(tmp_path: Path) -> None:
    path = make_gpt(tmp_path)
    patch(path, 1024 + 32, b"\xff")
    patch(path, 64 * MEGABYTE - 33 * 512 + 32, b"\xff")

    with pytest.raises(Corrupt, match="entries in sector 2: checksum mismatch; its backup is not usable either"):
        read(path)


def test_a_grown_devices_backup_is_where_the_primary_header_says(tmp_path: Path) -> None:
    path = make_gpt(tmp_path)
    before = places(read(path)[0])
    with path.open("r+b") as file:
        file.truncate(80 * MEGABYTE)
    patch(path, 1024 + 32, b"\xff")

    assert places(read(path)[0]) == before


def header_with(path: Path, **changes: tuple[int, str, int]) -> None:
    """Change fields of both headers and put their checksums right: offset in the header, struct code, value."""
    with path.open("r+b") as file:
        for at in (512, 64 * MEGABYTE - 512):
            file.seek(at)
            header = bytearray(file.read(512))
            for offset, code, value in changes.values():
                struct.pack_into(code, header, offset, value)
            size = struct.unpack_from("<I", header, 12)[0]
            struct.pack_into("<I", header, 16, 0)
            if 92 <= size <= 512:
                struct.pack_into("<I", header, 16, zlib.crc32(header[:size]))
            file.seek(at)
            file.write(header)


@pytest.mark.parametrize(
    ("offset", "code", "value", "why"),
    [
        (8, "<I", 0x00020000, "revision 2.0"),
        (12, "<I", 600, "size is 600"),
        (24, "<Q", 7, "belongs into sector 7"),
        (40, "<Q", 1 << 40, "usable sectors"),
        (80, "<I", 1 << 30, "entries of 128 bytes"),
        (84, "<I", 100, "entries of 100 bytes"),
        (84, "<I", 384, "entries of 384 bytes"),
        (72, "<Q", 1 << 50, "checksum mismatch"),
    ],
)
def test_a_header_that_checks_but_says_nonsense(tmp_path: Path, offset: int, code: str, value: int, why: str) -> None:
    path = make_gpt(tmp_path)
    header_with(path, field=(offset, code, value))

    with pytest.raises(SplitreelError, match=why):
        read(path)


def test_an_old_gpt_behind_a_real_mbr_is_a_leftover(tmp_path: Path) -> None:
    path = make_gpt(tmp_path)
    patch(path, 446, struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), 20000, 100_000))
    table, _ = read(path)

    assert table is not None and (table.kind, places(table)) == ("MBR", {1: (20000 * 512, 100_000 * 512)})


def test_a_protective_mbr_alone_is_no_table(tmp_path: Path) -> None:
    path = make_gpt(tmp_path)
    patch(path, 512, bytes(34 * 512))
    patch(path, 64 * MEGABYTE - 34 * 512, bytes(34 * 512))

    with pytest.raises(Corrupt, match="no GPT behind it nor at the end"):
        read(path)


def test_a_chain_of_extended_records_that_goes_round_ends(tmp_path: Path) -> None:
    path = partitioned(tmp_path / "disk", LOGICAL)
    put_ext2(path, 2048 * 512, tmp_path / "tree")
    second = 26624 - 2048
    patch(path, second * 512 + 446 + 16 + 8, struct.pack("<I", 0))
    table, warnings = read(path)

    assert set(places(table)) == {1, 2, 3, 5, 6}
    assert len(warnings) == 1 and "has no end" in warnings[0]


def test_a_broken_chain_costs_only_what_is_behind_it(tmp_path: Path) -> None:
    path = partitioned(tmp_path / "disk", LOGICAL)
    put_ext2(path, 2048 * 512, tmp_path / "tree")
    patch(path, (26624 - 2048) * 512 + 510, b"\0\0")
    table, warnings = read(path)

    assert set(places(table)) == {1, 2, 3, 5}
    assert len(warnings) == 1 and "no extended boot record in sector 24576" in warnings[0]


def test_a_partition_behind_the_end_of_a_short_mirror_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    path = make_gpt(tmp_path)
    data = put_ext2(path, 2048 * 512, tmp_path / "tree")
    with path.open("r+b") as file:
        file.truncate(6 * MEGABYTE)

    assert content([path], "1")[: len(data)] == data
    with pytest.raises(Corrupt, match=r"ends at byte 8388608, the device has 6291456"):
        content([path], "2")


def test_partitions_that_overlap_are_refused(tmp_path: Path) -> None:
    path = blank(tmp_path / "disk", 64 * MEGABYTE)
    entries = [(2048, 4096), (4000, 4096), (20000, 2048)]
    table = b"".join(struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), *entry) for entry in entries)
    patch(path, 446, table + bytes(16) + b"\x55\xaa")
    data = put_ext2(path, 20000 * 512, tmp_path / "tree")

    assert content([path], "3") == data
    with pytest.raises(Corrupt, match="overlaps partition 2"):
        content([path], "1")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32), flips=st.integers(1, 4))
def test_flipped_bytes_give_the_same_table_or_a_named_error(tmp_path: Path, seed: int, flips: int) -> None:
    """Of a GPT all is checksummed: either copy gives the same table."""
    path = make_gpt(tmp_path)
    before = places(read(path)[0])
    random.seed(seed)
    for _ in range(flips):
        patch(path, random.randrange(512, 34 * 512), bytes([random.randrange(256)]))
    assert places(read(path)[0]) == before


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sectors=st.lists(st.binary(min_size=64, max_size=64), min_size=4, max_size=4))
def test_any_boot_record_is_read_or_refused_by_name(tmp_path: Path, sectors: list[bytes]) -> None:
    path = blank(tmp_path / "disk", 4 * MEGABYTE)
    for index, table in enumerate(sectors):
        patch(path, 512 * index * 3 + 446, table + b"\x55\xaa")
    try:
        table, _ = read(path)
    except SplitreelError as error:
        assert error.why
        return
    for place in places(table).values() if table is not None else ():
        assert place[1] > 0


@pytest.mark.root
@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_a_device_tells_its_sector_size(tmp_path: Path, label: str) -> None:
    """On the device itself no table is ambiguous, also one that is on an image."""
    need_root()
    need_programs("losetup")
    path = blank(tmp_path / "disk", 64 * MEGABYTE)
    loop = Path(run("losetup", "--find", "--show", "--sector-size", "4096", path).strip())
    try:
        run("sfdisk", "--quiet", "--no-reread", loop, given=f"label: {label}\nstart=512, size=1024\n")
        table, warnings = read(loop)
        assert table is not None and (table.sector_size, places(table)) == (4096, {1: (512 * 4096, 1024 * 4096)})
        assert warnings == []
        assert content([loop], "1") == bytes(1024 * 4096)
    finally:
        run("losetup", "--detach", loop)
