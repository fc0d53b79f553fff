"""A stream from a device made of stretches of others, against one from the plain device below: ratios in one run."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.fragmented import database_image, loop_device
from benchmarks.pairs import compare, say
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.null import NullDrive
from splitreel.core.plan import Plan
from splitreel.core.spans import Linear, SpannedDevice, Striped
from splitreel.core.stream import StreamWriter
from splitreel.core.tape import Tape
from splitreel.mapping import map_device
from tests.support import need_programs, need_root

STRIPE = 64 << 10
BLOCK = 4096
Devices = dict[str, BlockDevice]


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devices]:
    """A fragmented database on a loop device, and the same bytes in stripes on two of their own."""
    need_root()
    need_programs("mkfs.ext4", "mount", "umount", "losetup", "blockdev")
    image = database_image(tmp_path_factory.mktemp("spans") / "image", 512 << 20)
    legs = [image.with_suffix(f".leg{number}") for number in range(2)]
    split(image, legs)
    with ExitStack() as held:
        paths = {"plain": image, "leg0": legs[0], "leg1": legs[1]}
        nodes = {name: held.enter_context(loop_device(path)) for name, path in paths.items()}
        yield {name: held.enter_context(BlockDevice(node)) for name, node in nodes.items()}
    for path in (image, *legs):
        path.unlink()


def split(image: Path, legs: list[Path]) -> None:
    """Lay the image out in stripes."""
    with image.open("rb") as source, ExitStack() as held:
        outs = [held.enter_context(leg.open("wb")) for leg in legs]
        number = 0
        while stripe := source.read(STRIPE):
            outs[number % len(outs)].write(stripe)
            number += 1


def linear(devices: Devices) -> SpannedDevice:
    plain = devices["plain"]
    return SpannedDevice([plain], [Linear(plain.size, 0, 0)], path="linear")


def striped(devices: Devices) -> SpannedDevice:
    legs = [devices["leg0"], devices["leg1"]]
    return SpannedDevice(legs, [Striped(devices["plain"].size, STRIPE, [(0, 0), (1, 0)])], path="striped")


def replaced(devices: Devices) -> SpannedDevice:
    """Every sixteenth block is a stretch of its own, as after a replay."""
    plain = devices["plain"]
    made = SpannedDevice.over(plain, [plain])
    blocks = plain.size // BLOCK
    for block in random.Random(1).sample(range(blocks), blocks // 16):
        made.redirect(block * BLOCK, BLOCK, block * BLOCK, 0)
    made.ready()
    return made


def streaming(device: BlockDevice, source: ExtentMap, held: ExitStack) -> Callable[[], None]:
    plan = Plan.build(source, first_object=0)
    tape = Tape(NullDrive(), b"\x0a" + bytes(5), b"\x08" + bytes(5), b"\x10" + bytes(5), max_block=1 << 20)
    writer = held.enter_context(StreamWriter(source, device, plan, tape))

    def stream() -> None:
        tape.object_id = 0
        writer.run()

    return stream


@pytest.mark.parametrize("make", [linear, striped, replaced])
def test_stream_against_the_plain_device(
    devices: Devices, make: Callable[[Devices], SpannedDevice], benchmark: BenchmarkFixture
) -> None:
    """Prints the ratio of the bytes a second."""
    source = map_device(devices["plain"], frozen=True)
    with ExitStack() as held:
        spanned = held.enter_context(make(devices))
        pieces = spanned.piece_count
        ours, peer = streaming(spanned, source, held), streaming(devices["plain"], source, held)
        ratio, our_times, peer_times = compare(ours, peer, rounds=9, cold=False)
        benchmark.pedantic(ours, rounds=3)
    say(f"{make.__name__}, {pieces} pieces, against the plain device", ratio, our_times, peer_times)
    benchmark.extra_info.update(ratio=ratio)
