"""command drives a mirror by a site's own scripts: an array's, say. It knows only their outcome.

Contract: each command ends with status 0 and prints nothing but lines that begin with ``#INFO``. ``{image}`` in a
command is replaced by the image's path. ``split`` runs inside the window. Without ``in_sync`` the mirror counts as in
sync when ``establish`` has returned. ``dirty`` prints a number of bytes. ``rejoin`` must be harmless when the mirror is
not split: after a crash nobody may know. LVM's raid1 is no case for it: a leg that lvconvert alone merges may keep old
data (see lvm and dmraid). A template, for md:

    [job.NAME.mirror]
    type = "command"
    image = "/dev/sdc"
    offset = 1048576                                     # mdadm -E: Data Offset, in bytes
    split = "/usr/local/sbin/md-split /dev/md0 {image}"  # mdadm --fail, --remove
    rejoin = "/usr/local/sbin/md-rejoin /dev/md0 {image}"    # mdadm --re-add, then wait for idle and degraded 0
"""

import os
import time
from pathlib import Path
from typing import ClassVar

from splitreel import script
from splitreel.errors import MirrorError
from splitreel.mirror import Hold, SplitImage, inuse

POLL_SECONDS = 0.5


class CommandMirror:
    """A mirror split and rejoined by commands."""

    KEYS: ClassVar[dict[str, tuple[str, bool]]] = {
        "image": ("path", True),
        "split": ("command", True),
        "rejoin": ("command", True),
        "establish": ("command", False),
        "in_sync": ("command", False),
        "dirty": ("command", False),
        "offset": ("integer", False),
        "split_timeout_s": ("number", False),
        "timeout_s": ("number", False),
    }

    def __init__(
        self,
        image: str,
        split: str | list[str],
        rejoin: str | list[str],
        establish: str | list[str] = "",
        in_sync: str | list[str] = "",
        dirty: str | list[str] = "",
        offset: int = 0,
        split_timeout_s: float = 4.0,
        timeout_s: float = 3600.0,
    ) -> None:
        """``split_timeout_s`` bounds the split, ``timeout_s`` every other command."""
        commands = {"split": split, "rejoin": rejoin, "establish": establish, "in_sync": in_sync, "dirty": dirty}
        self._commands = {word: script.argv(command, image=image) for word, command in commands.items()}
        self._image = SplitImage(image, offset)
        self._split_timeout_s = split_timeout_s
        self._timeout_s = timeout_s
        self.name = f"command {image}"
        self.waiting = ""
        self.remarks: list[str] = []
        self._known = ""  # the state that this process has brought about

    def check(self) -> None:
        """The commands can be run."""
        for word, command in self._commands.items():
            if (command or word in ("split", "rejoin")) and (why := script.runnable(command)):
                raise MirrorError(f"{self.name}: {word}", why, "Correct the command in the configuration.")

    def check_primary(self, device: str) -> None:
        """The image is not the primary itself; more only the site's commands can tell."""
        inuse.refuse_itself(self.name, self._image.path, device)

    def cost(self) -> str:
        """Only the site knows."""
        told = "and `dirty` tells how much" if self._commands["dirty"] else "and nothing tells how much"
        return f"what a rejoin copies is up to the command {self._commands['rejoin'][0]}, {told}"

    def files(self) -> list[str]:
        """The image, where it exists before the split."""
        return [self._image.path] if Path(self._image.path).exists() else []

    def state(self) -> str:
        """As this process has left it, else as ``in_sync`` says, else unknown."""
        if self._known:
            return self._known
        return "in-sync" if self._commands["in_sync"] and self.is_in_sync() else "unknown"

    def establish(self) -> None:
        """Run ``establish``."""
        self._run("establish", self._timeout_s)
        self._known = "in-sync"

    def wait_in_sync(self, timeout_s: float) -> None:
        """Ask ``in_sync`` until it succeeds."""
        until = time.monotonic() + timeout_s
        while not self.is_in_sync():
            if time.monotonic() > until:
                raise MirrorError(self.name, f"not in sync within {timeout_s:g} s", "Raise `sync_timeout_s`.")
            self.waiting = "`in_sync` to succeed"
            time.sleep(POLL_SECONDS)

    def is_in_sync(self) -> bool:
        """Whether ``in_sync`` ends with status 0."""
        try:
            self._run("in_sync", self._timeout_s)
        except MirrorError:
            return False
        return True

    def flush(self) -> None:
        """Nothing."""

    def split(self) -> SplitImage:
        """Run ``split``; the image must be readable then."""
        self._known = "unknown"
        self._run("split", self._split_timeout_s)
        self._known = "split"
        if not os.access(self._image.path, os.R_OK):
            raise MirrorError(f"{self.name}: split", "the image cannot be read after the split", "Correct `image`.")
        return self._image

    def dirty_bytes(self) -> int | None:
        """What ``dirty`` prints."""
        if not self._commands["dirty"]:
            return None
        what = f"{self.name}: dirty"
        _, lines = script.output(self._commands["dirty"], self._timeout_s, MirrorError, what)
        if len(lines) != 1 or not lines[0].strip().isdecimal():
            raise MirrorError(what, f"it printed {lines[:1]} where one number was due")
        return int(lines[0])

    def resynced_bytes(self) -> int | None:
        """Unknown: the contract has no word for it."""
        return None

    def rejoin(self, hold: Hold) -> None:
        """Run ``rejoin``."""
        self._run("rejoin", self._timeout_s)
        self._known = "in-sync"

    def forget(self) -> None:
        """Nothing: only the site's scripts can."""

    def close(self) -> None:
        """Nothing is open."""

    def _run(self, word: str, timeout_s: float) -> None:
        if self._commands[word]:
            self.waiting = f"`{word}`, {self._commands[word][0]}"
            try:
                self.remarks += script.run(self._commands[word], timeout_s, MirrorError, f"{self.name}: {word}")
            finally:
                self.waiting = ""
