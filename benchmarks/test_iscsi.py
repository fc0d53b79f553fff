"""Writing over iSCSI, block by block and streamed, against bare_iscsi.c, a loop over libiscsi and nothing else."""

import shlex
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.fragmented import database_image, loop_device
from splitreel.core.device import BlockDevice
from splitreel.core.iscsi import IscsiTransport
from splitreel.core.plan import Plan
from splitreel.core.stream import StreamWriter
from splitreel.core.tape import Tape
from splitreel.demo.target import TapeTarget
from splitreel.drive import open_drive
from splitreel.errors import TapeError
from splitreel.mapping import map_device
from tests.support import missing, need_programs, need_root

ROUNDS = 9
TOTAL = 256 << 20


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The yardstick, compiled."""
    need_programs("gcc", "pkg-config")
    program = tmp_path_factory.mktemp("bare") / "bare_iscsi"
    found = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libiscsi"], capture_output=True, text=True, check=False
    )
    if found.returncode:
        missing("needs libiscsi-dev")
    source = Path(__file__).with_name("bare_iscsi.c")
    subprocess.run(["gcc", "-O2", "-o", program, source, *shlex.split(found.stdout)], check=True)
    return program


@pytest.fixture(scope="module")
def target() -> Iterator[TapeTarget]:
    """A tape whose cartridge lies in memory where there is any: its disk is not what is measured."""
    where = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="splitreel-bench-", dir=where) as directory:
        target = TapeTarget(Path(directory), size_mb=1024)
        try:
            target.start()
        except TapeError as error:
            missing(f"needs a tgtd that starts: {error}")
        yield target
        target.stop()


def write_bare(program: Path, url: str, size: int, depth: int, total: int = TOTAL) -> float:
    """Bytes a second of the bare loop."""
    command = [program, url, str(size), str(total // size), str(depth)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, seconds, _ = done.stdout.split()
    return int(count) / float(seconds)


def write_ours(url: str, size: int) -> float:
    """Bytes a second of Tape.write; login and rewind are not counted, as in the bare loop."""
    with IscsiTransport(url) as transport:
        transport.run_command(bytes(6))
        assert transport.run_command(bytes([1, 0, 0, 0, 0, 0]))[0] == 0
        tape = Tape(transport, bytes([0x0A, 0, 0, 0, 0, 0]), bytes([8, 0, 0, 0, 0, 0]), bytes([16, 0, 0, 0, 0, 0]))
        block = bytearray(b"\xa5") * size
        begun = time.perf_counter()
        for _ in range(TOTAL // size):
            tape.write(block)
        return TOTAL / (time.perf_counter() - begun)


@pytest.mark.parametrize("size", [1 << 20, 1 << 18])
def test_write_against_bare_loop(bare: Path, target: TapeTarget, benchmark: BenchmarkFixture, size: int) -> None:
    """Prints the ratio of the best of many turns each, since other programs run too.

    The bare loop keeps one command outstanding, as splitreel does: with two, an idle machine of two processors copies
    on both ends at once, up to twice as fast on loopback, but filemarks and short blocks may overtake. It is printed.
    """
    contestants = {
        "ours": lambda: write_ours(target.url, size),
        "bare, depth 1": lambda: write_bare(bare, target.url, size, 1),
        "bare, depth 2": lambda: write_bare(bare, target.url, size, 2),
    }
    write_ours(target.url, size)  # allocates the cartridge's pages
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, run in contestants.items():
            rates[name].append(run())
    ratio = max(rates["ours"]) / max(rates["bare, depth 1"])
    print(f"\niSCSI write of {size >> 10} KiB blocks against a bare libiscsi loop: {ratio:.2f} x")
    for name, values in rates.items():
        print(f"  {name}: best {max(values) / 1e6:.0f} MB/s, median {statistics.median(values) / 1e6:.0f} MB/s")
    benchmark.extra_info.update(times_bare=ratio)
    benchmark.pedantic(write_ours, args=(target.url, size), rounds=3)


def test_stream_against_bare_loop(bare: Path, target: TapeTarget, tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    """A fragmented database from its device to the drive, against the bare loop writing as much from one buffer."""
    need_root()
    need_programs("mkfs.ext4", "losetup")
    image = database_image(tmp_path / "image", 512 << 20)
    with loop_device(image) as name, BlockDevice(name) as device:
        plan = Plan.build(map_device(name, frozen=True), first_object=0)
        written = plan.totals["blocks"] * plan.block_size

        def stream() -> float:
            with open_drive(target.url) as drive:
                drive.rewind()
                drive.tape.object_id = 0
                with StreamWriter(plan.map, device, plan, drive.tape) as writer:
                    begun = time.perf_counter()
                    writer.run()
                    seconds = time.perf_counter() - begun
                    assert writer.progress()["bytes_written"] == written
            return written / seconds

        rates: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            rates[0].append(stream())
            rates[1].append(write_bare(bare, target.url, 1 << 20, 1, written))
        benchmark.pedantic(stream, rounds=3)
    image.unlink()
    ratio = statistics.median(ours / peer for ours, peer in zip(*rates, strict=True))
    print(f"\nstream of a fragmented database to the iSCSI drive against a bare libiscsi loop: {ratio:.2f} x")
    print("  ours {:.0f} MB/s, bare {:.0f} MB/s, medians".format(*(statistics.median(each) / 1e6 for each in rates)))
    benchmark.extra_info.update(times_bare=ratio)
