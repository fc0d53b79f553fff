"""LVM2 read from its physical volumes: against what the kernel showed of them, and against lvs."""

import hashlib
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel.__main__ import main
from splitreel.core.device import BlockDevice
from splitreel.errors import Corrupt, NotFound, SplitreelError, Unsupported, UsageError
from splitreel.stack import lvm, lvmtext, open_volume
from splitreel.stack.medium import given as medium_of
from tests.stack.fixture import Truth, truths, unpack
from tests.stack.lvm_surgery import Area, change_all, crc
from tests.stack.parts import blank, content
from tests.support import need_programs, need_root

CASES = ("lvm", "lvm-raid", "lvm-rebuild", "lvm-refused")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return unpack("lvm", tmp_path_factory.mktemp("lvm"))


@pytest.fixture
def disks(pristine: list[Path], tmp_path: Path) -> list[Path]:
    """Three physical volumes of the group vg0; a copy to change."""
    for path in pristine:
        subprocess.run(["cp", "--sparse=always", path, tmp_path], check=True)
    return sorted(tmp_path / path.name for path in pristine)


def sha256(paths: list[Path], volume: str | None, warnings: list[str] | None = None) -> str:
    return hashlib.sha256(content(paths, volume, warnings=warnings)).hexdigest()


def truth(case: str, volume: str) -> str:
    return next(one.sha256 for one in truths() if (one.case, one.volume) == (case, volume))


# What the kernel showed.


@pytest.mark.parametrize("one", [t for t in truths() if t.case in CASES], ids=lambda t: f"{t.case}:{t.volume}")
def test_a_volume_holds_what_the_kernel_showed(one: Truth, tmp_path: Path) -> None:
    assert sha256(unpack(one.case, tmp_path), one.volume) == one.sha256


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0)])
def test_the_order_in_which_devices_are_given_does_not_matter(disks: list[Path], order: tuple[int, ...]) -> None:
    assert sha256([disks[index] for index in order], "vg0/str") == truth("lvm", "vg0/str")


