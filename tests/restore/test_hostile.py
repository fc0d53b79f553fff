"""Tapes that were damaged or made to harm: never a crash, nothing outside the target, never a clean exit over a lie."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel.__main__ import main
from splitreel.drive import open_drive
from splitreel.restore import restore
from tests import tapes
from tests.restore.test_restore import BACKUP, Tape, contents, expected, segment


def small_tape(path: Path) -> bytes:
    made = Tape(path)
    second = segment(2, 4, 3000)
    second.add(b"s2/link", kind="link", target=b"s1/f00")
    content, stored, pax = tapes.sparse(50_000, [(8192, b"q" * 4096)], "s2/sparse")
    second.add(b"s2/GNUSparseFile.0/sparse", content, pax=pax, stored=stored)
    second.members[-1]["path"] = "s2/sparse"
    made.add(segment(1, 4, 3000))
    made.add(second)
    made.close({"wal": b"redo" * 100})
    made.drive.close()
    return path.read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=8))
def test_flipped_bytes_of_a_tape_are_survived_and_reported(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    folder = tmp_path / os.urandom(6).hex()
    (folder / "in").mkdir(parents=True)
    image = bytearray(small_tape(folder / "in/t.tap"))
    for at, bits in flips:
        image[at % len(image)] ^= bits
    for old in (folder / "in").iterdir():
        old.unlink()
    (folder / "in/t.tap").write_bytes(image)
    url = f"file:{folder}/in/t.tap"

    restored = main(["restore", "--tape", url, "--to", str(folder / "to")])
    picked = main(["restore", "--tape", url, "--to", str(folder / "some"), "s1/f0*", "s2/link"])
    verified = main(["verify", "--tape", url])
    listed = main(["list", "--tape", url])

    for code in (restored, picked, verified, listed):
        assert code in (0, 1, 3, 4)
    known = {
        name: bytes([int(name[1]), int(name[4:])]) * 1500
        for name in (f"s{n}/f{i:02}" for n in (1, 2) for i in range(4))
    }
    for to in (folder / "to", folder / "some"):
        for name, data in contents(to).items() if to.exists() else ():
            assert "splitreel" in name or name not in known or data == known[name]
    assert {path.name for path in folder.iterdir()} <= {"in", "to", "some"}
    if restored == 0:
        assert contents(folder / "to").items() >= known.items()


def evil(
    tmp_path: Path, made: tapes.Segment, *patterns: str, force: bool = False
) -> tuple[Path, list[tuple[bytes, str]]]:
    """Restore a tape with one segment; returns the target and the problems. ``tmp_path/outside`` must stay as it is."""
    (tmp_path / "outside").mkdir(exist_ok=True)
    (tmp_path / "outside/kept").write_bytes(b"kept")
    tape = Tape(tmp_path / "t.tap")
    tape.add(made)
    tape.close()
    outcome = restore(tape.drive, tmp_path / "to", patterns, force=force)
    tape.drive.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["outside", "t.tap", "to"] or list(tmp_path.glob("t.tap*"))
    assert [p.name for p in (tmp_path / "outside").iterdir()] == ["kept"]
    assert (tmp_path / "outside/kept").read_bytes() == b"kept"
    assert (tmp_path / "outside/kept").stat().st_nlink == 1
    return tmp_path / "to", outcome.problems.listed


@pytest.mark.parametrize("of", ["../outside/kept", "/etc/passwd", "other", "a/../../outside/kept"])
def test_a_part_that_claims_to_be_of_another_file_is_refused(tmp_path: Path, of: str) -> None:
    made = tapes.Segment(1, backup=BACKUP)
    made.add(b"big.splitreel-part-0001-of-0001", b"x", part=[1, 1], of=of, at=0)

    to, problems = evil(tmp_path, made)

    assert problems
    assert not (to / "big").exists()


@pytest.mark.parametrize("patterns", [(), ("**",)])
def test_paths_that_lead_out_are_refused_in_every_way_of_restoring(tmp_path: Path, patterns: tuple[str, ...]) -> None:
    made = tapes.Segment(1, backup=BACKUP)
    made.add(b"../outside/kept", b"evil")
    made.add(b"x/../../outside/new", b"evil")
    made.add(b"way", kind="symlink", target=os.fsencode(tmp_path / "outside"))
    made.add(b"way/kept", b"evil")
    made.add(b"steal", kind="link", target=b"way/kept")
    made.add(b"steal2", kind="link", target=b"../outside/kept")
    made.add(b"way", kind="dir", mode=0o777)
    made.add(b"good", b"good")

    to, problems = evil(tmp_path, made, *patterns)

    assert (to / "good").read_bytes() == b"good"
    assert len(problems) >= 5


def test_a_link_to_itself_does_not_remove_what_it_names(tmp_path: Path) -> None:
    made = tapes.Segment(1, backup=BACKUP)
    made.add(b"f", b"data")
    made.add(b"f", kind="link", target=b"f")

    to, problems = evil(tmp_path, made, force=True)

    assert (to / "f").read_bytes() == b"data"
    assert problems


def test_a_file_the_target_cannot_hold_costs_itself_alone(tmp_path: Path) -> None:
    made = tapes.Segment(1, backup=BACKUP)
    _, stored, pax = tapes.sparse(100, [(0, b"x" * 100)], "huge")
    pax["GNU.sparse.realsize"] = str(1 << 61)
    made.add(b"huge", b"", pax=pax, stored=stored)
    made.members[-1] |= {"size": 1 << 61, "crc32c": "00000000"}
    made.add(b"good", b"good")

    to, problems = evil(tmp_path, made)

    assert (to / "good").read_bytes() == b"good"
    assert not (to / "huge").exists()
    assert any(path == b"huge" for path, _ in problems)


@pytest.mark.parametrize(
    "lie",
    [
        {"object": 1 << 60},
        {"object": 0},
        {"offset": 4095},
        {"offset": 1 << 40},
        {"block": 7},
        {"path": b"s1/f0x"},
        {"crc32c": 1},
        {"segment": 9},
        {"type": "dir"},
    ],
)
def test_a_catalog_that_lies_about_a_place_costs_that_member_alone(tmp_path: Path, lie: dict[str, Any]) -> None:
    tape = Tape(tmp_path / "t.tap")
    tape.add(segment(1))
    wrong = next(m for m in tape.members if m.path == b"s1/f03")
    for key, value in lie.items():
        setattr(wrong, key, value)
    tape.close()

    outcome = restore(tape.drive, tmp_path / "to", ["s1/f0*"])

    tape.drive.close()
    found = contents(tmp_path / "to")
    want = {name: data for name, data in expected(1).items() if name != "s1/f03" and "f0" in name}
    assert {name: data for name, data in found.items() if "splitreel" not in name and name != "s1/f03"} == want
    assert found.get("s1/f03", expected(1)["s1/f03"]) == expected(1)["s1/f03"]
    assert outcome.problems.listed or "s1/f03" in found or "path" in lie


def test_a_label_that_would_write_to_a_terminal_is_no_label(tmp_path: Path) -> None:
    from splitreel import volume  # noqa: PLC0415

    drive = open_drive(f"file:{tmp_path}/t.tap")
    label = volume.Label("SR0001", host="\x1b]0;owned\x07")
    volume.write(drive, label)

    assert volume.recognise(drive).kind == "foreign"
    drive.close()
