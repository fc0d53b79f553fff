"""A stream to a drive that discards, against dd bs=1M iflag=direct of the whole device: bytes a second, in turn."""

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.fragmented import database_image, loop_device, small_image
from benchmarks.pairs import compare, say
from splitreel.core.device import BlockDevice
from splitreel.core.null import NullDrive
from splitreel.core.plan import Plan
from splitreel.core.stream import StreamWriter
from splitreel.core.tape import Tape
from splitreel.mapping import map_device
from tests.support import need_programs, need_root

KINDS: dict[str, Callable[[Path], Path]] = {
    "database": lambda path: database_image(path, 1 << 30),
    "small files": lambda path: small_image(path, 40_000),
}


@pytest.fixture(scope="module", params=list(KINDS))
def device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A loop device with a seeded image on it: (kind, device)."""
    need_root()
    need_programs("mkfs.ext4", "mount", "umount", "losetup", "dd", "blockdev")
    image = KINDS[request.param](tmp_path_factory.mktemp("stream") / "image")
    with loop_device(image) as name:
        yield request.param, name
    image.unlink()


def test_stream_against_dd(device: tuple[str, str], benchmark: BenchmarkFixture) -> None:
    """Prints the ratio of the bytes a second; every byte that the plan names was read."""
    kind, name = device
    plan = Plan.build(map_device(name, frozen=True), first_object=0)
    cpu: list[float] = []

    def stream() -> None:
        tape.object_id = 0
        began = time.process_time()
        writer.run()
        cpu.append(time.process_time() - began)
        assert writer.progress()["bytes_read"] == plan.totals["bytes"]

    def dd() -> None:
        command = ["dd", f"if={name}", "of=/dev/null", "bs=1M", "iflag=direct"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)

    tape = Tape(NullDrive(), b"\x0a" + bytes(5), b"\x08" + bytes(5), b"\x10" + bytes(5), max_block=1 << 20)
    with BlockDevice(name) as opened, StreamWriter(plan.map, opened, plan, tape) as writer:
        share = plan.totals["bytes"] / opened.size
        ratio, ours, peer = compare(stream, dd, rounds=9, cold=False)
        benchmark.pedantic(stream, rounds=3)
    say(f"{kind}, bytes a second against dd", ratio * share, ours, peer)
    seconds = statistics.median(cpu) / plan.totals["bytes"] * 1e9
    print(f"{kind}: {seconds:.2f} CPU s a GB")
    benchmark.extra_info.update(ratio=ratio * share, cpu_seconds_a_gb=seconds)
