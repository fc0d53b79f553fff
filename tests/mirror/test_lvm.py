"""The lvm mirror's parts that need no LVM: reports, what is unsafe, how programs are run. The rest: tests/vm/guest."""

import json
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel.errors import Corrupt, DeviceError, MirrorError
from splitreel.mirror import create, dmraid, lvmreport
from splitreel.mirror.dmraid import Superblock
from splitreel.mirror.lvmreport import LogicalVolume, unsafe

# What lvs of LVM 2.03.16 said of a raid1 of two legs in each state: the values of FIELDS, a list for each volume.
RECORDED: dict[str, list[list[str]]] = json.loads(Path(__file__).with_name("lvm_reports.json").read_text())
SLOW_PROGRAM = """\
#!/bin/sh
trap 'echo asked >>{log}; exit 5' TERM
echo "$LC_ALL $*" >>{log}
i=0; while [ $i -lt 100 ]; do sleep 0.1; i=$((i + 1)); done
"""


def report(state: str) -> str:
    """The JSON text as lvs prints it."""
    rows = [dict(zip(lvmreport.FIELDS, values, strict=True)) for values in RECORDED[state]]
    return json.dumps({"report": [{"lv": rows}]})


def volume_of(state: str, name: str = "data") -> LogicalVolume:
    return lvmreport.parse(report(state), "sr", name)


@pytest.mark.parametrize(
    ("recorded", "state", "ready"),
    [
        ("copying", "copying", False),
        ("in-sync", "in-sync", True),
        ("split", "split", False),
        ("leg-open", "split", False),
        ("rebuilding", "rejoining", False),
        ("checking", "in-sync", False),
        ("mismatched", "none", False),
        ("degraded", "none", False),
    ],
)
def test_states(recorded: str, state: str, ready: bool) -> None:
    """A comparison under way is no reason to distrust the legs, and one not to split them."""
    volume = volume_of(recorded)
    assert (volume.state, volume.is_in_sync) == (state, ready)


def test_a_whole_volume() -> None:
    """Legs with their own devices, and where their bitmaps are."""
    volume = volume_of("in-sync")
    assert (volume.kind, volume.size, volume.region, volume.minor) == ("raid1", 160 << 20, 256 << 10, 4)
    assert [leg.path for leg in volume.legs] == ["/dev/mapper/sr-data_rimage_0", "/dev/mapper/sr-data_rimage_1"]
    assert [leg.metadata for leg in volume.legs] == ["/dev/mapper/sr-data_rmeta_0", "/dev/mapper/sr-data_rmeta_1"]
    assert [sorted(leg.disks) for leg in volume.legs] == [["/dev/vda"], ["/dev/vdb"]]
    assert volume.split_leg is None and unsafe(volume, "") == ("", "")
    assert lvmreport.chosen(volume, "") == volume.legs[1]


def test_a_superblock_has_a_place_without_a_device() -> None:
    """From the disk's first extent on; a disk that is gone is not understood."""
    legs = volume_of("in-sync", "my-db").legs
    assert [(leg.metadata_disk, leg.metadata_extent) for leg in legs] == [
        ("/dev/vda", 161),
        ("/dev/vdc", 4),
        ("/dev/vdd", 0),
    ]
    row = '{"pv_name":"/dev/vda", "pe_start":"1048576", "vg_extent_size":"4194304"}'
    assert lvmreport.extents_of(f'{{"report": [{{"pv": [{row}]}}]}}', "/dev/vda") == (1 << 20, 4 << 20)
    with pytest.raises(MirrorError, match="not understood"):
        lvmreport.extents_of(f'{{"report": [{{"pv": [{row}]}}]}}', "/dev/vdb")


@pytest.mark.parametrize(
    ("kept", "leg", "recovered"),
    [
        ([Superblock(0, 23, 2)], Superblock(1, 22, 0), True),
        ([Superblock(0, 22, 2)], Superblock(1, 22, 0), True),  # the first of equals
        ([Superblock(0, 59, 2)], Superblock(1, 60, 0), False),  # as seen: the old leg is believed
        ([Superblock(1, 22, 1)], Superblock(0, 22, 0), False),
        ([Superblock(1, 23, 1)], Superblock(0, 22, 0), True),
        ([Superblock(0, 23, 0)], Superblock(1, 0, 0), False),
        ([Superblock(0, 23, 4), Superblock(1, 23, 4)], Superblock(2, 0, 0), True),
    ],
)
def test_which_merges_copy_what_changed(kept: list[Superblock], leg: Superblock, recovered: bool) -> None:
    """The superblock of most events is believed, and must know that the leg was missing."""
    assert dmraid.recovers(kept, leg) is recovered
    assert dmraid.is_missed(kept, leg) is (kept[0].failed != 0)


