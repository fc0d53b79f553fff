from os import PathLike
from pathlib import Path

from splitreel.core.tape import Transport

SG_CLASS: Path
ELEMENT_SIZE: Path

def marshal(cdb: bytes, direction: int, size: int, timeout_ms: int) -> bytes: ...
def decode(header: bytes, sense: bytes = b"") -> tuple[int, bytes, int]: ...
def transfer_limits(
    node: str, reserved: int, tablesize: int, sg_class: Path = ..., element_size: Path = ...
) -> list[tuple[int, str]]: ...

class SgTransport(Transport):
    duration_ms: int
    limit_reason: str
    def __init__(self, path: str | PathLike[str], *, exclusive: bool = False) -> None: ...
