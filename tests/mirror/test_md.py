"""The md mirror's parts that need no array: state in sysfs, what is unsafe, the bitmap. The rest: tests/vm/guest."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel.core.device import BlockDevice
from splitreel.errors import Corrupt, MirrorError, SplitreelError, Unsupported
from splitreel.mirror import create, mdarray, mdbitmap
from splitreel.mirror.md import unsafe

# As Linux 6.1 had them for a raid1 of two disks of 256 MiB: /sys/block/md0/md
IN_SYNC = """
array_state: clean
bitmap/backlog: 0
bitmap/chunksize: 65536
bitmap/location: +8
bitmap/metadata: internal
bitmap/time_base: 5
component_size: 261120
consistency_policy: bitmap
degraded: 0
dev-vda/bad_blocks:
dev-vda/offset: 2048
dev-vda/recovery_start: none
dev-vda/slot: 0
dev-vda/state: in_sync
dev-vdb/bad_blocks:
dev-vdb/offset: 2048
dev-vdb/recovery_start: none
dev-vdb/slot: 1
dev-vdb/state: in_sync
level: raid1
metadata_version: 1.2
raid_disks: 2
sync_action: idle
"""
CHUNK, CHUNKS = 65536, 4080


def array_of(folder: Path, **changes: str | None) -> mdarray.Array:
    """What is read of IN_SYNC with attributes changed, or left out where None is given; ``__`` stands for a slash."""
    attributes = dict(line.split(":", 1) for line in IN_SYNC.strip().splitlines())
    attributes |= {name.replace("__", "/").replace("dev_", "dev-"): value for name, value in changes.items()}
    for name, value in attributes.items():
        if value is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{value.strip()}\n")
    return mdarray.read(folder, "md /dev/md0")


def test_a_whole_array(tmp_path: Path) -> None:
    array = array_of(tmp_path)
    assert array.is_whole
    assert (array.size, array.bitmap, array.clearing_s) == (261120 << 10, "+8", 5.0)
    assert [member.node for member in array.members] == ["vda", "vdb"]
    assert [(member.in_sync, member.offset) for member in array.members] == [(True, 1 << 20)] * 2
    assert unsafe(array, "vdb") == ("", "")


def test_idle_alone_does_not_make_an_array_whole(tmp_path: Path) -> None:
    """As it is right after a re-add: the recovery has not begun yet, and the action is idle."""
    array = array_of(tmp_path, degraded="1", dev_vdb__state="spare")
    assert array.action == "idle"
    assert not array.is_whole
    member = array.member("vdb")
    assert member is not None
    assert not member.in_sync


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"level": "raid5"}, "level is raid5"),
        ({"metadata_version": "external:imsm"}, "another maker's"),
        ({"bitmap__metadata": "clustered"}, "a cluster's"),
        ({"bitmap__location": "none"}, "no write-intent bitmap"),
        ({"bitmap__location": None}, "no write-intent bitmap"),
        ({"bitmap__location": "file"}, "not on its members but in file"),
        ({"array_state": "read-auto"}, "it is read-auto"),
        ({"sync_action": "reshape"}, "being reshaped"),
        ({"degraded": "1", "dev_vdb__state": "faulty"}, "vdb has failed"),
        ({"degraded": "1", "dev_vda__state": "faulty"}, "degraded: 1 of 2"),
        ({"raid_disks": "1", "dev_vda__state": "journal"}, "only member in sync"),
        ({"dev_vdc__state": "spare", "dev_vdc__offset": "2048"}, "has a spare"),
        ({"bitmap__backlog": "256", "dev_vdb__state": "in_sync,write_mostly"}, "write-behind"),
        ({"dev_vdb__bad_blocks": "2048 8"}, "bad blocks"),
    ],
)
def test_what_is_unsafe_is_refused_by_name(changes: dict[str, str | None], reason: str, tmp_path: Path) -> None:
    why, advice = unsafe(array_of(tmp_path, **changes), "vdb")
    assert reason in why
    assert advice


def test_what_takes_only_time_is_not_refused(tmp_path: Path) -> None:
    """A recovery, a resync and a scrub end by themselves, and are waited for; write-mostly alone is no harm."""
    recovering = {"sync_action": "recover", "degraded": "1", "dev_vdb__state": "spare"}
    for number, changes in enumerate(
        (recovering, {"sync_action": "resync"}, {"dev_vdb__state": "in_sync,write_mostly"})
    ):
        assert unsafe(array_of(tmp_path / str(number), **changes), "vdb") == ("", "")


def test_a_member_that_is_not_there_is_named(tmp_path: Path) -> None:
    why, advice = unsafe(array_of(tmp_path), "sdz")
    assert "sdz is not in the array" in why
    assert "splitreel resume" in advice


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match="no running software RAID"):
        mdarray.read(tmp_path, "md")
    with pytest.raises(MirrorError, match="cannot be read"):
        array_of(tmp_path, dev_vda__offset="none")
    image = tmp_path / "image"
    image.touch()
    with pytest.raises(MirrorError, match="no block device"):
        create({"type": "md", "array": str(image), "member": str(image)}).state()
    with pytest.raises(MirrorError, match="No such file"):
        create({"type": "md", "array": "/dev/nonexistent", "member": "/dev/nonexistent"}).state()


def bitmap(dirty: bytes, **changes: int) -> bytes:
    """A bitmap as mdadm 4.2 made it for 255 MiB in chunks of 64 KiB, with these bits set."""
    fields = {"version": 4, "state": 0, "chunk": CHUNK, "sectors": 522240, "behind": 0, "nodes": 0, **changes}
    head = struct.pack(
        "<II16sQQQIIIIII",
        mdbitmap.MAGIC,
        fields["version"],
        bytes(range(16)),
        24,
        18,
        fields["sectors"],
        fields["state"],
        fields["chunk"],
        5,
        fields["behind"],
        0,
        fields["nodes"],
    )
    return head.ljust(mdbitmap.SUPERBLOCK_SIZE, b"\0") + dirty


def counted(folder: Path, block: bytes, place: int = 8192) -> int:
    path = folder / "member"
    path.write_bytes((bytes(place) + block).ljust(1 << 20, b"\xff"))
    with BlockDevice(path) as device:
        return mdbitmap.dirty_bytes(device, place, "member")


def test_a_bitmap_is_counted(tmp_path: Path) -> None:
    """Bits behind the last chunk are not the array's, whatever they are."""
    assert counted(tmp_path, bitmap(bytes(510))) == 0
    assert counted(tmp_path, bitmap(b"\x01" + bytes(508) + b"\x80")) == 2 * CHUNK
    assert counted(tmp_path, bitmap(b"\xff" * 510)) == CHUNKS * CHUNK
    assert counted(tmp_path, bitmap(b"\xff" * 510, sectors=522240 - 8)) == (522240 - 8) * 512
    assert counted(tmp_path, bitmap(bytes(510), state=1 << mdbitmap.STALE)) == CHUNKS * CHUNK


