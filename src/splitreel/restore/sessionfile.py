"""sessionfile says what a tape's ``session.json`` holds: the volumes of a session, and the databases on them.

It believes nothing that was not checked. Where a path of the primary lies on tape follows from the volumes' mount
points: the longest one above it is its volume, whose files have the prefix as the beginning of their paths.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from splitreel.errors import IntegrityError, NotFound, UsageError
from splitreel.restore.destination import Refused, components

NAME = "session.json"
VERSION = 1
LIMIT = 64 << 20


@dataclass(frozen=True)
class SessionFile:
    """Mount point -> prefix of the volumes, and the entries of the databases."""

    volumes: Mapping[str, bytes]
    databases: tuple[Mapping[str, Any], ...]

    @classmethod
    def parse(cls, content: bytes) -> "SessionFile":
        """Raises IntegrityError when it is damaged, or of a version that this program does not read."""
        try:
            stated = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise IntegrityError(f"reading {NAME}", f"it does not parse: {error}") from error
        if not isinstance(stated, dict) or stated.get("version") != VERSION:
            raise IntegrityError(f"reading {NAME}", "it is of a version that is not known")
        databases = _tables(stated, "databases")
        return cls(dict(map(_volume, _tables(stated, "volumes"))), tuple(databases))

    def database(self, name: str) -> Mapping[str, Any]:
        """The database of that name; without a name, the only one.

        Raises:
            NotFound: there is none.
            UsageError: there are several.
        """
        known = [str(entry.get("name", "")) for entry in self.databases]
        if not known:
            raise NotFound("restoring a database", "the backup knows of none", "Restore its files with --to.")
        if not name and len(known) == 1:
            return self.databases[0]
        if name not in known:
            what = f"database {name}" if name else "no database named"
            raise UsageError(what, f"the backup holds {', '.join(known)}", "Name one with --name.")
        return self.databases[known.index(name)]

    def on_tape(self, path: str) -> bytes:
        """Where on tape an absolute path of the primary is.

        Raises:
            IntegrityError: no volume of the session holds it.
        """
        for mount in sorted(self.volumes, key=len, reverse=True):
            if mount in ("/", path) or path.startswith(f"{mount}/"):
                parts = [self.volumes[mount], os.fsencode(os.path.relpath(path, mount))]
                return b"/".join(part for part in parts if part not in (b"", b"."))
        raise IntegrityError(f"reading {NAME}", f"{path!r:.100} lies on none of its volumes")


def _tables(stated: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = stated.get(key)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise IntegrityError(f"reading {NAME}", f"{key} are {found!r:.60}")
    return found


def _volume(entry: Mapping[str, Any]) -> tuple[str, bytes]:
    mount, prefix = entry.get("mount"), entry.get("prefix")
    if not isinstance(mount, str) or not isinstance(prefix, str) or not mount.startswith("/"):
        raise IntegrityError(f"reading {NAME}", f"a volume is {entry!r:.100}")
    try:
        return os.path.normpath(mount), b"/".join(components(os.fsencode(prefix)))
    except (Refused, ValueError) as error:
        raise IntegrityError(f"reading {NAME}", f"a volume is {entry!r:.100}") from error
