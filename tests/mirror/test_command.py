"""Mirrors driven by commands, and mirrors that are split already."""

import importlib
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest

from splitreel.errors import MirrorError, UsageError
from splitreel.mirror import TYPES, Mirror, SplitImage, create, keys
from tests.volumes import ext4_volume


def settings(folder: Path, **changes: object) -> dict[str, object]:
    log = folder / "log"
    return {
        "type": "command",
        "image": str(folder / "image"),
        "split": f"sh -c 'touch {{image}}; echo split >> {log}; echo \"#INFO parted\"'",
        "rejoin": f"sh -c 'echo rejoin {{image}} >> {log}'",
        "offset": 1048576,
        **changes,
    }


def test_a_cycle(tmp_path: Path) -> None:
    mirror = create(settings(tmp_path, in_sync=f"test ! -e {tmp_path}/image", dirty="echo 4096"))
    mirror.check()
    mirror.establish()
    mirror.wait_in_sync(5)
    assert mirror.state() == "in-sync"
    mirror.flush()
    assert mirror.split() == SplitImage(str(tmp_path / "image"), 1048576)
    assert mirror.state() == "split"
    assert mirror.files() == [str(tmp_path / "image")]
    assert mirror.dirty_bytes() == 4096
    assert create(settings(tmp_path)).state() == "unknown"
    mirror.rejoin(nullcontext)
    assert mirror.state() == "in-sync"
    mirror.close()
    assert (tmp_path / "log").read_text() == f"split\nrejoin {tmp_path}/image\n"


def test_failures_are_told(tmp_path: Path) -> None:
    failing = create(settings(tmp_path, split="sh -c 'exit 2'"))
    failing.establish()
    with pytest.raises(MirrorError, match="status 2"):
        failing.split()
    assert failing.state() == "unknown"
    with pytest.raises(MirrorError, match="cannot be read after the split"):
        create(settings(tmp_path, split="true")).split()
    with pytest.raises(MirrorError, match="one number"):
        create(settings(tmp_path, dirty="echo lots")).dirty_bytes()
    with pytest.raises(MirrorError, match="/nonexistent"):
        create(settings(tmp_path, rejoin="/nonexistent")).check()
    with pytest.raises(MirrorError, match="not in sync"):
        create(settings(tmp_path, in_sync="false")).wait_in_sync(0)
    assert create(settings(tmp_path)).dirty_bytes() is None


def test_a_static_mirror_is_what_it_is(tmp_path: Path) -> None:
    image = tmp_path / "image"
    mirror = create({"type": "static", "image": str(image), "offset": 512})
    with pytest.raises(MirrorError, match="cannot be read"):
        mirror.check()
    image.touch()
    mirror.check()
    mirror.establish()
    mirror.wait_in_sync(1)
    mirror.flush()
    assert mirror.is_in_sync()
    mirror.check_primary("/dev/null")
    with pytest.raises(MirrorError, match="is the primary itself"):
        mirror.check_primary(str(image))
    assert mirror.resynced_bytes() is None
    assert mirror.cost()
    assert mirror.split() == SplitImage(str(image), 512)
    assert mirror.dirty_bytes() is None
    mirror.rejoin(nullcontext)
    mirror.forget()
    mirror.close()


def test_a_static_mirror_that_is_mounted_for_writing_is_refused(tmp_path: Path) -> None:
    with ext4_volume(tmp_path) as mount:
        mirror = create({"type": "static", "image": str(tmp_path / "volume.img")})
        with pytest.raises(MirrorError, match=f"mounted for writing at {mount}"):
            mirror.check()
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        mirror.check()


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_every_mirror_has_all_of_the_protocol(kind: str) -> None:
    module, name = TYPES[kind]
    made = getattr(importlib.import_module(module), name)
    wanted = [word for word, what in vars(Mirror).items() if callable(what) and not word.startswith("_")]
    assert {"split", "rejoin", "cost"} < set(wanted)
    assert [word for word in wanted if not callable(getattr(made, word, None))] == []


def test_kinds() -> None:
    assert keys("qemu")["qmp"] == ("path", True)
    with pytest.raises(UsageError, match=r"known are command, .*qemu, .*static"):
        create({"type": "raid"})
