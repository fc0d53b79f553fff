"""What would go wrong within the window is refused before it, however indirectly it stands on what is frozen."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitreel.config import Volume
from splitreel.errors import MirrorError, QuiesceError, UsageError
from splitreel.mirror import SplitImage
from splitreel.session import checks
from splitreel.session.image import opened
from tests.support import need_root, unmount
from tests.volumes import ext4_volume


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    with ext4_volume(tmp_path, 128 << 20) as mount:
        yield mount


def refuse(path: Path, frozen: Path) -> None:
    with pytest.raises(UsageError, match="will be frozen") as caught:
        checks.keep_apart([("state directory", str(path))], [str(frozen)])
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2


def test_on_the_frozen_file_system_itself_even_when_it_does_not_exist_yet(volume: Path) -> None:
    refuse(volume, volume)
    refuse(volume / "not" / "yet", volume)


def test_elsewhere_is_allowed(volume: Path, tmp_path: Path) -> None:
    # The volume's own image lies on the root file system; the other way round would be a wait.
    checks.keep_apart([("state directory", str(tmp_path))], [str(volume)])


def test_on_a_loop_device_over_an_image_on_it(volume: Path, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (volume / "sub").mkdir()
    with ext4_volume(volume / "sub", 16 << 20) as inner:
        refuse(inner, volume)
        checks.keep_apart([("tape", str(volume / "x"))], [str(inner)])


def test_on_an_overlay_whose_upper_directory_is_on_it(volume: Path, tmp_path: Path) -> None:
    for name in ("upper", "work"):
        (volume / name).mkdir()
    merged, lower = tmp_path / "merged", tmp_path / "lower"
    merged.mkdir()
    lower.mkdir()
    options = f"lowerdir={lower},upperdir={volume}/upper,workdir={volume}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    try:
        refuse(merged, volume)
    finally:
        unmount(merged)


def test_own_files_name_tape_state_and_redirected_output(tmp_path: Path) -> None:
    named = dict(checks.own_files(tmp_path, f"file:{tmp_path}/tape", ["/x"]))
    assert named["state directory"] == str(tmp_path)
    assert named["tape"] == f"{tmp_path}/tape"
    assert named["mirror's file"] == "/x"


def test_a_full_state_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks.enough_space(tmp_path)
    monkeypatch.setattr(checks, "FREE_BYTES", 1 << 60)
    with pytest.raises(UsageError, match="MiB are free"):
        checks.enough_space(tmp_path)


def test_the_device_of_a_mount_point(volume: Path, tmp_path: Path) -> None:
    device = checks.device_of(str(volume))
    assert Path(device).stat().st_rdev == volume.stat().st_dev
    with pytest.raises(MirrorError, match="no block device"):
        checks.device_of(str(tmp_path))
    with pytest.raises(MirrorError, match="no block device"):
        checks.device_of("/proc")


def test_a_freeze_elsewhere_does_not_vouch_for_the_mirrored_file_system(volume: Path, tmp_path: Path) -> None:
    assert checks.is_frozen(str(volume), [str(volume)])
    assert not checks.is_frozen(str(volume), [str(tmp_path)])
    assert not checks.is_frozen(str(volume), [])
    assert checks.is_frozen("", [str(volume)])
    assert not checks.is_frozen("", [])


def test_files_are_named_from_the_volumes_root_and_must_be_on_it(volume: Path, tmp_path: Path) -> None:
    (volume / "db").mkdir()
    (volume / "db/a").write_bytes(b"1")
    (tmp_path / "link").symlink_to(volume)
    assert checks.within([str(volume)], [str(tmp_path / "link/db/a")]) == [[b"db/a"]]
    (tmp_path / "outside").write_bytes(b"1")
    with pytest.raises(QuiesceError, match="not on the mirrored volume"):
        checks.within([str(volume)], [str(tmp_path / "outside")])
    subprocess.run(["mount", "-t", "tmpfs", "none", volume / "db"], check=True)
    try:
        (volume / "db/b").write_bytes(b"1")
        with pytest.raises(QuiesceError, match="not on the mirrored volume"):
            checks.within([str(volume)], [str(volume / "db/b")])
    finally:
        unmount(volume / "db")


def test_a_split_leg_that_begins_at_an_offset_is_read_from_there(tmp_path: Path) -> None:
    need_root()
    image = tmp_path / "leg"
    image.write_bytes(b"\0" * 1048576 + b"volume" + os.urandom(1 << 20)[6:])
    volume = Volume("", {}, raw=True)
    with opened(SplitImage(str(image), 1048576), volume) as (device,):
        assert device.pread(0, 4096)[:6] == b"volume"
        assert device.size == 1 << 20
    with opened(SplitImage(str(image)), volume) as (device,):
        assert device.pread(0, 4096)[:6] == b"\0" * 6
    with pytest.raises(MirrorError, match="it has 2097152 bytes"), opened(SplitImage(str(image), 1 << 30), volume):
        pass


def test_files_of_one_instant_are_on_one_file_system_or_all_are_frozen(tmp_path: Path) -> None:
    here, there = tmp_path / "data", Path("/dev/shm")
    here.mkdir()
    checks.at_one_instant([str(here)], [])
    checks.at_one_instant([str(here), str(tmp_path)], [])
    checks.at_one_instant([str(here), str(there)], [str(tmp_path), str(there)])
    for frozen in ([], [str(there)], [str(tmp_path)]):
        with pytest.raises(QuiesceError, match="not frozen"):
            checks.at_one_instant([str(here), str(there)], frozen)
