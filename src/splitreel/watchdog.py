"""watchdog releases what was quiesced when the session dies or a deadline passes. It quiesces nothing.

It is a process of its own, started before the window: a freeze survives the death of whoever froze, and a process that
waits for a frozen file system cannot be ended even by SIGKILL. Once armed the child imports, opens, logs and forks
nothing until everything is thawed; its memory is locked, since a page fault could wait for what is frozen.
"""

import contextlib
import ctypes
import fcntl
import gc
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from splitreel.errors import QuiesceError

FITHAW = 0xC0045878  # _IOWR('X', 120, int), linux/fs.h
MCL_CURRENT_AND_FUTURE = 3
START_SECONDS = 20.0
ANSWER_SECONDS = 10.0
RETRY_SECONDS = 0.02  # a thaw that arrives while FIFREEZE still flushes is refused with EINVAL: it is tried again

# What to do, innermost first: ("thaw", directory fd), ("zero", fd of a switch to set to 0), ("kill", pidfd),
# ("run", (program, argument...)).
Release = tuple[str, int | tuple[str, ...]]

_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from splitreel.watchdog import child; child(sys.argv[2])"


class Watchdog:
    """A running guard over one window. Arm it before the first statement that blocks, disarm it after the last release.

    ``releases`` are done in the order given: thaws first, so that no later one can wait for a frozen file system.
    Use from one thread.
    """

    def __init__(self, releases: Sequence[Release], deadline_ms: int) -> None:
        """Start the child and wait until it is ready.

        Raises:
            QuiesceError: it could not be started.
        """
        read_control, self._control = os.pipe()
        self._status, write_status = os.pipe()
        held = [what for kind, what in releases if kind != "run" and isinstance(what, int)]
        task = {
            "control": read_control,
            "status": write_status,
            "deadline": deadline_ms / 1000,
            "releases": list(releases),
        }
        root = str(Path(__file__).resolve().parent.parent)
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOT, root, json.dumps(task)],
            pass_fds=[read_control, write_status, *held],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        os.close(read_control)
        os.close(write_status)
        self._cause = ""
        self._armed = False
        if self._answer(START_SECONDS) != b"R":
            self.close()
            raise QuiesceError("watchdog", "its process did not start", "Nothing was quiesced; run `splitreel doctor`.")

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def arm(self) -> None:
        """Start the deadline (again); from now on the death of this process releases everything.

        Raises:
            QuiesceError: the child has died.
        """
        self._armed = True
        try:
            os.write(self._control, b"A")
        except OSError as error:
            raise QuiesceError("watchdog", "its process has died", "Nothing was quiesced; run it again.") from error

    def fired(self) -> str:
        """Why everything was released behind the session's back, or ""; never waits.

        The child says so before it thaws: "" after a split means that all was still held when the split was done.
        """
        while not self._cause and select.select([self._status], [], [], 0)[0]:
            self._note(os.read(self._status, 1))
        return self._cause

    def disarm(self) -> str:
        """End the guard; returns why it fired, or "". Harmless when it is not armed."""
        if self._armed:
            self._armed = False
            with contextlib.suppress(OSError):
                os.write(self._control, b"D")
            while (answer := self._answer(ANSWER_SECONDS)) != b"d":
                self._note(answer)
                if answer == b"":
                    break
        return self._cause

    def _note(self, answer: bytes) -> None:
        if answer == b"L":
            self._cause = "the deadline passed"
        elif answer == b"":
            self._cause = self._cause or "the watchdog died"

    def _answer(self, seconds: float) -> bytes:
        if not select.select([self._status], [], [], seconds)[0]:
            return b""
        return os.read(self._status, 1)

    def close(self) -> None:
        """End the child; when it is still armed it releases everything first."""
        if self._control < 0:
            return
        os.close(self._control)
        self._control = -1
        try:
            self._child.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        os.close(self._status)

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def child(task_text: str) -> None:
    """The watchdog process itself: guard until told or orphaned, then exit without running anything else."""
    task = json.loads(task_text)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")
    for descriptor in (task["control"], task["status"]):
        os.set_inheritable(descriptor, False)
    gc.collect()
    gc.disable()
    # Refused without CAP_IPC_LOCK under a small limit: then the guard still works, only a page fault may delay it.
    ctypes.CDLL(None).mlockall(MCL_CURRENT_AND_FUTURE)
    thaws = [what for kind, what in task["releases"] if kind == "thaw"]
    others = [(kind, what) for kind, what in task["releases"] if kind != "thaw"]
    _guard(task["control"], task["status"], task["deadline"], thaws, others)
    os._exit(0)


def _guard(control: int, status: int, deadline: float, thaws: list[int], others: list[tuple[str, object]]) -> None:
    """Wait for A (arm), D (disarm) or the end of the pipe; release at the deadline and at the end while armed."""
    armed, fired, expires = False, False, 0.0
    _tell(status, b"R")
    while True:
        wait = None if not armed else RETRY_SECONDS if fired else max(0.0, expires - time.monotonic())
        if not select.select([control], [], [], wait)[0]:
            if not fired:
                _tell(status, b"L")
            _thaw(thaws)
            if not fired:
                _release(others)
            fired = True
            continue
        order = os.read(control, 1)
        if order == b"A":
            armed, fired, expires = True, False, time.monotonic() + deadline
        elif order == b"D":
            armed = False
            _tell(status, b"d")
        else:
            if armed:
                _thaw(thaws)
                _release([] if fired else others)
            return


def _tell(status: int, byte: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(status, byte)


def _thaw(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            fcntl.ioctl(descriptor, FITHAW, 0)


def _release(others: list[tuple[str, object]]) -> None:
    for kind, what in others:
        with contextlib.suppress(OSError):
            if kind == "zero" and isinstance(what, int):
                os.pwrite(what, b"0", 0)
            elif kind == "kill" and isinstance(what, int):
                signal.pidfd_send_signal(what, signal.SIGKILL)
            elif kind == "run" and isinstance(what, list):
                os.waitpid(os.posix_spawn(what[0], what, dict(os.environ)), 0)