@settings(max_examples=25, deadline=None)
@given(bits=st.binary(min_size=510, max_size=510), sectors=st.integers(1, 522240))
def test_the_count_is_that_of_the_array_s_own_chunks(
    bits: bytes, sectors: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chunks = -(-sectors // 128)
    expected = sum(bits[index // 8] >> index % 8 & 1 for index in range(chunks)) * CHUNK
    folder = tmp_path_factory.mktemp("bitmap")
    assert counted(folder, bitmap(bits, sectors=sectors)) == min(expected, sectors * 512)


def test_a_bitmap_s_superblock() -> None:
    parsed = mdbitmap.parse(bitmap(b""), "member")
    assert (parsed.uuid, parsed.events, parsed.events_cleared) == (bytes(range(16)), 24, 18)
    assert (parsed.size, parsed.chunk, parsed.chunks) == (261120 << 10, CHUNK, CHUNKS)


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({"version": 5}, Unsupported, "version 5"),
        ({"nodes": 4}, Unsupported, "cluster"),
        ({"chunk": 65537}, Corrupt, "chunks of 65537"),
        ({"chunk": 512}, Corrupt, "chunks of 512"),
        ({"sectors": 0}, Corrupt, "0 sectors"),
        ({"sectors": 1 << 62}, Corrupt, "sectors"),
    ],
)
def test_a_bitmap_that_cannot_be_is_refused(changes: dict[str, int], kind: type[SplitreelError], reason: str) -> None:
    with pytest.raises(kind, match=reason):
        mdbitmap.parse(bitmap(b"", **changes), "member")
    with pytest.raises(Corrupt, match="magic"):
        mdbitmap.parse(bytes(256), "member")


@settings(max_examples=100, deadline=None)
@given(block=st.binary(min_size=0, max_size=300))
def test_no_bytes_break_the_parser(block: bytes) -> None:
    for bytes_ in (block, struct.pack("<II", mdbitmap.MAGIC, 4) + block):
        try:
            assert mdbitmap.parse(bytes_, "member").chunks > 0
        except SplitreelError:
            continue


def test_a_member_that_goes_away_while_it_is_read_is_left_out(tmp_path: Path) -> None:
    array_of(tmp_path)
    (tmp_path / "dev-vdb/state").unlink()
    array = mdarray.read(tmp_path, "md")
    assert [member.node for member in array.members] == ["vda"]
    assert replace(array, degraded=1).is_whole is False
