"""database describes one database whose pages are verified, and which files they are in. It finds neither."""

from dataclasses import dataclass
from typing import Any

LAST_LSN = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Database:
    """``data``: path of its data directory inside the file system; sizes in bytes.

    ``start_lsn``: recovery writes pages with this LSN up to ``end_lsn`` anew, torn or not; 0: it writes none.
    """

    engine: str
    data: bytes
    page_size: int
    checksums: bool = True
    start_lsn: int = 0
    end_lsn: int = LAST_LSN
    strict: bool = False  # InnoDB: CRC32C alone is a checksum
    segment_pages: int = 0  # PostgreSQL: pages in each file of a relation
    version_folder: bytes = b""  # PostgreSQL: name of its folder in tablespaces


@dataclass(frozen=True, slots=True)
class Files:
    """Columns of one length: indexes into the map's files, number of each one's first page, flags for core.pages."""

    files: Any
    first_pages: Any
    flags: Any
