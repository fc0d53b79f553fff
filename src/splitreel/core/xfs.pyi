from collections.abc import Sequence

from splitreel.core.device import BlockDevice
from splitreel.core.filesystem import Filesystem

class Xfs(Filesystem):
    def __init__(
        self, device: BlockDevice, *, frozen: bool = False, live: bool = False, others: Sequence[BlockDevice] = ()
    ) -> None: ...
    @property
    def features(self) -> dict[str, list[str]]: ...
