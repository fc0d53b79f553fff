from typing_extensions import Buffer

RULE_FORMAT: bytes
SYSTEM: int
REASONS: dict[int, str]

class PageChecker:
    """Verifies the pages of database files while a stream carries them; see StreamWriter's ``pages``.

    First ``add_postgresql`` or ``add_innodb`` for each database, then ``set_rules`` once. The first ``limit`` damaged
    pages are listed, the rest counted. A wrong page whose LSN is one of ``repaired`` (the first and last, both counted;
    a first of 0: no page) is written anew by recovery, torn or not: it is counted under that name.
    """

    def __init__(self, limit: int = 1000) -> None: ...
    def add_postgresql(
        self, page_size: int = 8192, *, checksums: bool = True, repaired: tuple[int, int] = (0, 0)
    ) -> int:
        """A profile's number; ``checksums`` False: headers alone. Raises Misuse: no such page size, or 255 profiles."""

    def add_innodb(self, page_size: int = 16384, *, strict: bool = False) -> int:
        """A profile's number; ``strict``: CRC32C alone is a checksum. Raises Misuse, as add_postgresql."""

    def set_rules(self, rules: Buffer) -> None:
        """One record of RULE_FORMAT for each file of the map; copied.

        ``first_page``: the number of the file's first page in its relation or tablespace; ``profile``: 0 for files that
        are not checked; ``flags``: SYSTEM for the files of InnoDB's system tablespace.

        Raises:
            Misuse: another record size, a profile that was not added, or rules already set.
        """

    def go_on(self, file: int, position: int, file_size: int, first: Buffer, head: Buffer) -> None:
        """A run begins with byte ``position`` of a file, in its middle.

        ``first``: the first 64 KiB of the file, ``head``: what lies before ``position``, from a multiple of 64 KiB on.
        Neither is counted again, but the page that ``position`` lies in is checked whole.
        """

    def feed(self, file: int, position: int, file_size: int, data: Buffer | None, zeros: int = 0) -> None:
        """Bytes of a file from ``position`` on, then so many zeros: what a stream does, for tests and measurements."""

    def forget(self) -> None:
        """Forget the file at hand: a page of it that was not whole counts as unchecked."""

    @property
    def counts(self) -> dict[str, int]:
        """files, pages (all that passed by), new (all zeros), unchecked, repaired, damaged."""

    @property
    def findings(self) -> list[tuple[int, int, int, int, int, int]]:
        """Index into the map's files, page (number in its relation or tablespace), offset, why, LSN, size of each.

        Offset and size in bytes of the file; ``why`` is a key of REASONS. In the order in which the pages passed by.
        """
