"""SpannedDevice against a numpy picture of the same table: reads of any range, both engines, replacements, errors."""

import errno
import gc
import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.engine import ReadEngine
from splitreel.core.plan import Plan
from splitreel.core.softdrive import SoftDrive
from splitreel.core.spans import Linear, Span, SpannedDevice, Striped, Zero
from splitreel.core.stream import FINISHED, StreamWriter
from splitreel.mapping import map_device
from tests.core.source import BACKUP
from tests.core.test_stream_reader import tape_of
from tests.support import missing, need_programs, need_root

KIB = 1024
SIZES = [300 * KIB, 200 * KIB + 700, 64 * KIB + 1]  # the last two end inside a block
RANDOM = np.random.default_rng(20)
NOISES = [RANDOM.integers(0, 256, size, dtype=np.uint8) for size in SIZES]
KINDS = ["io_uring", "threads"]
same_function = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("spans")
    for number, noise in enumerate(NOISES):
        (directory / f"image{number}").write_bytes(noise.tobytes())
    return [directory / f"image{number}" for number in range(len(NOISES))]


@pytest.fixture(scope="module")
def sources(images: list[Path]) -> Iterator[list[BlockDevice]]:
    devices = [BlockDevice(image) for image in images]
    yield devices
    for device in devices:
        device.close()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, sources: list[BlockDevice]) -> str:
    try:
        ReadEngine.open(sources[0], 1, request.param).close()
    except errors.DeviceError as error:
        missing(f"needs {request.param}: {error}")
    return str(request.param)


def opened(device: BlockDevice, kind: str) -> ReadEngine:
    return ReadEngine.open(device, 4, kind)  # type: ignore[arg-type]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def picture(spans: list[Span], below: list[np.ndarray]) -> np.ndarray:
    """What the stretches hold, byte by byte; the oracle."""
    parts = []
    for span in spans:
        if isinstance(span, Linear):
            parts.append(below[span.source][span.physical : span.physical + span.size])
        elif isinstance(span, Zero):
            parts.append(np.zeros(span.size, np.uint8))
        else:
            at = np.arange(span.size)
            leg = at // span.stripe_size % len(span.legs)
            inner = at // span.stripe_size // len(span.legs) * span.stripe_size + at % span.stripe_size
            whole = np.zeros(span.size, np.uint8)
            for number, (source, physical) in enumerate(span.legs):
                mine = leg == number
                whole[mine] = below[source][physical + inner[mine]]
            parts.append(whole)
    return np.concatenate(parts) if parts else np.zeros(0, np.uint8)


