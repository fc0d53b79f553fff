"""Database pages verified in the stream: CPU seconds a GB with the checks and without, in turn; the bare kernels."""

import os
import statistics
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from random import Random

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.fragmented import loop_device
from splitreel.core import checksum, pages_innodb, pages_postgresql
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.null import NullDrive
from splitreel.core.pages import PageChecker
from splitreel.core.plan import Plan
from splitreel.core.stream import StreamWriter
from splitreel.core.tape import Tape
from splitreel.mapping import map_device
from tests.support import need_programs, need_root

SIZE = 256 << 20  # of each file
FILES = 3
ROUNDS = 9
RULES = np.dtype([("first_page", "<u4"), ("profile", "u1"), ("flags", "u1"), ("reserved", "<u2")])


def postgresql_page(stuff: bytes, number: int) -> bytes:
    """A page of 8 KiB that is right as block ``number``."""
    page = bytearray(stuff[:8192])
    struct.pack_into("<QHHHHH", page, 0, 1, 0, 0, 28, 4096, 8192)
    struct.pack_into("<H", page, 8, pages_postgresql.page_checksum(page, number))
    return bytes(page)


def innodb_page(stuff: bytes, number: int) -> bytes:
    """A page of 16 KiB in the format full_crc32."""
    page = bytearray(stuff)
    struct.pack_into(">IIIIQHQI", page, 0, 0, number, 0, 0, 1, 17855, 0, 9)
    if number == 0:
        struct.pack_into(">IIIII", page, 38, 9, 0, 8, 8, 0x15)
    page[-8:-4] = page[20:24]
    page[-4:] = struct.pack(">I", checksum.crc32c(page[:-4]))
    return bytes(page)


KINDS: dict[str, tuple[int, Callable[[bytes, int], bytes]]] = {
    "postgresql": (8192, postgresql_page),
    "innodb": (16384, innodb_page),
}


@pytest.fixture(scope="module", params=list(KINDS))
def device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A loop device with files of right pages: (kind, device)."""
    need_root()
    need_programs("mkfs.ext4", "losetup", "blockdev")
    folder = tmp_path_factory.mktemp("pages")
    (folder / "root").mkdir()
    size, make = KINDS[request.param]
    stuff = Random(1).randbytes(16384)
    for name in range(FILES):
        with (folder / "root" / str(name)).open("wb") as file:
            file.writelines(make(stuff, number) for number in range(SIZE // size))
            os.fsync(file.fileno())
    command = ["mkfs.ext4", "-q", "-F", "-d", folder / "root", folder / "image", f"{(FILES + 1) * SIZE >> 20}M"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["rm", "-r", folder / "root"], check=True)
    with loop_device(folder / "image") as name:
        yield request.param, name
    (folder / "image").unlink()


def checker(kind: str, target: ExtentMap) -> PageChecker:
    found = PageChecker()
    profile = found.add_postgresql() if kind == "postgresql" else found.add_innodb()
    rules = np.zeros(target.file_count, RULES)
    rules["profile"][np.asarray(target.files)["size"] == SIZE] = profile
    found.set_rules(rules.tobytes())
    return found


def test_checks_in_the_stream(device: tuple[str, str], benchmark: BenchmarkFixture) -> None:
    """Prints the ratio of CPU seconds; every page was looked at, and is right."""
    kind, name = device
    plan = Plan.build(map_device(name, frozen=True), first_object=0)
    found = checker(kind, plan.map)
    cpu: dict[bool, list[float]] = {False: [], True: []}
    wall: dict[bool, list[float]] = {False: [], True: []}

    def run(opened: BlockDevice, checked: bool) -> None:
        tape = Tape(NullDrive(), b"\x0a" + bytes(5), b"\x08" + bytes(5), b"\x10" + bytes(5), max_block=1 << 20)
        with StreamWriter(plan.map, opened, plan, tape, pages=found if checked else None) as writer:
            began, cpu_began = time.perf_counter(), time.process_time()
            writer.run()
            cpu[checked].append(time.process_time() - cpu_began)
            wall[checked].append(time.perf_counter() - began)

    with BlockDevice(name) as opened:
        for _ in range(ROUNDS):
            run(opened, False)
            run(opened, True)
        benchmark.pedantic(run, args=(opened, True), rounds=1)
    assert found.counts["damaged"] == found.counts["unchecked"] == 0
    assert found.counts["pages"] == (ROUNDS + 1) * FILES * SIZE // KINDS[kind][0]
    ratio = statistics.median(w / wo for w, wo in zip(cpu[True], cpu[False], strict=False))
    slower = statistics.median(w / wo for w, wo in zip(wall[True], wall[False], strict=False))
    a_gb = {key: statistics.median(values) / plan.totals["bytes"] * 1e9 for key, values in cpu.items()}
    print(f"\n{kind}: CPU {ratio:.2f} x with checks ({a_gb[True]:.3f} s a GB, {a_gb[False]:.3f} without), ", end="")
    print(f"time {slower:.2f} x")
    benchmark.extra_info.update(ratio=ratio, cpu_seconds_a_gb=a_gb[True], without=a_gb[False], time_ratio=slower)


@pytest.mark.parametrize("kind", ["postgresql", "postgresql portable", "innodb", "crc32c"])
def test_kernels(kind: str, benchmark: BenchmarkFixture) -> None:
    """Bytes a second of one core over memory in cache (1 MiB); crc32c beside it, which the stream takes anyway."""
    size, make = KINDS[kind.partition(" ")[0]] if kind != "crc32c" else (8192, postgresql_page)
    data = b"".join(make(Random(1).randbytes(16384), number) for number in range((1 << 20) // size))
    work: Callable[[bytes], object] = pages_innodb.check_pages if kind == "innodb" else pages_postgresql.check_pages
    if kind == "crc32c":
        work = checksum.crc32c
    else:
        assert set(work(data)) == {0}  # type: ignore[call-overload]
    pages_postgresql.force("portable" if "portable" in kind else "auto")
    try:
        benchmark.pedantic(work, args=(data,), rounds=200, warmup_rounds=5)
    finally:
        pages_postgresql.force("auto")
    speed = len(data) / benchmark.stats.stats.min / 1e9
    print(f"\n{kind}: {speed:.1f} GB/s")
    benchmark.extra_info.update(gb_per_s=speed)
