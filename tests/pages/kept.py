"""kept reads the pages in tests/pages/kept, which real servers wrote: PostgreSQL 15, MariaDB 10.11.

A name says what the pages are and the number of the first one in its relation or tablespace.
"""

import lzma
from pathlib import Path

FOLDER = Path(__file__).parent / "kept"
POSTGRESQL = ("postgresql-btree-0", "postgresql-fsm-0", "postgresql-heap-7", "postgresql-vm-0")
INNODB = (
    "innodb-crc32-page_compressed-0",
    "innodb-crc32-plain-0",
    "innodb-crc32-rtree-0",
    "innodb-full_crc32-page_compressed-0",
    "innodb-full_crc32-plain-0",
    "innodb-full_crc32-rtree-0",
    "innodb-full_crc32-zip-0",
)


def pages(name: str) -> tuple[bytes, int]:
    """The bytes, and the number of the first page."""
    return lzma.decompress((FOLDER / f"{name}.xz").read_bytes()), int(name.rsplit("-", 1)[1])
