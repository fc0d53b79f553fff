from collections.abc import Sequence

from splitreel.core.device import BlockDevice
from splitreel.core.filesystem import Filesystem, Statistics

class _Statistics(Statistics):
    kind: str

class Ext4(Filesystem):
    def __init__(
        self, device: BlockDevice, *, frozen: bool = False, live: bool = False, others: Sequence[BlockDevice] = ()
    ) -> None: ...
    @property
    def features(self) -> dict[str, list[str]]: ...
    @property
    def kind(self) -> str: ...
    @property
    def statistics(self) -> _Statistics: ...
