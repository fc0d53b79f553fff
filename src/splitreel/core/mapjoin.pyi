from collections.abc import Sequence

from splitreel.core.extent import ExtentMap

INODE_STEP: int

def join_maps(parts: Sequence[tuple[bytes, ExtentMap, int]], device_size: int) -> ExtentMap: ...
