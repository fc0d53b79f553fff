"""window holds quiescers for a measured moment, under a watchdog. It does not know what happens inside.

Opened outermost first (the database, then its file system), closed in the opposite order, whatever happens, and twice
without harm. Between ``open`` and ``close`` nothing is logged, imported or collected.
"""

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from splitreel import quiesce
from splitreel.errors import QuiesceError
from splitreel.quiesce import Quiescer
from splitreel.watchdog import Watchdog

Value = TypeVar("Value")
HUSH_SECONDS = 5.0  # for whoever speaks to come to an end; then the window opens all the same


class Stage(NamedTuple):
    """What was done inside a window, and when; times of CLOCK_MONOTONIC."""

    name: str
    begun_ns: int
    ended_ns: int


def short_window(
    settings: Sequence[Mapping[str, Any]], deadline_ms: int, hush: "threading.Lock | None" = None
) -> "Window":
    """A window round the file systems alone of a job's quiescers, for mirrors that need one to rejoin.

    Raises:
        QuiesceError: the job freezes none.
    """
    quiescers = [quiescer for quiescer in map(quiesce.create, settings) if quiesce.holds_volumes(quiescer)]
    if not quiescers:
        raise QuiesceError("rejoin", "this mirror rejoins only under a freeze", "Add an fsfreeze to the job.")
    return Window(quiescers, deadline_ms, hush)


class Window:
    """One window. ``prepare``, then ``open``, then ``close``; or enter and leave it. Use from one thread."""

    def __init__(self, quiescers: Sequence[Quiescer], deadline_ms: int, hush: "threading.Lock | None" = None) -> None:
        """``hush`` is held while it is open: another thread that takes it to speak does not speak meanwhile."""
        self.opened_ns = 0
        self.closed_ns = 0
        self.cause = ""
        self.stages: list[Stage] = []
        self._quiescers = list(quiescers)
        self._deadline_ms = deadline_ms
        self._watchdog: Watchdog | None = None
        self._collecting = False
        self._hush = hush or threading.Lock()
        self._hushed = False
        self.was_opened = False  # a writer may have waited
        self.whole = False  # it ran to its end: nothing cut it short
        self._open = False

    @property
    def milliseconds(self) -> float:
        """How long a writer may have waited; 0 while it is open or was never opened."""
        return max(0, self.closed_ns - self.opened_ns) / 1e6 if self.opened_ns else 0.0

    def prepare(self, last: Callable[[], None] = lambda: None) -> None:
        """Everything slow: the quiescers' own preparations, then ``last``, then the watchdog's start.

        Raises:
            SplitreelError: something is not as it must be; nothing is held.
        """
        for quiescer in self._quiescers:
            quiescer.prepare()
        last()
        releases = [release for quiescer in reversed(self._quiescers) for release in quiescer.releases()]
        self._watchdog = Watchdog(releases, self._deadline_ms)

    def open(self) -> None:
        """Hold everything.

        Raises:
            QuiesceError: something cannot be held; ``close`` must be called all the same.
        """
        if self._watchdog is None:
            raise QuiesceError("window", "it was not prepared")
        self._hushed = self._hush.acquire(timeout=HUSH_SECONDS)
        self._collecting = gc.isenabled()
        gc.collect()
        gc.disable()
        self._open = self.was_opened = True
        self._watchdog.arm()
        for quiescer in self._quiescers:
            self._hold(quiescer, self._watchdog)

    def _hold(self, quiescer: Quiescer, watchdog: Watchdog) -> None:
        """Hold one, and see that everything held so far still is; what the watchdog ended is told as such."""
        try:
            since = self.timed(f"quiesce {quiescer.name}", quiescer.quiesce)
        except QuiesceError as failure:
            if cause := watchdog.fired():
                raise QuiesceError(quiescer.name, f"{cause} while it was quiesced", failure.advice) from failure
            raise
        if since and not self.opened_ns:
            # Until now nobody waited, only we: for a lock. The deadline is for the writers' wait.
            self.opened_ns = since
            watchdog.arm(since)
        self.require_held(quiescer.name)

    def timed(self, name: str, action: Callable[[], Value]) -> Value:
        """Do something inside the window and note when; also when it fails."""
        begun = time.monotonic_ns()
        try:
            return action()
        finally:
            self.stages.append(Stage(name, begun, time.monotonic_ns()))

    def require_held(self, what: str) -> None:
        """Refuse to go on when everything was let go behind the session's back, or nobody guards it any more.

        Raises:
            QuiesceError: the deadline passed, or the watchdog died, before ``what`` was done.
        """
        if cause := self.fired():
            raise QuiesceError(
                what,
                f"{cause} before it was done: the split would not be consistent, and is not used",
                f"Find out what took longer than {self._deadline_ms} ms, or raise `deadline_ms`.",
            )

    def fired(self) -> str:
        """Why everything was let go too early, or ""."""
        return self._watchdog.fired() if self._watchdog is not None else ""

    def close(self) -> None:
        """Let everything go, innermost first, each whatever becomes of the others.

        Raises:
            QuiesceError: something could not be let go.
        """
        if not self._open:
            return
        failures: list[BaseException] = []
        for quiescer in reversed(self._quiescers):
            try:
                self.timed(f"unquiesce {quiescer.name}", quiescer.unquiesce)
            # Whatever it is, an interrupt included: the next one's writers wait too.
            except BaseException as failure:
                failures.append(failure)
        self.closed_ns = time.monotonic_ns()
        self._open = bool(failures)
        if self._watchdog is not None:
            self.cause = self._watchdog.fired() if failures else self._watchdog.disarm()
        self._relax()
        if failures:
            raise failures[0]

    def _relax(self) -> None:
        if self._collecting:
            gc.enable()
        if self._hushed:
            self._hushed = False
            self._hush.release()

    def judge(self) -> None:
        """Refuse a window, closed by now, that the watchdog had to close.

        Raises:
            QuiesceError: it had.
        """
        if self.cause:
            raise QuiesceError(
                "the window was closed by the watchdog",
                f"{self.cause}; the split may not be consistent and is not used",
                f"Find out what took longer than {self._deadline_ms} ms, or raise `deadline_ms`.",
            )
        self.whole = True

    def end(self) -> None:
        """Stop the watchdog, which lets go of whatever is still held, and free the quiescers; harmless twice."""
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None
        for quiescer in reversed(self._quiescers):
            quiescer.close()
        self._relax()

    def __enter__(self) -> "Window":
        self.prepare()
        try:
            self.open()
        except BaseException:
            self._give_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is not None:
            self._give_up()
            return
        try:
            self.close()
            self.judge()
        finally:
            self.end()

    def _give_up(self) -> None:
        """Close after a failure, which is what is then told, not the close's own."""
        try:
            with contextlib.suppress(Exception):
                self.close()
        finally:
            self.end()
