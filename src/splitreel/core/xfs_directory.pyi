from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap

class XfsWalk:
    def names(self, device: BlockDevice, target: ExtentMap, root: int, local: dict[int, bytes]) -> None: ...
