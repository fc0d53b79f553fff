"""stamping runs the processes that write stamps and rows, and tells how far they are. It judges nothing."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitreel.errors import SplitreelError, UsageError
from splitreel.prove import operations, rows

START_SECONDS = 60.0
STOP_SECONDS = 60.0
WARM = 150  # groups: every file is there and full
PAUSE_S = 0.001
ROW_WRITERS = 2
ROWS_KEPT = 4096
POLL_SECONDS = 0.02
RECENT = 64  # operations of a log that are looked at while waiting


class Stamping:
    """Writers of files on all volumes, and of rows in the databases that are given; a context manager.

    ``tables``: the settings of their quiescers. ``row_logs``: a table's logs by the number of the writer.
    """

    def __init__(
        self, folders: Sequence[Path], logs: Path, run: int, writers: int, tables: Sequence[Mapping[str, Any]]
    ) -> None:
        """``folders`` are made, one on each volume, and removed at the end; ``logs`` is elsewhere."""
        self.folders = list(folders)
        self.run = run
        self.tables = [rows.table(settings) for settings in tables]
        self.logs = {number: logs / f"writer-{number}.log" for number in range(writers)}
        self.row_logs = [
            {number: logs / f"rows-{table}-{number}.log" for number in range(ROW_WRITERS)}
            for table in range(len(tables))
        ]
        self._settings = list(tables)
        self._made: list[rows.Table] = []
        self._errors = logs / "writers.err"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Stamping":
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def directories(self, writer: int) -> list[Path]:
        """Where that writer's files are, one below each of ``folders``."""
        return [folder / f"writer-{writer}" for folder in self.folders]

    def log(self, writer: int) -> NDArray[np.void]:
        """The operations that it has begun so far."""
        return operations.read_log(self.logs[writer])

    def stamps(self) -> int:
        """How many stamps were acknowledged so far."""
        return sum(operations.stamps_of(self.log(writer)) for writer in self.logs if self.logs[writer].exists())

    def commits(self) -> int:
        """How many rows were acknowledged so far."""
        return sum(log.read_bytes().count(b"\n") for log in self._all_row_logs() if log.exists())

    def wait_past(self, moment_ns: int) -> None:
        """Until every writer has had something acknowledged that it began after that moment.

        Raises:
            SplitreelError: one of them ended, or does not get on.
        """
        until = time.monotonic() + START_SECONDS
        while not all(self._past(moment_ns)):
            self.require_running()
            if time.monotonic() > until:
                raise SplitreelError("prove: the writers", f"one got nothing acknowledged in {START_SECONDS:g} s")
            time.sleep(POLL_SECONDS)

    def require_running(self) -> None:
        """Raises SplitreelError when a writer ended: of a full volume, for one."""
        if any(process.poll() is not None for process in self._processes):
            said = self._errors.read_text(errors="replace").strip().splitlines()
            raise SplitreelError(
                "prove: the writers", said[-1] if said else "one of them ended", "Make room, or see why."
            )

    def close(self) -> None:
        """Stop the writers and remove what they wrote; harmless twice."""
        for process in self._processes:
            if process.stdin:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        for process in self._processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        while self._made:
            with contextlib.suppress(SplitreelError):
                self._made.pop().drop()
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _start(self) -> None:
        for folder in self.folders:
            try:
                folder.mkdir()
            except OSError as error:
                raise UsageError(f"prove: {folder.parent}", str(error), "The volume must be writable.") from error
        for table in self.tables:
            table.create()
            self._made.append(table)
        for number, log in self.logs.items():
            log.touch()
            self._spawn("writer", log, self.run, number, PAUSE_S, *self.directories(number))
        for settings, logs in zip(self._settings, self.row_logs, strict=True):
            for number, log in logs.items():
                log.touch()
                self._spawn("rows", json.dumps(settings), log, number, ROWS_KEPT, PAUSE_S)
        while any(np.count_nonzero(self.log(writer)["acknowledged_ns"]) < WARM for writer in self.logs):
            self.require_running()
            time.sleep(POLL_SECONDS)

    def _spawn(self, module: str, *arguments: Any) -> None:
        command = [sys.executable, "-m", f"splitreel.prove.{module}", *map(str, arguments)]
        with self._errors.open("ab") as errors:
            self._processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors))

    def _past(self, moment_ns: int) -> list[bool]:
        last = [operations.read_log(log, RECENT) for log in self.logs.values()]
        past = [bool(((log["begun_ns"] > moment_ns) & (log["acknowledged_ns"] > 0)).any()) for log in last]
        return past + [bool((rows.read_log(log, RECENT)[:, 1] > moment_ns).any()) for log in self._all_row_logs()]

    def _all_row_logs(self) -> list[Path]:
        return [log for logs in self.row_logs for log in logs.values()]
