"""A stream finds the damaged pages of its files wherever tape blocks, extents, holes, parts and runs cut them."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel.core import pages_innodb, pages_postgresql
from splitreel.core.device import BlockDevice
from splitreel.core.null import NullDrive
from splitreel.core.pages import PageChecker
from splitreel.core.plan import Plan
from splitreel.core.stream import FINISHED, StreamWriter
from splitreel.core.tape import Tape
from tests.core.source import BACKUP, Source
from tests.core.test_pages import RULE
from tests.core.test_pages_innodb import tablespace
from tests.pages.kept import pages

Found = list[tuple[bytes, int, int]]  # path, byte of the file, why


class Database:
    """Files of pages in a source: PostgreSQL's and InnoDB's, with holes, some injured, and what is no database."""

    def __init__(self, seed: int, block_size: int = 4096, injuries: int = 3) -> None:
        self.random = Random(seed)
        self.source = Source(block_size, seed)
        self.rules: dict[bytes, tuple[int, int, int, int]] = {}
        self.damaged: Found = []
        heap, first = pages("postgresql-heap-7")
        self.add(b"a-heap", heap[:8192] + bytes(8192 * self.random.randrange(20)) + heap[:8192], 1, first)
        self.source.file(b"b-notes", [(0, 3, 0)], size=self.random.randrange(1, 3 * block_size))
        btree = pages("postgresql-btree-0")[0]
        self.add(b"c-btree", btree + btree[:8192] * 3, 1, 0, injuries)
        self.add(b"d-full.ibd", tablespace("full_crc32", 12) + bytes(16384 * 9), 2, 0, injuries)
        self.add(b"e-zip.ibd", tablespace("zip_crc32", 12), 2, 0, injuries)
        self.add(b"f-plain.ibd", tablespace("crc32", 3) + bytes(16384 * 2), 2, 0, injuries)

    def add(self, path: bytes, content: bytes, profile: int, first: int, injuries: int = 0) -> None:
        """A file whose zero blocks are holes, and what the checks of whole pages say of it."""
        size = 4096 if b"zip" in path else 16384 if profile == 2 else 8192
        data = bytearray(content)
        for _ in range(injuries):
            data[self.random.randrange(size, len(data))] ^= 1 << self.random.randrange(8)
        module = pages_innodb if profile == 2 else pages_postgresql
        verdicts = module.check_pages(bytes(data), first)
        self.damaged += [(path, i * size, why) for i, why in enumerate(verdicts) if why > 2]
        block = self.source.block_size
        used = [i for i in range(len(data) // block) if any(data[i * block : (i + 1) * block])]
        before = len(self.source.blocks)
        self.source.file(path, [(i, 1, 0) for i in used], size=len(data))
        self.source.blocks[before:] = [bytes(data[i * block : (i + 1) * block]) for i in used]
        self.source.content[path] = bytes(data)
        self.rules[path] = (first, profile, 0, 0)

    def checker(self, plan: Plan) -> PageChecker:
        rules = np.zeros(plan.map.file_count, RULE)
        for path, rule in self.rules.items():
            rules[self.file(plan, path)] = rule
        found = PageChecker()
        found.add_postgresql()
        found.add_innodb()
        found.set_rules(rules)
        return found

    def file(self, plan: Plan, path: bytes) -> int:
        return int(np.asarray(plan.map.names)["file"][plan.map.find(path)])

    def found(self, plan: Plan, checker: PageChecker) -> Found:
        paths = {self.file(plan, path): path for path in self.rules}
        return [(paths[file], offset, why) for file, _, offset, why, _, _ in checker.findings]


def null_tape() -> Tape:
    return Tape(NullDrive(), b"\x0a" + bytes(5), b"\x08" + bytes(5), b"\x10" + bytes(5), max_block=1 << 20)


def streamed(database: Database, image: Path, block_size: int, segment_size: int, **options: object) -> PageChecker:
    """The checker after a whole run."""
    target = database.source.finish(image)
    plan = Plan.build(target, block_size=block_size, segment_size=segment_size, first_object=0, backup=BACKUP)
    checker = database.checker(plan)
    with (
        BlockDevice(image) as device,
        StreamWriter(target, device, plan, null_tape(), pages=checker, **options) as stream,
    ):
        assert stream.run() == FINISHED
    assert database.found(plan, checker) == database.damaged
    return checker


@pytest.mark.parametrize("block_size", [4096, 8192, 12288, 65536, 1 << 20])
@pytest.mark.parametrize("segment_size", [1 << 12, 1 << 17, 1 << 30])
def test_every_tape_block_and_segment(tmp_path: Path, block_size: int, segment_size: int) -> None:
    """Small segments cut files into parts, in the middle of pages too."""
    segment_size = max(segment_size, block_size)
    database = Database(block_size + segment_size)
    checker = streamed(database, tmp_path / "image", block_size, segment_size, ring_blocks=4)

    assert checker.counts["files"] == 5
    assert checker.counts["unchecked"] == checker.counts["repaired"] == 0
    assert checker.counts["damaged"] == len(database.damaged) > 0
    assert checker.counts["pages"] == sum(
        len(database.source.content[path]) // (4096 if b"zip" in path else 16384 if b"ibd" in path else 8192)
        for path in database.rules
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 1 << 32),
    st.sampled_from([512, 1024, 4096]),
    st.sampled_from([4096, 20480, 65536]),
    st.sampled_from(["io_uring", "threads"]),
    st.integers(1, 64),
)
def test_every_layout(tmp_path: Path, seed: int, block: int, tape_block: int, engine: str, depth: int) -> None:
    """Blocks scattered over the device, read in any order."""
    streamed(Database(seed, block), tmp_path / "image", tape_block, 1 << 30, ring_blocks=3, depth=depth, engine=engine)


def test_a_second_run_finds_the_same(tmp_path: Path) -> None:
    """The first member of a run is looked at even if it was the last of the one before."""
    database = Database(1)
    target = database.source.finish(tmp_path / "image")
    plan = Plan.build(target, block_size=4096, first_object=0, backup=BACKUP)
    checker = database.checker(plan)
    tape = null_tape()
    with (
        BlockDevice(tmp_path / "image") as device,
        StreamWriter(target, device, plan, tape, pages=checker) as stream,
    ):
        stream.run()
        pages_read = checker.counts["pages"]
        tape.object_id = 0
        stream.run()

    assert checker.counts["pages"] == 2 * pages_read
    assert database.found(plan, checker) == database.damaged * 2


def test_a_run_that_goes_on_inside_a_file(tmp_path: Path) -> None:
    """From every segment on: with what stands before it in the first file, no page of it is unchecked or missed."""
    database = Database(7, injuries=6)
    target = database.source.finish(tmp_path / "image")
    plan = Plan.build(target, block_size=4096, segment_size=20480, first_object=0, backup=BACKUP)
    members, segments = np.asarray(plan.members), np.asarray(plan.segments)
    tape = null_tape()
    cut = 0
    with BlockDevice(tmp_path / "image") as device:
        for first in range(0, plan.segment_count, 3):
            member = members[segments[first]["first_member"]]
            path, start = plan.map.path_of(int(member["name"])), int(member["start"])
            checker = database.checker(plan)
            if start:
                content = database.source.content[path]
                head = content[start - start % 65536 : start]
                checker.go_on(database.file(plan, path), start, len(content), content[:65536], head)
                cut += start % 16384 != 0 and b"ibd" in path
            tape.object_id = int(segments[first]["first_object"])
            with StreamWriter(target, device, plan, tape, pages=checker) as stream:
                stream.run(first)
            size = 4096 if b"zip" in path else 16384 if b"ibd" in path else 8192
            expected = [
                (where, offset, why)
                for where, offset, why in database.damaged
                if where > path or (where == path and offset >= start - start % size)
            ]

            assert database.found(plan, checker) == expected
            assert checker.counts["unchecked"] == 0
    assert cut > 3


def test_without_rules_nothing_is_checked(tmp_path: Path) -> None:
    database = Database(3)
    database.rules.clear()
    database.damaged.clear()

    assert streamed(database, tmp_path / "image", 4096, 1 << 30).counts["pages"] == 0
