"""Heap records against the same record made by Python, and the bounds of what one may hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel import errors
from splitreel.core.extent import ExtentMap, heap_record
from splitreel.core.heap import HeapWriter
from tests.core.test_extent import DIR, LINK, new_map

PREFIX = st.sampled_from([b"user.", b"trusted.", b"security.", b""])
ATTRIBUTE = st.tuples(PREFIX, st.binary(min_size=1, max_size=9), st.binary(max_size=40), st.integers(0, 2))


def linked_map() -> ExtentMap:
    """Not sealed: the root and one symlink without a record, file 1."""
    made = new_map()
    made.add_file(2, DIR)
    made.add_file(12, LINK)
    made.add_name(0, 0, b"")
    made.add_name(0, 1, b"l")
    return made


@given(st.binary(max_size=20), st.lists(ATTRIBUTE, max_size=8, unique_by=lambda a: (a[0] + a[1], a[3])))
@settings(max_examples=150, deadline=None)
def test_a_record_is_sorted_and_of_one_name_the_lowest_source_is_kept(
    link: bytes, attributes: list[tuple[bytes, bytes, bytes, int]]
) -> None:
    """In whatever order the attributes were added; a map is sealed only with records that are in order."""
    made = linked_map()
    HeapWriter().write(made, 1, link, attributes)
    made.finish()
    kept = {name: value for prefix, rest, value, source in sorted(attributes, key=lambda a: -a[3])
            for name in [prefix + rest]}  # fmt: skip
    wanted = heap_record(link, kept) if link or kept else b""

    assert bytes(made.heap_bytes) == wanted
    assert made.target(1) == (link or None)
    assert np.asarray(made.files)["heap_size"].tolist() == [0, len(wanted)]


def test_the_writer_is_as_new_for_each_file() -> None:
    """Also after a large one: nothing of a file shows in the record of the next."""
    made, writer = linked_map(), HeapWriter()
    writer.write(made, 0, b"", [(b"user.", b"%d" % i, bytes(65536), 0) for i in range(48)])
    writer.write(made, 1, b"there", [(b"user.", b"a", b"b", 0)])
    made.finish()

    assert len(made.xattrs(0)) == 48
    assert set(made.xattrs(0).values()) == {bytes(65536)}
    assert (made.target(1), made.xattrs(1)) == (b"there", {"user.a": b"b"})


def test_more_attributes_than_a_record_may_hold_are_left_out_as_a_whole() -> None:
    """A problem, not the end of the map. More than 256 MiB, of one name."""
    made = linked_map()
    HeapWriter().write(made, 1, b"there", [(b"user.", b"a", bytes(100 << 20), i) for i in range(3)])
    made.finish()

    assert (made.target(1), made.xattrs(1)) == (b"there", {})
    assert [(inode, text) for inode, _, text in made.problems] == [
        (12, "its extended attributes are larger than can be")
    ]


def test_a_name_that_no_record_can_hold_is_the_callers_mistake() -> None:
    with pytest.raises(errors.Misuse, match="larger than any"):
        HeapWriter().write(linked_map(), 1, b"", [(b"user.", bytes(65531), b"", 0)])
