import os

class Medium:
    path: str
    writable: bool
    damaged: bool
    repaired_bytes: int
    def __init__(self, path: str | os.PathLike[str], create: bool = True) -> None: ...
    def close(self) -> None: ...