def test_a_leg_is_made_old_and_nothing_else_is_touched(tmp_path: Path) -> None:
    """One block is written, and in it the events alone."""
    before = b"DmRd" + bytes([1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 60]) + bytes(7) + bytes(range(200)) * 20
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096) + before[:4096] + b"behind" * 1000)
    assert dmraid.parse(dmraid.read(str(path), 4096), "leg").events == 60
    whole = path.read_bytes()
    dmraid.age(str(path), 4096)
    assert path.read_bytes() == whole[: 4096 + 16] + bytes(8) + whole[4096 + 24 :]
    with pytest.raises(Corrupt, match="no magic number"):
        dmraid.age(str(path), 0)
    with pytest.raises(DeviceError):
        dmraid.read(str(path), 1 << 30)


def test_a_split_leg() -> None:
    """Its name is without brackets; it is in nobody's hands until somebody opens it."""
    leg = volume_of("split").split_leg
    assert leg is not None and (leg.name, leg.is_open) == ("data_rimage_1", False)
    opened = volume_of("leg-open").split_leg
    assert opened is not None and (opened.name, opened.is_open) == ("data_rimage_0", True)


def test_names_with_hyphens_and_three_legs() -> None:
    """Device mapper doubles hyphens; the path is as lvs tells it."""
    volume = volume_of("in-sync", "my-db")
    assert volume.path == "/dev/mapper/sr-my--db"
    assert [leg.name for leg in volume.legs] == ["my-db_rimage_0", "my-db_rimage_1", "my-db_rimage_2"]
    assert lvmreport.chosen(volume, "/dev/vdc") == volume.legs[1]


@pytest.mark.parametrize(
    ("recorded", "name", "disk", "why"),
    [
        ("in-sync", "plain", "", "segment type is linear"),
        ("inactive", "data", "", "not active"),
        ("split", "data", "", "data_rimage_1 is split off already"),
        ("degraded", "data", "", "degraded or damaged: partial"),
        ("mismatched", "data", "", "degraded or damaged: mismatches exist"),
        ("origin", "my-db", "", "origin of a snapshot"),
        ("in-sync", "data", "/dev/vdz", "no leg lies on /dev/vdz"),
    ],
)
def test_unsafe_volumes_are_refused_by_name(recorded: str, name: str, disk: str, why: str) -> None:
    """Each with something to do about it."""
    text, advice = unsafe(volume_of(recorded, name), disk)
    assert why in text and advice


def test_legs_on_one_disk_and_single_legs_are_refused() -> None:
    """A split would read from the disk that the database writes to, or leave nothing to write to."""
    volume = volume_of("in-sync")
    shared = tuple(replace(leg, disks=leg.disks | {"/dev/vdc"}) for leg in volume.legs)
    assert "on one disk" in unsafe(replace(volume, legs=shared), "")[0]
    assert "one leg" in unsafe(replace(volume, legs=volume.legs[:1]), "")[0]


def test_no_such_volume_and_no_such_report() -> None:
    """Another group's volume of that name is not ours."""
    for text, group in ((report("in-sync"), "other"), ('{"report":[{"lv":[]}]}', "sr")):
        with pytest.raises(MirrorError, match="no such logical volume"):
            lvmreport.parse(text, group, "data")
    for text in ("", "[]", '{"report":[{"lv":[{}]}]}', '{"report":1}'):
        with pytest.raises(MirrorError, match="not understood"):
            lvmreport.parse(text, "sr", "data")


