"""The software drive against a tape that is a Python list: random commands, same answers, same file at the end."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from splitreel import errors
from splitreel.core.softdrive import SoftDrive
from splitreel.drive import Condition, Drive
from tests.drive.tapfile import parse


class TapeModel(RuleBasedStateMachine):
    """``objects`` is the tape, None a filemark; ``at`` the position; ``synced`` what a power loss leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "a.tap"
        self.objects: list[bytes | None] = []
        self.at = self.synced = 0
        self.load()

    def load(self) -> None:
        self.transport = SoftDrive(self.path)
        self.drive = Drive(self.transport)
        self.at, self.synced = 0, len(self.objects)

    def teardown(self) -> None:
        self.drive.close()
        assert parse(self.path) == self.objects
        self.directory.cleanup()

    def put(self, *objects: bytes | None) -> None:
        self.objects[self.at :] = objects
        self.at += len(objects)
        self.synced = min(self.synced, self.at - len(objects))

    @rule(block=st.binary(min_size=1, max_size=50))
    def write(self, block: bytes) -> None:
        assert self.drive.tape.write(block) == Condition.DONE
        self.put(block)

    @rule(count=st.integers(1, 70))
    def write_many(self, count: int) -> None:
        """Past the distance of index points."""
        for number in range(count):
            self.drive.tape.write(bytes([number]))
        self.put(*(bytes([number]) for number in range(count)))

    @rule(count=st.integers(0, 3), immediate=st.booleans())
    def write_filemarks(self, count: int, immediate: bool) -> None:
        assert self.drive.write_filemarks(count, immediate) == Condition.DONE
        if count:
            self.put(*[None] * count)
        if not immediate:
            self.synced = len(self.objects)

    @rule(room=st.integers(1, 60))
    def read(self, room: int) -> None:
        block = self.objects[self.at] if self.at < len(self.objects) else b""
        try:
            answer = self.drive.tape.read(room)
        except errors.LimitReached:
            assert block is not None and len(block) > room
        else:
            expected = Condition.FILEMARK if block is None else block or Condition.END_OF_DATA
            assert answer == expected
        self.at += block != b""

    @rule(object_id=st.integers(0, 200))
    def locate(self, object_id: int) -> None:
        try:
            self.drive.locate(object_id)
            assert object_id <= len(self.objects)
        except errors.PositionLost:
            assert object_id > len(self.objects)
        self.at, self.synced = min(object_id, len(self.objects)), len(self.objects)

    @rule(count=st.integers(-80, 80))
    def space_blocks(self, count: int) -> None:
        condition = self.drive.space_blocks(count)
        expected, step = Condition.DONE, 1 if count > 0 else -1
        for _ in range(abs(count)):
            beside = self.at if count > 0 else self.at - 1
            if not 0 <= beside < len(self.objects):
                expected = Condition.END_OF_DATA if count > 0 else Condition.BEGINNING_OF_PARTITION
                break
            self.at += step
            if self.objects[beside] is None:
                expected = Condition.FILEMARK
                break
        assert condition == expected
        self.synced = len(self.objects)

    @rule(count=st.integers(-4, 4))
    def space_filemarks(self, count: int) -> None:
        condition = self.drive.space_filemarks(count)
        marks = [number for number, block in enumerate(self.objects) if block is None]
        passed = [m for m in marks if m >= self.at] if count > 0 else [m for m in reversed(marks) if m < self.at]
        if abs(count) <= len(passed):
            assert condition == Condition.DONE
            self.at = self.at if count == 0 else passed[abs(count) - 1] + (1 if count > 0 else 0)
        else:
            assert condition == (Condition.END_OF_DATA if count > 0 else Condition.BEGINNING_OF_PARTITION)
            self.at = len(self.objects) if count > 0 else 0
        self.synced = len(self.objects)

    @rule()
    def space_eod(self) -> None:
        self.drive.space_eod()
        self.at = self.synced = len(self.objects)

    @rule()
    def erase(self) -> None:
        self.drive.erase()
        self.put()
        self.synced = len(self.objects)

    @rule()
    def close_and_open(self) -> None:
        self.drive.close()
        self.load()

    @precondition(lambda self: self.at == len(self.objects))
    @rule()
    def lose_power(self) -> None:
        self.transport.inject("power-loss")
        try:
            self.drive.tape.filemarks(0)
            raise AssertionError("no unit attention")
        except errors.UnitAttention:
            del self.objects[self.synced :]
        self.at = 0
        self.drive.rewind()

    @invariant()
    def position_is_the_models(self) -> None:
        position = self.drive.expect_position(self.at)
        assert self.drive.tape.object_id == self.at
        assert position.file_id == self.objects[: self.at].count(None)
        assert self.transport.end[0] == len(self.objects)


TestTapeModel = TapeModel.TestCase
TestTapeModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
