"""cases hit a session at one point by one signal, and say how long writers waited and whether all was put back."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from splitreel import config, journal, session
from splitreel.backup import Result
from splitreel.session.resume import resume
from tests.kills.scenes import DEADLINE_MS, Scene
from tests.volumes import thaw

ROOT = Path(__file__).parents[2]
SIGNALS = {"KILL": signal.SIGKILL, "STOP": signal.SIGSTOP, "TERM": signal.SIGTERM}
TRIES = 4
END_SECONDS = 180.0
SLACK_SECONDS = 5.0  # of a busy machine, on top of the deadline


@dataclass
class Outcome:
    """``waited_ms``: from the signal to the next acknowledged commit; ``failure`` "" when all was put back."""

    point: str
    sign: str
    waited_ms: float = 0.0
    failure: str = ""
    resumed: str = ""


class Watch:
    """When commits are acknowledged: a thread looks every millisecond."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._seen = count()
        self.last = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        while not self._end.wait(0.001):
            if (now := self._count()) != self._seen:
                self._seen, self.last = now, time.monotonic()

    def next(self, since: float, seconds: float) -> float:
        """Milliseconds from ``since`` to the first commit that was seen after it; infinite when none is in time."""
        while self.last <= since:
            if time.monotonic() > since + seconds:
                return float("inf")
            time.sleep(0.001)
        return (self.last - since) * 1000

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        self._thread.join()


class NotReached(AssertionError):
    """The session ended before its point: on a machine as busy as that its own deadline may have passed."""


def hit(scene: Scene, state: Path, point: str, sign: str) -> Outcome:
    """One case: hit, look at the writers, resume, run the next session, check its copy."""
    for _ in range(TRIES - 1):
        try:
            return _hit(scene, state, point, sign)
        except NotReached:
            _put_back(state)
    return _hit(scene, state, point, sign)


def _hit(scene: Scene, state: Path, point: str, sign: str) -> Outcome:
    outcome = Outcome(point, sign)
    with Watch(scene.count) as watch, _victim(scene, state, point) as (victim, go):
        victim.send_signal(SIGNALS[sign])
        outcome.waited_ms = watch.next(time.monotonic(), DEADLINE_MS / 1000 + 6 * SLACK_SECONDS)
        if outcome.waited_ms == float("inf"):
            thaw(scene.mount)
        victim.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            os.write(go, b"x")
        victim.wait(END_SECONDS)
    try:
        assert outcome.waited_ms <= DEADLINE_MS + SLACK_SECONDS * 1000, "writers waited longer than the deadline"
        outcome.resumed = _put_back(state)
        _next(scene, state)
    except Exception as failure:  # whatever it is, it is this case's outcome
        outcome.failure = f"{type(failure).__name__}: {failure}"[:300]
    return outcome


@contextmanager
def _victim(scene: Scene, state: Path, point: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A session at that point, and the descriptor that lets it go on."""
    told, tell = os.pipe()
    wait, go = os.pipe()
    command = [sys.executable, "-m", "tests.kills.victim", str(scene.configuration()), str(state), point]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    with (state.parent / "victim.log").open("ab") as log:
        victim = subprocess.Popen(
            [*command, str(tell), str(wait)], pass_fds=[tell, wait], env=environment, stdout=log, stderr=log, cwd=ROOT
        )
    try:
        os.close(tell)
        os.close(wait)
        reached = os.read(told, 1)  # b"" when it ended before
        if reached != b"x":
            raise NotReached(f"{point} was not reached: {(state.parent / 'victim.log').read_text()[-1000:]}")
        yield victim, go
    finally:
        victim.kill()
        victim.wait()
        os.close(told)
        os.close(go)


def _put_back(state: Path) -> str:
    """Resume what was interrupted; returns what it says."""
    said = []
    for done in resume(state):
        assert not done.failures, f"resume: {done.failures}"
        said += done.lines
    assert all(history.finished for history in journal.histories(state)), "a journal is still open"
    return "; ".join(said)


def _next(scene: Scene, state: Path) -> None:
    """The next session runs as if nothing had been, and its tape gives back a sound database."""
    done = session.run(config.load(scene.configuration()).job(), state=state)
    assert isinstance(done.backup, Result)
    assert done.backup.complete, "the next session's backup is incomplete"
    copy = scene.folder / "copy"
    copy.mkdir()
    try:
        scene.check(scene.tape, copy)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
