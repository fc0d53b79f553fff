"""SpannedDevice against a numpy picture of the same table: reads of any range, both engines, replacements, errors."""

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.engine import ReadEngine
from splitreel.core.spans import Linear, Span, SpannedDevice, Striped, Zero
from tests.support import missing

KIB = 1024
SIZES = [300 * KIB, 200 * KIB + 700, 64 * KIB + 1]  # the last two end inside a block
RANDOM = np.random.default_rng(20)
NOISES = [RANDOM.integers(0, 256, size, dtype=np.uint8) for size in SIZES]
KINDS = ["io_uring", "threads"]
same_function = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass
class Table:
    """Stretches and replacements, and the bytes that a device made of them holds."""

    spans: list[Span]
    moves: list[tuple[int, int, int, int | None]] = field(default_factory=list)
    bytes: list[tuple[int, bytes]] = field(default_factory=list)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("spans")
    for number, noise in enumerate(NOISES):
        (directory / f"image{number}").write_bytes(noise.tobytes())
    return [directory / f"image{number}" for number in range(len(NOISES))]


@pytest.fixture(scope="module")
def sources(images: list[Path]) -> Iterator[list[BlockDevice]]:
    opened = [BlockDevice(image) for image in images]
    yield opened
    for device in opened:
        device.close()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, sources: list[BlockDevice]) -> str:
    try:
        ReadEngine.open(sources[0], 1, request.param).close()
    except errors.DeviceError as error:
        missing(f"needs {request.param}: {error}")
    return str(request.param)


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
        stripe = draw(st.integers(1, min(9, room // unit))) * unit
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
    with ReadEngine.open(device, 4, kind) as engine:  # type: ignore[arg-type]
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


def test_read_beyond_the_end(sources: list[BlockDevice], kind: str) -> None:
    """Beyond the device is an error of its own request, though its source goes on there."""
    spans = [Linear(40 * KIB, 0, 0), Striped(24 * KIB, 4 * KIB, [(0, 64 * KIB), (1, 0)])]
    with SpannedDevice(sources, spans, path="v") as device, ReadEngine.open(device, 4, kind) as engine:  # type: ignore[arg-type]
        got = engine.read_batch([(60 * KIB, 4 * KIB), (60 * KIB, 8 * KIB), (64 * KIB, 4 * KIB), (0, 4 * KIB)])
        with pytest.raises(errors.DeviceError):
            device.pread(60 * KIB, 4 * KIB + 1)

    assert [code for code, _ in got] == [0, errno.EIO, errno.EIO, 0]


def test_close_leaves_engines_alone(images: list[Path], kind: str) -> None:
    """An engine reads on when the device and its sources are closed; the device does not."""
    opened = [BlockDevice(image) for image in images]
    device = SpannedDevice(opened, [Linear(8 * KIB, 1, 4 * KIB)], path="v")
    for one in opened:
        one.close()
    with ReadEngine.open(device, 4, kind) as engine:  # type: ignore[arg-type]
        device.close()
        device.close()
        assert engine.read_batch([(0, 8 * KIB)]) == [(0, NOISES[1][4 * KIB : 12 * KIB].tobytes())]
    with pytest.raises(errors.Misuse, match="closed"):
        device.pread(0, 1)
    with pytest.raises(errors.Misuse, match="closed"):
        ReadEngine.open(device)
    with pytest.raises(errors.Misuse, match="closed"):
        SpannedDevice(opened, [], path="v")
