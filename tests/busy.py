"""busy changes a mounted tree at random, as programs that want their data durable do. It looks at nothing raw."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path


class Work:
    """Random changes to a tree, most of them made durable at once, as a database would."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root = root
        self.rng = rng
        self.open: list[int] = []
        self.actions = [
            (self.write, 30),
            (self.overwrite, 20),
            (self.truncate, 10),
            (self.rename, 8),
            (self.remove, 10),
            (self.folder, 6),
            (self.remove_folder, 4),
            (self.link, 4),
            (self.attribute, 5),
            (self.orphan, 3),
            (self.escape, 6),
            (self.hole, 4),
        ]

    def run(self, steps: int, after_each: Callable[[], object]) -> None:
        """So many changes; what is open without a name stays so until the end."""
        names, weights = zip(*self.actions, strict=True)
        try:
            for _ in range(steps):
                self.rng.choices(names, weights)[0]()
                after_each()
        finally:
            for descriptor in self.open:
                os.close(descriptor)

    def some(self, wanted: Callable[[Path], bool]) -> Path | None:
        found = sorted(path for path in self.root.rglob("*") if wanted(path) and path.name != "lost+found")
        return self.rng.choice(found) if found else None

    def somewhere(self) -> Path:
        return self.some(Path.is_dir) or self.root

    def fresh(self) -> Path:
        return self.somewhere() / f"{self.rng.randrange(10**9):09}{'n' * self.rng.choice((0, 5, 90))}"

    def keep(self, descriptor: int) -> None:
        if self.rng.random() < 0.7:
            os.fsync(descriptor)
        os.close(descriptor)

    def write(self) -> None:
        descriptor = os.open(self.fresh(), os.O_CREAT | os.O_WRONLY, 0o640)
        for _ in range(self.rng.choice((0, 1, 1, 3))):
            os.write(descriptor, self.rng.randbytes(self.rng.choice((100, 5000, 70_000, 300_000))))
        self.keep(descriptor)

    def overwrite(self) -> None:
        if path := self.some(Path.is_file):
            descriptor = os.open(path, os.O_WRONLY)
            size = os.fstat(descriptor).st_size
            data = self.rng.randbytes(self.rng.choice((10, 5000, 20_000)))
            os.pwrite(descriptor, data, self.rng.randrange(size + 9000))
            self.keep(descriptor)

    def escape(self) -> None:
        """Blocks that begin as the journal's own do."""
        descriptor = os.open(self.fresh(), os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(descriptor, (bytes.fromhex("C03B3998") + self.rng.randbytes(1020)) * self.rng.randrange(1, 40))
        os.fsync(descriptor)
        self.keep(descriptor)

    def hole(self) -> None:
        """Every other block, so that maps get nodes of their own."""
        descriptor = os.open(self.fresh(), os.O_CREAT | os.O_WRONLY, 0o600)
        for block in range(0, self.rng.choice((10, 60, 800)), 2):
            os.pwrite(descriptor, b"hole", block * 4096)
        self.keep(descriptor)

    def truncate(self) -> None:
        if path := self.some(Path.is_file):
            descriptor = os.open(path, os.O_WRONLY)
            os.ftruncate(descriptor, self.rng.randrange(os.fstat(descriptor).st_size + 1000))
            self.keep(descriptor)

    def rename(self) -> None:
        if path := self.some(Path.is_file):
            path.rename(self.some(Path.is_file) if self.rng.random() < 0.3 else self.fresh())
            self.settle(path.parent)

    def remove(self) -> None:
        if path := self.some(lambda path: path.is_symlink() or path.is_file()):
            path.unlink()
            self.settle(path.parent)

    def folder(self) -> None:
        path = self.fresh()
        path.mkdir()
        for number in range(self.rng.choice((0, 3, 100))):
            (path / f"{number:03}{'x' * 40}").touch()
        self.settle(path)

    def remove_folder(self) -> None:
        """Its blocks are revoked: a later file may have them."""
        if path := self.some(lambda path: path.is_dir()):
            shutil.rmtree(path)
            self.settle(path.parent)

    def link(self) -> None:
        if path := self.some(Path.is_file):
            if self.rng.random() < 0.5:
                os.link(path, self.fresh())
            else:
                self.fresh().symlink_to("t" * self.rng.choice((5, 59, 60, 200)))
            self.settle(path)

    def attribute(self) -> None:
        if path := self.some(Path.is_file):
            os.setxattr(path, f"user.{self.rng.randrange(4)}", self.rng.randbytes(self.rng.choice((3, 40, 700))))
            path.chmod(self.rng.choice((0o600, 0o644, 0o755)))
            self.settle(path)

    def orphan(self) -> None:
        """A file that is open and has no name."""
        if path := self.some(Path.is_file):
            self.open.append(os.open(path, os.O_RDWR))
            path.unlink()
            self.settle(path.parent)

    def settle(self, path: Path) -> None:
        if self.rng.random() < 0.6 and path.exists():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
