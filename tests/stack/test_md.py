"""Linux software RAID from its members, against what the kernel showed of the arrays."""

import hashlib
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel.core.device import BlockDevice
from splitreel.errors import Corrupt, NeedsRecovery, NotFound, SplitreelError, Unsupported
from splitreel.stack import md, open_volume
from splitreel.stack.medium import given as medium_of
from tests.stack.fixture import Truth, truths, unpack
from tests.stack.parts import blank, content, partitioned

# both members of md-rebuild and md-stale together are refused, and md-5 altogether
READ = [one for one in truths() if one.case.startswith(("md-0", "md-1", "md-linear", "nested"))]


def sha256(paths: list[Path], volume: str | None = None, warnings: list[str] | None = None) -> str:
    return hashlib.sha256(content(paths, volume, warnings=warnings)).hexdigest()


def truth(case: str, volume: str | None = None) -> str:
    return next(one.sha256 for one in truths() if (one.case, one.volume) == (case, volume))


@pytest.mark.parametrize("one", READ, ids=lambda one: f"{one.case}:{one.volume}")
def test_an_array_holds_what_the_kernel_showed(one: Truth, tmp_path: Path) -> None:
    disks = unpack(one.case, tmp_path)
    assert sha256(disks, one.volume) == one.sha256
    if one.volume != "1":  # a partition of the first disk
        assert sha256(disks[::-1], one.volume) == one.sha256


@pytest.mark.parametrize("case", ["md-1-12", "md-1-11", "md-1-10", "md-1-090"])
def test_each_member_of_a_raid1_alone_holds_all_of_it(case: str, tmp_path: Path) -> None:
    for disk in unpack(case, tmp_path):
        assert sha256([disk]) == truth(case)


def test_a_nested_volume_from_one_half_of_the_mirror(tmp_path: Path) -> None:
    """A partition, in it a member of a raid1, in it a physical volume, in it a volume with a partition table."""
    for disk in unpack("nested", tmp_path):
        assert sha256([disk], "2:vgmd/vm:1") == truth("nested", "2:vgmd/vm:1")


@pytest.mark.parametrize(
    ("case", "given_", "missing"), [("md-0-12", [0, 2], "1 of 3"), ("md-linear-12", [1], "0 of 2")]
)
def test_a_missing_member_is_named_by_its_role(case: str, given_: list[int], missing: str, tmp_path: Path) -> None:
    disks = unpack(case, tmp_path)
    with pytest.raises(NotFound, match=f"role {missing} are not among the devices given"):
        content([disks[index] for index in given_], None)


def test_other_levels_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="level raid5 is not read"):
        content(unpack("md-5", tmp_path), None)


def test_a_stale_member_is_refused_beside_a_newer_one(tmp_path: Path) -> None:
    disks = unpack("md-stale", tmp_path)
    assert sha256(disks[:1]) == truth("md-stale")
    for order in (disks, disks[::-1]):
        with pytest.raises(NeedsRecovery, match=r"2 is stale: event \d+, the newest member has \d+"):
            content(order, None)


def test_a_member_that_was_being_rebuilt_is_refused(tmp_path: Path) -> None:
    disks = unpack("md-rebuild", tmp_path)
    assert sha256(disks[:1]) == truth("md-rebuild")
    with pytest.raises(NeedsRecovery, match="was being rebuilt"):
        content(disks[1:], None)


def test_a_member_as_it_is(tmp_path: Path) -> None:
    disk = unpack("md-1-12", tmp_path)[0]
    assert content([disk], "0") == disk.read_bytes()


def test_one_member_given_twice_is_refused(tmp_path: Path) -> None:
    disks = unpack("md-0-12", tmp_path)
    with pytest.raises(Corrupt, match="both have role 0"):
        content([*disks, disks[0]], None)


def test_a_090_superblock_at_the_end_of_a_disk_is_that_of_the_last_partition(tmp_path: Path) -> None:
    """It does not say where it belongs: the disk ends with the partition, and both look 64 KiB before their end."""
    member = unpack("md-1-090", tmp_path)[0].read_bytes()
    sectors = len(member) // 512
    script = f"label: dos\nstart=128, size=1000, type=83\nstart=2048, size={sectors}, type=fd\n"
    path = partitioned(tmp_path / "disk", script, 2048 * 512 + len(member))
    with path.open("r+b") as file:
        file.seek(128 * 512)
        file.write(b"XFSB")
        file.seek(2048 * 512)
        file.write(member)

    assert hashlib.sha256(content([path], "2")).hexdigest() == truth("md-1-090")


