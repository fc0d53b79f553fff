"""The last tape file: redo that stands in files is read piece by piece, and is what it was when it was measured."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitreel.backup import closing
from splitreel.errors import DeviceError, IntegrityError, Misuse
from splitreel.volume import Label

LABEL = Label("SR0001")


def chunks(redo: dict[str, bytes | Path]) -> Iterator[bytes]:
    """The archive of this redo alone."""
    return closing.archive(LABEL, [], lambda: iter(()), redo, closing.redo_members(redo), "complete", 0)


def test_a_file_is_the_same_member_as_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "log").write_bytes(content)
    from_file, from_bytes = (b"".join(chunks({"wal/1": given})) for given in (tmp_path / "log", content))

    assert from_file == from_bytes
    with tarfile.open(fileobj=io.BytesIO(from_file)) as archive:
        member = archive.extractfile(".splitreel/redo/wal/1")
        assert member is not None and member.read() == content


def test_no_more_than_a_piece_of_a_file_is_held(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        file.truncate(64 << 20)

    assert max(map(len, chunks({"log": tmp_path / "log"}))) <= closing.PIECE


@pytest.mark.parametrize("become", [b"shorter", b"a" * 100_001, b"b" * 100_000])
def test_a_file_that_changed_since_it_was_measured_is_no_redo(tmp_path: Path, become: bytes) -> None:
    """Longer: what is behind its length would be taken for the next member's header."""
    log = tmp_path / "log"
    log.write_bytes(b"a" * 100_000)
    made = chunks({"log": log})
    next(made)
    log.write_bytes(become)

    with pytest.raises(IntegrityError, match="changed while it was read"):
        list(made)


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="No such file"):
        closing.redo_members({"log": tmp_path / "log"})


@pytest.mark.parametrize("name", ["", "/a", "a//b", "a/../b", ".", "a\0b", "a" * 5000])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(Misuse):
        closing.check_names([name])
