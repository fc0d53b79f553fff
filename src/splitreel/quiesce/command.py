"""command holds whatever a site's own scripts can hold. It knows only their outcome.

Contract: each command ends with status 0 and prints nothing but lines that begin with ``#INFO``; ``discover`` prints,
besides those, one absolute path a line. ``unquiesce`` must be harmless when nothing is held, and after a ``quiesce``
that was killed half-way: the deadline does that, and the death of the session. A template:

    [[job.NAME.quiesce]]
    type = "command"
    quiesce = "/usr/local/sbin/app-hold"        # returns when every writer is held
    unquiesce = "/usr/local/sbin/app-release"
    discover = "find /srv/app/data -type f"     # inside the window: keep it short
    timeout_s = 3
"""

import os
import time
from typing import ClassVar

from splitreel import script
from splitreel.errors import QuiesceError
from splitreel.quiesce import Discovery, Release


class Command:
    """Something held and let go by a site's commands."""

    KEYS: ClassVar[dict[str, tuple[str, bool]]] = {
        "quiesce": ("command", True),
        "unquiesce": ("command", True),
        "discover": ("command", False),
        "check": ("command", False),
        "prepare": ("command", False),
        "timeout_s": ("number", False),
    }

    def __init__(
        self,
        quiesce: str | list[str],
        unquiesce: str | list[str],
        discover: str | list[str] = "",
        check: str | list[str] = "",
        prepare: str | list[str] = "",
        timeout_s: float = 4.0,
    ) -> None:
        """``timeout_s`` bounds each command; ``check`` and ``prepare`` run before the window."""
        self._hold = script.argv(quiesce)
        self._let_go = script.argv(unquiesce)
        self._list = script.argv(discover)
        self._verify = script.argv(check)
        self._prepare = script.argv(prepare)
        self._timeout_s = timeout_s
        self._held = False
        self._group = -1
        self.waiting = ""
        self.name = f"command {self._hold[0] if self._hold else ''}"
        self.remarks: list[str] = []

    def check(self) -> None:
        """Refuse commands that cannot be run; run the ``check`` command."""
        for command in (self._hold, self._let_go, self._list, self._verify, self._prepare):
            if (command or command is self._hold or command is self._let_go) and (why := script.runnable(command)):
                raise QuiesceError(self.name, why, "Correct the command in the configuration.")
        if self._verify:
            self.remarks += script.run(self._verify, self._timeout_s, QuiesceError, f"{self.name}: check")

    def prepare(self) -> None:
        """Run the ``prepare`` command; make the file in memory that tells the watchdog which command runs."""
        if self._group < 0:
            self._group = os.memfd_create("splitreel-group")
        if not self._prepare:
            return
        self.waiting = f"`prepare`, {self._prepare[0]}"
        try:
            self.remarks += script.run(self._prepare, self._timeout_s, QuiesceError, f"{self.name}: prepare")
        finally:
            self.waiting = ""

    def releases(self) -> list[Release]:
        """The end of a quiesce command that still runs, which would hold what nobody releases; then unquiesce."""
        return [("group", self._group), ("run", tuple(self._let_go))]

    def frozen(self) -> list[str]:
        """Unknown, so none: what the command freezes itself is the site's to keep apart from splitreel's state."""
        return []

    def quiesce(self) -> int:
        """Run the quiesce command."""
        self._held = True
        since = time.monotonic_ns()
        try:
            what = f"{self.name}: quiesce"
            self.remarks += script.run(self._hold, self._timeout_s, QuiesceError, what, self._running)
        finally:
            self._running(0)
        return since

    def _running(self, group: int) -> None:
        if self._group >= 0:
            os.pwrite(self._group, group.to_bytes(8, "little"), 0)

    def discover(self) -> Discovery:
        """The paths that the discover command prints."""
        if not self._list:
            return Discovery()
        remarks, lines = script.output(self._list, self._timeout_s, QuiesceError, f"{self.name}: discover")
        self.remarks += remarks
        wrong = [line for line in lines if not line.startswith("/")]
        if wrong:
            raise QuiesceError(f"{self.name}: discover", f"{wrong[0]!r} is not an absolute path")
        return Discovery(tuple(lines))

    def unquiesce(self) -> None:
        """Run the unquiesce command, also after a quiesce command that failed; once it has succeeded, not again."""
        if self._held:
            self.remarks += script.run(self._let_go, self._timeout_s, QuiesceError, f"{self.name}: unquiesce")
            self._held = False

    def recover(self) -> str:
        """Run the unquiesce command, which is harmless when nothing is held."""
        self._held = True
        self.unquiesce()
        return f"{self._let_go[0]} was run"

    def redo(self) -> dict[str, bytes]:
        """Nothing."""
        return {}

    def close(self) -> None:
        """Close the file in memory."""
        if self._group >= 0:
            os.close(self._group)
            self._group = -1
