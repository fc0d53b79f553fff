"""restorer puts members into a target directory and sets apart what did not verify. It reads no tape.

Files are written under their names; at the end of each tape file those that did not verify are renamed, hard links are
made and parts are joined, so that a name without a suffix always holds verified bytes.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from splitreel import records
from splitreel.errors import SplitreelError
from splitreel.reading.archive import Entry
from splitreel.reading.segment import Report, normal
from splitreel.restore.destination import FATAL, Destination, Problems, Refused, components, suffixed

DAMAGED = b".splitreel-damaged"
UNVERIFIED = b".splitreel-unverified"
PARTIAL = b".splitreel-partial"
PART_NAME = re.compile(rb"(.*)\.splitreel-part-(\d{4,})-of-(\d{4,})", re.DOTALL)


@dataclass(slots=True)
class Parts:
    """A file that comes in parts: where it grows, which parts are in, where each ended."""

    path: bytes
    name: bytes
    count: int
    ends: dict[int, int] = field(default_factory=dict)
    bad: str = ""

    def offset(self, i: int) -> int:
        """Where part ``i`` begins: after the one before it, else a multiple of the first one's size."""
        return self.ends[i - 1] if i - 1 in self.ends else (i - 1) * self.ends.get(1, 0)


class FileWriter:
    """Writes one member's content into an open file, holes left as holes."""

    def __init__(self, target: Destination, entry: Entry, descriptor: int, base: int = 0) -> None:
        self.failed = ""
        self.target = target
        self.entry = entry
        self.descriptor = descriptor
        self.base = base
        self.end = base

    def write(self, offset: int, data: memoryview) -> None:
        """Put ``data`` at ``offset`` of the member; once that has failed, nothing."""
        at = self.base + offset
        while len(data) and not self.failed:
            try:
                done = os.pwrite(self.descriptor, data, at)
            except OSError as error:
                self._fail(error)
                return
            data, at = data[done:], at + done
        self.end = max(self.end, at)

    def _fail(self, error: OSError) -> None:
        if error.errno in FATAL:
            self._close()
            raise stopped(self.target, self.entry.path, error) from error
        self.failed = error.strerror or str(error)

    def finish(self) -> None:
        """Set the size, where it ends in a hole, and the attributes; close."""
        try:
            if self.base + self.entry.size > self.end and not self.failed:
                os.ftruncate(self.descriptor, self.base + self.entry.size)
            self.target.attributes(self.entry, self.descriptor, None)
        except OSError as error:
            self._fail(error)
        finally:
            self._close()

    def abandon(self, why: str) -> None:
        """Close; what was written stays, to be renamed."""
        self._close()

    def _close(self) -> None:
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)


def stopped(target: Destination, path: bytes, error: OSError) -> SplitreelError:
    """The error that ends a restore: the target takes no more."""
    advice = "Make room or mend the target's file system, then restore again into an empty directory."
    return SplitreelError(f"writing {records.text(path)!r} below {target.path}", error.strerror or str(error), advice)


