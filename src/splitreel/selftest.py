"""selftest runs the core's known answers: checksums, sense, map, engine, a software tape. It touches no drive.

An appliance runs it at boot. The number of checks is part of the contract: a build that lost one fails.
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import crcmod.predefined

from splitreel.core import checksum, sense
from splitreel.core.device import BlockDevice
from splitreel.core.engine import ReadEngine
from splitreel.core.extent import ExtentMap
from splitreel.drive import Condition, open_drive
from splitreel.errors import IntegrityError, SplitreelError

EXPECTED_CHECKS = 7
_DIGITS = b"123456789"


@dataclass(frozen=True)
class Check:
    """One check's outcome: empty ``failure`` when it passed."""

    name: str
    seconds: float
    failure: str = ""


def _expect(expected: object, actual: object) -> None:
    if expected != actual:
        raise IntegrityError(f"expected {expected!r}, got {actual!r}")


def _checksum_known_answers() -> None:
    _expect(0xE3069283, checksum.crc32c(_DIGITS))  # RFC 3720 B.4's polynomial, the usual check value
    _expect(930766865, checksum.cksum(_DIGITS))  # what cksum(1) prints
    _expect(checksum.crc32c(_DIGITS * 2), checksum.crc32c_join(0xE3069283, 0xE3069283, len(_DIGITS)))


def _checksum_against_crcmod() -> None:
    reference = crcmod.predefined.mkPredefinedCrcFun("crc-32c")
    for size in (1, 63, 4096, 100_003):
        data = os.urandom(size)
        _expect(reference(data), checksum.crc32c(data))


def _sense_decoding() -> None:
    early_warning = bytes([0x70, 0, 0x40, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0])
    deferred = bytes([0x71, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x0C, 0, 0, 0, 0, 0])
    _expect(Condition.EARLY_WARNING, sense.classify(2, early_warning))
    _expect(1, sense.parse_sense(deferred)["deferred"])
    _expect(True, sense.classify(2, deferred) < 0)


def _map_file() -> None:
    extents = ExtentMap("ext4", bytes(16), 4096, 1 << 30)
    root = extents.add_file(2, 0o040755, link_count=2)
    extents.add_name(0, root, b"")
    extents.add_name(0, extents.add_file(12, 0o100644, size=8192), b"file")
    extents.add_extent(0, 100, 2)
    extents.finish()
    with tempfile.TemporaryDirectory() as scratch:
        extents.save(Path(scratch) / "map")
        loaded = ExtentMap.load(Path(scratch) / "map")
    _expect(extents.digest(), loaded.digest())
    _expect([b"", b"file"], loaded.paths())


def _engine_reads(kind: Literal["auto", "threads"]) -> None:
    with tempfile.NamedTemporaryFile() as image:
        data = os.urandom(1 << 18)
        image.write(data)
        image.flush()
        with BlockDevice(image.name) as device:
            _expect(data[4096:12288], device.pread(4096, 8192))
            pieces = [(offset, 1 << 14) for offset in range(0, len(data), 1 << 14)]
            with ReadEngine.open(device, 8, kind) as engine:
                _expect([(0, data[offset : offset + size]) for offset, size in pieces], engine.read_batch(pieces))


def _software_tape() -> None:
    blocks = [os.urandom(size) for size in (1 << 16, 1, 4097)]
    with tempfile.TemporaryDirectory() as scratch, open_drive(f"file:{scratch}/tape.tap") as drive:
        drive.wait_ready()
        for block in blocks:
            drive.tape.write(block)
        drive.write_filemarks(1)
        drive.rewind()
        _expect(blocks, [drive.tape.read(1 << 20) for _ in blocks])
        _expect(Condition.FILEMARK, drive.tape.read(1 << 20))


_CHECKS: tuple[tuple[str, Callable[[], None]], ...] = (
    ("checksums: known answers", _checksum_known_answers),
    ("checksums: against crcmod", _checksum_against_crcmod),
    ("sense: early warning, deferred error", _sense_decoding),
    ("map: save, load, digest", _map_file),
    ("engine: chosen at run time", lambda: _engine_reads("auto")),
    ("engine: threads", lambda: _engine_reads("threads")),
    ("software tape: three blocks and a filemark", _software_tape),
)


def run_selftest() -> list[Check]:
    """Run every check; none stops the others."""
    outcomes = []
    for name, check in _CHECKS:
        begun = time.perf_counter()
        try:
            check()
            failure = ""
        except (SplitreelError, OSError) as error:
            failure = str(error)
        outcomes.append(Check(name, time.perf_counter() - begun, failure))
    return outcomes
