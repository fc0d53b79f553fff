"""--explain: what is waited for is told meanwhile, on change or ever more rarely, never inside a window."""

import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from splitreel.cli import explaining
from splitreel.drive import open_drive
from splitreel.errors import NotReady
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.session import explain
from splitreel.session.explain import Explainer
from splitreel.session.rehearse import Rehearsal
from splitreel.session.result import phase_order
from tests.session.parts import job_of

Told = list[tuple[str, str, float]]


def looking(said: list[tuple[str, str]]) -> Told:
    """What is told when each of these is seen a second after the one before."""
    told: Told = []
    answers = iter(said)
    explainer = Explainer(lambda: next(answers), lambda *line: told.append(line), threading.Lock())
    for second in range(len(said)):
        explainer.look(float(second))
    return told


def test_what_changes_is_told_each_second_and_what_does_not_ever_more_rarely() -> None:
    copying = [("establish", f"copying {percent} %") for percent in (10, 20, 30)]
    assert looking([*copying, ("map", "the map")]) == [
        *((*line, float(second)) for second, line in enumerate(copying)),
        ("map", "the map", 0.0),
    ]
    told = looking([("quiesce", "checkpoint")] * 200)
    assert [seconds for _, _, seconds in told] == [0, 1, 2, 4, 8, 16, 32, 64, 124, 184]


def test_what_is_no_longer_waited_for_begins_anew() -> None:
    told = looking([("map", "a"), ("map", ""), ("map", "a")])
    assert told == [("map", "a", 0.0), ("map", "a", 0.0)]


def test_every_phase_outside_the_window_has_words() -> None:
    inside = {"discover", "prepare", "split"}
    assert {*phase_order("premapped", "after-split")} - inside == explain.PLAIN.keys() - {""}


def test_nothing_is_said_while_a_window_is_open_and_all_of_it_after(
    embedded: EmbeddedMirror, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread looks all the time here; each phase lasts long enough for it."""
    monkeypatch.setattr(explain, "LOOK_SECONDS", 0.002)
    monkeypatch.setattr(explain, "LONGEST_SILENCE", 0.0)
    events: list[Any] = []

    class Slow(Rehearsal):
        def enter(self, phase: str) -> None:
            counts[phase] = sum(event["event"] == "waiting" for event in events)
            time.sleep(0.1)

    counts: dict[str, int] = {}
    Slow(job_of(embedded, "null:"), state, events.append, explain=True).run()

    assert counts["discover"] == counts["prepare"] == counts["split"] == counts["unquiesce"]
    waited = {event["phase"] for event in events if event["event"] == "waiting"}
    assert {"establish", "map", "quiesce", "check", "cleanup"} <= waited
    assert not waited & {"discover", "prepare", "split"}
    (window,) = [event for event in events if event["event"] == "window"]
    text = explaining.lines(window)
    assert text[0].startswith(f"window     {window['window_ms']:.1f} ms")
    assert len(text) == 1 + len(window["stages"])


def test_without_it_nothing_is_explained(embedded: EmbeddedMirror, state: Path) -> None:
    events: list[Any] = []
    Rehearsal(job_of(embedded, "null:"), state, events.append).run()
    assert [event for event in events if event["event"] == "waiting"] == []


def test_the_first_copy_says_how_far_it_is(embedded: EmbeddedMirror) -> None:
    mirror, seen = embedded.mirror(), set()
    (Path(embedded.mount_point) / "much").write_bytes(bytes(range(256)) * (1 << 17))
    os.sync()
    mirror.establish()
    mirror._qmp.command("block-job-set-speed", device="splitreel-mirror", speed=64 << 20)
    thread = threading.Thread(target=mirror.wait_in_sync, args=(60,))
    thread.start()
    while thread.is_alive():
        seen.add(mirror.waiting)
        time.sleep(0.0005)
    thread.join()
    assert mirror.waiting == ""
    mirror.close()
    assert all(re.fullmatch(r"copying \d+ %, [\d.]+ GiB to go", text) for text in seen - {""})
    assert seen - {""}


def test_a_drive_that_loads_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_drive(f"file:{tmp_path}/tape") as drive:
        said, real = [], drive.execute

        def loading(command: Any) -> Any:
            if len(said) < 2:
                said.append(drive.waiting)
                error = NotReady("TEST UNIT READY", "becoming ready")
                error.sense = (2, 4, 1)
                raise error
            said.append(drive.waiting)
            return real(command)

        monkeypatch.setattr(drive, "execute", loading)
        monkeypatch.setattr("splitreel.drive.tapedrive.time.sleep", lambda seconds: said.append(drive.waiting))
        drive.wait_ready()
    assert "becoming ready" in said
    assert drive.waiting == ""


def test_people_read_it_on_a_line() -> None:
    event = {"event": "waiting", "phase": "establish", "text": "copying 34 %, 1.2 GiB to go", "seconds": 12.3}
    assert explaining.lines(event) == ["establish  waits for: copying 34 %, 1.2 GiB to go (since 12 s)"]
    assert explaining.lines({**event, "phase": "", "seconds": 0.0}) == [
        "before     waits for: copying 34 %, 1.2 GiB to go"
    ]
    assert explaining.lines({"event": "note", "text": "x"}) == []
