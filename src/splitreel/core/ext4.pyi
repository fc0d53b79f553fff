from collections.abc import Sequence
from typing import TypedDict

from splitreel.core.device import BlockDevice
from splitreel.core.extent import Filesystem

class _Seconds(TypedDict):
    groups: float
    inodes: float
    xattrs: float
    names: float

class _Statistics(TypedDict):
    kind: str
    inodes: int
    unnamed: int
    directory_blocks: int
    bytes_read: int
    reads: int
    seconds: _Seconds

class Ext4(Filesystem):
    def __init__(
        self, device: BlockDevice, *, frozen: bool = False, live: bool = False, others: Sequence[BlockDevice] = ()
    ) -> None: ...
    @property
    def kind(self) -> str: ...
    @property
    def warnings(self) -> list[str]: ...
    @property
    def features(self) -> dict[str, list[str]]: ...
    @property
    def statistics(self) -> _Statistics: ...
    def verify_unchanged(self) -> None: ...
