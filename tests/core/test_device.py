"""BlockDevice against the file's own bytes and the kernel's loop devices; buffers against numpy's view of them."""

import errno
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel import errors
from splitreel.core.device import AlignedBuffer, BlockDevice, BufferRing
from tests.support import missing, need_programs, need_root, unmount

SIZE = 700_000 + 123  # spans the bounce buffer (256 KiB) more than twice; no multiple of any block size
NOISE = np.random.default_rng(6934725).integers(0, 256, SIZE, dtype=np.uint8).tobytes()
same_function = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ranges = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda pair: (min(pair), abs(pair[0] - pair[1])))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("device") / "image"
    path.write_bytes(NOISE)
    return path


@pytest.fixture(scope="module")
def device(image: Path) -> Iterator[BlockDevice]:
    with BlockDevice(image) as opened:
        yield opened


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_describes_the_image(device: BlockDevice, image: Path) -> None:
    """Size in bytes, path as given, an alignment that is a power of two."""
    assert device.size == SIZE
    assert device.path == os.fspath(image)
    assert device.logical_block_size in (512, 1024, 2048, 4096)


@same_function
@given(ranges)
def test_reads_any_range(device: BlockDevice, where: tuple[int, int]) -> None:
    """Any range, through memory that is not aligned."""
    offset, size = where

    assert device.pread(offset, size) == NOISE[offset : offset + size]


@same_function
@given(ranges)
def test_reads_any_range_into_aligned_memory(device: BlockDevice, where: tuple[int, int]) -> None:
    """Any range into aligned memory: head and tail bounced, the middle straight where offset and memory agree."""
    offset, size = where
    buffer = AlignedBuffer(SIZE)
    buffer.load(device, offset, size)

    assert bytes(buffer) == NOISE[offset : offset + size]


def test_reads_at_every_alignment_of_memory(device: BlockDevice) -> None:
    """Wherever memory lies to the blocks: among these offsets are those where only head and tail are bounced."""
    for offset in range(0, 4096, 16):
        assert device.pread(offset, 300_000) == NOISE[offset : offset + 300_000]


@pytest.mark.parametrize("offset", [0, 512, 4096, 256 << 10])
def test_reads_the_odd_tail(device: BlockDevice, offset: int) -> None:
    """An image that ends inside a block is read to its last byte, from an aligned start too."""
    buffer = AlignedBuffer(SIZE)
    buffer.load(device, offset, SIZE - offset)

    assert bytes(buffer) == NOISE[offset:]
    assert device.pread(SIZE - 1, 1) == NOISE[-1:]


@pytest.mark.parametrize(("offset", "size"), [(SIZE, 1), (SIZE - 1, 2), (SIZE + 1, 0), (2**63, 1), (0, 2**62)])
def test_refuses_beyond_the_end(device: BlockDevice, offset: int, size: int) -> None:
    """A range beyond the end is refused before memory is taken for it."""
    with pytest.raises(errors.DeviceError, match="beyond the end") as caught:
        device.pread(offset, size)

    assert caught.value.__dict__["offset"] == offset


def test_refuses_a_shrunken_image(tmp_path: Path) -> None:
    """An image truncated while it is open gives an error, never short or stale bytes."""
    path = tmp_path / "image"
    path.write_bytes(NOISE)
    with BlockDevice(path) as device:
        os.truncate(path, 10_000)
        buffer = AlignedBuffer(SIZE)
        with pytest.raises(errors.DeviceError, match="shrunk"):
            buffer.load(device, 0, 65536)
        with pytest.raises(errors.DeviceError, match="shrunk"):
            device.pread(9_999, 2)

        assert len(buffer) == 0
        assert device.pread(9_999, 1) == NOISE[9_999:10_000]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/", "directory"),
        ("/dev/null", "character device"),
        ("/nonexistent/disk", "No such file"),
        ("a\0b", "null byte"),
    ],
)
def test_refuses_what_is_no_device(path: str, why: str) -> None:
    """What, why and what to do; and no descriptor is left behind."""
    before = open_descriptors()
    with pytest.raises(errors.DeviceError) as caught:
        BlockDevice(path)

    assert why in caught.value.why
    assert "opening" in caught.value.what
    assert "image file" in caught.value.advice
    assert open_descriptors() == before


