from splitreel.core.extent import ExtentMap

def write_attributes(
    target: ExtentMap,
    file_index: int,
    sector: bytes,
    owner: int,
    fork: bytes,
    extents: list[tuple[int, int, int]] | None = None,
) -> str | None: ...