def test_a_file_in_a_logical_volume(disks: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    """All the way from the command line: the volume lies on the third disk, its metadata on any."""
    given = ["--with", str(disks[2]), "--with", str(disks[1])]

    assert main(["cat", str(disks[0]), "file", "--volume", "vg0/ext", "--frozen", *given]) == 0
    assert capfd.readouterr().out == "inside a logical volume\n"
    assert main(["map", str(disks[2]), "--volume", "vg0/ext", "--frozen"]) == 0


def test_a_physical_volume_is_refused_with_the_list_of_its_volumes(
    disks: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["map", str(disks[2])]) == 2
    err = capfd.readouterr().err
    assert re.search(r"--volume vg0/ext +1\.0 MiB  ext\n", err)
    assert re.search(r"--volume vg0/lin +-  physical volume .* is not among the devices given", err)


def test_a_missing_physical_volume_is_named_with_its_last_device(disks: list[Path]) -> None:
    with BlockDevice(disks[1]) as device:
        label = lvm.read(medium_of(device))
    assert label is not None
    with pytest.raises(NotFound, match=rf"physical volume {label.uuid}, last seen as /dev/loop\d+, is not among"):
        content([disks[0], disks[2]], "vg0/str")


@pytest.mark.parametrize(
    ("case", "volume", "why"),
    [
        ("lvm", "vg0/snap", "segment type snapshot"),
        ("lvm-raid", "vg0/five", "segment type raid5"),
        ("lvm-refused", "vg0/thin", "segment type thin "),
        ("lvm-refused", "vg0/pool", "segment type thin-pool"),
        ("lvm-refused", "vg0/cached", "segment type cache"),
        ("lvm-refused", "vg0/written", "segment type writecache"),
        ("lvm-refused", "vg0/checked", "segment type integrity"),
    ],
)
def test_what_is_not_read_is_refused_by_the_name_of_its_segment_type(
    tmp_path: Path, case: str, volume: str, why: str
) -> None:
    warnings: list[str] = []
    with pytest.raises(Unsupported) as caught:
        content(unpack(case, tmp_path), volume, warnings=warnings)
    assert why in " ".join([str(caught.value), *warnings])


def test_a_hidden_volume_is_not_there(disks: list[Path], tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no logical volume pool_tdata"):
        content(unpack("lvm-refused", tmp_path / "refused"), "vg0/pool_tdata")


# Legs.


def test_a_raid1_is_read_from_its_first_leg_and_says_so(tmp_path: Path) -> None:
    warnings: list[str] = []
    sha256(unpack("lvm-raid", tmp_path), "vg0/one", warnings)
    assert any("read from leg one_rimage_0" in warning for warning in warnings)


def test_a_raid1_is_read_from_the_leg_that_is_there(tmp_path: Path) -> None:
    warnings: list[str] = []
    second = unpack("lvm-raid", tmp_path)[1]
    assert sha256([second], "vg0/one", warnings) == truth("lvm-raid", "vg0/one")
    assert any("read from leg one_rimage_1" in warning for warning in warnings)


def test_a_leg_that_was_split_off_holds_what_it_held_then_and_not_what_the_volume_holds(tmp_path: Path) -> None:
    first, _, third = unpack("lvm-raid", tmp_path)
    assert sha256([third], "vg0/tracked_rimage_1") == truth("lvm-raid", "vg0/tracked_rimage_1")
    assert sha256([third, first], "vg0/tracked") == truth("lvm-raid", "vg0/tracked")
    assert truth("lvm-raid", "vg0/tracked") != truth("lvm-raid", "vg0/tracked_rimage_1")


def test_a_leg_that_is_being_rebuilt_is_refused(tmp_path: Path) -> None:
    _, second = unpack("lvm-rebuild", tmp_path)
    with pytest.raises(Unsupported, match="data_rimage_1 is being rebuilt"):
        content([second], "vg0/data")


def test_a_mirror_without_its_first_leg_is_refused(tmp_path: Path) -> None:
    third = unpack("lvm-raid", tmp_path)[2]
    with pytest.raises(NotFound, match="is not among the devices given"):
        content([third], "vg0/mirror")


# States, by changed metadata.


def test_an_exported_group_is_refused(disks: list[Path]) -> None:
    change_all(disks, lambda text: text.replace('status = ["RESIZEABLE"', 'status = ["EXPORTED", "RESIZEABLE"', 1))
    with pytest.raises(Unsupported, match="it is exported"):
        content(disks, "vg0/lin")


def test_a_physical_volume_marked_as_missing_is_refused(disks: list[Path]) -> None:
    change_all(disks, lambda text: re.sub(r"(pv0 \{.*?)flags = \[\]", r'\1flags = ["MISSING"]', text, flags=re.DOTALL))
    with pytest.raises(Unsupported, match="marked as missing"):
        content(disks, "vg0/lin")


def test_pvmove_under_way_is_refused(disks: list[Path]) -> None:
    pvmove = """pvmove0 {
        id="x" status=["READ","PVMOVE"] segment_count=1
        segment1 {
            start_extent=0 extent_count=4 type="mirror" mirror_count=2 extents_moved=1 mirrors=["pv0",0,"pv1",9]
        }
    }"""

    def moving(text: str) -> str:
        text = text.replace("logical_volumes {", "logical_volumes {\n" + pvmove)
        return re.sub(r'(gap \{.*?stripes = \[\s*)"pv0", \d+', r'\1"pvmove0", 0', text, flags=re.DOTALL)

    change_all(disks, moving)
    with pytest.raises(Unsupported, match="pvmove is under way"):
        content(disks, "vg0/gap")


def test_the_highest_sequence_number_wins_and_older_copies_are_told(disks: list[Path]) -> None:
    newer = re.sub(r"seqno = (\d+)", "seqno = 900", Area(disks[2]).text).replace("gap {", "renamed {")
    Area(disks[2]).write(lambda _: newer)
    warnings: list[str] = []

    assert sha256(disks, "vg0/renamed", warnings) == truth("lvm", "vg0/gap")
    assert len([warning for warning in warnings if "newest 900" in warning]) == 2
    with pytest.raises(NotFound, match="no logical volume gap"):
        content(disks, "vg0/gap")


def test_two_different_metadata_of_one_sequence_number_are_refused(disks: list[Path]) -> None:
    Area(disks[2]).write(lambda text: text.replace("gap {", "renamed {"))
    with pytest.raises(Corrupt, match="two different metadata"):
        content(disks, "vg0/lin")


def test_ignored_and_precommitted_metadata_do_not_count(disks: list[Path]) -> None:
    newer = re.sub(r"seqno = (\d+)", "seqno = 900", Area(disks[2]).text).replace("gap {", "renamed {")
    Area(disks[2]).write(lambda _: newer, flags=1)
    area = Area(disks[1])
    area.write(lambda text: text, at=area.size - 700, precommitted=newer.encode() + b"\0")

    assert sha256(disks, "vg0/gap") == truth("lvm", "vg0/gap")


@pytest.mark.parametrize("before_end", [512, 1, 700])
def test_metadata_that_wrap_round_the_end_of_the_ring(disks: list[Path], before_end: int) -> None:
    for path in disks:
        area = Area(path)
        area.write(lambda text: text, at=area.size - before_end)
    assert sha256(disks, "vg0/str") == truth("lvm", "vg0/str")


def test_one_sound_copy_is_enough(disks: list[Path]) -> None:
    for path in disks[:2]:
        with path.open("r+b") as file:
            file.seek(Area(path).start + Area(path).at + 10)
            file.write(b"\xff")
    warnings: list[str] = []

    assert sha256(disks, "vg0/str", warnings) == truth("lvm", "vg0/str")
    assert len([warning for warning in warnings if "fail their checksum" in warning]) == 2


def test_no_sound_copy_is_an_error_that_says_what_is_wrong(disks: list[Path]) -> None:
    for path in disks:
        with path.open("r+b") as file:
            file.seek(Area(path).start + 100)
            file.write(b"\xff")
    with pytest.raises(Corrupt, match="its header fails its checksum"):
        content(disks, "vg0/str")


def test_one_physical_volume_given_twice_is_refused(disks: list[Path], tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copy(disks[1], again)
    with pytest.raises(Corrupt, match="was given 2 times"):
        content([*disks, again], "vg0/str")


def test_groups_of_one_name_are_told_apart_by_uuid(disks: list[Path], tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copy(disks[2], clone)
    with clone.open("r+b") as file:  # another physical volume's UUID, in the label and in the metadata
        file.seek(512)
        label = bytearray(file.read(512))
        label[32:64] = b"A" * 32
        label[16:20] = crc(bytes(label[20:])).to_bytes(4, "little")
        file.seek(512)
        file.write(label)
    old = Area(disks[2]).text
    group = re.search(r'id = "([^"]+)"', old)
    assert group is not None
    other = group[1][:-6] + "BBBBBB"
    with BlockDevice(disks[2]) as device:
        label_of = lvm.read(medium_of(device))
    assert label_of is not None
    Area(clone).write(
        lambda text: text.replace(group[1], other).replace(label_of.uuid, "AAAAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAAAA")
    )

    with pytest.raises(UsageError, match="2 groups bear that name"):
        content([*disks, clone], "vg0/ext")
    assert sha256([*disks, clone], f"{group[1]}/ext") == truth("lvm", "vg0/ext")
    assert sha256([*disks, clone], f"{other}/ext") == truth("lvm", "vg0/ext")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (r"extent_size = 256", "extent_size = 0", "extent_size = 0"),
        (r"extent_size = 256", "extent_size = 9223372036854775807", "extent"),
        (r"(gap \{.*?)extent_count = 4", r"\1extent_count = 99999999", "lies behind the end of physical volume"),
        (r"(gap \{.*?)start_extent = 0", r"\1start_extent = 1", "no segment for extent 0"),
        (r"(gap \{.*?)segment_count = 1", r"\1segment_count = 2", "1 segments, 2 announced"),
        (r'(gap \{.*?)"pv0"', r'\1"pv9"', "names pv9, which is neither"),
        (r'(gap \{.*?)"pv0"', r'\1"gap"', "is part of itself"),
        (r"(gap \{.*?)stripe_count = 1", r"\1stripe_count = 0", "stripe_count = 0"),
        (r'(gap \{.*?)type = "striped"', r'\1type = "mystery"', "segment type mystery"),
        (r'(gap \{.*?)type = "striped"', r'\1reshape_count = 1\ntype = "striped"', "in the middle of a reshape"),
    ],
)
def test_metadata_that_contradict_themselves(disks: list[Path], old: str, new: str, why: str) -> None:
    """The checksums are right: what is refused is what they vouch for."""
    change_all(disks, lambda text: re.sub(old, new, text, count=1, flags=re.DOTALL))
    assert Area(disks[0]).text != Area(disks[0]).text.replace(new, "") or "\\1" in new
    with pytest.raises(SplitreelError, match=why):
        content(disks, "vg0/gap")


def test_stripes_that_do_not_fill_their_legs_are_refused(disks: list[Path]) -> None:
    change_all(disks, lambda text: text.replace("stripe_size = 32", "stripe_size = 48"))
    with pytest.raises(Corrupt, match="stripes of 24576 bytes do not fill"):
        content(disks, "vg0/str")


def test_an_origin_into_which_a_snapshot_is_being_merged_is_refused(disks: list[Path]) -> None:
    change_all(disks, lambda text: text.replace("cow_store", "merging_store"))
    with pytest.raises(Unsupported, match="snapshot snap is being merged into it"):
        content(disks, "vg0/orig")
    with pytest.raises(Unsupported, match="segment type snapshot"):
        content(disks, "vg0/snap")


def volume(name: str, segments: list[str], size: int = 1) -> str:
    """A logical volume's section: segments of ``size`` extents, each given by what follows its type."""
    parts = "".join(
        f'segment{index + 1} {{ start_extent={index * size} extent_count={size} type="striped" {segment} }}\n'
        for index, segment in enumerate(segments)
    )
    return f'{name} {{ id="x" status=["READ","VISIBLE"] segment_count={len(segments)}\n{parts}}}\n'


def add(disks: list[Path], *volumes: str) -> None:
    change_all(disks, lambda text: text.replace("logical_volumes {", "logical_volumes {\n" + "".join(volumes)))


def test_a_volume_of_a_thousand_segments(disks: list[Path]) -> None:
    """More than the devices and open files that one volume may lie on: segments on one device share it."""
    places = [(f"pv{index % 3}", index * 7 % 40) for index in range(1200)]
    add(disks, volume("many", [f'stripe_count=1 stripes=["{pv}",{extent}]' for pv, extent in places]))
    begin = re.search(r"pe_start = (\d+)", Area(disks[0]).text)
    assert begin is not None

    with ExitStack() as held:
        devices = [held.enter_context(BlockDevice(path)) for path in disks]
        found = open_volume(devices, "vg0/many")
        assert found.size == 1200 * 131072
        for index in (0, 1, 599, 1199):
            pv, extent = places[index]
            expected = devices[int(pv[2])].pread(int(begin[1]) * 512 + extent * 131072, 131072)
            assert found.pread(index * 131072, 131072) == expected


def test_volumes_that_multiply_in_one_another_are_refused(disks: list[Path]) -> None:
    """Twenty legs of twenty legs, and so on: a few lines of metadata for 20 to the 7th stretches."""
    for level in range(7):
        legs = ",".join([f'"h{level + 1}",0'] * 20)
        add(disks, volume(f"h{level}", [f"stripe_count=20 stripe_size=8 stripes=[{legs}]"], 20**4))
    with pytest.raises(Corrupt, match="h4 lies in 4 others"):
        content(disks, "vg0/h0")


# lvs as the oracle: no device mapper is needed to make these.


@pytest.fixture
def loops(tmp_path: Path) -> Iterator[list[tuple[Path, str]]]:
    """Three images of 16 MiB as loop devices."""
    need_root()
    need_programs("losetup", "pvcreate", "vgcreate", "lvcreate", "lvs")
    held: list[tuple[Path, str]] = []
    try:
        for number in range(3):
            path = blank(tmp_path / f"pv{number}", 16 << 20)
            found = subprocess.run(["losetup", "-f", "--show", path], check=True, capture_output=True, text=True)
            held.append((path, found.stdout.strip()))
        yield held
    finally:
        for _, loop in held:
            subprocess.run(["losetup", "-d", loop], check=True)


class Tools:
    """LVM's own commands, on these devices and with a configuration of their own."""

    def __init__(self, folder: Path, devices: list[str]) -> None:
        allowed = "".join(f'"a|^{device}$|",' for device in devices)
        (folder / "lvm.conf").write_text(
            f'devices {{ use_devicesfile=0 obtain_device_list_from_udev=0 external_device_info_source="none"'
            f' filter=[{allowed}"r|.*|"] }}\n'
            "global { use_lvmpolld=0 event_activation=0 }\nbackup { backup=0 archive=0 }\n"
            "activation { udev_sync=0 udev_rules=0 monitoring=0 }\n"
        )
        self.environment = {**os.environ, "LVM_SYSTEM_DIR": str(folder), "LVM_SUPPRESS_FD_WARNINGS": "1"}

    def __call__(self, command: str, *arguments: str) -> str:
        done = subprocess.run(
            [command, "--driverloaded", "n", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


@pytest.mark.root
def test_segments_are_where_lvs_says(loops: list[tuple[Path, str]], tmp_path: Path) -> None:
    """Volumes grown by turns, over three disks, with metadata that have gone round their ring more than once."""
    paths, devices = [path for path, _ in loops], [device for _, device in loops]
    lvm_tool = Tools(tmp_path, devices)
    lvm_tool("pvcreate", "--metadatasize", "16k", *devices)
    lvm_tool("vgcreate", "-s", "64k", "vgt", *devices)
    random.seed(5)
    for name, options in (("a", ["-i", "1"]), ("b", ["-i", "2", "-I", "8k"]), ("c", ["-i", "3", "-I", "64k"])):
        lvm_tool("lvcreate", "-y", "-an", "-Zn", "-Wn", "-n", name, "-l", "6", *options, "vgt")
    for _ in range(12):
        name = random.choice("abc")
        lvm_tool("lvextend", "-y", "-l", "+6", f"vgt/{name}", *random.sample(devices, 3))
    for path in paths:
        with path.open("r+b") as file:
            file.seek(1 << 20)
            file.write(random.randbytes(8 << 20))
    start = {path: int(lvm_tool("pvs", "--noheadings", "--nosuffix", "--units", "b", "-o", "pe_start", device))
             for path, device in loops}  # fmt: skip
    by_device = {device: path.read_bytes()[start[path] :] for path, device in loops}
    columns = "lv_name,seg_size,stripes,stripesize,seg_pe_ranges"
    listed = lvm_tool("lvs", "--noheadings", "--nosuffix", "--units", "b", "--separator", ";", "-o", columns, "vgt")

    expected: dict[str, bytes] = {}
    for line in listed.split("\n"):
        if line.strip():
            name, size, stripes, stripe, ranges = line.strip().split(";")
            legs = []
            for part in ranges.split():
                device, first, last = re.split(r":|-(?=\d+$)", part)
                legs.append(by_device[device][int(first) * 65536 : (int(last) + 1) * 65536])
            unit = int(stripe) or int(size)
            assert len(legs) == int(stripes)
            woven = b"".join(leg[at : at + unit] for at in range(0, len(legs[0]), unit) for leg in legs)
            assert len(woven) == int(size)
            expected[name] = expected.get(name, b"") + woven
    assert set(expected) == {"a", "b", "c"}
    for name, data in expected.items():
        assert content(paths, f"vgt/{name}") == data


# Anything may stand there.


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 6))
def test_a_text_with_flipped_bytes_parses_or_is_refused(seed: int, count: int, pristine: list[Path]) -> None:
    text = bytearray(Area(pristine[0]).text.encode())
    random.seed(seed)
    for _ in range(count):
        text[random.randrange(len(text))] = random.randrange(256)
    try:
        lvmtext.parse(bytes(text), "it")
    except Corrupt as error:
        assert "line" in error.why


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet='ab{}[]=,"\\#\n 01.-', max_size=200))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        lvmtext.parse(text.encode(), "it")
    except Corrupt as error:
        assert error.why


