"""The guest agent's quiescer against a scripted agent: it thaws whatever happens. A real one: tests/vm/guest."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitreel.config import ConfigError, parse
from splitreel.errors import QuiesceError
from splitreel.quiesce import create, holds_volumes
from splitreel.quiesce.guestagent import GuestAgent
from splitreel.session.window import Window, short_window

ROOT = Path(__file__).parents[2]
COMMANDS = ("guest-info", "guest-fsfreeze-status", "guest-fsfreeze-freeze", "guest-fsfreeze-freeze-list")

DIE = """
import os, signal, sys
from splitreel.quiesce import create
from splitreel.session.window import Window
window = Window([create({"type": "guest-agent", "socket": sys.argv[1]})], int(sys.argv[3]))
window.prepare()
window.open()
os.kill(os.getpid(), int(sys.argv[2]))
"""


def die_holding(path: str, number: int, deadline_ms: int) -> "subprocess.Popen[bytes]":
    """A session that sends itself a signal in its window; it may not have come so far on return."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    return subprocess.Popen([sys.executable, "-c", DIE, path, str(int(number)), str(deadline_ms)], env=environment)


class ScriptedAgent:
    """An agent as QEMU shows it: one client at a time, one command after the other. ``delay``: seconds of a freeze."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frozen = 0
        self.seen: list[str] = []
        self.delay = 0.0
        self.count = 2
        self.blocked: tuple[str, ...] = ()
        self.greeting = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(4)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            # A client that was killed resets the connection.
            with contextlib.suppress(OSError), client, client.makefile("rb") as lines:
                client.sendall(self.greeting)
                for line in lines:
                    client.sendall(self._answer(json.loads(line.rpartition(b"\xff")[2])))

    def _answer(self, request: dict[str, Any]) -> bytes:
        name, arguments = request["execute"], request.get("arguments", {})
        self.seen.append(name)
        if name == "guest-sync-delimited":
            return b"\xff" + self._line(arguments["id"])
        if name.startswith("guest-fsfreeze-freeze"):
            return self._freeze(len(arguments.get("mountpoints", [])))
        if name == "guest-fsfreeze-thaw":
            self.frozen, count = 0, self.frozen
            return self._line(count)
        known = (*COMMANDS, "guest-fsfreeze-thaw")
        answers = {
            "guest-info": {
                "supported_commands": [{"name": k, "enabled": not self.frozen and k not in self.blocked} for k in known]
            },
            "guest-get-fsinfo": [{"mountpoint": "/"}, {"mountpoint": "/srv/db"}],
            "guest-fsfreeze-status": "frozen" if self.frozen else "thawed",
        }
        return self._line(answers[name])

    def _freeze(self, chosen: int) -> bytes:
        time.sleep(self.delay)
        if self.count < 0:
            return b'{"error": {"class": "GenericError", "desc": "failed to freeze /srv"}}\n'
        self.frozen = chosen or self.count
        return self._line(self.frozen)

    def _line(self, value: Any) -> bytes:
        return json.dumps({"return": value}).encode() + b"\n"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[ScriptedAgent]:
    scripted = ScriptedAgent(tmp_path / "qga.sock")
    yield scripted
    scripted.close()


def of(agent: ScriptedAgent, **changes: Any) -> GuestAgent:
    quiescer = create({"type": "guest-agent", "socket": str(agent.path), **changes})
    assert isinstance(quiescer, GuestAgent)
    return quiescer


def thawed_within(agent: ScriptedAgent, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while agent.frozen and time.monotonic() < until:
        time.sleep(0.01)
    return not agent.frozen and "guest-fsfreeze-thaw" in agent.seen


def test_a_window(agent: ScriptedAgent) -> None:
    quiescer = of(agent)
    quiescer.check()
    assert holds_volumes(quiescer)
    assert quiescer.frozen() == []
    with Window([quiescer], 5000) as window:
        assert agent.frozen == 2
    assert agent.frozen == 0
    assert window.milliseconds > 0
    quiescer.unquiesce()
    assert agent.seen.count("guest-fsfreeze-thaw") == 1
    assert (quiescer.discover().files, quiescer.redo(), quiescer.recover()) == ((), {}, "")


def test_chosen_mounts_alone(agent: ScriptedAgent) -> None:
    quiescer = of(agent, mounts=["/srv/db"])
    quiescer.check()
    with Window([quiescer], 5000):
        assert agent.frozen == 1
    assert agent.frozen == 0
    with pytest.raises(QuiesceError, match="nothing is mounted at /srv/other"):
        of(agent, mounts=["/srv/other"]).check()


def test_what_was_left_for_others_is_passed_over(agent: ScriptedAgent) -> None:
    """Answers to an earlier client, and the half of one, stand before ours."""
    agent.greeting = b'{"return": 7}\n{"return": {"half'
    of(agent).check()


def test_refusals(agent: ScriptedAgent, tmp_path: Path) -> None:
    with pytest.raises(QuiesceError, match="No such file") as caught:
        create({"type": "guest-agent", "socket": str(tmp_path / "none")}).check()
    assert "org.qemu.guest_agent.0" in caught.value.advice
    agent.blocked = ("guest-fsfreeze-freeze",)
    with pytest.raises(QuiesceError, match="does not run guest-fsfreeze-freeze"):
        of(agent).check()
    agent.blocked = ()
    agent.frozen = 1
    with pytest.raises(QuiesceError, match="frozen already"):
        of(agent).check()
    assert "they are thawed" in of(agent).recover()
    assert agent.frozen == 0


@pytest.mark.parametrize(("count", "reason"), [(0, "froze 0 file systems"), (-1, "failed to freeze /srv")])
def test_a_freeze_that_failed_is_undone(agent: ScriptedAgent, count: int, reason: str) -> None:
    agent.count = count
    with pytest.raises(QuiesceError, match=reason), Window([of(agent)], 5000):
        pytest.fail("nothing was frozen")
    assert agent.seen[-1] in ("guest-fsfreeze-thaw", "guest-fsfreeze-status")
    assert "guest-fsfreeze-thaw" in agent.seen


def test_a_freeze_that_takes_too_long_is_thawed_when_it_is_done(agent: ScriptedAgent) -> None:
    """The answer that comes too late is not taken for that to the thaw."""
    agent.delay = 0.6
    with pytest.raises(QuiesceError, match="no answer in time"), Window([of(agent, timeout_s=0.4)], 5000):
        pytest.fail("it had not answered")
    assert thawed_within(agent, 10)
    assert agent.seen[-2:] == ["guest-fsfreeze-thaw", "guest-fsfreeze-status"]


def test_nobody_who_answers_is_told(tmp_path: Path) -> None:
    """QEMU listens, but no agent runs in the guest."""
    path = tmp_path / "mute.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        with pytest.raises(QuiesceError, match="no answer in time"):
            create({"type": "guest-agent", "socket": str(path), "timeout_s": 0.2}).check()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_watchdog_thaws_over_the_session_s_own_connection(agent: ScriptedAgent, number: int) -> None:
    """Killed, or stopped with the connection open, which is the only one that QEMU serves."""
    session = die_holding(str(agent.path), number, 700 if number == signal.SIGSTOP else 60000)
    try:
        until = time.monotonic() + 30
        while not agent.frozen and "guest-fsfreeze-thaw" not in agent.seen and time.monotonic() < until:
            time.sleep(0.01)
        assert thawed_within(agent, 20)
    finally:
        session.kill()
        session.wait()


def test_it_serves_a_mirror_that_rejoins_under_a_freeze(agent: ScriptedAgent) -> None:
    with short_window([{"type": "guest-agent", "socket": str(agent.path)}], 5000):
        assert agent.frozen == 2
    assert agent.frozen == 0


def test_it_comes_last(tmp_path: Path) -> None:
    held = [{"type": "guest-agent", "socket": "a"}, {"type": "sqlite", "database": "b"}]
    table = {"tape": "null:", "order": "postsplit", "mirror": {"type": "static", "image": "c"}, "quiesce": held}
    with pytest.raises(ConfigError, match="guest-agent must come last"):
        parse({"job": {"one": table}})
    parse({"job": {"one": {**table, "quiesce": held[::-1]}}})
