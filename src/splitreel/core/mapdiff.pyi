from splitreel.core.extent import ExtentMap
from splitreel.core.view import Column

SAME: int
EXTENTS: int
ATTRIBUTES: int
ABSENT: int
RENAMED: int

def compare(old: ExtentMap, new: ExtentMap) -> tuple[Column, Column]: ...