def test_a_disk_of_two_arrays(tmp_path: Path) -> None:
    """Members are told apart by their array's UUID, wherever they are."""
    one, two = unpack("md-0-10", tmp_path / "a"), unpack("md-1-10", tmp_path / "b")

    assert sha256([*one, *two]) == truth("md-0-10")
    assert sha256([two[1], *one, two[0]]) == truth("md-1-10")


# States, by changed superblocks.


def change(path: Path, at: int, edit: Callable[[bytearray], None]) -> None:
    """Change a version 1 superblock and put its checksum right."""
    with path.open("r+b") as file:
        file.seek(at)
        block = bytearray(file.read(4096))
        edit(block)
        roles = min(struct.unpack_from("<I", block, 220)[0], 1920)
        block[216:220] = bytes(4)
        total = sum(
            int.from_bytes(block[i : i + 4], "little") for i in range(0, 256 + 2 * roles, 4) if i + 4 <= 256 + 2 * roles
        )
        if roles % 2:
            total += int.from_bytes(block[254 + 2 * roles : 256 + 2 * roles], "little")
        struct.pack_into("<I", block, 216, (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF)
        file.seek(at)
        file.write(block)


def put(code: str, offset: int, value: int) -> Callable[[bytearray], None]:
    return lambda block: struct.pack_into(code, block, offset, value)


@pytest.mark.parametrize(
    ("code", "offset", "value", "why"),
    [
        ("<I", 8, 4, "it is being reshaped"),
        ("<I", 8, 64, "it is being reshaped"),
        ("<I", 8, 16, "replacement for another member"),
        ("<I", 8, 0x8000, "unknown features 0x8000"),
        ("<I", 8, 2, "was being rebuilt"),
        ("<H", 256, 0xFFFF, "is a spare"),
        ("<H", 256, 0xFFFE, "is no active member"),
        ("<I", 72, 7, "level 7 is not read"),
        ("<Q", 128, 1 << 40, "do not fit on the device"),
        ("<Q", 136, 1 << 63, "do not fit on the device"),
        ("<Q", 80, 1 << 62, "do not fit on the device"),
        ("<Q", 80, 7000, r"\d+ bytes of data, 3584000 of array"),
        ("<I", 92, 0, "0 devices"),
        ("<I", 220, 5000, "room for 5000 devices"),
    ],
)
def test_states_and_nonsense_are_refused_by_name(tmp_path: Path, code: str, offset: int, value: int, why: str) -> None:
    disk = unpack("md-1-12", tmp_path)[0]
    change(disk, 4096, put(code, offset, value))
    with pytest.raises(SplitreelError, match=why):
        content([disk], None)


def test_a_member_with_bad_blocks_is_refused(tmp_path: Path) -> None:
    disk = unpack("md-1-12", tmp_path)[0]
    offset = 8

    def listed(block: bytearray) -> None:
        struct.pack_into("<I", block, 8, struct.unpack_from("<I", block, 8)[0] | 8)
        struct.pack_into("<BHI", block, 185, 0, 8, offset)

    with disk.open("r+b") as file:
        file.seek(4096 + offset * 512)
        file.write(struct.pack("<Q", 100 << 10 | 8) + b"\xff" * (4096 - 8))
    change(disk, 4096, listed)
    with pytest.raises(Unsupported, match="records 1 ranges of bad blocks"):
        content([disk], None)


def test_a_second_member_of_an_array_that_never_came_in_sync_is_refused(tmp_path: Path) -> None:
    first, second = unpack("md-1-12", tmp_path)
    for disk in (first, second):
        change(disk, 4096, put("<Q", 208, 1000))
    with pytest.raises(NeedsRecovery, match="was being synchronised from another member"):
        content([second], None)
    assert sha256([first, second]) == truth("md-1-12")


def test_a_raid0_of_unequal_members_needs_to_know_its_layout(tmp_path: Path) -> None:
    disks = unpack("md-0-original", tmp_path)
    for disk in disks:
        change(disk, 4096, put("<I", 8, 0))
    with pytest.raises(Unsupported, match="by which of two layouts"):
        content(disks, None)


@pytest.mark.parametrize(("case", "other"), [("md-0-original", 2), ("md-0-alternate", 1)])
def test_the_two_layouts_of_unequal_members_differ(tmp_path: Path, case: str, other: int) -> None:
    """Else the tests of either would show nothing."""
    disks = unpack(case, tmp_path)
    for disk in disks:
        change(disk, 4096, put("<i", 76, other))
    assert sha256(disks) != truth(case)


def test_a_member_that_a_newer_superblock_calls_failed_is_refused(tmp_path: Path) -> None:
    """Also within the kernel's margin of one event."""
    disks = unpack("md-1-12", tmp_path)

    def failed(block: bytearray) -> None:
        struct.pack_into("<Q", block, 200, struct.unpack_from("<Q", block, 200)[0] + 1)
        struct.pack_into("<H", block, 258, 0xFFFE)

    change(disks[0], 4096, failed)
    with pytest.raises(NeedsRecovery, match="2: a newer superblock says that it failed"):
        content(disks, None)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offset=st.integers(0, 4095))
