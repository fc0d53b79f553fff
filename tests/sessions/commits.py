"""commits runs writers that log every acknowledged commit, and judges a copy by their logs. It knows no database.

A writer is a process: ``python -m tests.sessions.commits LOG WRITER PAUSE_S STATEMENT CLIENT...`` feeds a client
program with STATEMENT ({writer}, {number}, {begun} filled in), which must answer with a line that is the number; or,
for the client ``sqlite``, a database file and its journal mode. It ends when its standard input closes.
"""

import contextlib
import os
import select
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

Commits = list[tuple[int, int, int]]  # number, begun, acknowledged
Rows = Mapping[int, Sequence[tuple[int, int]]]
STOP_SECONDS = 60.0


def read_log(path: Path) -> Commits:
    """What one writer had acknowledged; a last line without its end is left out."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [(int(number), int(begun), int(done)) for number, begun, done in map(bytes.split, lines)]


def longest_ms(logs: Mapping[int, Path], since_ns: int, until_ns: int) -> float:
    """The longest commit, from its beginning to its acknowledgement, that was under way in this span."""
    spans = [
        done - begun
        for path in logs.values()
        for _, begun, done in read_log(path)
        if begun <= until_ns and done >= since_ns
    ]
    return max(spans, default=0) / 1e6


def judge(rows: Rows, logs: Mapping[int, Path], before_ns: int, after_ns: int) -> list[str]:
    """What is wrong with a copy that must hold all commits acknowledged before one time, none begun after another."""
    wrong = []
    for writer, path in logs.items():
        commits, held = read_log(path), rows.get(writer, [])
        numbers = {number for number, _ in held}
        due = {number for number, _, done in commits if done < before_ns}
        if not due:
            wrong.append(f"writer {writer}: nothing was acknowledged before the split, so nothing is shown")
        if lost := due - numbers:
            wrong.append(f"writer {writer}: {len(lost)} acknowledged rows are missing, the first is {min(lost)}")
        if late := [number for number, begun in held if begun > after_ns]:
            wrong.append(f"writer {writer}: {len(late)} rows were begun too late, the first is {late[0]}")
        if numbers != set(range(1, len(numbers) + 1)):
            wrong.append(f"writer {writer}: the rows have a gap")
    return wrong


@contextlib.contextmanager
def writing(
    logs: Mapping[int, Path], statement: str, client: Sequence[str], pause_s: float, least: int = 50
) -> Iterator[None]:
    """A writer for each log, at work once each has had ``least`` commits acknowledged."""
    processes = []
    try:
        for writer, log in logs.items():
            command = [sys.executable, "-m", "tests.sessions.commits", str(log), str(writer), str(pause_s), statement]
            processes.append(subprocess.Popen([*command, *client], stdin=subprocess.PIPE))
        wait_for(lambda: all(len(read_log(log)) >= least for log in logs.values()), "the writers do not get on")
        yield
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(ready: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait for something that is to come by itself."""
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def _by_client(statement: str, client: Sequence[str], writer: int) -> Iterator[None]:
    """Commit on each step, by a program that is fed with statements."""
    with subprocess.Popen(client, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = os.fdopen(os.dup(process.stdout.fileno()), "rb")
        number = 0
        while True:
            number += 1
            text = statement.format(writer=writer, number=number, begun=time.monotonic_ns())
            process.stdin.write(text.encode() + b"\n")
            while (line := lines.readline().strip()) != str(number).encode():
                if not line and process.poll() is not None:
                    return
            yield


def _by_sqlite(statement: str, database: str, mode: str, writer: int) -> Iterator[None]:
    connection = sqlite3.connect(database, timeout=60, isolation_level=None)
    connection.execute(f"pragma journal_mode={mode}")
    connection.execute("pragma synchronous=full")
    number = 0
    while True:
        number += 1
        text = statement.format(writer=writer, number=number, begun=time.monotonic_ns())
        connection.execute("begin immediate")
        connection.execute(text)
        connection.execute("commit")
        yield


def main(arguments: list[str]) -> int:
    """One writer; see the module."""
    log, writer, pause, statement, *client = arguments
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    steps = (
        _by_sqlite(statement, client[1], client[2], int(writer))
        if client[0] == "sqlite"
        else _by_client(statement, client, int(writer))
    )
    begun = time.monotonic_ns()
    for number, _ in enumerate(steps, 1):
        os.write(descriptor, f"{number} {begun} {time.monotonic_ns()}\n".encode())
        if select.select([sys.stdin], [], [], float(pause))[0]:
            return 0
        begun = time.monotonic_ns()
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