class Restorer:
    """A Receiver that restores what ``wanted`` says. ``finish`` must be called once, at the end.

    ``aliases`` maps a member's path to the names it is to be restored under instead: hard links whose first name is
    not wanted itself.
    """

    def __init__(self, target: Destination, wanted: Callable[[bytes], bool]) -> None:
        self.target = target
        self.wanted = wanted
        self.aliases: dict[bytes, list[bytes]] = {}
        self.files = 0
        self.bytes = 0
        self.members = 0
        self.damaged: dict[bytes, bytes] = {}
        self.unresolved: list[tuple[bytes, bytes]] = []
        self._made: dict[bytes, Entry] = {}
        self._links: list[tuple[bytes, bytes]] = []
        self._directories: list[Entry] = []
        self._above: dict[bytes, Entry] = {}  # not wanted, but what is wanted may lie below them
        self._unread: dict[bytes, str] = {}
        self._parts: dict[bytes, Parts] = {}
        self._writer: FileWriter | None = None
        self._failed: dict[bytes, str] = {}
        self._loose: set[bytes] = set()  # parts that stand by themselves
        self._broken: list[tuple[bytes, bytes]] = []  # links to what is damaged

    @property
    def problems(self) -> Problems:
        """What could not be restored as it was."""
        return self.target.problems

    def begin(self, entry: Entry) -> FileWriter | None:
        """Make the member; for a file, say where its content goes."""
        path = normal(entry.path)
        names = self.aliases.get(path)
        if names is None and not self._wants(path):
            if entry.type == "dir" and path:
                self._above[path] = entry
            return None
        if names:
            path, entry = names[0], replace(entry, path=names[0])
            self._links += [(other, path) for other in names[1:]]
        try:
            writer = self._make(path, entry)
        except Refused as error:
            self.problems.add(entry.path, f"not restored: {error}")
            return None
        except OSError as error:
            if error.errno in FATAL:
                raise stopped(self.target, entry.path, error) from error
            self.problems.add(entry.path, f"not restored: {error.strerror}")
            return None
        self.members += 1
        self._take_failure()
        self._writer = writer
        return writer

    def _take_failure(self) -> None:
        """Remember what became of the file before this one: the target may have refused some of it."""
        if self._writer is not None and self._writer.failed:
            self._failed[normal(self._writer.entry.path)] = self._writer.failed

    def _wants(self, path: bytes) -> bool:
        part = PART_NAME.fullmatch(path)
        return self.wanted(path) or (part is not None and self.wanted(part[1]))

    def _make(self, path: bytes, entry: Entry) -> FileWriter | None:
        if entry.type == "dir":
            self.target.directory(components(path))
            self._directories.append(entry)
        elif entry.type == "file":
            return self._file(path, entry)
        elif entry.type == "link":
            components(normal(entry.target))
            self._links.append((path, normal(entry.target)))
        elif entry.type == "symlink":
            self.target.symlink(entry)
        else:
            self.target.node(entry)
        return None

    def _file(self, path: bytes, entry: Entry) -> FileWriter:
        self.bytes += entry.size
        part = PART_NAME.fullmatch(path)
        if part is not None and (growing := self._parts.get(part[1])) is not None and int(part[2]) > 1:
            return FileWriter(self.target, entry, self.target.reopen(growing.name), growing.offset(int(part[2])))
        self.files += 1
        writer = FileWriter(self.target, entry, self.target.create(path))
        self._made[path] = entry
        return writer

    def settle(self, report: Report) -> None:
        """Rename what did not verify, join parts, make hard links, put all on disk."""
        self._take_failure()
        self._writer = None
        for path, why in self._failed.items():
            self._set_apart(path, DAMAGED, f"the target directory does not take it: {why}")
            self._damaged_part(path, why)
        for path, why in report.bad.items():
            self._set_apart(self.aliases.get(path, [path])[0], DAMAGED, why)
            self._damaged_part(path, why)
        if not report.verified:
            for path in list(self._made):
                self._set_apart(path, UNVERIFIED, "nothing on this tape can vouch for its bytes")
        for path, part in report.parts.items():
            if path not in report.bad and path not in self._failed:
                self._join(path, part)
        self._link_all()
        self._made.clear()
        self._failed.clear()
        self.target.synchronize()

    def _set_apart(self, path: bytes, suffix: bytes, why: str) -> None:
        if path not in self._made:
            if self._wants(path):
                self.problems.add(path, why)
            else:
                self._unread[path] = why
            return
        del self._made[path]
        head, slash, name = path.rpartition(b"/")
        aside = head + slash + suffixed(name, suffix)
        self.target.rename(path, aside)
        self.damaged[path] = aside
        self.problems.add(path, f"{why}; it was restored as {records.text(aside)!r}")

    def _damaged_part(self, path: bytes, why: str) -> None:
        part = PART_NAME.fullmatch(path)
        if part is not None and (growing := self._parts.get(part[1])) is not None:
            growing.bad = growing.bad or f"part {int(part[2])}: {why}"

    def _join(self, path: bytes, part: records.Member) -> None:
        i, count = part.part or (1, 1)
        whole = normal(part.of or b"")
        if i == 1 and path in self._made:
            head, slash, name = whole.rpartition(b"/")
            self._parts[whole] = Parts(whole, head + slash + suffixed(name, PARTIAL), count)
            self.target.rename(path, self._parts[whole].name)
            del self._made[path]
        growing = self._parts.get(whole)
        if growing is None:
            if path in self._made:
                self._loose.add(path)
                self.problems.add(path, f"restored by itself: part 1 of {records.text(whole)!r} is missing")
            return
        if i > 1 and growing.offset(i) != part.at:
            growing.bad = growing.bad or f"part {i} belongs at byte {part.at}, not where the parts before it end"
        growing.ends[i] = growing.offset(i) + part.size
        if len(growing.ends) == growing.count:
            self._complete(growing)

    def _complete(self, growing: Parts) -> None:
        del self._parts[growing.path]
        if not growing.bad and len(growing.ends) == growing.count:
            self.target.rename(growing.name, growing.path)
            return
        missing = growing.count - len(growing.ends)
        why = growing.bad or f"{missing} of its {growing.count} parts are missing"
        self._made[growing.path] = Entry(growing.path, "file", 0, 0)
        self.target.rename(growing.name, growing.path)
        self._set_apart(growing.path, DAMAGED, why)

    def _link_all(self) -> None:
        links, self._links = self._links, []
        for path, first in links:
            try:
                if first == path:
                    raise Refused("a hard link to itself")
                if first in self.damaged:
                    self._broken.append((path, first))
                    self.problems.add(
                        path, f"not restored: it is another name of {records.text(first)!r}, which is damaged"
                    )
                else:
                    self.target.link(first, path)
            except FileNotFoundError:
                self._links.append((path, first)) if first in self._parts else self.unresolved.append((path, first))
            except Refused as error:
                self.problems.add(path, f"not restored: {error}")
            except OSError as error:
                if error.errno in FATAL:
                    raise stopped(self.target, path, error) from error
                self.problems.add(path, f"not restored: {error.strerror}")

    def take_back(self, paths: set[bytes]) -> list[tuple[bytes, bytes]]:
        """These members are to be restored again, over what is there; returns the links that wait for them."""
        self.target.overwrite = True
        for path in paths & self.damaged.keys():
            self.target.remove(self.damaged.pop(path))
        for path in paths & self._parts.keys():
            self.target.remove(self._parts.pop(path).name)
        for path in paths & self._loose:
            self.target.remove(path)
        waiting = self._broken + self.unresolved
        links = [link for link in waiting if link[1] in paths]
        self._broken = [link for link in self._broken if link[1] not in paths]
        self.unresolved = [link for link in self.unresolved if link[1] not in paths]
        return links

    def link(self, links: list[tuple[bytes, bytes]]) -> None:
        """Make hard links (name, first name) now."""
        self._links += links
        self._link_all()

    def abandon(self) -> None:
        """The run ended early: what was not settled yet is set apart as unverified."""
        if self._writer is not None:
            self._writer.abandon("")
        with contextlib.suppress(SplitreelError, OSError):
            self.settle(Report())

    def finish(self) -> None:
        """Settle parts that never came, and give directories their attributes, deepest first."""
        for growing in list(self._parts.values()):
            self._complete(growing)
        self._link_all()
        self._take_above()
        self._directories.sort(key=lambda entry: normal(entry.path).count(b"/"), reverse=True)
        for entry in self._directories:
            self._directory(entry)
        self._directories.clear()
        for path, first in self.unresolved:
            self.problems.add(path, f"not restored: its first name {records.text(first)!r} was not restored")
        self.target.synchronize()

    def _take_above(self) -> None:
        """Directories made only because something wanted lies below them get their attributes too.

        One that was there already keeps its own: it was not asked for.
        """
        wanted = {normal(entry.path) for entry in self._directories}
        for path in sorted(self.target.made - wanted):
            if path in self._above:
                self._directories.append(self._above[path])
            elif path in self._unread:
                self.problems.add(path, f"attributes not restored: {self._unread[path]}")
        self._above.clear()

    def _directory(self, entry: Entry) -> None:
        try:
            if normal(entry.path) or self.wanted(b""):
                self.target.directory_attributes(entry)
        except Refused as error:
            self.problems.add(entry.path, f"attributes not restored: {error}")
        except OSError as error:
            if error.errno == errno.EIO:
                raise stopped(self.target, entry.path, error) from error
            self.problems.add(entry.path, f"attributes not restored: {error.strerror}")
