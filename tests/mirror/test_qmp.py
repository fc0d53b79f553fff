"""QMP: every wait is bounded, and what is no QMP is refused."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from splitreel.mirror.qmp import Qmp, QmpError

GREETING = b'{"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": []}}\n'


@contextmanager
def monitor(folder: Path, *answers: bytes, greeting: bytes = GREETING) -> Iterator[str]:
    """A monitor that greets and then gives one prepared answer a command; after the last it hangs up."""
    path = str(folder / "qmp")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.sendall(greeting)
            for answer in answers:
                if not client.recv(65536):
                    return
                client.sendall(answer)
            client.recv(65536)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield path
    finally:
        listener.close()
        thread.join(5)


OK = b'{"return": {}}\n'


def test_events_between_a_command_and_its_reply_are_kept(tmp_path: Path) -> None:
    event = b'{"event": "BLOCK_JOB_READY", "data": {"device": "a"}}\n'
    with monitor(tmp_path, OK, event + b'{"return": 7}\n') as path:
        qmp = Qmp(path, 5)
        assert qmp.version == {"major": 7}
        assert qmp.command("x") == 7
        assert qmp.wait(lambda e: e["event"] == "BLOCK_JOB_READY", 1)["data"] == {"device": "a"}
        with pytest.raises(QmpError, match="in time"):
            qmp.wait(lambda e: True, 0.1)
        qmp.close()


def test_a_refusal_bears_its_description_and_class(tmp_path: Path) -> None:
    refusal = json.dumps({"error": {"class": "DeviceNotActive", "desc": "no such job"}}).encode() + b"\n"
    with monitor(tmp_path, OK, refusal) as path:
        qmp = Qmp(path, 5)
        with pytest.raises(QmpError, match="no such job") as caught:
            qmp.command("block-job-cancel", device="x")
        assert caught.value.kind == "DeviceNotActive"
        qmp.close()


def test_silence_ends_at_the_time_limit(tmp_path: Path) -> None:
    with monitor(tmp_path, OK, b"") as path:
        qmp = Qmp(path, 0.2)
        since = time.monotonic()
        with pytest.raises(QmpError, match="in time"):
            qmp.command("query-block-jobs")
        assert time.monotonic() - since < 5
        qmp.close()


@pytest.mark.parametrize(
    ("greeting", "reason"),
    [(b"SSH-2.0\n", "no JSON"), (b"[1]\n", "no object"), (b"{}\n", "does not greet"), (b"", "in time")],
)
def test_what_is_no_monitor_is_refused(tmp_path: Path, greeting: bytes, reason: str) -> None:
    with monitor(tmp_path, greeting=greeting) as path, pytest.raises(QmpError, match=reason):
        Qmp(path, 0.5)


def test_nobody_listening_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(QmpError) as caught:
        Qmp(str(tmp_path / "none"), 0.5)
    assert "Start QEMU" in caught.value.advice


def test_hanging_up_is_noticed(tmp_path: Path) -> None:
    with monitor(tmp_path, OK, OK) as path:
        qmp = Qmp(path, 5)
        qmp.command("quit")
        hang_up: Callable[[], object] = lambda: qmp.command("query-status")  # noqa: E731
        with pytest.raises(QmpError, match=r"ended|Broken"):
            hang_up()
        qmp.close()