def test_refuses_a_fifo_without_waiting(tmp_path: Path) -> None:
    """Opening a FIFO would wait for its writer for ever."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(errors.DeviceError, match="neither a block device nor a regular file"):
        BlockDevice(tmp_path / "fifo")


def test_close_is_final_and_idempotent(image: Path) -> None:
    """A closed device refuses to read, and its descriptor is gone."""
    before = open_descriptors()
    device = BlockDevice(os.fsencode(image))
    device.close()
    device.close()

    assert device.fileno() == -1
    assert open_descriptors() == before
    with pytest.raises(errors.Misuse, match="closed"):
        device.pread(0, 1)


def test_freed_device_closes(image: Path) -> None:
    """A device that nobody closed is closed when it is freed; opening it anew closes what was open."""
    before = open_descriptors()
    device = BlockDevice(image)
    device.__init__(image)  # type: ignore[misc]

    assert open_descriptors() == before + 1
    del device
    assert open_descriptors() == before


def test_empty_image(tmp_path: Path) -> None:
    """An empty image opens, and holds nothing to read."""
    (tmp_path / "empty").touch()
    with BlockDevice(tmp_path / "empty") as device:
        assert (device.size, device.pread(0, 0)) == (0, b"")


@pytest.mark.root
def test_block_device(loop: tuple[Path, Path]) -> None:
    """Size and block size are the kernel's; O_DIRECT is used."""
    with BlockDevice(loop[0]) as device:
        asked = subprocess.run(["blockdev", "--getsize64", "--getss", loop[0]], capture_output=True, check=True)

        assert [device.size, device.logical_block_size] == [int(word) for word in asked.stdout.split()]
        assert device.direct
        assert device.pread(1000, 5000) == bytes(5000)


@pytest.mark.root
def test_refuses_a_device_without_medium() -> None:
    """A free loop device has no size; what is wrong is said, not that offset 0 lies beyond its end."""
    need_root()
    need_programs("losetup")
    for _ in range(5):
        free = subprocess.run(["losetup", "-f"], capture_output=True, text=True, check=False).stdout.strip()
        try:
            BlockDevice(free).close()
        except errors.DeviceError as error:
            assert "no medium" in error.why
            return
    missing("needs a loop device that nobody takes meanwhile")


@pytest.mark.root
def test_never_believes_the_page_cache(loop: tuple[Path, Path]) -> None:
    """Pages cached from before a change below the device are not what is read. A buffered reader does see them."""
    node, backing = loop
    with node.open("rb") as buffered:
        buffered.read()
        with backing.open("r+b") as below:
            below.write(b"after the split" * 1000)
        buffered.seek(0)

        assert buffered.read(15) == bytes(15)
        with BlockDevice(node) as device:
            assert device.pread(0, 15) == b"after the split"


@pytest.mark.root
def test_io_error(loop: tuple[Path, Path]) -> None:
    """An I/O error carries errno and offset."""
    node, backing = loop
    with BlockDevice(node) as device:
        os.truncate(backing, 512 << 10)
        with pytest.raises(errors.DeviceError) as caught:
            device.pread(600 << 10, 4096)

        buffer = AlignedBuffer(1 << 20)
        with pytest.raises(errors.DeviceError, match=r"offset 614400.*Input/output error"):
            buffer.load(device, 600 << 10, 65536)

    assert caught.value.__dict__["os_errno"] == errno.EIO
    assert caught.value.__dict__["offset"] == 600 << 10


def test_falls_back_where_the_open_is_refused() -> None:
    """sysfs refuses to open with O_DIRECT: its files are read buffered, and the device says so."""
    path = Path("/sys/kernel/btf/vmlinux")
    if not path.exists():
        missing("needs a kernel with BTF")
    with BlockDevice(path) as device:
        assert not device.direct
        assert device.size == path.stat().st_size
        assert device.pread(4097, 5000) == path.read_bytes()[4097:9097]


STATX = {"x86_64": 332, "aarch64": 291}
DESCRIBE = """
from splitreel.core.device import BlockDevice
with BlockDevice(sys.argv[1]) as device:
    print(device.direct, device.logical_block_size, device.pread(0, device.size) == open(sys.argv[1], "rb").read())
"""


