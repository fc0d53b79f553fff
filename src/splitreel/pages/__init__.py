"""pages says which files of a backup hold database pages, and how these are verified. It verifies none itself.

What verifies them is ``core.pages``, while the stream carries the bytes. Here it is decided beforehand, by names and by
what the databases say of themselves in the image: ``global/pg_control`` and ``ibdata1``.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.pages import REASONS, PageChecker
from splitreel.core.plan import Plan
from splitreel.errors import NotFound, SplitreelError, UsageError
from splitreel.pages import innodb, postgresql
from splitreel.pages.content import read
from splitreel.pages.database import LAST_LSN, Database

__all__ = ["WORDS", "Checks", "Damage", "Database", "checks_of", "from_session", "from_words"]

AUTO = "auto"
WORDS = f"{AUTO}, postgresql:PATH or innodb:PATH, PATH being the data directory inside the file system"
ENGINES = {"postgresql": postgresql, "innodb": innodb}
FAMILY = {"postgresql": "postgresql", "mariadb": "innodb", "mysql": "innodb"}  # engines of a session's facts
WINDOW = 65536  # bytes: the largest page
RULES = np.dtype([("first_page", "<u4"), ("profile", "u1"), ("flags", "u1"), ("reserved", "<u2")])


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged page: its number in its relation or tablespace, where it begins in the file, its size, in bytes."""

    path: bytes
    page: int
    offset: int
    size: int
    why: str

    def __str__(self) -> str:
        path = self.path.decode("utf-8", "backslashreplace")
        return f"{path}: page {self.page}, at byte {self.offset}: {self.why}"


# Which databases.


def from_words(words: Sequence[str], extent_map: ExtentMap, device: BlockDevice) -> list[Database]:
    """The databases that ``--check-pages`` names, once each.

    Raises:
        UsageError: a word of no such form. NotFound: no such database there. Corrupt: it cannot be understood.
    """
    found: dict[bytes, Database] = {}
    for word in words:
        engine, colon, path = word.partition(":")
        if word == AUTO:
            every = [(name, data) for name in ENGINES for data in ENGINES[name].everywhere(extent_map)]
            if not every:
                raise NotFound("checking pages", "there is no global/pg_control and no ibdata1", f"Say {WORDS}.")
        elif colon and engine in ENGINES:
            every = [(engine, os.fsencode(path).strip(b"/"))]
        else:
            raise UsageError(f"--check-pages {word}", f"it is {WORDS}")
        for name, data in every:
            found.setdefault(data, ENGINES[name].understand(extent_map, device, data))
    return list(found.values())


def from_session(
    session: Mapping[str, Any] | None, extent_map: ExtentMap, device: BlockDevice, note: Callable[[str], None]
) -> list[Database]:
    """The databases that ``session.json`` describes, on the volumes that the map holds.

    What cannot be understood is noted and not checked: that is no reason to lose the backup.
    """
    found = []
    for one in (session or {}).get("databases", ()):
        family = FAMILY.get(str(one.get("engine")))
        data = _on_volumes(session or {}, str(one.get("data") or ""))
        if family is None or data is None:
            continue
        try:
            found.append(_with_facts(ENGINES[family].understand(extent_map, device, data), one))
        except SplitreelError as error:
            note(f"pages of {one['engine']} in {one['data']} are not checked: {error}")
    return found


def _with_facts(database: Database, facts: Mapping[str, Any]) -> Database:
    """What the running server said goes before what its files say."""
    if database.engine == "postgresql":
        if not facts.get("start_lsn"):
            return database
        end = postgresql.lsn(str(facts["stop_lsn"])) if facts.get("stop_lsn") else LAST_LSN
        return replace(database, start_lsn=postgresql.lsn(str(facts["start_lsn"])), end_lsn=end)
    strict = str(facts.get("innodb_checksum_algorithm", "")) in ("strict_crc32", "strict_full_crc32")
    return replace(database, strict=strict)


def _on_volumes(session: Mapping[str, Any], path: str) -> bytes | None:
    """An absolute path of the primary as one of the map; None: it lies on none of its volumes."""
    path = os.path.realpath(path) if path else ""
    held = [volume for volume in session.get("volumes", ()) if _holds(volume["mount"], path)]
    if not held:
        return None
    volume = max(held, key=lambda volume: len(volume["mount"]))
    relative = os.path.relpath(path, volume["mount"])
    parts = [volume["prefix"], "" if relative == "." else relative]
    return os.fsencode("/".join(part for part in parts if part))


def _holds(mount: str, path: str) -> bool:
    return bool(path) and (path + "/").startswith(mount.rstrip("/") + "/")


# How their files are verified.


def checks_of(extent_map: ExtentMap, databases: Sequence[Database]) -> "Checks | None":
    """The checks of these databases; None without any."""
    return Checks(extent_map, databases) if databases else None


class Checks:
    """The page checks of one backup: what its stream takes, and what it found. ``limit`` bounds the list of damage."""

    def __init__(self, extent_map: ExtentMap, databases: Sequence[Database], limit: int = 1000) -> None:
        self.map = extent_map
        self.checker = PageChecker(limit)
        rules = np.zeros(extent_map.file_count, RULES)
        for database in databases:
            chosen = ENGINES[database.engine].files(extent_map, database)
            rules["profile"][chosen.files] = self._profile(database)
            rules["first_page"][chosen.files] = chosen.first_pages
            rules["flags"][chosen.files] = chosen.flags
        self.checker.set_rules(rules.tobytes())

    def _profile(self, database: Database) -> int:
        add = self.checker
        if database.engine == "postgresql":
            size, sums, repaired = database.page_size, database.checksums, (database.start_lsn, database.end_lsn)
            return add.add_postgresql(size, checksums=sums, repaired=repaired)
        return add.add_innodb(database.page_size, strict=database.strict)

    def go_on(self, plan: Plan, segment: int, device: BlockDevice) -> None:
        """A run begins with this segment, whose first member may be a part from the middle of a file.

        Raises:
            DeviceError: what stands before it does not read.
        """
        member = np.asarray(plan.members)[np.asarray(plan.segments)["first_member"][segment]]
        start = int(member["start"])
        if start == 0:
            return
        file = int(np.asarray(plan.map.names)["file"][member["name"]])
        begin = start - start % WINDOW
        head = read(plan.map, device, file, begin, start - begin)
        size = int(np.asarray(plan.map.files)["size"][file])
        self.checker.go_on(file, start, size, read(plan.map, device, file, 0, WINDOW), head)

    def by_file(self) -> dict[int, list[Damage]]:
        """The damaged pages that were listed, each once, by index into the map's files, in the file's order."""
        names = np.asarray(self.map.names)["file"]
        found: dict[int, dict[int, Damage]] = {}
        paths: dict[int, bytes] = {}
        for file, page, offset, why, _, size in self.checker.findings:
            if file not in paths:
                paths[file] = self.map.path_of(int(np.flatnonzero(names == file)[0]))
            found.setdefault(file, {})[offset] = Damage(paths[file], page, offset, size, REASONS[why])
        return {file: [pages[offset] for offset in sorted(pages)] for file, pages in found.items()}

    def damage(self) -> list[Damage]:
        """The same as one list, by path."""
        every = (one for pages in self.by_file().values() for one in pages)
        return sorted(every, key=lambda one: (one.path, one.offset))
