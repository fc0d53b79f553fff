"""mysqlclient speaks SQL through one ``mariadb`` or ``mysql`` client kept open as a child. It knows no backup.

A child, since a lock of the server's dies with its connection and the connection with its process: one signal to a
pidfd lets go whatever is held, from any other process. The client reads its option files itself, so that no secret
passes through here; it knows the server's ways to authenticate, unix_socket among them. It never reconnects: a new
connection would hold nothing. After an error it ends, and all that its connection held with it.
"""

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence

from splitreel.errors import QuiesceError

END_SECONDS = 5.0
ANSWER_LIMIT = 1 << 28
OPTIONS = (
    *("--batch", "--skip-column-names", "--unbuffered", "--skip-reconnect", "--skip-auto-rehash"),
    *("--default-character-set=utf8mb4", "--connect-timeout=10"),
)
ERROR = re.compile(r"^ERROR (\d+)(?: \(\w+\))?(?: at line \d+)?: (.*)", re.MULTILINE)
ESCAPE = re.compile(r"\\(.)")
ESCAPED = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\"}
ADVICE = {
    1044: "Grant this user RELOAD, PROCESS and, with a binary log, BINLOG MONITOR (MySQL: REPLICATION CLIENT).",
    1045: "Name user and password in an option file's [client] section, and that file with `defaults_file`.",
    1205: "Let it run when no long statement does, or raise `lock_wait_s`.",
    1698: "Run as root where root's account uses unix_socket, or name an option file with `defaults_file`.",
    1969: "Let it run when no long statement does, or raise `lock_wait_s`.",
    2002: "Start the server, or correct `socket` in the configuration.",
}
ADVICE[1227] = ADVICE[1044]


class ServerError(QuiesceError):
    """The server, or the client for it, refused; ``code`` is its error number, 0 where it gave none."""

    code = 0


class Client:
    """One connection. Use from one thread."""

    def __init__(self, name: str, programs: Sequence[str], options: Sequence[str]) -> None:
        """Start the first of ``programs`` that is installed; it connects when the first statement is asked.

        Raises:
            QuiesceError: there is none.
        """
        found = next((path for path in map(shutil.which, programs) if path), None)
        if found is None:
            raise QuiesceError(name, f"there is no program {programs[0]}", "apt install mariadb-client")
        first = [option for option in options if option.startswith("--defaults-")]  # the client wants these first
        others = [option for option in options if option not in first]
        self._name = name
        self._count = 0
        self._process = subprocess.Popen(
            [found, *first, *OPTIONS, *others],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            bufsize=0,
            start_new_session=True,
        )
        self.pidfd = os.pidfd_open(self._process.pid)

    def ask(self, statement: str, seconds: float) -> list[list[str]]:
        """The rows of a statement's answer, each a list of texts; NULL is the text "NULL".

        Raises:
            ServerError: it was refused, or the connection is lost; the client has ended.
            QuiesceError: no answer in time; the client has been ended, which ends the statement within a second.
        """
        self._count += 1
        mark = f"splitreel {self._count}"
        with contextlib.suppress(BrokenPipeError):  # then its last words say why
            assert self._process.stdin is not None
            self._process.stdin.write(f"{' '.join(statement.split())};\nselect '{mark}';\n".encode())
        answer = self._read(f"{mark}\n".encode(), time.monotonic() + seconds)
        if answer is None:
            self.kill()
            raise QuiesceError(self._name, f"no answer within {seconds:.3g} s to {_words(statement)}")
        text = answer.decode("utf-8", "surrogateescape")
        return [[ESCAPE.sub(_unescape, field) for field in row.split("\t")] for row in text.split("\n")[:-2]]

    def _read(self, mark: bytes, until: float) -> bytes | None:
        """All up to and with the mark, or None when it does not come in time."""
        pipe = self._process.stdout
        assert pipe is not None
        pieces, tail = [], b""
        while tail != mark and not tail.endswith(b"\n" + mark):
            if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
                return None
            if not (data := os.read(pipe.fileno(), 1 << 16)):
                raise self._last_words()
            pieces.append(data)
            tail = (tail + data)[-len(mark) - 1 :]
            if len(pieces) > ANSWER_LIMIT >> 16:
                self.kill()
                raise QuiesceError(self._name, f"an answer of more than {ANSWER_LIMIT >> 20} MiB")
        return b"".join(pieces)

    def _last_words(self) -> ServerError:
        """Why the client ended."""
        assert self._process.stderr is not None
        said = self._process.stderr.read(1 << 16).decode(errors="replace")
        self._process.wait(END_SECONDS)
        found = ERROR.findall(said)
        code, why = found[-1] if found else ("0", " ".join(said.split())[-300:] or "its client was ended")
        error = ServerError(self._name, f"{why} (error {code})" if found else why, ADVICE.get(int(code), ""))
        error.code = int(code)
        return error

    def kill(self) -> None:
        """End the client at once, and with it the connection; harmless when it has ended."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL) if self._process.poll() is None else None
        self._process.wait()

    def close(self) -> None:
        """Let the client say goodbye and end; harmless twice."""
        if self.pidfd < 0:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._process.stderr is not None:
            self._process.stderr.close()
        os.close(self.pidfd)
        self.pidfd = -1


def _unescape(match: re.Match[str]) -> str:
    return ESCAPED.get(match[1], match[0])


def _words(statement: str) -> str:
    """The first words of the last of the statements: what it does, without what may be secret in it."""
    return " ".join(statement.rpartition("; ")[2].split()[:4])
