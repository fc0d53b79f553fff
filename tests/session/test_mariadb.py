"""Whole sessions of a loaded MariaDB: what comes back recovers to the split, and writers go on whatever happens."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitreel import journal
from splitreel.errors import QuiesceError
from splitreel.session import Session
from splitreel.session.resume import resume
from tests.mariadb import wait_until
from tests.session.mariadb_scene import Scene, scene, whole_session

pytestmark = pytest.mark.root

DYING = """
import json, os, signal, sys
from pathlib import Path
from splitreel.config import Job
from splitreel.session import Session

class Dying(Session):
    def enter(self, phase):
        if phase == sys.argv[3]:
            os.kill(os.getpid(), getattr(signal, sys.argv[4]))

Dying(Job(**json.loads(sys.argv[1])), Path(sys.argv[2]), lambda event: None).run()
"""


@pytest.fixture(scope="module")
def shop() -> Iterator[Scene]:
    with scene() as made:
        wait_until(lambda: made.load.acknowledged > 20)
        yield made


@pytest.mark.parametrize("mode", ["backup-stage", "ftwrl"])
def test_what_was_acknowledged_comes_back_and_nothing_later(shop: Scene, mode: str) -> None:
    """InnoDB, Aria and MyISAM: every check of the drill finds them whole."""
    outcome = whole_session(shop, mode)
    print(
        f"{mode}: window {outcome.result.window_ms:.0f} ms, longest write {outcome.stall_ms:.0f} ms,"
        f" recovered in {outcome.drill.seconds:.1f} s"
    )
    assert outcome.facts["mode"] == mode
    assert outcome.facts["binlog"]["position"] > 0
    assert outcome.facts["non_innodb_tables"] == 2


def test_a_freeze_alone_brings_crash_safe_tables_back() -> None:
    with scene(isam=False) as made:
        wait_until(lambda: made.load.acknowledged > 20)
        outcome = whole_session(made, "freeze")
    assert outcome.facts["binlog"] is None
    assert outcome.facts["not_crash_safe"] == 0


def goes_on(scene: Scene, seconds: float = 30.0) -> None:
    before = scene.load.acknowledged
    wait_until(lambda: scene.load.acknowledged > before + 3, seconds)


@pytest.mark.parametrize(
    ("phase", "told"),
    [("map", ""), ("discover", "connection was lost"), ("split", "connection was lost"), ("check", "")],
)
def test_a_connection_killed_in_any_phase_lets_writers_go_on_and_no_split_is_used_that_it_did_not_hold(
    shop: Scene, tmp_path: Path, phase: str, told: str
) -> None:
    class Killed(Session):
        def enter(self, name: str) -> None:
            if name == phase and (holder := shop.server.query("select is_used_lock('splitreel')")) != "NULL":
                shop.server.query(f"kill {holder}")

    session = Killed(shop.job("backup-stage"), tmp_path, lambda _: None)
    if told:
        with pytest.raises(QuiesceError, match=told):
            session.run()
    else:
        session.run()
    goes_on(shop)
    assert all(history.finished for history in journal.histories(tmp_path))


@pytest.mark.parametrize(("phase", "how"), [("discover", "SIGKILL"), ("split", "SIGKILL"), ("split", "SIGSTOP")])
def test_a_session_that_dies_or_hangs_in_the_window_lets_writers_go_on(
    shop: Scene, tmp_path: Path, phase: str, how: str
) -> None:
    job = shop.job("ftwrl", deadline_ms=6000)
    command = [sys.executable, "-c", DYING, json.dumps(job.record()), str(tmp_path), phase, how]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
    try:
        if how == "SIGKILL":
            assert process.wait(120) == -signal.SIGKILL
        else:
            wait_until(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T", 120)
        start = time.monotonic()
        goes_on(shop)
        print(f"{how} in {phase}: writers went on after {time.monotonic() - start:.2f} s")
    finally:
        process.kill()
        process.wait()
    (done,) = resume(tmp_path)
    assert done.failures == []
    Session(shop.job("ftwrl"), tmp_path, lambda _: None).run()
