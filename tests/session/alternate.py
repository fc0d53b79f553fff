"""alternate writes one sequence to two files in turn, each write durable before the next begins, until told to end.

As a database does with its WAL on one volume and its data on another: no copy of one instant has a later number in one
file without the earlier one in the other.
"""

import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NUMBER = struct.Struct("<Q")


@contextmanager
def writer(first: Path, second: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A writer in a process of its own, which has begun; files that are there are gone on with."""
    process = subprocess.Popen([sys.executable, "-I", __file__, first, second], stdin=subprocess.PIPE)
    try:
        until = time.monotonic() + 20
        while not (second.exists() and second.stat().st_size) and time.monotonic() < until:
            time.sleep(0.01)
        assert process.poll() is None
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def last_of(file: Path) -> int:
    """The last whole number of a file, once it is seen that none is missing before it."""
    content = file.read_bytes()
    whole = len(content) // NUMBER.size
    numbers = [number for (number,) in NUMBER.iter_unpack(content[: whole * NUMBER.size])]
    assert numbers == list(range(1, whole + 1)), file
    return whole


def main(first: str, second: str) -> None:
    """Until standard input ends."""
    opened = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for path in (first, second)]
    os.set_blocking(0, False)
    number = os.fstat(opened[1]).st_size // NUMBER.size
    while True:
        try:
            if os.read(0, 1) == b"":
                return
        except BlockingIOError:
            pass
        number += 1
        for descriptor in opened:
            os.write(descriptor, NUMBER.pack(number))
            os.fsync(descriptor)


if __name__ == "__main__":
    main(*sys.argv[1:3])
