"""guestagent holds the file systems of a virtual machine by its guest agent. It knows no database and no mirror.

The agent freezes them with FIFREEZE, as fsfreeze does here. Its hooks (fsfreeze-hook) may quiesce databases around it.
The watchdog has the same connection: a second one would not be served while ours is open, if we hang.
"""

import time
from typing import ClassVar

from splitreel.errors import QuiesceError
from splitreel.quiesce import Discovery, Release
from splitreel.quiesce.qga import Agent

NEEDED = ("guest-fsfreeze-status", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw")


class GuestAgent:
    """The file systems of the guest whose agent answers at ``socket``: those mounted at ``mounts``, or all."""

    KEYS: ClassVar[dict[str, tuple[str, bool]]] = {
        "socket": ("path", True),
        "mounts": ("texts", False),
        "timeout_s": ("number", False),
    }
    freezes_guest: ClassVar[bool] = True

    def __init__(self, socket: str, mounts: list[str] | None = None, timeout_s: float = 4.0) -> None:
        """``timeout_s`` bounds each answer, that to the freeze too. ``mounts`` are the guest's own paths."""
        self.name = f"guest-agent {socket}"
        self._path = socket
        self._mounts = list(mounts or [])
        self._timeout_s = timeout_s
        self._agent: Agent | None = None
        self._held = False
        self._answered = False  # the freeze was

    def check(self) -> None:
        """The agent answers, may freeze, and has frozen nothing; what shall be frozen is mounted."""
        agent = Agent(self._path, self._timeout_s)
        try:
            # Asked first: while frozen, the agent has nearly all other commands disabled.
            if agent.command("guest-fsfreeze-status") != "thawed":
                advice = "Find out who froze them; a guest-fsfreeze-thaw releases them."
                raise QuiesceError(self.name, "the guest's file systems are frozen already", advice)
            known = {entry["name"]: entry["enabled"] for entry in agent.command("guest-info")["supported_commands"]}
            needed = (*NEEDED, "guest-fsfreeze-freeze-list") if self._mounts else NEEDED
            if absent := [name for name in needed if not known.get(name)]:
                advice = "Allow it in the guest: qemu-ga --block-rpcs, /etc/sysconfig/qemu-ga."
                raise QuiesceError(self.name, f"the agent does not run {', '.join(absent)}", advice)
            mounted = {entry["mountpoint"] for entry in agent.command("guest-get-fsinfo")} if self._mounts else set()
            if absent := [mount for mount in self._mounts if mount not in mounted]:
                raise QuiesceError(self.name, f"nothing is mounted at {absent[0]} in the guest", "Correct `mounts`.")
        finally:
            agent.close()

    def prepare(self) -> None:
        """Connect."""
        self.close()
        self._agent = Agent(self._path, self._timeout_s)

    def releases(self) -> list[Release]:
        """A thaw over our own connection, which the watchdog has too."""
        return [("guest", self._agent.fileno())] if self._agent is not None else []

    def frozen(self) -> list[str]:
        """None of this machine's."""
        return []

    def quiesce(self) -> int:
        """Freeze: the agent answers with how many file systems it froze, when all of them are."""
        if self._agent is None:
            raise QuiesceError(self.name, "it was not prepared")
        since = time.monotonic_ns()
        self._held = True
        if self._mounts:
            count = self._agent.command("guest-fsfreeze-freeze-list", mountpoints=self._mounts)
        else:
            count = self._agent.command("guest-fsfreeze-freeze")
        self._answered = True
        if not isinstance(count, int) or count < max(1, len(self._mounts)):
            wanted = f" of {len(self._mounts)}" if self._mounts else ""
            raise QuiesceError(self.name, f"the agent froze {count}{wanted} file systems", "See the guest's log.")
        return since

    def discover(self) -> Discovery:
        """A file system knows no database."""
        return Discovery()

    def unquiesce(self) -> None:
        """Thaw. A freeze that was not answered may be answered yet: then our answers are looked for first.

        On the same connection: while the watchdog has it too, QEMU serves no other.
        """
        if not self._held:
            return
        if self._agent is None:
            self.prepare()
        assert self._agent is not None
        if self._answered:
            self._agent.command("guest-fsfreeze-thaw")
        else:
            self._agent.synchronise()
            self._thaw()
        self._held = self._answered = False

    def recover(self) -> str:
        """Thaw what a dead session, and its watchdog, left frozen."""
        self.prepare()
        try:
            assert self._agent is not None
            if self._agent.command("guest-fsfreeze-status") == "thawed":
                return ""
            self._thaw()
        finally:
            self.close()
        return "the guest's file systems were still frozen; they are thawed"

    def redo(self) -> dict[str, bytes]:
        """Nothing."""
        return {}

    def close(self) -> None:
        """Hang up."""
        if self._agent is not None:
            self._agent.close()
            self._agent = None

    def _thaw(self) -> None:
        assert self._agent is not None
        self._agent.command("guest-fsfreeze-thaw")
        if self._agent.command("guest-fsfreeze-status") != "thawed":
            raise QuiesceError(self.name, "the guest stays frozen", "Run guest-fsfreeze-thaw by hand at once.")
