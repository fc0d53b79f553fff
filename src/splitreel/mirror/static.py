"""static is a mirror split already by other means: a snapshot, an image, a detached leg. It copies nothing."""

import os
from typing import ClassVar

from splitreel.errors import MirrorError
from splitreel.mirror import Hold, SplitImage, inuse


class StaticMirror:
    """An image or block device that nobody writes to. Establish, split and rejoin have nothing to do."""

    KEYS: ClassVar[dict[str, tuple[str, bool]]] = {"image": ("path", True), "offset": ("integer", False)}

    def __init__(self, image: str, offset: int = 0) -> None:
        self.name = f"static {image}"
        self._split = SplitImage(image, offset)

    def check(self) -> None:
        """The image can be read, and is not mounted for writing."""
        if not os.access(self._split.path, os.R_OK):
            raise MirrorError(self.name, "it cannot be read", "Correct `image`, or run as root.")
        if points := inuse.written_at(self._split.path):
            raise MirrorError(self.name, f"it is mounted for writing at {points[0]}", "Unmount it, or name a snapshot.")

    def check_primary(self, device: str) -> None:
        """The image is not the primary itself, which somebody writes to."""
        inuse.refuse_itself(self.name, self._split.path, device)

    def cost(self) -> str:
        """Nothing."""
        return "nothing is copied: it was made by other means, and shows what was there then"

    def files(self) -> list[str]:
        """The image."""
        return [self._split.path]

    def state(self) -> str:
        """Always "in-sync": it is what it is."""
        return "in-sync"

    def establish(self) -> None:
        """Nothing."""

    def wait_in_sync(self, timeout_s: float) -> None:
        """Nothing."""

    def is_in_sync(self) -> bool:
        """Always."""
        return True

    def flush(self) -> None:
        """Nothing."""

    def split(self) -> SplitImage:
        """The image."""
        return self._split

    def dirty_bytes(self) -> int | None:
        """Unknown."""
        return None

    def resynced_bytes(self) -> int | None:
        """Unknown."""
        return None

    def rejoin(self, hold: Hold) -> None:
        """Nothing."""

    def forget(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
