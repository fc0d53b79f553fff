"""Both read engines against the file's own bytes; their errors, and what they leave behind."""

import errno
import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel import errors
from splitreel.core.device import BlockDevice, BufferRing
from splitreel.core.engine import ReadEngine
from tests.support import missing

BLOCK = 4096  # no file system asks for more
BLOCKS = 300
SIZE = BLOCKS * BLOCK + 700  # ends inside a block
NOISE = np.random.default_rng(1234).integers(0, 256, SIZE, dtype=np.uint8).tobytes()
KINDS = ["io_uring", "threads"]
requests = st.lists(st.tuples(st.integers(0, BLOCKS), st.integers(1, 40)), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine") / "image"
    path.write_bytes(NOISE)
    return path


@pytest.fixture(scope="module")
def device(image: Path) -> Iterator[BlockDevice]:
    with BlockDevice(image) as opened:
        yield opened


def need_kind(kind: str, device: BlockDevice) -> None:
    try:
        ReadEngine.open(device, 1, kind).close()
    except errors.DeviceError as error:
        missing(f"needs {kind}: {error}")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, device: BlockDevice) -> str:
    need_kind(request.param, device)
    return str(request.param)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def padded(offset: int, size: int) -> bytes:
    return NOISE[offset : offset + size].ljust(size, b"\0")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests, st.sampled_from([1, 2, 7, 32, 1024]))
