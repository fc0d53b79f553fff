from typing import Any

from splitreel.core.extent import ExtentMap
from splitreel.core.view import Column

MEMBER_FORMAT: bytes
SEGMENT_FORMAT: bytes
ORDERS: tuple[str, ...]
REASONS: dict[int, str]

class Plan:
    map: ExtentMap
    order: str
    block_size: int
    segment_size: int
    sync_segments: int
    backup: bytes
    created: int
    first_object: int
    member_count: int
    segment_count: int
    skipped_count: int
    largest_header: int
    largest_segment_members: int
    largest_segment_blocks: int
    members: Column
    segments: Column
    crc32c: Column
    @staticmethod
    def build(
        map: ExtentMap,
        *,
        order: str = "path",
        selection: Any = None,  # a contiguous buffer of uint32
        block_size: int = 1 << 20,
        segment_size: int = 1 << 34,
        sync_segments: int = 4,
        backup: str = "00000000-0000-0000-0000-000000000000",
        first_object: int = 3,
        created: int = 0,
        first_number: int = 1,
    ) -> Plan: ...
    def truncated(self, segment: int, members: int) -> Plan: ...
    def remainder(self, segment: int, members: int, *, first_object: int = 3, first_number: int = 1) -> Plan: ...
    @property
    def skipped(self) -> list[tuple[bytes, str]]: ...
    @property
    def totals(self) -> dict[str, int]: ...
    def member_path(self, index: int) -> bytes: ...
    def link_path(self, index: int) -> bytes | None: ...
    def header(self, index: int) -> bytes: ...