@pytest.mark.parametrize("size", [SIZE, 100])
def test_probes_where_the_kernel_does_not_say(
    image: Path, tmp_path: Path, size: int, refused: Callable[..., list[str]]
) -> None:
    """Before Linux 6.1 nobody says what O_DIRECT needs: the alignment is found by trying. One that works is found."""
    if platform.machine() not in STATX:
        missing("needs the number of statx on this machine")
    (tmp_path / "image").write_bytes(NOISE[:size])
    (line,) = refused(STATX[platform.machine()], errno.ENOSYS, DESCRIBE, tmp_path / "image")

    assert line.split() in [["True", str(block), "True"] for block in (512, 1024, 2048, 4096)]


@pytest.mark.root
def test_falls_back_where_the_file_system_says_no(tmp_path: Path) -> None:
    """ext4 that journals data takes O_DIRECT at open but says that it cannot do it: read buffered as well."""
    need_root()
    need_programs("mkfs.ext4", "mount", "umount")
    where = tmp_path / "mounted"
    where.mkdir()
    (tmp_path / "fs").write_bytes(bytes(16 << 20))
    subprocess.run(["mkfs.ext4", "-q", tmp_path / "fs"], check=True)
    subprocess.run(["mount", "-o", "loop,data=journal", tmp_path / "fs", where], check=True)
    try:
        (where / "image").write_bytes(NOISE)
        with BlockDevice(where / "image") as device:
            assert not device.direct
            assert device.pread(0, SIZE) == NOISE
            assert device.pread(4097, 4096) == NOISE[4097:8193]
    finally:
        unmount(where)


def test_buffer_is_read_only_and_aligned(device: BlockDevice) -> None:
    """Views show what was filled in, cannot be written, and start on a page."""
    buffer = AlignedBuffer(8192)
    buffer.load(device, 4096, 5000)
    view = np.frombuffer(buffer, dtype=np.uint8)

    assert view.tobytes() == NOISE[4096:9096]
    assert view.ctypes.data % 4096 == 0
    assert not view.flags.writeable
    assert (buffer.capacity, len(buffer)) == (8192, 5000)


def test_buffer_refuses_refill_while_viewed(device: BlockDevice) -> None:
    """What a view shows does not change under its owner; once released, the buffer can be filled again."""
    buffer = AlignedBuffer(4096)
    buffer.load(device, 0, 16)
    with memoryview(buffer) as view:
        with pytest.raises(errors.Misuse, match="views"):
            buffer.load(device, 16, 16)

        assert bytes(view) == NOISE[:16]
    buffer.load(device, 16, 16)
    assert bytes(buffer) == NOISE[16:32]


def test_buffer_bounds(device: BlockDevice) -> None:
    """Neither more than fits, nor more memory than anyone means."""
    with pytest.raises(errors.Misuse, match="smaller"):
        AlignedBuffer(10).load(device, 0, 11)
    with pytest.raises(errors.LimitReached, match="16 GiB"):
        AlignedBuffer((16 << 30) + 1)


def test_ring_is_one_aligned_allocation() -> None:
    """All slots in one row, zero at first, read-only to Python, on a page."""
    ring = BufferRing(3, 8192)
    view = np.frombuffer(ring, dtype=np.uint8)

    assert (len(ring), ring.depth, ring.slot_size) == (3, 3, 8192)
    assert view.size == 3 * 8192
    assert not view.any()
    assert not view.flags.writeable
    assert view.ctypes.data % 4096 == 0


@pytest.mark.parametrize(("depth", "slot_size"), [(0, 4096), (1, 0), (1, 1000)])
def test_ring_refuses_odd_slots(depth: int, slot_size: int) -> None:
    """No slots, empty slots and slots that no direct read could fill."""
    with pytest.raises(errors.Misuse, match="512"):
        BufferRing(depth, slot_size)


def test_ring_is_bounded() -> None:
    """The product counts, also where it would overflow."""
    for depth, slot_size in ((2**32 - 1, 1 << 40), (17, 1 << 30)):
        with pytest.raises(errors.LimitReached, match="16 GiB"):
            BufferRing(depth, slot_size)
