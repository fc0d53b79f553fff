"""styles are the ways in which files change on a real disk, as endless groups of operations. They perform none.

A group ends in one fsync, which acknowledges all of it. Each style has a file of its own but ``replaced``, which has
several, and keeps in mind what is in it, so that appends, holes and unwritten extents stand where they are meant to.
"""

import random
from collections.abc import Iterator

from splitreel.prove.operations import FILES, SECTORS, Kind, Operation, blocks

Group = list[Operation]
PAGE = 8  # sectors: what direct I/O, holes and extents are aligned to
WRITES_INTO_UNWRITTEN = 150


def direct(dice: random.Random) -> Iterator[Group]:
    """O_DIRECT in place, 4 to 64 KiB."""
    file = FILES.index("direct")
    yield from _filled(file)
    while True:
        count = PAGE * dice.randint(1, 16)
        yield [Operation(Kind.WRITE, file, PAGE * dice.randint(0, (SECTORS - count) // PAGE), count)]


def buffered(dice: random.Random) -> Iterator[Group]:
    """Through the page cache in place, 512 B to 32 KiB, up to four writes before one fsync."""
    file = FILES.index("buffered")
    yield from _filled(file)
    while True:
        yield [_anywhere(dice, file, dice.randint(1, 64)) for _ in range(dice.randint(1, 4))]


def append(dice: random.Random) -> Iterator[Group]:
    """At the end of a file, which grows until it is cut to nothing."""
    file, size = FILES.index("append"), 0
    while True:
        count = dice.randint(1, 64)
        if size + count > SECTORS:
            size = 0
            yield [Operation(Kind.TRUNCATE, file)]
        yield [Operation(Kind.WRITE, file, size, count)]
        size += count


def unwritten(dice: random.Random) -> Iterator[Group]:
    """Into extents that are allocated and not written: their state changes, the inode may not."""
    file = FILES.index("unwritten")
    while True:
        yield [Operation(Kind.TRUNCATE, file), Operation(Kind.ALLOCATE, file, 0, SECTORS)]
        for _ in range(WRITES_INTO_UNWRITTEN):
            yield [
                Operation(Kind.WRITE, file, PAGE * dice.randrange(SECTORS // PAGE), dice.randint(1, PAGE))
                for _ in range(dice.randint(1, 3))
            ]


def punched(dice: random.Random) -> Iterator[Group]:
    """Holes punched, ranges zeroed, ends cut off, and written anew."""
    file, size = FILES.index("punched"), SECTORS
    yield from _filled(file)
    while True:
        count = PAGE * dice.randint(1, 32)
        first = PAGE * dice.randint(0, (SECTORS - count) // PAGE)
        chosen = dice.random()
        if chosen < 0.1:
            size = PAGE * dice.randint(1, SECTORS // PAGE)
            yield [Operation(Kind.TRUNCATE, file, size)]
        elif chosen < 0.5:
            # beyond the end there is nothing to punch, and what is there afterwards depends on the file system
            count = min(count, size - first)
            kind = Kind.PUNCH if chosen < 0.3 else Kind.ZERO
            if count > 0:
                yield [Operation(kind, file, first, count)]
        else:
            size = max(size, first + count)
            yield [Operation(Kind.WRITE, file, first, count)]


def replaced(dice: random.Random) -> Iterator[Group]:
    """A new file in place of an old one, by rename; now and then one is unlinked."""
    files = [number for number, name in enumerate(FILES) if name.startswith("replaced")]
    there: set[int] = set()
    while True:
        file = dice.choice(files)
        if file in there and dice.random() < 0.15:
            there.remove(file)
            yield [Operation(Kind.UNLINK, file)]
        else:
            there.add(file)
            yield [Operation(Kind.REPLACE, file, 0, dice.randint(1, 64))]


STYLES = (direct, buffered, append, unwritten, punched, replaced)


def mixed(dice: random.Random) -> Iterator[Group]:
    """Every style in turn, for ever."""
    running = [style(dice) for style in STYLES]
    while True:
        for style in running:
            yield next(style)


def _filled(file: int) -> Iterator[Group]:
    for first, count in blocks(0, SECTORS):
        yield [Operation(Kind.WRITE, file, first, count)]


def _anywhere(dice: random.Random, file: int, count: int) -> Operation:
    return Operation(Kind.WRITE, file, dice.randint(0, SECTORS - count), count)
