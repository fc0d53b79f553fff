"""psql keeps one session with a PostgreSQL server open, by the program psql. It knows no backup.

The program and not a library in this process: a connection that hangs (the server's file system may be frozen) is then
a process that can be left or killed, not a call that cannot be taken back; it may run as another user, which peer
authentication wants; and it ends with this process, however that ends, which ends the server's session, and with it the
backup state. It is libpq all the same: service files, ``PGPASSFILE`` and all else that its environment says.
"""

import json
import os
import select
import signal
import subprocess
import time
from typing import Any

from splitreel.errors import QuiesceError

ANSWER_SECONDS = 30.0
ANSWER_LIMIT = 16 << 20
END_SECONDS = 5.0
WORDS_SECONDS = 0.5  # for the rest of an error message

# What an administrator may have set against forgotten sessions would end this one in the middle of a backup.
_PATIENT = """select json_build_object('set', count(set_config(name, '0', false))) from pg_settings
 where name in ('statement_timeout', 'lock_timeout', 'idle_session_timeout', 'transaction_timeout',
 'idle_in_transaction_session_timeout')"""


class Psql:
    """One session; ``name`` is for messages. ``open`` to ``close``; one thread."""

    def __init__(self, name: str, conninfo: str, run_as: str = "") -> None:
        self.name = name
        self._conninfo = conninfo
        self._run_as = run_as
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a session, which may have been lost meanwhile."""
        return self._process is not None

    def open(self) -> None:
        """Connect; harmless when connected.

        Raises:
            QuiesceError: psql cannot be run, or the server refuses.
        """
        if self._process is not None:
            return
        command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self._conninfo]
        who: dict[str, Any] = {"user": self._run_as, "extra_groups": []} if self._run_as else {}
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                bufsize=0,
                start_new_session=True,
                env={**os.environ, "PGAPPNAME": "splitreel", "PGCONNECT_TIMEOUT": f"{ANSWER_SECONDS:.0f}"},
                **who,
            )
        except FileNotFoundError as error:
            raise QuiesceError(self.name, "there is no psql", "apt install postgresql-client") from error
        except (OSError, LookupError, ValueError) as error:
            raise QuiesceError(self.name, f"psql: {error}", "Correct `run_as`.") from error
        self.ask(_PATIENT)

    def ask(self, statement: str, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """The one JSON object that a statement answers, on one line.

        Raises:
            QuiesceError: the server refuses it, the session was lost, or there is no answer in time.
        """
        psql = self._process
        if psql is None or psql.stdin is None or psql.stdout is None:
            raise QuiesceError(self.name, "its session was not opened")
        answer = b""
        try:
            psql.stdin.write(statement.replace("\n", " ").encode() + b";\n")
            answer = self._line(seconds)
            found = json.loads(answer)
        except (OSError, ValueError) as error:
            why = " ".join((answer + self._last_words()).decode(errors="replace").split())[:500]
            raise QuiesceError(
                self.name, why or "the session was lost", "Check `conninfo`, and the server's log."
            ) from error
        if not isinstance(found, dict):
            raise QuiesceError(self.name, "psql answered something else")
        return found

    def _line(self, seconds: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        pipe, answer, until = self._process.stdout, b"", time.monotonic() + seconds
        while not answer.endswith(b"\n") and len(answer) < ANSWER_LIMIT:
            if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
                raise QuiesceError(self.name, f"no answer within {seconds:g} s", "Raise `timeout_s`.")
            if not (data := os.read(pipe.fileno(), 1 << 16)):
                break
            answer += data
        return answer

    def _last_words(self) -> bytes:
        """What else psql says before it ends, as it does after an error."""
        said, until = b"", time.monotonic() + WORDS_SECONDS
        pipe = self._process.stdout if self._process is not None else None
        while pipe is not None and select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
            if not (data := os.read(pipe.fileno(), 1 << 12)) or len(said) > 1 << 16:
                break
            said += data
        return said

    def close(self) -> None:
        """End psql; harmless twice, and when the server does not answer.

        A statement under way is cancelled (psql passes SIGINT on to the server) rather than waited for.
        """
        if self._process is None:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        for how in (0, signal.SIGINT, signal.SIGKILL):
            if how:
                self._process.send_signal(how)
            try:
                self._process.wait(END_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        self._process = None