def stretches(below: list[int], unit: int) -> st.SearchStrategy[Span]:
    """A stretch that lies inside its sources, everything a multiple of unit."""

    @st.composite
    def linear(draw: st.DrawFn) -> Span:
        source = draw(st.integers(0, len(below) - 1))
        physical = draw(st.integers(0, below[source] // unit - 1)) * unit
        return Linear(draw(st.integers(1, (below[source] - physical) // unit)) * unit, source, physical)

    @st.composite
    def striped(draw: st.DrawFn) -> Span:
        legs = draw(st.lists(st.tuples(st.integers(0, len(below) - 1), st.integers(0, 20)), min_size=1, max_size=4))
        placed = [(source, min(physical, below[source] // unit - 1) * unit) for source, physical in legs]
        room = min(below[source] - physical for source, physical in placed)
        smallest = min(max(unit, 331), room)  # stripes of a few bytes would only take time
        stripe = draw(st.integers(1, min(9, room // smallest))) * smallest
        most = min(room // stripe * stripe * len(legs), 100_000)
        return Striped(draw(st.integers(1, most // unit)) * unit, stripe, placed)

    return st.one_of(linear(), striped(), st.integers(1, 40).map(lambda count: Zero(count * unit)))


def tables(below: list[int]) -> st.SearchStrategy[list[Span]]:
    units = [unit for unit in (1, 512, 4096) if unit <= min(below)]
    return st.sampled_from(units).flatmap(lambda unit: st.lists(stretches(below, unit), max_size=8))


def check_engine(device: SpannedDevice, whole: bytes, kind: str, requests: list[tuple[int, int]]) -> None:
    block = device.logical_block_size
    end = -(-len(whole) // block)
    wanted = [(at % end * block, (1 + count % (end - at % end)) * block) for at, count in requests] if end else []
    with opened(device, kind) as engine:
        got = engine.read_batch(wanted)
    assert got == [(0, whole[at : at + size].ljust(size, b"\0")) for at, size in wanted]


ranges = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 1 << 20)), min_size=1, max_size=12)


@same_function
@given(spans=tables(SIZES), requests=ranges)
def test_reads_what_the_table_says(
    sources: list[BlockDevice], kind: str, spans: list[Span], requests: list[tuple[int, int]]
) -> None:
    """Any table of linear, striped and zero stretches, at any alignment: any range, through pread and the engine."""
    whole = picture(spans, NOISES).tobytes()
    with SpannedDevice(sources, spans, path="volume") as device:
        assert (device.size, device.path) == (len(whole), "volume")
        assert device.pread(0, len(whole)) == whole
        for first, second in requests:
            at, end = sorted((first % (len(whole) + 1), second % (len(whole) + 1)))
            assert device.pread(at, end - at) == whole[at:end]
        check_engine(device, whole, kind, requests)


@same_function
@given(data=st.data())
def test_devices_of_such_devices(sources: list[BlockDevice], kind: str, data: st.DataObject) -> None:
    """Stretches of devices that are themselves made of stretches, stripes on stripes included."""
    lower = data.draw(st.lists(tables(SIZES).filter(bool), min_size=1, max_size=3))
    below = [picture(spans, NOISES) for spans in lower]
    upper = data.draw(tables([len(one) for one in below]))
    whole = picture(upper, below).tobytes()
    middle = [SpannedDevice(sources, spans, path="lower") for spans in lower]
    with SpannedDevice(middle, upper, path="upper") as device:
        for one in middle:
            one.close()
        assert device.pread(0, len(whole)) == whole
        check_engine(device, whole, kind, data.draw(ranges))


@same_function
@given(data=st.data())
def test_later_replacements_hold(sources: list[BlockDevice], kind: str, data: st.DataObject) -> None:
    """Replacements from the base, another device, memory and zeros, over stripes too, overlapping as they like."""
    spans = data.draw(tables(SIZES[:2]).filter(bool))
    unit = data.draw(st.sampled_from([1, 512, 4096]))
    base = picture(spans, NOISES)
    whole = base.copy()
    volume = SpannedDevice(sources[:2], spans, path="volume")
    with SpannedDevice.over(volume, [sources[2]]) as device:
        for _ in range(data.draw(st.integers(0, 20))):
            other = data.draw(st.sampled_from([None, 0, "bytes", "zeros"]))
            origin = NOISES[2] if other == 0 else base
            at = data.draw(st.integers(0, len(base) // unit)) * unit
            moved = data.draw(st.integers(0, len(origin) // unit)) * unit
            size = min(data.draw(st.integers(0, 30)) * unit, len(base) - at, len(origin) - moved)
            if other == "bytes":
                device.overlay(at, NOISES[1][:size].tobytes())
                whole[at : at + size] = NOISES[1][:size]
            elif other == "zeros":
                device.blank(at, size)
                whole[at : at + size] = 0
            else:
                device.redirect(at, size, moved, other)  # type: ignore[arg-type]
                whole[at : at + size] = origin[moved : moved + size]
        volume.close()
        device.ready()
        assert device.pread(0, len(whole)) == whole.tobytes()
        check_engine(device, whole.tobytes(), kind, data.draw(ranges))


def test_memory_of_devices_beneath(sources: list[BlockDevice], kind: str) -> None:
    """Two devices with bytes in memory, as parts of one that has some of its own."""
    below = []
    for number, letter in ((1, b"x"), (2, b"y")):
        device = SpannedDevice.over(sources[number])
        device.overlay(3000, letter * 5000)
        device.ready()
        below.append(device)
    whole = bytearray(below[0].pread(0, 16 * KIB) + below[1].pread(2 * KIB, 14 * KIB))
    volume = SpannedDevice(below, [Linear(16 * KIB, 0, 0), Linear(14 * KIB, 1, 2 * KIB)], path="v")
    with SpannedDevice.over(volume) as device:
        device.overlay(20 * KIB, b"z" * 100)
        device.redirect(0, 100, 3000)
        device.ready()
        whole[20 * KIB : 20 * KIB + 100] = b"z" * 100
        whole[:100] = b"x" * 100
        assert device.pread(0, 30 * KIB) == bytes(whole)
        check_engine(device, bytes(whole), kind, [(0, 100), (7, 20)])
    for one in (volume, *below):
        one.close()


def test_read_beyond_the_end(sources: list[BlockDevice], kind: str) -> None:
    """Beyond the device is an error of its own request, though its source goes on there."""
    spans = [Striped(24 * KIB, 4 * KIB, [(0, 64 * KIB), (1, 0)]), Linear(36 * KIB, 0, 0)]
    with SpannedDevice(sources, spans, path="v") as device, opened(device, kind) as engine:
        got = engine.read_batch([(56 * KIB, 4 * KIB), (56 * KIB, 8 * KIB), (60 * KIB, 4 * KIB), (0, 4 * KIB)])
        with pytest.raises(errors.DeviceError):
            device.pread(56 * KIB, 4 * KIB + 1)

    assert [code for code, _ in got] == [0, errno.EIO, errno.EIO, 0]


def test_close_leaves_engines_alone(images: list[Path], kind: str) -> None:
    """An engine reads on when the device and its sources are closed; the device does not."""
    devices = [BlockDevice(image) for image in images]
    device = SpannedDevice(devices, [Linear(8 * KIB, 1, 4 * KIB)], path="v")
    for one in devices:
        one.close()
    with opened(device, kind) as engine:
        device.close()
        device.close()
        assert engine.read_batch([(0, 8 * KIB)]) == [(0, NOISES[1][4 * KIB : 12 * KIB].tobytes())]
    with pytest.raises(errors.Misuse, match="closed"):
        device.pread(0, 1)
    with pytest.raises(errors.Misuse, match="closed"):
        ReadEngine.open(device)
    with pytest.raises(errors.Misuse, match="closed"):
        SpannedDevice(devices, [], path="v")


@pytest.mark.parametrize(
    ("spans", "kind", "why"),
    [
        ([Linear(0, 0, 0)], errors.Misuse, "1 byte or more"),
        ([Linear(512, 0, 0), Zero(-1)], errors.Misuse, "1 byte or more"),
        ([Linear(512, 3, 0)], errors.Misuse, "no source 3"),
        ([Linear(512, -1, 0)], errors.Misuse, "no source -1"),
        ([Linear(SIZES[0] + 1, 0, 0)], errors.DeviceError, "ends behind source 0"),
        ([Linear(512, 0, SIZES[0] - 511)], errors.DeviceError, "ends behind source 0"),
        ([Linear(512, 0, 2**64 - 256)], errors.DeviceError, "ends behind source 0"),
        ([Linear(512, 0, -512)], errors.DeviceError, "ends behind source 0"),
        ([Striped(512, 0, [(0, 0)])], errors.Misuse, "stripes of no size"),
        ([Striped(512, 512, [])], errors.Misuse, "no legs"),
        ([Striped(1025, 512, [(0, 0), (0, SIZES[0] - 512)])], None, ""),
        ([Striped(1537, 512, [(0, 0), (0, SIZES[0] - 512)])], errors.DeviceError, "ends behind source 0"),
        ([Zero(2**62), Zero(1)], errors.LimitReached, "2\\^62"),
        ([(512,)], AttributeError, "size"),
    ],
)
def test_refuses_tables_that_cannot_be(
    sources: list[BlockDevice], spans: list[Span], kind: type[Exception] | None, why: str
) -> None:
    """Whatever lies outside its source, has no size or comes to more than 2^62 bytes; nothing stays open."""
    before = descriptors()
    if kind is None:
        SpannedDevice(sources, spans, path="v").close()
    else:
        with pytest.raises(kind, match=why):
            SpannedDevice(sources, spans, path="v")

    assert descriptors() == before


def test_refuses_replacements_that_cannot_be(sources: list[BlockDevice]) -> None:
    """Each range must lie inside its device; a device is read once it is sealed and replaced in before that."""
    device = SpannedDevice.over(sources[2], [sources[0]])
    size = SIZES[2]
    for start, length, moved, other in ((size, 1, 0, None), (0, 2, size - 1, None), (0, 1, SIZES[0], 0)):
        with pytest.raises(errors.DeviceError):
            device.redirect(start, length, moved, other)
    with pytest.raises(errors.Misuse, match="no such other"):
        device.redirect(0, 1, 0, 1)
    with pytest.raises(errors.DeviceError):
        device.overlay(size - 1, b"ab")
    with pytest.raises(errors.DeviceError):
        device.blank(2**64 - 1, 2)
    with pytest.raises(errors.Misuse, match="not sealed"):
        device.pread(0, 1)
    with pytest.raises(errors.Misuse):
        ReadEngine.open(device)
    device.ready()
    for late in (lambda: device.blank(0, 1), lambda: device.overlay(0, b"a"), device.ready):
        with pytest.raises(errors.SplitreelError, match="sealed"):
            late()

    assert device.pread(0, size) == NOISES[2].tobytes()
    assert SpannedDevice.__new__(SpannedDevice).piece_count == 0


def test_adjacent_replacements_are_one_entry(sources: list[BlockDevice]) -> None:
    """A journal's transaction whose blocks go to neighbouring places costs one entry, in whatever order it is told."""
    device = SpannedDevice.over(sources[0])
    for block in reversed(range(20)):
        device.redirect(block * KIB, KIB, 100 * KIB + block * KIB)
        device.overlay(40 * KIB + block * KIB, bytes(KIB))
    for block in range(20):
        device.overlay(80 * KIB + block * KIB, bytes([block]) * KIB)
    device.ready()

    # moved, base, twenty blocks from memory in the wrong order, base, twenty in the right one, base
    assert device.piece_count == 1 + 1 + 20 + 1 + 1 + 1
    device.close()


def test_many_replacements(tmp_path: Path) -> None:
    """As many as a journal of 1 GiB holds, each of its own block: every one is found."""
    blocks, count = 600_000, 260_000
    places = np.random.default_rng(8).permutation(blocks)[: 2 * count]
    home, journal = places[:count].tolist(), places[count:].tolist()
    path = tmp_path / "image"
    with path.open("wb") as image:
        image.truncate(blocks * 512)
        image.seek(0)
        image.write(np.arange(blocks, dtype="<u8").repeat(64).astype("<u8").tobytes())
    with BlockDevice(path) as base:
        device = SpannedDevice.over(base)
        for to, origin in zip(home, journal, strict=True):
            device.redirect(to * 512, 512, origin * 512)
        device.ready()
    expected = np.arange(blocks)
    expected[home] = journal
    got = np.frombuffer(device.pread(0, 4000 * 512), "<u8")[::64]
    device.close()

    assert (got == expected[:4000]).all()


def test_a_terabyte_in_stripes_is_one_entry(tmp_path: Path) -> None:
    """Stripes are computed: an entry for the device and one for each leg, and its last byte is the last leg's."""
    size, legs = 1 << 40, 4
    path = tmp_path / "leg"
    with path.open("wb") as leg:
        leg.truncate(size // legs)
        leg.seek(size // legs - 3)
        leg.write(b"end")
    with BlockDevice(path) as one:
        device = SpannedDevice([one] * legs, [Striped(size, 64 * KIB, [(i, 0) for i in range(legs)])], path="v")

    assert device.piece_count == 1 + legs
    assert device.pread(size - 8, 8) == bytes(5) + b"end"
    assert device.pread(size - 64 * KIB - 3, 4) == b"end\0"
    device.close()


def test_no_source_at_all(kind: str) -> None:
    """Zeros need nobody."""
    with SpannedDevice([], [Zero(5000)], path="z") as device, opened(device, kind) as engine:
        assert (device.direct, device.logical_block_size, device.fileno()) == (True, 512, -1)
        assert device.pread(1, 4999) == bytes(4999)
        assert [code for code, _ in engine.read_batch([(4608, 512), (5120, 512)])] == [0, errno.EIO]


def test_made_again_and_freed(sources: list[BlockDevice]) -> None:
    """__init__ a second time, a cycle, an unsealed device: all descriptors are given back."""
    before = descriptors()
    device = SpannedDevice(sources, [Linear(512, 0, 0)], path="v")
    device.__init__(sources, [Zero(100)], path="w")  # type: ignore[misc]
    assert (device.size, device.path, device.pread(0, 100)) == (100, "w", bytes(100))
    holder: dict[str, Any] = {"device": device, "unsealed": SpannedDevice.over(sources[0])}
    holder["self"] = holder
    del device, holder
    gc.collect()

    assert descriptors() == before


def test_out_of_descriptors(sources: list[BlockDevice]) -> None:
    """Sources that cannot be opened again end in an error that says so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 2, hard))
    try:
        with pytest.raises(errors.DeviceError, match="opening a source"):
            SpannedDevice(sources * 8, [], path="v")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_forked_child_leaves_the_engine_alone(sources: list[BlockDevice], kind: str) -> None:
    """A forked child closes its copies; the parent's reads go on."""
    device = SpannedDevice(sources, [Striped(64 * KIB, 4 * KIB, [(0, 0), (1, 0)])], path="v")
    whole = picture([Striped(64 * KIB, 4 * KIB, [(0, 0), (1, 0)])], NOISES).tobytes()
    engine = opened(device, kind)
    child = os.fork()
    if child == 0:
        engine.close()
        device.close()
        os._exit(0)

    assert os.waitpid(child, 0)[1] == 0
    assert engine.read_batch([(0, 64 * KIB)]) == [(0, whole)]
    engine.close()
    device.close()


def test_engines_in_parallel(sources: list[BlockDevice], kind: str) -> None:
    """Engines of one device in several threads look its table up at once."""
    spans = [Striped(256 * KIB, KIB, [(0, 0), (1, 0)]), Linear(64 * KIB, 2, 0)]
    whole, results = picture(spans, NOISES).tobytes(), {}
    with SpannedDevice(sources, spans, path="v") as device:

        def read(number: int) -> None:
            wanted = [(at, 8 * KIB) for at in range(number * 512, 300 * KIB, 4 * KIB)]
            with opened(device, kind) as engine:
                results[number] = engine.read_batch(wanted) == [(0, whole[at : at + 8 * KIB]) for at, _ in wanted]

        threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert results == dict.fromkeys(range(4), True)


# What the kernel says.


@contextmanager
def loop_device(backing: Path, *options: str) -> Iterator[Path]:
    need_root()
    need_programs("losetup")
    made = subprocess.run(["losetup", "-f", "--show", *options, backing], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        missing(f"needs a loop device: {made.stderr.strip()}")
    try:
        yield Path(made.stdout.strip())
    finally:
        subprocess.run(["losetup", "-d", made.stdout.strip()], check=True)


@pytest.mark.root
def test_errors_name_the_device_beneath(loop: tuple[Path, Path], sources: list[BlockDevice], kind: str) -> None:
    """One source that fails costs only what stands on it; the error has the place on both devices."""
    node, backing = loop
    with BlockDevice(node) as failing:
        spans = [Linear(64 * KIB, 0, 0), Striped(512 * KIB, 64 * KIB, [(1, 512 * KIB), (0, 0)])]
        device = SpannedDevice([sources[0], failing], spans, path="volume")
    os.truncate(backing, 600 * KIB)
    with opened(device, kind) as engine:
        got = engine.read_batch([(0, 64 * KIB), (64 * KIB, 128 * KIB), (320 * KIB, 4 * KIB), (384 * KIB, 64 * KIB)])
    assert [code for code, _ in got] == [0, 0, errno.EIO, 0]
    with pytest.raises(errors.DeviceError, match=f"{node} at byte {640 * KIB}") as caught:
        device.pread(316 * KIB, 8 * KIB)
    assert (caught.value.os_errno, caught.value.offset) == (errno.EIO, 320 * KIB)
    device.close()


def test_a_source_that_shrank(images: list[Path], tmp_path: Path, kind: str) -> None:
    """Beyond its new end is an error of that request, and is told as what it is."""
    path = tmp_path / "image"
    path.write_bytes(NOISES[0].tobytes())
    stripes = Striped(64 * KIB, 4 * KIB, [(0, 0), (0, 90 * KIB)])
    with BlockDevice(path) as source:
        device = SpannedDevice([source], [Linear(64 * KIB, 0, 64 * KIB), Linear(64 * KIB, 0, 0), stripes], path="v")
    os.truncate(path, 96 * KIB + 100)
    wanted = [(0, 32), (28, 8), (60, 8), (64, 64), (128, 64), (128, 12), (128, 16)]
    with opened(device, kind) as engine:
        got = engine.read_batch([(at * KIB, size * KIB) for at, size in wanted])
    with pytest.raises(errors.DeviceError, match=f"image at byte {96 * KIB + 100}: it has shrunk") as caught:
        device.pread(0, 64 * KIB)
    assert caught.value.offset == 32 * KIB + 100
    device.close()

    assert [code for code, _ in got] == [0, errno.EIO, errno.EIO, 0, errno.EIO, 0, errno.EIO]


@pytest.mark.root
@pytest.mark.parametrize("shift", [0, 512, 1536])
def test_blocks_of_4096_bytes(tmp_path: Path, kind: str, shift: int) -> None:
    """What is not aligned as such a device needs it is read too: odd starts, small stripes, journal blocks of 1 KiB."""
    noise = NOISES[0][: 256 * KIB]
    backing = tmp_path / "backing"
    backing.write_bytes(noise.tobytes())
    stripes = Striped(32 * KIB, 4 * KIB + shift, [(0, shift), (0, 128 * KIB)])
    spans = [Linear(64 * KIB, 0, shift), stripes, Linear(16 * KIB + shift, 0, 0), Linear(32 * KIB - shift, 0, 8 * KIB)]
    whole = picture(spans, [noise])
    with loop_device(backing, "--sector-size", "4096") as node, BlockDevice(node) as source:
        volume = SpannedDevice([source], spans, path="v")
        device = SpannedDevice.over(volume)
        for block in (1, 2, 7, 70, 90):
            device.redirect(block * KIB, KIB, 36 * KIB + block * KIB)
            device.overlay(block * KIB + 300, b"fixed inode")
        device.ready()
        expected = whole.copy()
        for block in (1, 2, 7, 70, 90):
            expected[block * KIB : block * KIB + KIB] = whole[36 * KIB + block * KIB :][:KIB]
            expected[block * KIB + 300 : block * KIB + 311] = np.frombuffer(b"fixed inode", np.uint8)
        assert (volume.logical_block_size, volume.direct) == (4096, True)
        for one, content in ((volume, whole.tobytes()), (device, expected.tobytes())):
            assert one.pread(0, len(content)) == content
            assert one.pread(777, 99_999) == content[777 : 777 + 99_999]
            check_engine(one, content, kind, [(0, 35), (1, 0), (3, 20), (17, 19), (22, 0), (30, 5)])
            one.close()


@pytest.mark.root
def test_never_believes_a_cached_page(tmp_path: Path) -> None:
    """A split mirror was rewritten beneath its node: no read shows the bytes of before."""
    backing = tmp_path / "backing"
    backing.write_bytes(bytes(256 * KIB))
    with (
        loop_device(backing, "--sector-size", "4096", "--direct-io=on") as node,
        open(backing, "r+b") as file,
        open(node, "rb") as holder,
        BlockDevice(node) as source,
    ):
        assert holder.read() == bytes(256 * KIB)  # in the cache, for as long as somebody has it open
        file.write(b"\1" * (256 * KIB))
        os.fsync(file.fileno())
        with (
            SpannedDevice([source], [Linear(64 * KIB, 0, 512), Linear(64 * KIB, 0, 64 * KIB)], path="v") as device,
            ReadEngine.open(device, 4) as engine,
        ):
            assert engine.read_batch([(0, 128 * KIB)]) == [(0, b"\1" * (128 * KIB))]


def test_finishes_short_reads_within_a_piece(sources: list[BlockDevice], kind: str) -> None:
    """sysfs takes no O_DIRECT and gives a page at once: a piece goes on until it is whole, then the next one comes."""
    path = Path("/sys/kernel/btf/vmlinux")
    if not path.exists():
        missing("needs a kernel with BTF")
    spans = [Linear(50_000, 0, 777), Linear(64 * KIB, 1, 0), Striped(99_999, 10_000, [(0, 5), (1, 1), (0, 400_000)])]
    whole = picture(spans, [np.frombuffer(path.read_bytes(), np.uint8), NOISES[0]]).tobytes()
    with BlockDevice(path) as source, SpannedDevice([source, sources[0]], spans, path="v") as device:
        assert not device.direct
        assert device.pread(0, len(whole)) == whole
        check_engine(device, whole, kind, [(0, len(whole)), (3, 200), (90, 250)])


# A file system on it.


def scattered(image: Path, directory: Path) -> SpannedDevice:
    """The image's bytes, cut up and laid in other files in another order, as one device again."""
    data = image.read_bytes()
    cut = len(data) // 3 // 8192 * 8192
    stripe = 64 * KIB
    (directory / "front").write_bytes(b"h" * 4096 + data[cut : 2 * cut] + data[:cut])
    rest = data[2 * cut :]
    chunks = [rest[at : at + stripe] for at in range(0, len(rest), stripe)]
    for number in range(3):
        (directory / f"leg{number}").write_bytes(b"p" * 512 * number + b"".join(chunks[number::3]))
    devices = [BlockDevice(directory / name) for name in ("front", "leg0", "leg1", "leg2")]
    legs = [(1, 0), (2, 512), (3, 1024)]
    spans = [Linear(cut, 0, 4096 + cut), Linear(cut, 0, 4096), Striped(len(rest), stripe, legs)]
    made = SpannedDevice(devices, spans, path=image)
    for device in devices:
        device.close()
    return made


def to_tape(device: BlockDevice, tape: Path, kind: str) -> bytes:
    extent_map = map_device(device, frozen=True)
    plan = Plan.build(extent_map, block_size=65536, first_object=0, backup=BACKUP)
    assert plan.skipped == []
    with SoftDrive(tape) as drive, StreamWriter(extent_map, device, plan, tape_of(drive), engine=kind) as stream:
        assert stream.run() == FINISHED
    return tape.read_bytes()


@pytest.fixture(scope="module")
def filesystem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 image with files large and small."""
    need_programs("mke2fs")
    tree, image = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("image") / "image"
    for number in range(300):
        folder = tree / f"d{number % 7}"
        folder.mkdir(exist_ok=True)
        (folder / f"f{number}").write_bytes(NOISES[0][: number * 601].tobytes())
    (tree / "large").write_bytes(NOISES[0].tobytes() * 20)
    subprocess.run(
        ["mke2fs", "-t", "ext4", "-q", "-F", "-b", "1024", "-d", tree, image, "40M"], check=True, capture_output=True
    )
    return image


def test_a_stream_from_it_is_the_same_tape(filesystem: Path, tmp_path: Path, kind: str) -> None:
    """A file system cut up over four files, a third of it in stripes: same map, and the same tape to the byte."""
    with BlockDevice(filesystem) as plain, scattered(filesystem, tmp_path) as device:
        assert map_device(device, frozen=True).digest() == map_device(plain, frozen=True).digest()
        assert to_tape(device, tmp_path / "spanned", kind) == to_tape(plain, tmp_path / "plain", kind)


def test_a_stream_over_replacements_is_the_same_tape(filesystem: Path, tmp_path: Path, kind: str) -> None:
    """A file system half of whose blocks stand elsewhere, as after a crash with a full journal, is the same tape."""
    data = bytearray(filesystem.read_bytes())
    blocks = np.random.default_rng(3).permutation(len(data) // KIB)[:8000].tolist()
    journal = b"".join(data[block * KIB : block * KIB + KIB] for block in blocks)
    for block in blocks:
        data[block * KIB : block * KIB + KIB] = b"stale..." * (KIB // 8)
    (tmp_path / "stale").write_bytes(data)
    (tmp_path / "journal").write_bytes(journal)
    with (
        BlockDevice(filesystem) as plain,
        BlockDevice(tmp_path / "stale") as stale,
        BlockDevice(tmp_path / "journal") as external,
        SpannedDevice.over(stale, [external]) as device,
    ):
        for number, block in enumerate(blocks):
            if number % 10 == 0:
                device.overlay(block * KIB, journal[number * KIB : number * KIB + KIB])
            else:
                device.redirect(block * KIB, KIB, number * KIB, 0)
        device.ready()
        assert to_tape(device, tmp_path / "replayed", kind) == to_tape(plain, tmp_path / "plain", kind)
