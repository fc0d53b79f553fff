"""What the catalog says of a tape is true whatever happens: at early warning, at an interrupt, when overwritten."""

import os
from pathlib import Path
from typing import Any

import pytest

from splitreel import errors
from splitreel.backup import Options, Result, TapeBackup, closing
from splitreel.backup import tapebackup as backup_module
from splitreel.backup.run import Run
from splitreel.catalog import Catalog
from splitreel.core.device import BlockDevice
from splitreel.drive import open_drive
from splitreel.mapping import map_device
from splitreel.reading.verify import verify
from tests import ext4_images

pytestmark = pytest.mark.root

BLOCK = 65536
SEGMENT = 4 << 20


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 file system with small files and one of several segments."""
    ext4_images.need_ext4()
    made = ext4_images.make_image(tmp_path_factory.mktemp("image") / "disk.img", 48)
    with ext4_images.mounted(made) as point:
        for number in range(20):
            (point / f"small{number}").write_bytes(os.urandom(5000))
        (point / "large").write_bytes(os.urandom(24 << 20))
    return made


def options(tape: str, **more: Any) -> Options:
    return Options(tape, **({"block_size": BLOCK, "segment_size": SEGMENT} | more))


def run(image: Path, tape: str, state: Path, **more: Any) -> Result:
    with BlockDevice(image) as device, TapeBackup(options(tape, **more), state) as made:
        return made.run(device, map_device(device))


def test_at_early_warning_too_only_what_was_synchronised_is_listed(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filemarks before it were immediate: where all of the segment in hand is given up, a synchronise comes first."""
    opened = open_drive(f"file:{tmp_path}/t.tap?size=8M&ew=1M")
    stops: list[int] = []

    def lost() -> Any:
        raise errors.DeferredError("an earlier block")

    class Noting(Run):
        def _close_early(self) -> int:
            assert self.writer is not None and self.writer.stopped_at is not None
            stops.append(self.writer.stopped_at["members"])
            return super()._close_early()

    monkeypatch.setattr(opened, "synchronize", lost)
    monkeypatch.setattr(backup_module, "open_drive", lambda url: opened)
    monkeypatch.setattr(backup_module, "Run", Noting)
    with pytest.raises(errors.DeferredError):
        run(image, f"file:{tmp_path}/t.tap", tmp_path, sync_segments=1000)

    assert stops == [0]
    with Catalog(tmp_path) as catalog:
        assert catalog.segments(catalog.volume(catalog.backups()[-1].id)[0]) == []


def test_an_interrupt_at_the_very_end_keeps_on_tape_what_the_catalog_lists(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, write = f"file:{tmp_path}/t.tap", closing.write
    calls: list[int] = []

    def interrupted(tape: Any, chunks: Any, block_size: int) -> int:
        calls.append(tape.object_id)
        if len(calls) == 1:
            tape.write(bytes(block_size))
            raise KeyboardInterrupt
        return write(tape, chunks, block_size)

    monkeypatch.setattr(closing, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(image, url, tmp_path)

    with open_drive(url) as drive:
        verdict = verify(drive)
    with Catalog(tmp_path) as catalog:
        listed = catalog.segments(catalog.volume(catalog.backups()[-1].id)[0])
    assert calls[0] == calls[1]
    assert verdict.segments == len(listed) > 1
    assert {number for number, _, _ in verdict.findings} == {0}


def test_what_breaks_the_catalogs_keeper_is_told_and_not_called_an_interrupt(image: Path, tmp_path: Path) -> None:
    told: list[int] = []

    def broken(facts: Any) -> None:
        told.append(facts["segment"])
        if len(told) == 1:
            raise ValueError("told to break")

    with (
        pytest.MonkeyPatch.context() as patched,
        BlockDevice(image) as device,
        TapeBackup(options(f"file:{tmp_path}/t.tap", sync_segments=1), tmp_path) as made,
    ):
        patched.setattr("splitreel.backup.run.POLL_SECONDS", 0.0005)
        with pytest.raises(ValueError, match="told to break"):
            made.run(device, map_device(device), confirmed=broken)


def test_a_tape_that_is_overwritten_is_no_longer_listed(image: Path, tmp_path: Path) -> None:
    first = run(image, f"file:{tmp_path}/t.tap", tmp_path)
    second = run(image, f"file:{tmp_path}/t.tap", tmp_path, overwrite=True)
    with Catalog(tmp_path) as catalog:
        old, new = catalog.backup(first.id), catalog.backup(second.id)
        assert (old.state, old.reason, new.state) == ("incomplete", "its tape was overwritten", "complete")
        row = catalog.volume(old.id)[0]
        assert (catalog.segments(row), list(catalog.members(row))) == ([], [])
        assert catalog.segments(catalog.volume(new.id)[0])
