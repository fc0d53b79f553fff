from typing_extensions import Buffer

from splitreel.core.softdrive_medium import Medium
from splitreel.core.tape import Transport

INJECTIONS: dict[str, int]

class DriveBase(Transport):
    medium: Medium
    loaded: bool
    strikes: int
    def inject(self, kind: str, after_blocks: int = 0, count: int = 1) -> None: ...
    def inject_reply(self, opcode: int, status: int, sense: Buffer, transferred: int = 0) -> None: ...