@pytest.mark.parametrize("text", ["a {" * 100, "a=[" + "1," * 100, 'a="' + "x" * 100, "}", "a=1 a=2", "a b", "= 1"])
def test_texts_that_break_the_grammar(text: str) -> None:
    with pytest.raises(Corrupt, match="break the grammar in line 1"):
        lvmtext.parse(text.encode(), "it")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32))
def test_flipped_bytes_of_labels_and_areas_give_the_same_volume_or_a_named_error(disks: list[Path], seed: int) -> None:
    """Checksums left wrong: nothing of it is believed."""
    random.seed(seed)
    path = random.choice(disks)
    area = Area(disks[0]).start
    offset = random.choice([random.randrange(512, 1024), random.randrange(area, area + 200)])
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ random.randrange(1, 256)]))
    try:
        assert sha256(disks, "vg0/str") == truth("lvm", "vg0/str")
    except SplitreelError as error:
        assert error.why
    finally:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(byte)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32))
def test_metadata_with_one_word_changed_and_right_checksums_are_read_or_refused(disks: list[Path], seed: int) -> None:
    """No hang, no memory without bound, no exception but ours; sizes are kept small by what the disks have."""
    random.seed(seed)
    original = Area(disks[0]).text
    words = [match.span() for match in re.finditer(r'[\w.+-]+|"[^"]*"|[\[\]{}=]', original)]
    start, end = random.choice(words)
    new = random.choice(["0", "1", "-1", "4294967296", "18446744073709551615", '"pv0"', "", "[", "}", '"lin"', "x = 1"])
    try:
        change_all(disks, lambda _: original[:start] + new + original[end:])
        for volume in ("vg0/lin", "vg0/str", "vg0/ext"):
            try:
                content(disks, volume)
            except SplitreelError as error:
                assert error.why
    finally:
        change_all(disks, lambda _: original)
