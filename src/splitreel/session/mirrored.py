"""mirrored is one mirrored volume of a session: its primary, its mirror, its map. It knows no database and no tape.

Once split and mapped, the mirror stays open until it is put back: a journal is replayed once, and what the stream reads
is what was mapped.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence

from splitreel import hostmap, mapping, mirror
from splitreel.config import Volume
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.errors import FilesystemError, IntegrityError, LimitReached, MapError, MirrorError, Unsupported
from splitreel.session import checks
from splitreel.session.described import volume_entry
from splitreel.session.image import mapped, opened
from splitreel.session.joined import Part

Warn = Callable[[str], None]


class MirroredVolume:
    """One volume and its mirror. ``frozen`` are the mount points that the session freezes; warnings go to ``warn``."""

    def __init__(self, settings: Volume, frozen: Sequence[str], warn: Warn) -> None:
        self.settings = settings
        self.mirror = mirror.create(settings.mirror)
        self.image = mirror.SplitImage("")
        self.found: mapping.Mapped | None = None  # the split mirror, once mapped
        self.before: ExtentMap | None = None  # the map that was made before the split
        self.paths: list[bytes] = []  # what was discovered on it, from its root
        self._frozen = list(frozen)
        self._warn = warn
        self.primary = ""  # the device, where it is known
        self._identity: tuple[str, bytes, int, int] = ("", b"", 0, 0)
        self._open = contextlib.ExitStack()

    @property
    def name(self) -> str:
        """The mirror's name, for messages."""
        return self.mirror.name

    def labelled(self, text: str) -> str:
        """A name for something of this volume: with its own, when there are several."""
        return f"{text} {self.settings.prefix}".rstrip()

    def prefixed(self, text: str) -> str:
        """A line about this volume: after its name, when there are several."""
        return f"{self.settings.prefix}: {text}" if self.settings.prefix else text

    def close(self) -> None:
        """Let the split mirror and the platform go, which stay as they are; harmless twice."""
        self._close_image()
        self.mirror.close()

    def _close_image(self) -> None:
        if self.found is not None:
            self.found.device.close()  # over an unclean journal it has descriptors of its own
            self.found = None
        self._open.close()

    # Before anything is touched.

    def check_primary(self) -> None:
        """The primary is of a kind that can be read, and its superblock says which file system it is."""
        self.primary = self.settings.device
        if not self.primary and self.settings.mount:
            self.primary = checks.device_of(self.settings.mount)
        if self.primary:
            self.mirror.check_primary(self.primary)
        if not self.settings.raw and (self.primary or self.settings.mirror["type"] == "static"):
            with self._opened_primary() as device:
                filesystem = mapping.open_filesystem(device, live=True)
                self._identity = (filesystem.fs_type or "", filesystem.uuid, filesystem.block_size, device.size)

    @contextlib.contextmanager
    def _opened_primary(self) -> Iterator[BlockDevice]:
        """The file system's own device; where none is known, the volume in a static mirror's image."""
        if self.primary:
            with BlockDevice(self.primary) as device:
                yield device
            return
        image = mirror.SplitImage(self.settings.mirror["image"], self.settings.mirror.get("offset", 0))
        with opened(image, self.settings) as devices:
            yield devices[0]

    # Mapping.

    def map_live(self) -> None:
        """Of the primary: such a map may be torn; the check makes it right, so what is damaged in it is no error."""
        if self.settings.raw:
            return  # one file, and all of it: there is nothing to find out before
        if self.settings.mount:
            checks.write_back(self.settings.mount)
        try:
            with self._opened_primary() as device:
                self.before = mapping.map_device(device, live=True)
        except Unsupported:
            raise
        except (FilesystemError, MapError, IntegrityError, LimitReached) as failure:
            self._warn(f"the live primary could not be mapped ({failure}); the split mirror will be")

    def map_held(self) -> None:
        """Within the window, as a conventional backup does: through the kernel, file by file, where it is mounted."""
        if self.settings.raw:
            return
        if self.settings.mount:
            self.before = hostmap.map_mounted(self.settings.mount, *self._identity)
            return
        with self._opened_primary() as device:
            self.before = mapping.map_device(device, live=True)

    def map_image(self) -> None:
        """Of the split mirror, which stays open."""
        frozen = checks.is_frozen(self.settings.mount, self._frozen)
        devices = self._open.enter_context(opened(self.image, self.settings, self._warn))
        self.found = mapped(self.image, devices, self.settings, frozen=frozen, warn=self._warn)

    # The mirror.

    def make_ready(self) -> None:
        """Right before the window: all that the mirror has is on its medium, and it is in sync. Raises MirrorError."""
        self.mirror.flush()
        if not self.mirror.is_in_sync():
            raise MirrorError(self.name, "it is no longer in sync", "Nothing was quiesced; run it again.")

    def split(self) -> float:
        """Part the mirror from the primary; returns how many milliseconds that took."""
        start = time.monotonic_ns()
        self.image = self.mirror.split()
        return (time.monotonic_ns() - start) / 1e6

    def check(self) -> mapping.Mapped:
        """Map the split mirror in full: only this map is believed.

        Raises:
            MirrorError: it is not the primary's mirror.
        """
        if self.found is None:
            self.map_image()
        assert self.found is not None
        if self._identity[1] and self.found.map.uuid != self._identity[1]:
            why = "it holds another file system than the primary"
            raise MirrorError(self.name, why, "Correct `image` and `mount`.")
        for path in self.paths:
            if self.found.map.find(path) < 0:
                raise MirrorError(self.name, f"it does not hold {os.fsdecode(path)}, which was discovered")
        return self.found

    def part(self) -> Part:
        """The split mirror, once mapped, for ``joined``."""
        assert self.found is not None
        return self.settings.prefix, self.found

    def on_tape(self) -> list[bytes]:
        """Where on tape the files are that were discovered on it."""
        prefix = [os.fsencode(self.settings.prefix)] if self.settings.prefix else []
        return [b"/".join([*prefix, path]).rstrip(b"/") for path in self.paths]

    def entry(self) -> dict[str, str]:
        """What ``session.json`` says of it, once it is mapped."""
        prefix, found = self.part()
        return volume_entry(self.settings.name, self.settings.mount, prefix, found.map.uuid)

    def put_back(self, hold: mirror.Hold) -> None:
        """Rejoin the mirror, copying only what changed; ``hold`` as Mirror.rejoin wants it."""
        self._close_image()
        if self.mirror.state() in ("split", "rejoining", "unknown"):
            self.mirror.rejoin(hold)
        else:
            # Never parted, or nobody knows what changed: then it is copied in full, and the next session waits for it.
            self.mirror.establish()
