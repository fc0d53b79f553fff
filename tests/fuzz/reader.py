"""reader does with an injured image what splitreel would: map, plan, stream, cat, check."""

import os
from pathlib import Path

import numpy as np

from splitreel import errors, mapping
from splitreel.cli.inspect import file_pieces
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.null import NullDrive
from splitreel.core.plan import Plan
from splitreel.core.stream import StreamWriter
from tests.core.test_stream_reader import tape_of
from tests.fuzz.injure import Injury
from tests.fuzz.seeds import S_IFMT, S_IFREG, Seed

TAPE_BLOCK = 65536
MOST_STREAMED = 32 << 20  # a crafted map may name the same blocks for many files
MOST_SHOWN = 128 << 10
DAMAGED = 1


class Patient:
    """A seed in a file that is injured, read, and healed again."""

    def __init__(self, seed: Seed, path: Path) -> None:
        self.seed = seed
        self.path = path
        path.write_bytes(seed.data)
        self._fd = os.open(path, os.O_RDWR)

    def read(self, injuries: list[Injury], streamed: bool = True) -> str:
        """What came of it: "refused" or "mapped". Streaming takes as long as all the rest, so it can be left out.

        Raises:
            AssertionError: check disagrees with the map that was just made. Anything but our own errors passes through.
        """
        for injury in injuries:
            os.pwrite(self._fd, injury.data, injury.offset)
        try:
            return read(self.path, streamed)
        finally:
            for injury in injuries:
                end = injury.offset + len(injury.data)
                os.pwrite(self._fd, self.seed.data[injury.offset : end], injury.offset)

    def close(self) -> None:
        os.close(self._fd)
        self.path.unlink()


def read(path: Path, streamed: bool = True) -> str:
    """Read one image whole: twice its metadata, as a map and its check do, and its files."""
    with BlockDevice(path) as device:
        try:
            filesystem = mapping.open_filesystem(device, frozen=True)
            extent_map = filesystem.map()
        except errors.SplitreelError:
            return "refused"
        again = filesystem.map()  # as check does, with the reader that is open already: opening is most of the time
        assert not mapping.diff(extent_map, again).any
        assert again.digest() == extent_map.digest()
        under = filesystem.device
        assert isinstance(under, BlockDevice)
        show(extent_map, under)
        if streamed:
            stream(extent_map, under)
    return "mapped"


def stream(extent_map: ExtentMap, device: BlockDevice) -> None:
    """Every file that can be read, through the reading side of a backup, to nowhere."""
    try:
        plan = Plan.build(extent_map, block_size=TAPE_BLOCK)
        if plan.totals["blocks"] * TAPE_BLOCK > MOST_STREAMED:
            return
        tape = tape_of(NullDrive())
        tape.object_id = 3
        StreamWriter(extent_map, device, plan, tape, ring_blocks=8, depth=8).run()
    except errors.SplitreelError:
        return


def show(extent_map: ExtentMap, device: BlockDevice) -> None:
    """cat of the files, as far as they are not damaged, and no more than the first of a crafted one."""
    left = MOST_SHOWN
    rows = np.asarray(extent_map.files)
    for index in np.flatnonzero((rows["mode"] & S_IFMT == S_IFREG) & (rows["flags"] & DAMAGED == 0)):
        try:
            for piece in file_pieces(extent_map, int(index), device):
                left -= len(piece)
                if left < 0:
                    return
        except errors.SplitreelError:
            continue
