"""The window: opened outermost first, closed innermost first, closed whatever happens."""

import gc
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from splitreel.errors import QuiesceError, SplitreelError
from splitreel.quiesce import Discovery, Release
from splitreel.session.undo import UndoStack
from splitreel.session.window import Window, short_window


class Part:
    """A quiescer that notes its calls, and fails where it is told to."""

    def __init__(self, name: str, calls: list[str], fails: str = "") -> None:
        self.name, self.calls, self.fails = name, calls, fails

    def _call(self, what: str) -> None:
        self.calls.append(f"{self.name} {what}")
        if what == self.fails:
            raise QuiesceError(self.name, f"told to fail at {what}")

    def check(self) -> None: ...

    def prepare(self) -> None:
        self._call("prepare")

    def releases(self) -> list[Release]:
        return []

    def frozen(self) -> list[str]:
        return []

    def quiesce(self) -> int:
        assert not gc.isenabled()
        self._call("quiesce")
        return time.monotonic_ns()

    def discover(self) -> Discovery:
        return Discovery()

    def unquiesce(self) -> None:
        self._call("unquiesce")

    def recover(self) -> str:
        return ""

    def redo(self) -> dict[str, bytes]:
        return {}

    def close(self) -> None:
        self._call("close")


@pytest.fixture
def calls() -> Iterator[list[str]]:
    noted: list[str] = []
    yield noted
    assert gc.isenabled()


def test_database_first_and_released_last(calls: list[str]) -> None:
    with Window([Part("db", calls), Part("fs", calls)], 5000) as window:
        time.sleep(0.05)
    assert calls == [
        *("db prepare", "fs prepare", "db quiesce", "fs quiesce"),
        *("fs unquiesce", "db unquiesce", "fs close", "db close"),
    ]
    assert 50 <= window.milliseconds < 5000


def test_a_quiesce_that_fails_half_way_is_released_all_the_same(calls: list[str]) -> None:
    window = Window([Part("db", calls), Part("fs", calls, fails="quiesce")], 5000)
    with pytest.raises(QuiesceError, match="told to fail"), window:
        raise AssertionError("not reached")
    assert calls[-4:] == ["fs unquiesce", "db unquiesce", "fs close", "db close"]


def test_a_release_that_fails_does_not_keep_the_others_from_running(calls: list[str]) -> None:
    window = Window([Part("db", calls), Part("fs", calls, fails="unquiesce")], 5000)
    window.prepare()
    window.open()
    with pytest.raises(QuiesceError, match="told to fail"):
        window.close()
    assert calls[-2:] == ["fs unquiesce", "db unquiesce"]
    window.end()


def test_neither_an_interrupt_nor_a_defect_in_one_release_keeps_the_others_from_running(calls: list[str]) -> None:
    for failure in (KeyboardInterrupt(), OSError(5, "told to fail")):

        class Breaking(Part):
            def unquiesce(self, failure: BaseException = failure) -> None:
                super().unquiesce()
                raise failure

        window = Window([Part("db", calls), Breaking("fs", calls)], 5000)
        window.prepare()
        window.open()
        with pytest.raises(type(failure)):
            window.close()
        assert calls[-2:] == ["fs unquiesce", "db unquiesce"]
        window.end()


def test_a_command_that_hangs_keeps_no_other_release_of_the_watchdog_waiting(calls: list[str]) -> None:
    """The helper that holds a database's lock is ended at the deadline, whatever a site's own script does."""
    with subprocess.Popen(["sleep", "60"]) as helper:
        pidfd = os.pidfd_open(helper.pid)
        script, database = Part("script", calls), Part("db", calls)
        script.releases = lambda: [("run", ("/bin/sleep", "3"))]  # type: ignore[method-assign]
        database.releases = lambda: [("kill", pidfd)]  # type: ignore[method-assign]
        window = Window([database, script], 50)
        window.prepare()
        window.open()
        try:
            assert helper.wait(2) == -signal.SIGKILL
        finally:
            helper.kill()
            window.end()
            os.close(pidfd)


