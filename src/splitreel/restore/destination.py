"""destination writes into one directory and nowhere else: descriptors of directories, never paths. It reads no archive.

Every component is opened with O_NOFOLLOW below the directory's own descriptor; absolute paths, ``..`` and symbolic
links on the way are refused, whatever the archive says.
"""

import contextlib
import ctypes
import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from splitreel.errors import SplitreelError, UsageError
from splitreel.reading.archive import Entry
from splitreel.restore import acl

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_DIRECTORIES = 64
MAX_NAME = 255
MAX_DEPTH = 4096
# after these nothing more can be written: the restore stops
FATAL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE))
_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """This member is not restored, and why; others go on."""


@dataclass(slots=True)
class Problems:
    """What could not be restored as it was: path and reason, and what was left out for want of privilege."""

    listed: list[tuple[bytes, str]] = field(default_factory=list)
    count: int = 0
    unprivileged: int = 0

    def add(self, path: bytes, why: str) -> None:
        """Record one; beyond 100 000 they are only counted."""
        self.count += 1
        if self.count <= 100_000:
            self.listed.append((path, why))


def components(path: bytes) -> list[bytes]:
    """The names a member's path consists of; empty for the root.

    Raises:
        Refused: it is absolute, has ``..``, a NUL, a name longer than 255 bytes, or too many names.
    """
    if path.startswith(b"/"):
        raise Refused("an absolute path")
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in names or b"\0" in path:
        raise Refused("a path that leads out of the target directory")
    if len(names) > MAX_DEPTH or any(len(name) > MAX_NAME for name in names):
        raise Refused("a path with too many or too long names")
    return names


def suffixed(name: bytes, suffix: bytes) -> bytes:
    """``name`` with ``suffix``, cut so that both fit a directory entry."""
    return name[: MAX_NAME - len(suffix)] + suffix


