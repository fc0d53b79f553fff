"""How verbs speak: everything said arrives."""

import io
import sys
from typing import Any

import pytest

from splitreel.cli import output


class Trickle(io.RawIOBase):
    """A descriptor that takes seven bytes at a time, as a pipe does that is nearly full."""

    def __init__(self) -> None:
        self.taken = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)[:7]
        self.taken += piece
        return len(piece)


def test_nothing_is_lost_on_an_unbuffered_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTHONUNBUFFERED leaves the bare descriptor in place of the buffer, and its short counts to whoever writes."""
    pipes = Trickle(), Trickle()
    bare = [io.TextIOWrapper(pipe, write_through=True) for pipe in pipes]  # type: ignore[type-var]
    monkeypatch.setattr(sys, "stdout", bare[0])
    monkeypatch.setattr(sys, "stderr", bare[1])

    output.write_whole()
    output.emit({"kind": "file", "path": "a" * 100})
    output.note("b" * 100)
    sys.stdout.flush()
    sys.stdout.buffer.write(b"c" * 100)
    sys.stdout.buffer.flush()

    assert pipes[0].taken == b'{"kind":"file","path":"%b"}\n' % (b"a" * 100) + b"c" * 100
    assert pipes[1].taken == b"b" * 100 + b"\n"


def test_a_buffered_stream_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])

    output.write_whole()

    assert (sys.stdout, sys.stderr) == streams


def test_a_count_agrees_with_its_noun() -> None:
    assert [output.count(number, "segment") for number in (0, 1, 2)] == ["0 segments", "1 segment", "2 segments"]
