"""qmp speaks QEMU's machine protocol over a unix socket, every wait bounded. It knows no mirror.

Source: QEMU's docs/interop/qmp-spec: JSON objects a line; a greeting, then qmp_capabilities, then one reply a command
with events in between.
"""

import json
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from splitreel.errors import MirrorError

REPLY_LIMIT = 64 << 20
EVENTS_KEPT = 1024

Event = dict[str, Any]


class QmpError(MirrorError):
    """QEMU refused a command, did not answer in time, or hung up; ``kind`` is its error class, "" when it gave none."""

    kind = ""


class Qmp:
    """One connection to a monitor, which serves one client at a time. Use from one thread."""

    def __init__(self, path: str, timeout_s: float = 10.0) -> None:
        """Connect and negotiate.

        Raises:
            QmpError: nobody listens, or another client holds the monitor.
        """
        self.path = path
        self._timeout_s = timeout_s
        self._pending = b""
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(path)
            greeting = self._message(time.monotonic() + timeout_s)
            if "QMP" not in greeting:
                raise QmpError(f"QMP {path}", "what listens there does not greet as QMP does")
            self.version = greeting["QMP"].get("version", {}).get("qemu", {})
            self.command("qmp_capabilities")
        except OSError as error:
            self.close()
            raise QmpError(
                f"QMP {path}", error.strerror or str(error), "Start QEMU with a QMP socket at this path."
            ) from error
        except BaseException:
            self.close()
            raise

    def command(self, execute: str, **arguments: Any) -> Any:
        """Run one command; underscores in argument names become hyphens. Returns its "return" value.

        Raises:
            QmpError: refused, no answer in time, or the connection ended.
        """
        request: dict[str, Any] = {"execute": execute}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"QMP {self.path}", f"{execute}: {error.strerror or error}") from error
        until = time.monotonic() + self._timeout_s
        while True:
            reply = self._message(until)
            if "event" in reply:
                self._events.append(reply)
            elif "error" in reply:
                refusal = QmpError(f"QMP {self.path}", f"{execute}: {reply['error'].get('desc', reply['error'])}")
                refusal.kind = str(reply["error"].get("class", ""))
                raise refusal
            elif "return" in reply:
                return reply["return"]

    def wait(self, wanted: Callable[[Event], bool], timeout_s: float) -> Event:
        """The first event, also of those that came before, for which ``wanted`` is true; it is taken out.

        Raises:
            QmpError: it did not come in time, or the connection ended.
        """
        until = time.monotonic() + timeout_s
        while True:
            for event in self._events:
                if wanted(event):
                    self._events.remove(event)
                    return event
            message = self._message(until)
            if "event" in message:
                self._events.append(message)

    def drop_events(self) -> None:
        """Forget the events that came so far."""
        self._events.clear()

    def _message(self, until: float) -> dict[str, Any]:
        while b"\n" not in self._pending:
            if not select.select([self._socket], [], [], max(0.0, until - time.monotonic()))[0]:
                raise QmpError(f"QMP {self.path}", "no answer in time", "See whether another client holds the monitor.")
            data = self._socket.recv(1 << 16)
            if not data:
                raise QmpError(f"QMP {self.path}", "QEMU ended the connection")
            self._pending += data
            if len(self._pending) > REPLY_LIMIT:
                raise QmpError(f"QMP {self.path}", "a reply without end")
        line, _, self._pending = self._pending.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError as error:
            raise QmpError(f"QMP {self.path}", "a reply that is no JSON") from error
        if not isinstance(message, dict):
            raise QmpError(f"QMP {self.path}", "a reply that is no object")
        return message

    def close(self) -> None:
        """Hang up; harmless twice."""
        self._socket.close()