def test_closing_twice_and_before_opening_is_harmless(calls: list[str]) -> None:
    window = Window([Part("db", calls)], 5000)
    window.close()
    window.prepare()
    window.open()
    window.close()
    window.close()
    window.end()
    window.end()
    assert calls.count("db unquiesce") == 1


def test_an_interrupt_inside_releases(calls: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Window([Part("db", calls)], 5000):
        raise KeyboardInterrupt
    assert calls[-2:] == ["db unquiesce", "db close"]


def test_a_window_that_took_too_long_is_judged(calls: list[str]) -> None:
    with pytest.raises(QuiesceError, match="deadline passed"), Window([Part("db", calls)], 50) as window:
        time.sleep(0.3)
        assert window.fired() == "the deadline passed"
    assert calls[-2:] == ["db unquiesce", "db close"]


def test_what_the_deadline_ends_while_it_is_quiesced_is_told_so(calls: list[str]) -> None:
    class Killed(Part):
        def quiesce(self) -> int:
            time.sleep(0.3)
            raise QuiesceError(self.name, "its lock holder has died")

    with pytest.raises(QuiesceError, match="the deadline passed while"), Window([Killed("db", calls)], 50):
        raise AssertionError("not reached")


def test_a_freeze_that_the_deadline_overtook_is_not_gone_on_with(calls: list[str]) -> None:
    class Slow(Part):
        def quiesce(self) -> int:
            since = super().quiesce()
            time.sleep(0.3)
            return since

    with pytest.raises(QuiesceError, match="the deadline passed before"), Window([Slow("fs", calls)], 50):
        raise AssertionError("not reached")
    assert calls[-2:] == ["fs unquiesce", "fs close"]


def test_the_deadline_is_for_the_wait_of_writers_not_for_our_own_for_a_lock(calls: list[str]) -> None:
    class Waiting(Part):
        def quiesce(self) -> int:
            time.sleep(1.2)
            return super().quiesce()

    with Window([Waiting("db", calls), Part("fs", calls)], 2000) as window:
        time.sleep(1.2)
    assert window.cause == ""


def test_a_watchdog_that_was_killed_ends_the_window(calls: list[str]) -> None:
    window = Window([Part("db", calls)], 5000)
    window.prepare()
    window.open()
    assert window._watchdog is not None
    os.kill(window._watchdog.pid, signal.SIGKILL)
    time.sleep(0.2)
    with pytest.raises(QuiesceError, match="the watchdog died before"):
        window.require_held("split")
    window.close()
    with pytest.raises(QuiesceError, match="the watchdog died"):
        window.judge()
    window.end()


def test_every_statement_of_the_window_is_timed_in_its_order(calls: list[str]) -> None:
    with Window([Part("db", calls), Part("fs", calls)], 5000) as window:
        window.timed("split m", lambda: time.sleep(0.01))
    names = [stage.name for stage in window.stages]
    assert names == ["quiesce db", "quiesce fs", "split m", "unquiesce fs", "unquiesce db"]
    times = [moment for stage in window.stages for moment in stage[1:]]
    assert times == sorted(times)
    assert window.opened_ns <= times[1]
    assert times[-1] <= window.closed_ns


def test_without_a_file_system_to_freeze_there_is_no_short_window() -> None:
    with pytest.raises(QuiesceError, match="only under a freeze"):
        short_window([{"type": "command", "quiesce": "true", "unquiesce": "true"}], 100)


def test_undos_run_last_first_but_the_first_before_all(calls: list[str]) -> None:
    undo = UndoStack()
    undo.push("a", lambda: calls.append("a"))
    undo.push("unquiesce", lambda: calls.append("unquiesce"), first=True)

    def fail() -> None:
        calls.append("b")
        raise SplitreelError("b failed")

    def interrupted() -> None:
        calls.append("c")
        raise KeyboardInterrupt

    undo.push("b", fail)
    undo.push("c", interrupted)
    undo.push("d", lambda: calls.append("d"))
    undo.drop("d")
    assert [name for name, _ in undo.run()] == ["c", "b"]
    assert calls == ["unquiesce", "c", "b", "a"]
    assert undo.run() == []
