from collections.abc import Iterable

from typing_extensions import Buffer

from splitreel.core.tape import Transport

DEFAULT_LOGIN_TIMEOUT_MS: int
SECRET_VARIABLE: str

def parse_url(url: str) -> tuple[str, str, int, str | None, str]: ...
def default_initiator_name() -> str: ...

class IscsiTransport(Transport):
    target_name: str
    lun: int
    depth: int
    def __init__(
        self,
        url: str,
        *,
        initiator_name: str | None = None,
        timeout_ms: int = 15_000,
        depth: int = 1,
        header_digest: bool = False,
    ) -> None: ...
    def run_queued(
        self,
        commands: Iterable[tuple[Buffer, int, Buffer | None]],
        timeout_ms: int = 60_000,
        *,
        ahead: int = 0,
    ) -> list[tuple[int, bytes, int]]: ...
