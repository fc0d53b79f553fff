from collections.abc import Mapping

from splitreel.core.view import Column

FILE_FORMAT: bytes
EXTENT_FORMAT: bytes
NAME_FORMAT: bytes

def pack_nanoseconds(time: int) -> int: ...
def unpack_nanoseconds(packed: int) -> int: ...
def heap_record(target: bytes, xattrs: dict[str, bytes]) -> bytes: ...

class ExtentMap:
    file_count: int
    extent_count: int
    name_count: int
    name_heap_size: int
    heap_size: int
    problem_count: int
    block_size: int
    device_size: int
    sealed: bool
    fs_type: str
    uuid: bytes
    files: Column
    extents: Column
    names: Column
    problems: list[tuple[int, int, str]]
    def __init__(self, fs_type: str, uuid: bytes, block_size: int, device_size: int) -> None: ...
    @property
    def name_bytes(self) -> Column: ...
    @property
    def heap_bytes(self) -> Column: ...
    def path_of(self, index: int) -> bytes: ...
    def paths(self) -> list[bytes]: ...
    def path_order(self) -> Column: ...
    def find(self, path: bytes) -> int: ...
    def find_file(self, inode: int) -> int: ...
    def target(self, file_index: int) -> bytes | None: ...
    def xattrs(self, file_index: int) -> dict[str, bytes]: ...
    def add_file(
        self,
        inode: int,
        mode: int,
        *,
        size: int = 0,
        mtime: int = 0,
        ctime: int = 0,
        fingerprint: int = 0,
        generation: int = 0,
        uid: int = 0,
        gid: int = 0,
        rdev: int = 0,
        link_count: int = 1,
        flags: int = 0,
        target: bytes | None = None,
        xattrs: Mapping[str, bytes] | None = None,
    ) -> int: ...
    def add_extent(self, logical: int, physical: int, count: int, flags: int = 0) -> None: ...
    def add_name(self, parent: int, file: int, name: bytes) -> int: ...
    def add_problem(self, inode: int, offset: int, text: str) -> None: ...
    def finish(self) -> None: ...

class Filesystem:
    device: object
    block_size: int
    uuid: bytes
    fs_type: str | None
    def map(self) -> ExtentMap: ...
