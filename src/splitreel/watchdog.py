"""watchdog releases what was quiesced when the session dies or a deadline passes. It quiesces nothing.

It is a process of its own, started before the window: a freeze survives the death of whoever froze, and a process that
waits for a frozen file system cannot be ended even by SIGKILL. Once armed the child imports, opens, logs and forks
nothing until everything is thawed; its memory is locked, since a page fault could wait for what is frozen.

What may wait has a thread of its own: a thaw waits in the kernel while FIFREEZE still flushes to a device that does not
answer, and must not keep another file system's writers waiting. One thing is beyond it: while FIFREEZE waits for a
writer that is itself stuck in the kernel, the kernel refuses the thaw; it is tried again until it is accepted.
"""

import contextlib
import ctypes
import fcntl
import gc
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from splitreel.errors import QuiesceError

FITHAW = 0xC0045878  # _IOWR('X', 120, int), linux/fs.h
MCL_CURRENT_AND_FUTURE = 3
START_SECONDS = 20.0
ANSWER_SECONDS = 10.0
CLOSE_SECONDS = 30.0
RETRY_SECONDS = 0.02  # a thaw that arrives while FIFREEZE still flushes is refused with EINVAL: it is tried again
POLL_SECONDS = 0.001
RUN_SECONDS = 10.0  # for one command; the next one then no longer waits for it
GUEST_SECONDS = 1.0
STACK_BYTES = 256 << 10

# What to do: ("kill", pidfd), ("group", fd of a file with the number of a process group to kill, 8 bytes, 0 for none),
# ("zero", fd of a switch to set to 0), ("thaw", directory fd), ("guest", fd of a connection to a QEMU guest agent),
# ("run", (program, argument...)).
Release = tuple[str, int | tuple[str, ...]]

# The delimiter ends a command that the session may have sent by half.
GUEST_THAW = b'\xff{"execute": "guest-fsfreeze-thaw"}\n'
_EXPIRY = struct.Struct("=q")  # CLOCK_MONOTONIC in ns, which all processes share
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from splitreel.watchdog import child; child(sys.argv[2])"


class Watchdog:
    """A running guard over one window. Arm it before the first statement that blocks, disarm it after the last release.

    ``releases``: all that never waits is done at once, every thaw by itself, then the commands in the order given.
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
            "releases": list(releases),
        }
        root = str(Path(__file__).resolve().parent.parent)
        self._deadline_ns = deadline_ms * 1_000_000
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

    def arm(self, since_ns: int = 0) -> None:
        """Start the deadline (again), now or at a moment of CLOCK_MONOTONIC; our death now releases everything.

        Raises:
            QuiesceError: the child has died.
        """
        self._armed = True
        expires = (since_ns or time.monotonic_ns()) + self._deadline_ns
        try:
            os.write(self._control, b"A" + _EXPIRY.pack(expires))  # below PIPE_BUF: it arrives whole
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
            self._child.wait(CLOSE_SECONDS)
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
    releases = _Releases(task["releases"])
    gc.collect()
    gc.disable()
    # Refused without CAP_IPC_LOCK under a small limit: then the guard still works, only a page fault may delay it.
    ctypes.CDLL(None).mlockall(MCL_CURRENT_AND_FUTURE)
    _guard(task["control"], task["status"], releases)
    os._exit(0)


def _guard(control: int, status: int, releases: "_Releases") -> None:
    """Wait for A (arm), D (disarm) or the end of the pipe; release at the deadline and at the end while armed."""
    armed, fired, expires = False, False, 0
    _tell(status, b"R")
    while True:
        left = RETRY_SECONDS if fired else max(0, expires - time.monotonic_ns()) / 1e9
        if not select.select([control], [], [], left if armed else None)[0]:
            if not fired:
                _tell(status, b"L")
            releases.do(again=fired)
            fired = True
            continue
        order = os.read(control, 1)
        if order == b"A":
            (expires,) = _EXPIRY.unpack(os.read(control, _EXPIRY.size))
            armed = True
        elif order == b"D":
            armed = False
            _tell(status, b"d")
        else:
            if armed:
                releases.do(again=fired)
            releases.finish()
            return


def _tell(status: int, byte: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(status, byte)


class _Worker:
    """A thread that does one thing each time it is asked: what it waits for keeps nobody else waiting."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._orders, self._order = os.pipe()
        os.set_blocking(self._order, False)
        self._asked = self._done = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def ask(self) -> None:
        """Never waits; what is asked while it works is done once, afterwards."""
        with contextlib.suppress(BlockingIOError):
            self._asked += os.write(self._order, b"x")

    @property
    def idle(self) -> bool:
        """All that was asked is done."""
        return self._asked == self._done

    def _serve(self) -> None:
        while orders := os.read(self._orders, 4096):
            self._action()
            self._done += len(orders)


class _Releases:
    """What the child does when it releases."""

    def __init__(self, releases: Sequence[tuple[str, object]]) -> None:
        threading.stack_size(STACK_BYTES)
        self._quick = [entry for entry in releases if entry[0] not in ("thaw", "guest", "run")]
        self._commands = [what for kind, what in releases if kind == "run" and isinstance(what, list)]
        self._thaws = [_Worker(_thaw_of(what)) for kind, what in releases if kind == "thaw" and isinstance(what, int)]
        self._guests = [
            _Worker(_guest_of(what)) for kind, what in releases if kind == "guest" and isinstance(what, int)
        ]
        self._runner = _Worker(self._run)

    def do(self, *, again: bool) -> None:
        """Release everything; ``again``: only the thaws, which may have come too early."""
        for kind, what in [] if again else self._quick:
            if isinstance(what, int):
                _quick(kind, what)
        for worker in self._thaws if again else [*self._thaws, *self._guests, self._runner]:
            worker.ask()

    def finish(self) -> None:
        """Wait for what was begun: a thaw as long as its device takes, commands as long as they may."""
        while not all(worker.idle for worker in (*self._thaws, *self._guests, self._runner)):
            time.sleep(POLL_SECONDS)

    def _run(self) -> None:
        """The commands, after the thaws where these do not wait themselves."""
        until = time.monotonic() + 1
        while not all(worker.idle for worker in self._thaws) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        for command in self._commands:
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(os.posix_spawn(command[0], command, dict(os.environ)))
                select.select([pidfd], [], [], RUN_SECONDS)


def _thaw_of(descriptor: int) -> Callable[[], None]:
    def thaw() -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(descriptor, FITHAW, 0)

    return thaw


def _guest_of(connection: int) -> Callable[[], None]:
    """The agent does one command after the other: a thaw that comes during the freeze waits for its turn.

    QEMU may drop what it has not read when the connection ends, hence the wait for an answer, and a little longer: it
    may be that to the freeze.
    """

    def thaw() -> None:
        with contextlib.suppress(OSError):
            os.write(connection, GUEST_THAW)
            select.select([connection], [], [], RUN_SECONDS)
            time.sleep(GUEST_SECONDS)

    return thaw


def _quick(kind: str, what: int) -> None:
    """What never waits."""
    with contextlib.suppress(OSError):
        if kind == "zero":
            os.pwrite(what, b"0", 0)
        elif kind == "kill":
            signal.pidfd_send_signal(what, signal.SIGKILL)
        elif kind == "group" and (group := int.from_bytes(os.pread(what, 8, 0), "little")):
            os.killpg(group, signal.SIGKILL)
