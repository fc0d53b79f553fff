from typing import Literal

from splitreel.core.device import BlockDevice

def examine(
    device: BlockDevice, log_device: BlockDevice | None = None
) -> tuple[Literal["clean", "frozen", "dirty"], int, int]: ...
