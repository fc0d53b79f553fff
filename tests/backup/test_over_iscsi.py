"""Over a real iSCSI target: a drive goes away, a tape fills, one is protected; the catalog stays true."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from splitreel import errors
from splitreel.__main__ import main
from splitreel.backup import Options, TapeBackup
from splitreel.catalog import Catalog
from splitreel.core.device import BlockDevice
from splitreel.demo.target import TapeTarget
from splitreel.drive import open_drive
from splitreel.mapping import map_device
from splitreel.reading.verify import verify
from splitreel.records import Segment
from tests import ext4_images, support

pytestmark = [pytest.mark.root, pytest.mark.tgtd]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 file system with 48 files of 1 MiB."""
    ext4_images.need_ext4()
    made = ext4_images.make_image(tmp_path_factory.mktemp("image") / "disk.img", 96)
    with ext4_images.mounted(made) as point:
        for number in range(48):
            (point / f"file{number:02}").write_bytes(os.urandom(1 << 20))
    return made


def target(folder: Path, **options: Any) -> TapeTarget:
    support.compiled("iscsi")
    support.need_programs("tgtd", "tgtadm", "tgtimg")
    folder.mkdir()
    return TapeTarget(folder, **options)


def options(url: str) -> Options:
    return Options(url, block_size=65536, segment_size=2 << 20, sync_segments=1)


def listed(state: Path) -> tuple[str, list[Segment]]:
    with Catalog(state) as catalog:
        kept = catalog.backups()[-1]
        return kept.state, catalog.segments(catalog.volume(kept.id)[0])


def all_there(url: str, segments: list[Segment]) -> None:
    """Every listed segment is on the tape, and verifies."""
    with open_drive(url) as drive:
        verdict = verify(drive)
    assert verdict.segments >= len(segments)
    assert not {number for number, _, _ in verdict.findings} & {segment.number for segment in segments}


def test_a_target_that_dies_in_mid_stream(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitreel.backup.run.POLL_SECONDS", 0.001)
    tape = target(tmp_path / "tgt", size_mb=256)
    killed: list[int] = []

    def pull(seen: Mapping[str, Any]) -> None:
        if not killed and seen["segments_confirmed"] >= 2:
            tape.kill()
            killed.append(seen["segments_confirmed"])

    with tape:
        with (
            BlockDevice(image) as device,
            TapeBackup(options(tape.url), tmp_path) as made,
            pytest.raises(errors.TransportError) as raised,
        ):
            made.run(device, map_device(device), progress=pull)
        assert raised.value.exit_code == 1
        state, segments = listed(tmp_path)
        assert state == "incomplete"
        assert 2 <= len(segments) < 26
        tape.stop()
        monkeypatch.setattr(tape, "_make_cartridge", lambda *given: None)  # the one that was in it
        tape.start()
        all_there(tape.url, segments)


def test_a_tape_that_fills(image: Path, tmp_path: Path) -> None:
    with target(tmp_path / "tgt", size_mb=20) as tape:
        with (
            BlockDevice(image) as device,
            TapeBackup(options(tape.url), tmp_path) as made,
            pytest.raises(errors.EndOfMedium) as raised,
        ):
            made.run(device, map_device(device))
        assert raised.value.exit_code == 4
        state, segments = listed(tmp_path)
        assert state == "incomplete"
        assert segments
        all_there(tape.url, segments)


def test_a_protected_tape_is_refused_before_anything_is_written(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with target(tmp_path / "tgt", size_mb=64, readonly=True) as tape:
        before = tape.cartridge.read_bytes()
        arguments = ["--state", str(tmp_path / "state"), "backup", "--device", str(image), "--tape", tape.url]
        assert main(arguments) == 4
        assert "write-protected" in capsys.readouterr().err
        assert tape.cartridge.read_bytes() == before
