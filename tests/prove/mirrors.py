"""mirrors is a mirror of the tests' own, right or wrong in a way that one can name, over the file behind a loop device.

It copies the whole file. For what comes after the split there is a quiescer beside it, ``Pause``, whose ``redo`` runs
when the writers have been let go and before anything of the copy is read.
"""

import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from splitreel import mirror, quiesce
from splitreel.mirror import Hold, SplitImage
from splitreel.prove.operations import FILES
from splitreel.prove.stamp import MAGIC, SECTOR, STAMP
from splitreel.quiesce import Discovery, Release

MEANWHILE_S = 0.5  # in which writers go on

Image = NDArray[np.uint8]  # a row a sector


class SnapshotMirror:
    """Copies ``primary`` to ``image`` at the split, and then spoils the copy as ``fault`` says; "" does not.

    "standing" copies nothing, "lingering" again after the window; "hesitating" takes its time before the next one's
    turn; the others are in ``SPOIL``.
    """

    KEYS: ClassVar[dict[str, tuple[str, bool]]] = {
        "primary": ("path", True),
        "image": ("path", True),
        "fault": ("text", False),
    }
    all_made: ClassVar[list["SnapshotMirror"]] = []

    def __init__(self, primary: str, image: str, fault: str = "") -> None:
        self.name = f"snapshot {primary}"
        self._primary, self._image, self._fault = primary, image, fault
        self._state = "in-sync"
        self._before = self._split = np.zeros((0, SECTOR), np.uint8)
        SnapshotMirror.all_made.append(self)

    def check(self) -> None:
        pass

    def check_primary(self, device: str) -> None:
        pass

    def cost(self) -> str:
        return ""

    def files(self) -> list[str]:
        return [self._image]

    def state(self) -> str:
        return self._state

    def establish(self) -> None:
        pass

    def wait_in_sync(self, timeout_s: float) -> None:
        pass

    def is_in_sync(self) -> bool:
        return True

    def flush(self) -> None:
        """What a mirror that lags would still have at the split."""
        if self._fault in SPOIL:
            self._before = self._read()
            time.sleep(MEANWHILE_S)

    def split(self) -> SplitImage:
        self._state = "split"
        if self._fault == "standing":
            return SplitImage(self._image)
        self._split = self._read()
        if self._fault in SPOIL:
            SPOIL[self._fault](self._split, self._before)
        self._split.tofile(self._image)
        if self._fault == "hesitating":
            time.sleep(MEANWHILE_S)  # before the next volume's turn
        return SplitImage(self._image)

    def after(self) -> None:
        """What a mirror that goes on copying would take in."""
        if self._fault == "lingering" and self._state == "split":
            time.sleep(MEANWHILE_S)
            changed = _changed(self._split, later := self._read())
            self._split[changed] = later[changed]
            self._split.tofile(self._image)

    def dirty_bytes(self) -> int | None:
        return None

    def resynced_bytes(self) -> int | None:
        return None

    def rejoin(self, hold: Hold) -> None:
        self._state = "in-sync"

    def forget(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _read(self) -> Image:
        return np.fromfile(self._primary, np.uint8).reshape(-1, SECTOR)


class Pause:
    """A quiescer that holds nothing, and lets the mirror do after the window what it should not."""

    KEYS: ClassVar[dict[str, tuple[str, bool]]] = {}
    name = "pause"

    def check(self) -> None:
        pass

    def prepare(self) -> None:
        pass

    def releases(self) -> list[Release]:
        return []

    def frozen(self) -> list[str]:
        return []

    def quiesce(self) -> int:
        return 0

    def discover(self) -> Discovery:
        return Discovery()

    def unquiesce(self) -> None:
        pass

    def recover(self) -> str:
        return ""

    def redo(self) -> dict[str, bytes]:
        for made in SnapshotMirror.all_made:
            made.after()
        return {}

    def close(self) -> None:
        pass


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make both known to the configuration, and forget those of earlier sessions."""
    SnapshotMirror.all_made.clear()
    monkeypatch.setitem(mirror.TYPES, "snapshot", (__name__, "SnapshotMirror"))
    monkeypatch.setitem(quiesce.TYPES, "pause", (__name__, "Pause"))


def _stamps(image: Image) -> NDArray[np.void]:
    return image.view(STAMP)[:, 0]


def _changed(image: Image, other: Image) -> NDArray[np.bool_]:
    """Sectors that bear a stamp in both, and not the same."""
    ours, theirs = _stamps(image), _stamps(other)
    return (ours["magic"] == MAGIC) & (theirs["magic"] == MAGIC) & (ours["number"] != theirs["number"])


def _in_place(image: Image, before: Image) -> NDArray[np.int64]:
    """Changed sectors of the file that is written in place, whose blocks are never another file's."""
    mine = _stamps(image)["file"] == FILES.index("direct")
    return np.flatnonzero(_changed(image, before) & mine)


def ignore_the_last(image: Image, before: Image) -> None:
    """What was written a moment before the split is not in the copy."""
    changed = _changed(image, before)
    image[changed] = before[changed]


def copy_half_before(image: Image, before: Image) -> None:
    """One half of the disk was copied a moment earlier than the other."""
    changed = np.flatnonzero(_changed(image, before))
    half = changed[: len(changed) // 2]
    image[half] = before[half]


def swap_two(image: Image, before: Image) -> None:
    """Two sectors have changed places."""
    first, second = _in_place(image, before)[:2]
    image[[first, second]] = image[[second, first]]


def tear_a_sector(image: Image, before: Image) -> None:
    """Half of a sector is of the generation before."""
    place = _in_place(image, before)[0]
    image[place, SECTOR // 2 :] = before[place, SECTOR // 2 :]


def tear_a_call(image: Image, before: Image) -> None:
    """Some sectors of one write are of the generation before."""
    places = _in_place(image, before)
    numbers = _stamps(image)["number"][places]
    one = places[numbers == numbers.max()]
    half = one[: len(one) // 2]
    image[half] = before[half]


SPOIL = {
    "ignoring": ignore_the_last,
    "halving": copy_half_before,
    "swapping": swap_two,
    "tearing-sectors": tear_a_sector,
    "tearing-calls": tear_a_call,
}


def loop_file(mount: Path) -> str:
    """The file behind the loop device that is mounted there."""
    number = mount.stat().st_dev
    return Path(f"/sys/dev/block/{number >> 8}:{number & 0xFF}/loop/backing_file").read_text().strip()
