from splitreel.core.extent import ExtentMap

class HeapWriter:
    @property
    def attr_count(self) -> int: ...
    def write(
        self,
        target: ExtentMap,
        file_index: int,
        link: bytes,
        attributes: list[tuple[bytes, bytes, bytes, int]],
    ) -> None: ...
