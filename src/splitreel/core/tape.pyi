from types import TracebackType
from typing import Any, Self

from typing_extensions import Buffer

DEFAULT_TIMEOUT_MS: int

class Transport:
    name: str
    max_transfer: int
    opcodes: Any
    devicetype: int | None
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def run_command(
        self, cdb: Buffer, direction: int = 0, data: Buffer | None = None, timeout_ms: int = 60_000
    ) -> tuple[int, bytes, int]: ...
    def execute(self, cmd: Any, en_raw_sense: bool = False) -> int: ...

class Tape:
    transport: Transport
    max_block: int
    object_id: int
    def __init__(
        self,
        transport: Transport,
        write_cdb: Buffer,
        read_cdb: Buffer,
        filemarks_cdb: Buffer,
        write_timeout_ms: int = 1_500_000,
        read_timeout_ms: int = 2_340_000,
        filemarks_timeout_ms: int = 1_620_000,
        max_block: int = 1 << 20,
    ) -> None: ...
    def write(self, block: Buffer) -> int: ...
    def read(self, capacity: int) -> bytes | int: ...
    def filemarks(self, count: int, immediate: bool = False) -> int: ...
