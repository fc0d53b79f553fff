"""described is what a session tells a restore of its volumes and databases: redo members of its tape. It writes none.

``session.json`` is one of them, there when a quiescer has described a database. The others are what the databases give
only at stop, each under the name that its quiescer gave it; where two databases or more give some, in a directory of
the database's name.
"""

import json
import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from splitreel.quiesce import Discovery, Quiescer

MEMBER = "session.json"
VERSION = 1

Redo = dict[str, bytes | Path]


class Databases:
    """The databases of one session: named as they are discovered, then asked for what they give at stop."""

    def __init__(self, quiescers: Sequence[Quiescer], kinds: Sequence[str]) -> None:
        """``kinds`` are the quiescers' types: the name of what does not name itself."""
        self._quiescers = list(quiescers)
        self._kinds = list(kinds)
        self._found: list[Discovery] = [Discovery() for _ in quiescers]

    def discover(self) -> list[str]:
        """Ask each which files make it up; returns them all. Raises QuiesceError."""
        self._found = [quiescer.discover() for quiescer in self._quiescers]
        return [file for discovery in self._found for file in discovery.files]

    def together(self) -> list[tuple[str, ...]]:
        """The files of each database that only one instant makes a copy."""
        return [found.files for found in self._found if found.together]

    def entries(self) -> list[dict[str, Any]]:
        """What is known of each database, under the name that tells it from the others."""
        named = zip(self._found, self._names(), strict=True)
        return [{**found.facts, "name": name} for found, name in named if found.facts.get("engine")]

    def redo(self) -> Redo:
        """What each gives only at stop, by member name. Raises QuiesceError."""
        given = [(name, quiescer.redo()) for name, quiescer in zip(self._names(), self._quiescers, strict=True)]
        given = [(name, redo) for name, redo in given if redo]
        if len(given) == 1:
            return dict(given[0][1])
        return {f"{name}/{member}": content for name, redo in given for member, content in redo.items()}

    def _names(self) -> list[str]:
        facts = [found.facts for found in self._found]
        wanted = [one.get("name") or one.get("engine") or kind for one, kind in zip(facts, self._kinds, strict=True)]
        return _distinct(map(str, wanted))


def session_json(volumes: Iterable[Mapping[str, str]], databases: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The content of ``session.json``, or None when no database is known."""
    if not databases:
        return None
    return {"version": VERSION, "volumes": list(volumes), "databases": list(databases)}


def volume_entry(name: str, mount: str, prefix: str, identity: bytes) -> dict[str, str]:
    """A volume in ``session.json``: its mount point without links, for paths of the primary to be compared with."""
    return {"name": name, "mount": os.path.realpath(mount), "prefix": prefix, "uuid": str(uuid.UUID(bytes=identity))}


def members(session: Mapping[str, Any] | None, redo: Mapping[str, bytes | Path]) -> Redo:
    """All redo members of a session."""
    stated = {} if session is None else {MEMBER: json.dumps(session, indent=1, default=str).encode() + b"\n"}
    return {**redo, **stated}


def _distinct(names: Iterable[str]) -> list[str]:
    """Names that are one path component each, and no two alike."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:64] or "database"
        number, chosen = 1, plain
        while chosen in (*found, MEMBER):
            number += 1
            chosen = f"{plain}-{number}"
        found.append(chosen)
    return found
