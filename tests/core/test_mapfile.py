"""Saved maps: the round trip, damage that checksums find, and hostile files whose checksums are right."""

import os
import struct
from pathlib import Path
from typing import Any

import crcmod.predefined
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel import errors
from splitreel.core.extent import ExtentMap
from tests.core.test_extent import DIR, LINK, REG, UNWRITTEN, UUID, new_map, small_map

crc32c = crcmod.predefined.mkCrcFun("crc-32c")
PAGE = 4096
TABLE = struct.calcsize("=8sIIIIQQIIQ16s16s")  # where the section table begins in the header
EVERY_COLUMN = ("files", "extents", "names", "name_bytes", "heap_bytes")


XATTRS = st.dictionaries(st.text("abc.", min_size=1, max_size=9), st.binary(max_size=40), max_size=3)
FILE = st.fixed_dictionaries({
    "size": st.integers(0, 2**63), "mtime": st.integers(0, 2**64 - 1), "uid": st.integers(0, 2**32 - 1),
    "mode": st.sampled_from([REG, LINK, DIR]), "xattrs": XATTRS, "target": st.none() | st.binary(max_size=30),
})  # fmt: skip


@given(st.dictionaries(st.integers(3, 2**64 - 1), FILE, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_map_is_the_same_after_save_and_load(tmp_path: Path, files: dict[int, dict[str, Any]], random: Any) -> None:
    m = new_map()
    m.add_file(2, DIR)
    m.add_name(0, 0, b"")
    for inode, fields in files.items():
        index = m.add_file(inode, fields.pop("mode"), **fields)
        block = 0
        for _ in range(random.randrange(4)):
            block += random.randrange(3)
            m.add_extent(block, random.randrange(900), 1 + random.randrange(9), random.choice([0, UNWRITTEN]))
            block += 10
        m.add_name(0, index, b"%d" % inode)
    m.add_problem(5, 6, "seven")
    m.finish()
    m.save(tmp_path / "saved.map")
    loaded = ExtentMap.load(tmp_path / "saved.map")

    assert loaded.digest() == m.digest()
    assert (loaded.fs_type, loaded.uuid, loaded.block_size, loaded.device_size) == ("ext4", UUID, 4096, 4096000)
    assert loaded.problems == m.problems
    for column in EVERY_COLUMN:
        assert np.array_equal(np.asarray(getattr(loaded, column)), np.asarray(getattr(m, column)))


def test_a_saved_map_is_private_and_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "saved.map"
    small_map().save(path)

    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(errors.MapError, match="cannot be written"):
        small_map().save(tmp_path / "absent" / "saved.map")
    with pytest.raises(errors.MapError, match="cannot be read"):
        ExtentMap.load(tmp_path / "nothing.map")
    with pytest.raises(errors.MapError, match="not a saved map"):
        ExtentMap.load("/dev/zero")


def test_a_map_without_anything_is_saved_too(tmp_path: Path) -> None:
    m = new_map()
    m.finish()
    m.save(tmp_path / "saved.map")

    assert (tmp_path / "saved.map").stat().st_size == PAGE
    assert ExtentMap.load(tmp_path / "saved.map").digest() == m.digest()


def test_no_single_changed_byte_of_a_saved_map_goes_unseen(tmp_path: Path) -> None:
    path = tmp_path / "saved.map"
    small_map().save(path)
    size = path.stat().st_size
    accepted = []
    with path.open("r+b", buffering=0) as file:
        for position in range(size):
            right = os.pread(file.fileno(), 1, position)
            os.pwrite(file.fileno(), bytes([right[0] ^ (1 << position % 8)]), position)
            try:
                ExtentMap.load(path)
                accepted.append(position)
            except errors.MapError:
                pass
            os.pwrite(file.fileno(), right, position)

    assert accepted == []
    assert size == 6 * PAGE
    assert ExtentMap.load(path).digest() == small_map().digest()


def test_no_truncated_or_longer_saved_map_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "saved.map"
    small_map().save(path)
    accepted = []
    whole = path.stat().st_size
    for size in [whole + 1, whole + PAGE, *range(whole - 1, -1, -1)]:
        os.truncate(path, size)
        try:
            ExtentMap.load(path)
            accepted.append(size)
        except errors.MapError:
            pass

    assert accepted == []


def with_right_checksums(data: bytearray) -> bytes:
    """The file with the CRC32C of each section and of the header made right, whatever they say."""
    for index in range(6):
        entry = TABLE + 24 * index
        offset, count, size, _ = struct.unpack_from("=QQII", data, entry)
        end = offset + count * size
        data[entry + 20 : entry + 24] = struct.pack("=I", crc32c(bytes(data[offset : end + -end % PAGE])))
    data[20:24] = bytes(4)
    data[20:24] = struct.pack("=I", crc32c(bytes(data[:PAGE])))
    return bytes(data)


def use_everything(m: ExtentMap) -> None:
    """Every access that follows what a map says."""
    for column in EVERY_COLUMN:
        np.asarray(getattr(m, column)).tobytes()
    np.asarray(m.path_order()).tolist()
    assert len(m.paths()) == m.name_count
    for path in m.paths():
        assert m.find(path) >= 0
    for index in range(m.file_count):
        m.xattrs(index)
        m.target(index)


def bits(start: int, size: int) -> Any:
    """Places in a section: (offset in the file, bit)."""
    return st.tuples(st.integers(start, start + size - 1), st.integers(0, 7))


# The header, twice as often its section table, then the records of each section.
PLACES = (
    bits(0, TABLE)
    | bits(TABLE, 6 * 24)
    | bits(PAGE, 4 * 88)
    | bits(2 * PAGE, 3 * 24)
    | bits(3 * PAGE, 4 * 16)
    | bits(4 * PAGE, 11)
    | bits(5 * PAGE, 340)
)


@given(st.lists(PLACES, min_size=1, max_size=3))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_hostile_map_is_refused_or_harmless(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    path = tmp_path / "hostile.map"
    small_map().save(path)
    data = bytearray(path.read_bytes())
    for position, bit in changes:
        data[position] ^= 1 << bit
    path.write_bytes(with_right_checksums(data))
    try:
        m = ExtentMap.load(path)
    except (errors.MapError, errors.Corrupt, errors.LimitReached):
        return
    use_everything(m)


def test_right_checksums_alone_do_not_make_a_map(tmp_path: Path) -> None:
    """What the test above relies on: its files pass the checksums, and the structure is then refused."""
    path = tmp_path / "hostile.map"
    small_map().save(path)
    data = bytearray(path.read_bytes())
    path.write_bytes(with_right_checksums(bytearray(data)))
    use_everything(ExtentMap.load(path))
    struct.pack_into("=Q", data, PAGE + 48, 2**40)  # the root's heap_offset
    path.write_bytes(with_right_checksums(data))

    with pytest.raises(errors.Corrupt, match="heap"):
        ExtentMap.load(path)
