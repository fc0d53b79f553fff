"""qga speaks to the QEMU guest agent of a virtual machine over its socket, every wait bounded. It holds nothing.

Source: QEMU's qga/qapi-schema.json and docs/interop/qemu-ga.rst: JSON objects a line. The agent does one command after
the other, and what an earlier client asked may still be answered: guest-sync-delimited tells where our answers begin.
"""

import json
import secrets
import select
import socket
import time
from typing import Any

from splitreel.errors import QuiesceError

REPLY_LIMIT = 4 << 20
DELIMITER = b"\xff"  # no part of UTF-8: it ends whatever half command is in the agent's way


class AgentError(QuiesceError):
    """The agent refused a command, did not answer in time, or the connection ended."""


class Agent:
    """One connection to an agent, which serves one client at a time. Use from one thread."""

    def __init__(self, path: str, timeout_s: float) -> None:
        """Connect, and wait until the agent answers us.

        Raises:
            AgentError: nobody listens, or nobody answers: the agent does not run in the guest.
        """
        self._name = f"guest agent {path}"
        self._timeout_s = timeout_s
        self._pending = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(path)
            self.synchronise()
        except OSError as error:
            self.close()
            advice = "Give the virtual machine a virtio-serial port named org.qemu.guest_agent.0 with this socket."
            raise AgentError(self._name, error.strerror or str(error), advice) from error
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """The socket's descriptor; a write to it never waits."""
        return self._socket.fileno()

    def synchronise(self) -> None:
        """Pass over what was answered to others, and to us too late.

        Raises:
            AgentError: no answer in time.
        """
        number = secrets.randbelow(1 << 31)
        request = json.dumps({"execute": "guest-sync-delimited", "arguments": {"id": number}})
        until = time.monotonic() + self._timeout_s
        self._send(DELIMITER + request.encode() + b"\n")
        while True:
            line = self._line(until)
            if DELIMITER in line and self._decoded(line.rpartition(DELIMITER)[2]).get("return") == number:
                return

    def command(self, execute: str, **arguments: Any) -> Any:
        """Run one command; returns its "return" value.

        Raises:
            AgentError: refused, no answer in time, or the connection ended.
        """
        request: dict[str, Any] = {"execute": execute}
        if arguments:
            request["arguments"] = arguments
        until = time.monotonic() + self._timeout_s
        self._send(json.dumps(request).encode() + b"\n")
        reply = self._decoded(self._line(until))
        if "error" in reply:
            raise AgentError(self._name, f"{execute}: {reply['error'].get('desc', reply['error'])}")
        return reply.get("return")

    def close(self) -> None:
        """Hang up; harmless twice."""
        self._socket.close()

    def _send(self, request: bytes) -> None:
        try:
            self._socket.sendall(request)
        except OSError as error:
            raise AgentError(self._name, error.strerror or str(error)) from error

    def _line(self, until: float) -> bytes:
        while b"\n" not in self._pending:
            if not select.select([self._socket], [], [], max(0.0, until - time.monotonic()))[0]:
                advice = "See whether qemu-guest-agent runs in the guest, and whether another client has the socket."
                raise AgentError(self._name, "no answer in time", advice)
            data = self._socket.recv(1 << 16)
            if not data:
                raise AgentError(self._name, "the connection ended")
            self._pending += data
            if len(self._pending) > REPLY_LIMIT:
                raise AgentError(self._name, "a reply without end")
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _decoded(self, line: bytes) -> dict[str, Any]:
        try:
            reply = json.loads(line.lstrip(DELIMITER))
        except ValueError as error:
            raise AgentError(self._name, "a reply that is no JSON") from error
        if not isinstance(reply, dict):
            raise AgentError(self._name, "a reply that is no object")
        return reply
