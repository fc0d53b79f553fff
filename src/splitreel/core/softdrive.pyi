import os

from splitreel.core.softdrive_base import DriveBase

class SoftDrive(DriveBase):
    write_protected: bool
    def __init__(self, path: str | os.PathLike[str], create: bool = True) -> None: ...
    @staticmethod
    def create(
        path: str | os.PathLike[str],
        capacity: int = 0,
        early_warning: int | None = None,
        programmable_early_warning: int = 0,
        barcode: str = "",
        write_protected: bool = False,
        density: int = 0x60,
    ) -> SoftDrive: ...
    @property
    def position(self) -> tuple[int, int, int]: ...
    @property
    def end(self) -> tuple[int, int, int]: ...
    @property
    def repaired_bytes(self) -> int: ...
    @property
    def capacity(self) -> int: ...