class Destination:
    """The directory restored into. A context manager; one thread at a time.

    ``overwrite`` replaces what is there already (unlinked first: nothing is written through an existing link).
    ``made`` holds the paths of the directories that were not there.
    """

    def __init__(self, directory: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.path = Path(directory)
        self.overwrite = overwrite
        self.owner = os.geteuid() == 0
        self.problems = Problems()
        self.made: set[bytes] = set()
        self._open: OrderedDict[bytes, int] = OrderedDict()
        self.root = self._open_root()
        # A default ACL on the target directory would be inherited by everything made in it.
        self.inherits = self._has(self.root, acl.ATTRIBUTES["default"])

    def _open_root(self) -> int:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(
                f"target directory {self.path}", error.strerror or "", "Name another directory."
            ) from error
        with os.scandir(root) as entries:
            occupied = next((entry.name for entry in entries if entry.name != "lost+found"), None)
        if occupied is not None and not self.overwrite:
            os.close(root)
            advice = "Name an empty or new directory with --to, or allow it to be overwritten with --force."
            raise UsageError(f"target directory {self.path}", f"it is not empty: it holds {occupied!r}", advice)
        return root

    def __enter__(self) -> "Destination":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every descriptor; idempotent."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        if self.root >= 0:
            os.close(self.root)
            self.root = -1

    def directory(self, names: list[bytes]) -> int:
        """The descriptor of a directory below the target, made where absent; valid until the next call.

        Raises:
            Refused: something else is in its place.
        """
        known = next((i for i in range(len(names), 0, -1) if b"/".join(names[:i]) in self._open), 0)
        current = self._open[b"/".join(names[:known])] if known else self.root
        for i in range(known, len(names)):
            path = b"/".join(names[: i + 1])
            current = self._enter(current, path, names[i])
            self._open[path] = current
            while len(self._open) > OPEN_DIRECTORIES:
                _, oldest = self._open.popitem(last=False)
                os.close(oldest)
        if names:
            self._open.move_to_end(b"/".join(names))
        return current

    def _enter(self, parent: int, path: bytes, name: bytes) -> int:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
            self.made.add(path)
        try:
            return os.open(name, DIRECTORY, dir_fd=parent)
        except OSError as error:
            if error.errno in FATAL:
                raise
            raise Refused(f"{os.fsdecode(name)!r} on its way is no directory") from error

    def place(self, path: bytes) -> tuple[int, bytes]:
        """The directory descriptor and last name of a path, its directories made; what is there already, removed.

        Raises:
            Refused: the path may not be written.
        """
        names = components(path)
        if not names:
            raise Refused("it takes the place of the target directory")
        parent = self.directory(names[:-1])
        if self.overwrite:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(names[-1], dir_fd=parent)
        return parent, names[-1]

    def create(self, path: bytes) -> int:
        """A new, empty file for writing; its descriptor is the caller's."""
        parent, name = self.place(path)
        return os.open(name, CREATE, 0o600, dir_fd=parent)

    def reopen(self, path: bytes) -> int:
        """A regular file that this restore made, for more of its content."""
        names = components(path)
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(names[-1], flags, dir_fd=self.directory(names[:-1]))

    def rename(self, path: bytes, to: bytes) -> None:
        """Rename within one directory, replacing what is there."""
        names, target = components(path), components(to)
        parent = self.directory(names[:-1])
        os.rename(names[-1], target[-1], src_dir_fd=parent, dst_dir_fd=parent)

    def remove(self, path: bytes) -> None:
        """Remove a file that this restore made, if it is there."""
        names = components(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(names[-1], dir_fd=self.directory(names[:-1]))

    def link(self, first: bytes, path: bytes) -> None:
        """Make ``path`` another name of ``first``, which must be no directory (a symbolic link is not followed)."""
        names = components(first)
        parent, name = self.place(path)
        # holding the descriptor: opening the other directory may close the least recently used ones
        held = os.dup(parent)
        try:
            source = self.directory(names[:-1])
            os.link(names[-1], name, src_dir_fd=source, dst_dir_fd=held, follow_symlinks=False)
        finally:
            os.close(held)

    def symlink(self, entry: Entry) -> None:
        """Make a symbolic link; its target is stored as it is and never followed."""
        parent, name = self.place(entry.path)
        os.symlink(entry.target, name, dir_fd=parent)
        self.attributes(entry, None, (parent, name))

    def node(self, entry: Entry) -> None:
        """Make a fifo or, as root, a device node.

        Raises:
            Refused: a device node without the privilege.
        """
        kinds = {"fifo": stat.S_IFIFO, "chr": stat.S_IFCHR, "blk": stat.S_IFBLK}
        if entry.type != "fifo" and not self.owner:
            raise Refused("a device node, which only root can make")
        parent, name = self.place(entry.path)
        os.mknod(name, kinds[entry.type] | 0o600, os.makedev(*entry.device), dir_fd=parent)
        self.attributes(entry, None, (parent, name))

    def directory_attributes(self, entry: Entry) -> None:
        """Give a directory its attributes: last of all, since whatever is made in it changes its times."""
        self.attributes(entry, self.directory(components(entry.path)), None)

    def attributes(self, entry: Entry, descriptor: int | None, place: tuple[int, bytes] | None) -> None:
        """Owner (as root), extended attributes, ACLs, mode, times, in an order in which none undoes another."""
        where = descriptor if descriptor is not None else b"/proc/self/fd/%d/%s" % (place or (0, b""))
        follow = descriptor is not None
        if self.owner:
            self._try(entry, "owner", os.chown, where, entry.uid, entry.gid, follow_symlinks=follow)
        self._xattrs(entry, where, follow)
        if entry.type != "symlink":
            # Without the owner, a set-id bit would hand the rights of whoever restores to anybody.
            self._try(entry, "mode", os.chmod, where, entry.mode if self.owner else entry.mode & 0o1777)
        times = (entry.mtime_ns, entry.mtime_ns)
        self._try(entry, "times", os.utime, where, ns=times, follow_symlinks=follow)

    def _xattrs(self, entry: Entry, where: int | bytes, follow: bool) -> None:
        if self.inherits and entry.type != "symlink":
            for name in acl.ATTRIBUTES.values():
                with contextlib.suppress(OSError):
                    os.removexattr(where, name)
        for name, value in entry.xattrs.items():
            if not self.owner and not name.startswith(b"user."):
                self.problems.unprivileged += 1
                continue
            self._try(
                entry, f"attribute {os.fsdecode(name)!r}", os.setxattr, where, name, value, follow_symlinks=follow
            )
        for kind, text in entry.acls.items():
            self._try(entry, f"{kind} ACL", _set_acl, where, kind, text, follow)

    def _try(self, entry: Entry, what: str, action: Callable[..., object], *args: object, **keywords: object) -> None:
        try:
            action(*args, **keywords)
        except (ValueError, OverflowError) as error:
            self.problems.add(entry.path, f"{what} not restored: {error}")
        except OSError as error:
            # ENOSPC is what ext4 says when one file's attributes do not fit: that file's problem alone
            if error.errno in FATAL and error.errno != errno.ENOSPC:
                raise
            self.problems.add(entry.path, f"{what} not restored: {error.strerror}")

    @staticmethod
    def _has(descriptor: int, name: bytes) -> bool:
        try:
            return bool(os.getxattr(descriptor, name))
        except OSError:
            return False

    def synchronize(self) -> None:
        """Put everything written so far on the target's disk (syncfs).

        Raises:
            SplitreelError: the kernel could not write all of it.
        """
        if _libc.syncfs(self.root) != 0:
            code = ctypes.get_errno()
            raise SplitreelError(
                f"writing to {self.path}", os.strerror(code), "Check the target's disk, restore again."
            )


def _set_acl(where: int | bytes, kind: str, text: bytes, follow: bool) -> None:
    """Set one ACL; never through a symbolic link, or a tape could give away a file outside the target directory."""
    os.setxattr(where, acl.ATTRIBUTES[kind], acl.encode(text), follow_symlinks=follow)
