import os
from collections.abc import Sequence
from typing import NamedTuple

from splitreel.core.device import BlockDevice

class Linear(NamedTuple):
    size: int
    source: int
    physical: int

class Striped(NamedTuple):
    size: int
    stripe_size: int
    legs: Sequence[tuple[int, int]]

class Zero(NamedTuple):
    size: int

Span = Linear | Striped | Zero

class SpannedDevice(BlockDevice):
    def __init__(
        self,
        sources: Sequence[BlockDevice],
        spans: Sequence[Span],
        *,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    ) -> None: ...
    @staticmethod
    def over(base: BlockDevice, others: Sequence[BlockDevice] = ()) -> SpannedDevice: ...
    @property
    def piece_count(self) -> int: ...
    def redirect(self, start: int, size: int, moved_to: int, other: int | None = None) -> None: ...
    def overlay(self, start: int, data: bytes | bytearray | memoryview) -> None: ...
    def blank(self, start: int, size: int) -> None: ...
    def ready(self) -> None: ...
