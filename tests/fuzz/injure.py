"""injure decides what is done to an image: reproducible from a seed's name and a number."""

import random
import struct
from dataclasses import dataclass

from tests.fuzz.seeds import SECTOR, Seed

INTERESTING = (0, 1, 2, 3, 4, 7, 8, 15, 16, 127, 128, 255, 256, 1023, 1024, 4095, 4096, 32767, 32768, 65535, 65536)
LARGE = (1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 32, (1 << 48) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
FORMATS = {size: [f"{order}{letter}" for order in "<>"] for size, letter in ((2, "H"), (4, "I"), (8, "Q"))}


@dataclass(frozen=True)
class Injury:
    """Bytes that stand at an offset instead of what was there."""

    offset: int
    data: bytes


def _flip(chance: random.Random, seed: Seed, at: int) -> Injury:
    offset = at + chance.randrange(SECTOR)
    return Injury(offset, bytes([seed.data[offset] ^ 1 << chance.randrange(8)]))


def _byte(chance: random.Random, seed: Seed, at: int) -> Injury:
    return Injury(at + chance.randrange(SECTOR), bytes([chance.choice((0, 1, 255, chance.randrange(256)))]))


def _number(chance: random.Random, seed: Seed, at: int) -> Injury:
    """A field becomes a bound of its type, or a little more or less than it is."""
    size = chance.choice((2, 4, 4, 8))
    form = chance.choice(FORMATS[size])
    offset = at + chance.randrange(SECTOR // size) * size
    value = struct.unpack_from(form, seed.data, offset)[0]
    nearby = value + chance.choice((-8, -4, -1, 1, 4, 8, value, -value // 2))
    value = chance.choice((chance.choice(INTERESTING), chance.choice(LARGE), nearby, nearby))
    return Injury(offset, struct.pack(form, value % (1 << 8 * size)))


def _word_from_elsewhere(chance: random.Random, seed: Seed, at: int) -> Injury:
    """A pointer, count or name that is right in another place."""
    size = chance.choice((4, 4, 8, 16, 64, SECTOR))
    source = chance.choice(seed.places) + chance.randrange(SECTOR // size) * size
    return Injury(at + chance.randrange(SECTOR // size) * size, seed.data[source : source + size])


def _word_from_here(chance: random.Random, seed: Seed, at: int) -> Injury:
    size = chance.choice((2, 4, 8, 12, 16, 24))
    source = at + chance.randrange(SECTOR // size) * size
    return Injury(at + chance.randrange(SECTOR // size) * size, seed.data[source : source + size])


def _fill(chance: random.Random, seed: Seed, at: int) -> Injury:
    start, size = chance.randrange(SECTOR), chance.choice((4, 16, 64, SECTOR))
    return Injury(at + start, chance.choice((b"\0", b"\xff")) * min(size, SECTOR - start))


KINDS = (_flip, _byte, _number, _number, _number, _word_from_elsewhere, _word_from_here, _fill)


def injuries(seed: Seed, number: int) -> list[Injury]:
    """One to four injuries, the later over the earlier."""
    chance = random.Random(f"{seed.name} {number}")
    count = chance.choice((1, 1, 1, 2, 2, 3, 4))
    return [chance.choice(KINDS)(chance, seed, chance.choice(seed.places)) for _ in range(count)]
