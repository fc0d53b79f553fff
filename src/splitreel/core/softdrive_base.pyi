from splitreel.core.softdrive_medium import Medium
from splitreel.core.tape import Transport

INJECTIONS: dict[str, int]

class DriveBase(Transport):
    medium: Medium
    loaded: bool
    strikes: int
    def inject(self, kind: str, after_blocks: int = 0, count: int = 1) -> None: ...