@given(st.sampled_from(sorted(RECORDED)), st.integers(0, 3000), st.text(max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_damaged_report_is_an_error_and_no_crash(state: str, at: int, text: str) -> None:
    """Whatever stands there instead."""
    whole = report(state)
    try:
        volume = lvmreport.parse(whole[:at] + text + whole[at + len(text) :], "sr", "data")
    except MirrorError:
        return
    assert volume.state in ("none", "copying", "in-sync", "split", "rejoining")


def test_settings_of_lvm() -> None:
    """With and without the section's braces."""
    text = (
        'backup {\n\tbackup=1\n\tbackup_dir="/etc/lvm/backup"\n\tarchive=0\n}\nlocking_dir="/run/lock/lvm"\n# file=""\n'
    )
    expected = {"backup": "1", "backup_dir": "/etc/lvm/backup", "archive": "0", "locking_dir": "/run/lock/lvm"}
    assert lvmreport.settings(text) == expected


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder before all others on the PATH, with an lvs that says that all is well, and a log of lvchange's runs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "report").write_text(report("in-sync"))
    (tmp_path / "tags").write_text("  mine\n")
    choose = f'case "$*" in *lv_tags*) cat {tmp_path}/tags;; *) cat {tmp_path}/report;; esac'
    program(folder, "lvs", f"#!/bin/sh\necho '  WARNING: a disk is slow' >&2\n{choose}\n")
    program(folder, "lvchange", f'#!/bin/sh\necho "$@" >>{tmp_path}/changes\n')
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_a_tag_tells_under_which_boot_a_leg_is_split_off(programs: Path, tmp_path: Path) -> None:
    """It is made before the window, in place of another boot's, and once; other tags are left alone."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (tmp_path / "tags").write_text("  mine,splitreel_split_an-earlier-boot\n")
    one = create({"type": "lvm", "lv": "sr/data"})
    one.flush()
    changes = (tmp_path / "changes").read_text().splitlines()
    assert changes == [
        "--yes --deltag splitreel_split_an-earlier-boot sr/data",
        f"--yes --addtag splitreel_split_{boot} sr/data",
    ]
    (tmp_path / "tags").write_text(f"  mine,splitreel_split_{boot}\n")
    one.flush()
    assert (tmp_path / "changes").read_text().splitlines() == changes


def test_a_volume_whose_rebuild_was_interrupted_is_still_rejoining(programs: Path, tmp_path: Path) -> None:
    """By lvs alone it looks in sync; old data may be on the leg."""
    one = create({"type": "lvm", "lv": "sr/data"})
    assert one.state() == "in-sync"
    (tmp_path / "tags").write_text("  splitreel_rebuild\n")
    assert one.state() == "rejoining"
    one.rejoin(nullcontext)
    changes = (tmp_path / "changes").read_text().splitlines()
    assert changes[:3] == [
        "--yes --writemostly /dev/vdb:y sr/data",
        "--yes --rebuild /dev/vdb sr/data",
        "--yes --writemostly /dev/vdb:n sr/data",
    ]
    assert "--yes --deltag splitreel_rebuild sr/data" in changes


def test_a_slow_program_is_asked_to_end_and_not_killed(programs: Path, tmp_path: Path) -> None:
    """A killed lvconvert would leave the volume suspended; the words are those of the C locale."""
    log = tmp_path / "log"
    program(programs, "lvconvert", SLOW_PROGRAM.format(log=log))
    one = create({"type": "lvm", "lv": "sr/data", "split_timeout_s": 0.5})
    one.flush()
    begun = time.monotonic()
    with pytest.raises(MirrorError, match=r"took longer than 0\.5 s"):
        one.split()
    assert time.monotonic() - begun < 5
    assert log.read_text().splitlines() == ["C --yes --splitmirrors 1 --trackchanges sr/data /dev/vdb", "asked"]


def test_what_a_program_complains_of_is_told(programs: Path) -> None:
    """Without the warnings that LVM prints besides."""
    complaint = "  WARNING: something else\n  Volume group is locked.\n"
    program(programs, "lvconvert", f"#!/bin/sh\nprintf '%s' '{complaint}' >&2\nexit 5\n")
    one = create({"type": "lvm", "lv": "sr/data"})
    one.flush()
    with pytest.raises(MirrorError, match=r"ended with status 5: Volume group is locked\.$"):
        one.split()


def test_only_what_is_said_to_be_needed_is_needed(programs: Path) -> None:
    """Folders of copies that LVM is told not to write do not matter; its locks always do."""
    text = 'backup {\n backup=0\n backup_dir="/b"\n archive=1\n archive_dir="/a"\n}\nlocking_dir="/l"\n'
    program(programs, "lvmconfig", f"#!/bin/sh\ncat <<'E'\n{text}E\n")
    assert create({"type": "lvm", "lv": "sr/data"}).files() == ["/l", "/a"]


def test_a_volume_is_named_by_group_and_name() -> None:
    """A path would be taken for options or for another volume's name."""
    for name in ("data", "/dev/sr/data", "-a/data", "sr/data/x", "sr/da ta"):
        with pytest.raises(MirrorError, match="group/volume"):
            create({"type": "lvm", "lv": name}).state()


def test_a_program_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the package."""
    monkeypatch.setattr("splitreel.mirror.lvm.SEARCHED", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MirrorError, match="lvs is not installed"):
        create({"type": "lvm", "lv": "sr/data"}).check()