def test_a_090_superblock_with_a_changed_byte_is_refused(tmp_path: Path, offset: int) -> None:
    folder = tmp_path / "disks"
    disk = (sorted(folder.iterdir()) if folder.exists() else unpack("md-1-090", folder))[0]
    at = (disk.stat().st_size & ~0xFFFF) - 0x10000 + offset
    if offset < 8:
        return  # without its magic or version it is none
    with disk.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x10]))
    try:
        with pytest.raises(Corrupt, match="checksum mismatch"):
            content([disk], None)
    finally:
        with disk.open("r+b") as file:
            file.seek(at)
            file.write(byte)


def test_members_that_contradict_one_another_are_refused(tmp_path: Path) -> None:
    disks = unpack("md-0-12", tmp_path)
    change(disks[1], 4096, put("<i", 88, 64))
    with pytest.raises(Corrupt, match="its members differ in chunk"):
        content(disks, None)


def test_a_bad_checksum_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    """It may be the start of an array's data: a raid0's first member begins like a file system."""
    disk = unpack("md-0-10", tmp_path)[0]
    with BlockDevice(disk) as device:
        found = md.find(medium_of(device))
        at = ((device.size // 512 - 16) & ~7) * 512
    assert found is not None
    with disk.open("r+b") as file:
        file.seek(at + 60)
        file.write(b"x")
        file.seek(1080)
        file.write(b"\x53\xef")
    with pytest.raises(Corrupt, match="checksum mismatch"), BlockDevice(disk) as device:
        open_volume([device])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32), right=st.booleans())
def test_flipped_bytes_of_a_superblock_give_an_answer_or_a_named_error(tmp_path: Path, seed: int, right: bool) -> None:
    folder = tmp_path / "disks"
    disks = sorted(folder.iterdir()) if folder.exists() else unpack("md-0-12", folder)
    with disks[0].open("rb") as file:
        file.seek(4096)
        before = file.read(4096)
    random.seed(seed)

    def flip(block: bytearray) -> None:
        block[random.randrange(272)] ^= random.randrange(1, 256)

    if right:
        change(disks[0], 4096, flip)
    else:
        block = bytearray(before)
        flip(block)
        with disks[0].open("r+b") as file:
            file.seek(4096)
            file.write(block)
    try:
        content(disks, None)
    except SplitreelError as error:
        assert error.why
    finally:
        with disks[0].open("r+b") as file:
            file.seek(4096)
            file.write(before)


def test_a_device_too_small_for_any_superblock(tmp_path: Path) -> None:
    for size in (0, 512, 4096, 65536):
        path = blank(tmp_path / f"small{size}", size)
        with BlockDevice(path) as device:
            assert md.find(medium_of(device)) is None


@pytest.mark.parametrize(
    ("at", "magic", "name"), [(1024, b"Intel Raid ISM Cfg Sig. 1", "Intel"), (512, b"\xde\x11\xde\x11", "DDF")]
)
def test_members_of_other_makers_arrays_are_refused_by_name(tmp_path: Path, at: int, magic: bytes, name: str) -> None:
    path = blank(tmp_path / "disk", 1 << 20)
    with path.open("r+b") as file:
        file.seek(1080)
        file.write(b"\x53\xef")
        file.seek((1 << 20) - at)
        file.write(magic)
    with pytest.raises(Unsupported, match=f"a member of {name}"):
        content([path], None)