def test_reads_what_the_file_holds(device: BlockDevice, kind: str, blocks: list[tuple[int, int]], depth: int) -> None:
    """Any requests, at any depth; what ends inside the image's last block is padded with zeros."""
    end = -(-SIZE // device.logical_block_size) * device.logical_block_size
    wanted = [(block * BLOCK, min(count * BLOCK, end - block * BLOCK)) for block, count in blocks]
    with ReadEngine.open(device, depth, kind) as engine:
        got = engine.read_batch(wanted)

    assert got == [(0, padded(offset, size)) for offset, size in wanted]


def test_beyond_the_end_is_an_error_of_its_own_request(device: BlockDevice, kind: str) -> None:
    """Reads past the end fail with EIO under their own tag; the others of the batch succeed."""
    beyond = (BLOCKS + 1) * BLOCK
    with ReadEngine.open(device, 4, kind) as engine:
        got = engine.read_batch([(0, BLOCK), (beyond, BLOCK), (BLOCK, BLOCK), (beyond - BLOCK, 2 * BLOCK)])

    assert [code for code, _ in got] == [0, errno.EIO, 0, errno.EIO]
    assert got[2][1] == padded(BLOCK, BLOCK)


def test_truncated_image(tmp_path: Path, kind: str) -> None:
    """An image that shrank under the engine: what is gone is an error, also where a read begins before the new end."""
    path = tmp_path / "image"
    path.write_bytes(NOISE)
    with BlockDevice(path) as device, ReadEngine.open(device, 8, kind) as engine:
        os.truncate(path, 10 * BLOCK + 100)
        got = engine.read_batch([(9 * BLOCK, BLOCK), (10 * BLOCK, BLOCK), (8 * BLOCK, 8 * BLOCK), (20 * BLOCK, BLOCK)])

    assert [code for code, _ in got] == [0, errno.EIO, errno.EIO, errno.EIO]


@pytest.mark.parametrize(("depth", "wanted"), [(0, "1 to 1024"), (1025, "1 to 1024")])
def test_depth_is_bounded(device: BlockDevice, depth: int, wanted: str) -> None:
    """No queue of nothing, and none beyond the declared bound."""
    with pytest.raises(errors.Misuse, match=wanted):
        ReadEngine.open(device, depth)


def test_unknown_kind_and_closed_device(image: Path) -> None:
    """Neither falls back to anything."""
    device = BlockDevice(image)
    with pytest.raises(errors.Misuse, match="auto, io_uring and threads"):
        ReadEngine.open(device, 4, "mmap")  # type: ignore[arg-type]
    device.close()
    with pytest.raises(errors.Misuse, match="closed"):
        ReadEngine.open(device)


def test_name_says_what_runs(device: BlockDevice, kind: str) -> None:
    """A kind that was asked for is the one that is used."""
    with ReadEngine.open(device, 4, kind) as engine:
        assert (engine.name, engine.depth, engine.in_flight) == (kind, 4, 0)


IO_URING_SETUP = 425  # on every architecture
FALL_BACK = """
from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.engine import ReadEngine
with BlockDevice(sys.argv[1]) as device:
    with ReadEngine.open(device, 4) as engine:
        print(engine.name, engine.read_batch([(4096, 4096)])[0][0])
    try:
        ReadEngine.open(device, 4, "io_uring")
    except errors.DeviceError as error:
        print(*error.lines(), sep="\\n")
"""


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_falls_back_to_threads_where_io_uring_is_refused(
    image: Path, device: BlockDevice, code: int, refused: Callable[..., list[str]]
) -> None:
    """``auto`` takes threads and says so; ``io_uring`` says what, why and what to do."""
    need_kind("io_uring", device)
    lines = refused(IO_URING_SETUP, code, FALL_BACK, image)

    assert lines[:3] == ["threads 0", "opening the io_uring read engine", os.strerror(code)]
    assert "kernel.io_uring_disabled" in lines[3]


def test_finishes_short_reads(kind: str) -> None:
    """sysfs gives at most a page at once, whatever is asked for: short reads go on until all is there."""
    path = Path("/sys/kernel/btf/vmlinux")
    if not path.exists():
        missing("needs a kernel with BTF")
    size, expected = path.stat().st_size, path.read_bytes()
    wanted = [(at, 65536) for at in range(0, 20 * 65536, 65536)] + [(size // 512 * 512, 512)]
    with BlockDevice(path) as device, ReadEngine.open(device, 8, kind) as engine:
        got = engine.read_batch(wanted)

    assert got == [(0, expected[at : at + length].ljust(length, b"\0")) for at, length in wanted]


@pytest.mark.root
def test_io_errors_carry_their_errno(loop: tuple[Path, Path], kind: str) -> None:
    """What the kernel says of one read does not touch the others."""
    node, backing = loop
    with BlockDevice(node) as device, ReadEngine.open(device, 8, kind) as engine:
        os.truncate(backing, 512 << 10)
        got = engine.read_batch([(0, 4096), (600 << 10, 4096), (4096, 4096)])

    assert [code for code, _ in got] == [0, errno.EIO, 0]


def test_misaligned_requests_are_refused(device: BlockDevice, kind: str) -> None:
    """Offset and size must be aligned; the refusal leaves the engine usable."""
    with ReadEngine.open(device, 4, kind) as engine:
        for request in ((1, BLOCK), (0, BLOCK + 1)):
            with pytest.raises(errors.Misuse, match="aligned"):
                engine.read_batch([(0, BLOCK), request])
        with pytest.raises(errors.Misuse, match="1 byte to 1 GiB"):
            engine.read_batch([(0, 0)])

        assert engine.in_flight == 0
        assert engine.read_batch([(0, BLOCK)]) == [(0, padded(0, BLOCK))]


def test_reads_into_a_ring(device: BlockDevice, kind: str) -> None:
    """Tags come back with their reads, in whatever order; slots hold what was read; the queue's bound is kept."""
    ring = BufferRing(4, 2 * BLOCK)
    with ReadEngine.open(device, 4, kind) as engine:
        for index in range(4):
            engine.read_into(ring, index, index * 3 * BLOCK, 2 * BLOCK, 100 + index)
        with pytest.raises(errors.Misuse, match="in flight"):
            engine.read_into(ring, 0, 0, BLOCK, 0)
        with pytest.raises(errors.Misuse, match="in flight"):
            engine.read_batch([(0, BLOCK)])
        with pytest.raises(errors.Misuse, match="slot"):
            engine.read_into(ring, 0, 0, 3 * BLOCK, 0)
        done = engine.wait(4)

        assert sorted(done) == [(100 + index, 0) for index in range(4)]
        assert (engine.wait(1), engine.in_flight) == ([], 0)
        with pytest.raises(errors.Misuse, match="room"):
            engine.wait(5)
    assert bytes(ring) == b"".join(padded(index * 3 * BLOCK, 2 * BLOCK) for index in range(4))


def test_close_waits_for_reads_in_flight(device: BlockDevice, kind: str) -> None:
    """After close() all reads have ended: their memory is complete and may be reused. Then nothing can be submitted."""
    ring = BufferRing(32, 8 * BLOCK)
    engine = ReadEngine.open(device, 32, kind)
    for index in range(32):
        engine.read_into(ring, index, index * 8 * BLOCK, 8 * BLOCK, index)
    engine.close()
    engine.close()

    assert bytes(ring) == padded(0, 32 * 8 * BLOCK)
    with pytest.raises(errors.Misuse, match="closed"):
        engine.read_into(ring, 0, 0, BLOCK, 0)
    with pytest.raises(errors.Misuse, match="closed"):
        engine.wait()


def test_freed_while_in_flight(image: Path, kind: str) -> None:
    """Freed with reads in flight, even with a cycle, the device closed before: it waits; nothing leaks."""
    before, threads = descriptors(), len(list(Path("/proc/self/task").iterdir()))
    for _ in range(5):
        holder: dict[str, object] = {}
        holder["self"] = holder
        with BlockDevice(image) as device:
            engine = ReadEngine.open(device, 32, kind)
        ring = BufferRing(32, 8 * BLOCK)
        for index in range(32):
            engine.read_into(ring, index, index * 8 * BLOCK, 8 * BLOCK, index)
        holder["engine"] = engine
        del engine, ring, holder
        gc.collect()

    assert descriptors() == before
    # fewer when the kernel's own workers of an earlier ring ended meanwhile
    assert len(list(Path("/proc/self/task").iterdir())) <= threads


def test_failed_opens_leak_nothing(device: BlockDevice) -> None:
    """Refused opens give back what they took."""
    before = descriptors()
    for _ in range(3):
        with pytest.raises(errors.Misuse):
            ReadEngine.open(device, 0)

    assert descriptors() == before


def test_engine_is_made_by_open_only() -> None:
    """One that was not opened refuses everything and frees nothing."""
    engine = ReadEngine()

    assert (engine.name, engine.depth) == ("", 0)
    with pytest.raises(errors.Misuse, match="closed"):
        engine.wait()


def test_engines_in_parallel(device: BlockDevice, kind: str) -> None:
    """Different engines on one device run in different threads."""
    results: dict[int, bool] = {}

    def read(number: int) -> None:
        wanted = [(block * BLOCK, 4 * BLOCK) for block in range(number, BLOCKS - 4, 5)]
        with ReadEngine.open(device, 16, kind) as engine:
            results[number] = engine.read_batch(wanted) == [(0, padded(*request)) for request in wanted]

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == dict.fromkeys(range(4), True)


def test_forked_child_leaves_the_engine_alone(device: BlockDevice, kind: str) -> None:
    """A forked child frees its copy without waiting for reads and threads that only the parent has."""
    engine = ReadEngine.open(device, 4, kind)
    ring = BufferRing(1, BLOCK)
    engine.read_into(ring, 0, 0, BLOCK, 7)
    child = os.fork()
    if child == 0:
        engine.close()
        os._exit(0)

    assert os.waitpid(child, 0)[1] == 0
    assert engine.wait() == [(7, 0)]
    engine.close()
