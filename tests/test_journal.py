"""The journal: what was begun is on disk before it is done, and a torn line counts for nothing."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel import journal
from splitreel.errors import SplitreelError
from splitreel.journal import Journal
from tests.support import need_root, unmount

SOURCE = str(Path(__file__).parent.parent / "src")


def test_records_come_back_in_order(tmp_path: Path) -> None:
    log = Journal.begin(tmp_path, "nightly", mirror={"type": "static"})
    log.write("split", image="/dev/x")
    log.end("done", files=3)
    (history,) = journal.histories(tmp_path, "nightly")
    assert [record["event"] for record in history.records] == ["begin", "split", "end"]
    assert history.finished
    assert history.job == "nightly"
    split = history.last("split")
    assert split is not None
    assert split["image"] == "/dev/x"
    assert history.last("thaw") is None


def test_an_interrupted_session_bars_the_next_until_resumed(tmp_path: Path) -> None:
    Journal.begin(tmp_path, "nightly").close()
    with pytest.raises(SplitreelError, match="interrupted") as caught:
        Journal.begin(tmp_path, "nightly")
    assert "splitreel resume" in caught.value.advice
    with pytest.raises(SplitreelError, match="interrupted"):
        journal.require_ended(tmp_path, "nightly")
    Journal.begin(tmp_path, "other").end("done")
    journal.require_ended(tmp_path, "other")
    (left,) = journal.histories(tmp_path, "nightly")
    Journal.reopen(tmp_path, left).end("resumed")
    Journal.begin(tmp_path, "nightly").end("done")


def test_a_running_session_bars_another_and_its_resume(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from splitreel.journal import Journal\n"
        "log = Journal.begin(Path(sys.argv[2]), 'nightly'); print('up', flush=True); sys.stdin.read(); log.close()"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code, SOURCE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        with pytest.raises(SplitreelError, match="running"):
            Journal.begin(tmp_path, "nightly")
        with pytest.raises(SplitreelError, match="running"):
            journal.require_ended(tmp_path, "nightly")
        (history,) = journal.histories(tmp_path)
        with pytest.raises(SplitreelError, match="running"):
            Journal.reopen(tmp_path, history)


@given(cut=st.integers(min_value=0, max_value=400))
@settings(max_examples=40, deadline=None)
def test_any_cut_leaves_whole_records_and_can_go_on(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    state = tmp_path_factory.mktemp("state")
    log = Journal.begin(state, "j")
    for number in range(4):
        log.write("step", number=number)
    log.close()
    whole = log.path.read_bytes()
    os.truncate(log.path, min(cut, len(whole)))
    lines = whole[: min(cut, len(whole))].count(b"\n")
    history = journal.read(log.path)
    assert len(history.records) == lines
    Journal.reopen(state, history).end("resumed")
    after = journal.read(log.path)
    assert len(after.records) == lines + 1
    assert after.finished


def test_a_damaged_line_is_refused_by_number(tmp_path: Path) -> None:
    log = Journal.begin(tmp_path, "j")
    log.write("split")
    log.close()
    lines = log.path.read_bytes().split(b"\n")
    log.path.write_bytes(b"\n".join([lines[0][:-3], *lines[1:]]))
    with pytest.raises(SplitreelError, match="line 1"):
        journal.read(log.path)


def test_old_finished_journals_are_removed(tmp_path: Path) -> None:
    for _ in range(journal.KEPT + 5):
        Journal.begin(tmp_path, "j").end("done")
    assert len(journal.histories(tmp_path, "j")) == journal.KEPT


def test_every_record_is_on_disk_when_write_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    log = Journal.begin(tmp_path, "j")
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.append(log.path.read_bytes()))
    log.write("split", image="x")
    assert json.loads(synced[-1].splitlines()[-1])["image"] == "x"
    log.close()


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    log = Journal.begin(tmp_path, "j", config={"tape": "iscsi://user%secret@host/target/1"})
    log.close()
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


@pytest.mark.root
def test_a_full_disk_is_told_and_leaves_whole_records(tmp_path: Path) -> None:
    need_root()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        log = Journal.begin(tmp_path, "j")
        with pytest.raises(SplitreelError, match="No space left") as caught:
            log.write("split", text="x" * 100_000)
        assert caught.value.advice
        log.close()
        assert [record["event"] for record in journal.read(log.path).records] == ["begin"]
        with pytest.raises(SplitreelError, match="No space left"):
            Journal.begin(tmp_path, "k", text="x" * 100_000)
        assert journal.histories(tmp_path, "k") == []
    finally:
        unmount(tmp_path)
