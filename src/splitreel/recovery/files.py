"""files changes a restored tree without ever following a link in it. It knows no database.

Every path given is of a tree that only this restore writes to; what may be a link in it is told apart by lstat, and
made or removed by its own name. Trees are walked by descriptors (shutil.rmtree, os.fwalk).
"""

import os
import pwd
import shutil
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitreel.errors import IntegrityError, UsageError

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
TEXT_LIMIT = 4096


@dataclass(frozen=True)
class Owner:
    """A user's numbers and name."""

    uid: int
    gid: int
    name: str

    @classmethod
    def of(cls, name: str) -> "Owner":
        """The user of that name. Raises UsageError."""
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            raise UsageError(f"owner {name}", "this machine has no such user") from None
        return cls(user.pw_uid, user.pw_gid, user.pw_name)

    @classmethod
    def numbered(cls, uid: int, gid: int) -> "Owner | None":
        """The user of that number, or None when this machine has none."""
        try:
            return cls(uid, gid, pwd.getpwuid(uid).pw_name)
        except KeyError:
            return None


def is_directory(path: Path) -> bool:
    """Whether it is there and a directory, not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether it is there and a regular file, not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def remove(path: Path) -> bool:
    """Remove whatever has this name, a whole tree too; False when nothing has."""
    if is_directory(path):
        shutil.rmtree(path)
        return True
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def remove_all(paths: Iterable[Path]) -> int:
    """Remove them; how many there were."""
    return sum(remove(path) for path in paths)


def write(path: Path, content: bytes, owner: Owner | None, mode: int = 0o600) -> None:
    """A new file in place of whatever has that name."""
    remove(path)
    with open(os.open(path, CREATE, mode), "wb") as file:
        give(file.fileno(), owner)
        file.write(content)


def make_directory(path: Path, owner: Owner | None, mode: int = 0o700) -> None:
    """A new, empty directory in place of whatever has that name."""
    remove(path)
    path.mkdir(mode)
    give(path, owner)


def link(path: Path, target: Path, owner: Owner | None) -> None:
    """A symbolic link in place of whatever has that name."""
    remove(path)
    path.symlink_to(target)
    give(path, owner)


def move(path: Path, to: Path, owner: Owner | None) -> None:
    """Rename within one file system, in place of whatever is there; the file is made the owner's, with mode 0600."""
    remove(to)
    path.rename(to)
    give(to, owner)
    if not to.is_symlink():
        to.chmod(0o700 if is_directory(to) else 0o600)


def give(what: int | Path, owner: Owner | None) -> None:
    """Make it the owner's, a link itself and not what it leads to."""
    if owner is None:
        return
    if isinstance(what, int):
        os.chown(what, owner.uid, owner.gid)
    else:
        os.chown(what, owner.uid, owner.gid, follow_symlinks=False)


def give_tree(top: Path, owner: Owner) -> None:
    """Make all of a tree the owner's."""
    give(top, owner)
    if is_directory(top):
        for _, folders, names, descriptor in os.fwalk(top, follow_symlinks=False):
            for name in (*folders, *names):
                os.chown(name, owner.uid, owner.gid, dir_fd=descriptor, follow_symlinks=False)


def text(facts: Mapping[str, Any], key: str) -> str:
    """A text among the facts of a tape.

    Raises:
        IntegrityError: there is none, or it is none.
    """
    value = facts.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_LIMIT or "\0" in value:
        raise IntegrityError("reading session.json", f"{key} is {value!r:.60}")
    return value


def path(facts: Mapping[str, Any], key: str) -> str:
    """An absolute path among the facts of a tape, normalised.

    Raises:
        IntegrityError: there is none, or it is relative.
    """
    value = text(facts, key)
    if not value.startswith("/"):
        raise IntegrityError("reading session.json", f"{key} is {value!r:.60}, no absolute path")
    return os.path.normpath(value)
