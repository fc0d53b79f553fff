from typing import TypedDict

from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap

class Seconds(TypedDict):
    groups: float
    inodes: float
    xattrs: float
    names: float

class Statistics(TypedDict):
    inodes: int
    unnamed: int
    directory_blocks: int
    bytes_read: int
    reads: int
    seconds: Seconds

class Filesystem:
    device: BlockDevice
    block_size: int
    uuid: bytes
    fs_type: str | None
    warnings: list[str]
    @property
    def statistics(self) -> Statistics: ...
    def map(self) -> ExtentMap: ...
    def verify_unchanged(self) -> None: ...
