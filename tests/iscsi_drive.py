"""iscsi_drive is what tests of the iSCSI transport share: opening, commands, and a relay that cuts the connection."""

import contextlib
import select
import socket
import threading

from splitreel.core.tape import Tape

from .support import compiled

IscsiTransport, parse_url = compiled("iscsi").IscsiTransport, compiled("iscsi").parse_url

NO_DATA, TO_DEVICE, FROM_DEVICE = 0, 1, 2
TEST_UNIT_READY = bytes(6)
REWIND = bytes([0x01, 0, 0, 0, 0, 0])
WRITE_6, READ_6, WRITE_FILEMARKS_6 = (bytes([opcode, 0, 0, 0, 0, 0]) for opcode in (0x0A, 0x08, 0x10))
FILEMARK, END_OF_DATA = 3, 4


def open_ready(url: str, **options: object) -> IscsiTransport:
    """A transport whose unit attention of the new session has been taken."""
    transport = IscsiTransport(url, **options)  # type: ignore[arg-type]
    assert transport.run_command(TEST_UNIT_READY)[0] == 2
    assert transport.run_command(TEST_UNIT_READY)[0] == 0
    return transport


def tape_of(transport: IscsiTransport) -> Tape:
    return Tape(transport, WRITE_6, READ_6, WRITE_FILEMARKS_6)


class Cutter:
    """A TCP relay to a target that drops the connection when so many bytes have gone to the target."""

    def __init__(self, url: str, cut_after: int, *, address: str = "127.0.0.1") -> None:
        authority, _, path = url.removeprefix("iscsi://").partition("/")
        host, _, port = authority.partition(":")
        self.portal, self.cut_after, self.connections = (host, int(port)), cut_after, 0
        self.listener = socket.create_server((address, 0))
        self.listener.settimeout(0.1)
        self.port = self.listener.getsockname()[1]
        self.url = f"iscsi://{address}:{self.port}/{path}"
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.done.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self.listener.accept()
                self.connections += 1
                with connection, socket.create_connection(self.portal) as target:
                    self.relay(connection, target)

    def relay(self, initiator: socket.socket, target: socket.socket) -> None:
        left = self.cut_after
        while left > 0 and not self.done.is_set():
            for ready in select.select([initiator, target], [], [], 0.1)[0]:
                data = ready.recv(min(left, 65536))
                if not data:
                    return
                (target if ready is initiator else initiator).sendall(data)
                left -= len(data) if ready is initiator else 0

    def __enter__(self) -> "Cutter":
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.done.set()
        self.thread.join()
        self.listener.close()
