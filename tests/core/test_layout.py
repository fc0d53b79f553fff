"""Records of an extent map as numpy sees them: saved maps and callers rely on their sizes and offsets."""

import numpy as np
import pytest

from splitreel.core.extent import ExtentMap

# field: offset and format, as in core/columns.pxd
EXTENT = {"logical": (0, "<u8"), "physical": (8, "<u8"), "count": (16, "<u4"), "flags": (20, "<u4")}
FILE = {
    "inode": (0, "<u8"),
    "size": (8, "<u8"),
    "mtime": (16, "<u8"),
    "ctime": (24, "<u8"),
    "fingerprint": (32, "<u8"),
    "first_extent": (40, "<u8"),
    "heap_offset": (48, "<u8"),
    "extent_count": (56, "<u4"),
    "heap_size": (60, "<u4"),
    "generation": (64, "<u4"),
    "uid": (68, "<u4"),
    "gid": (72, "<u4"),
    "rdev": (76, "<u4"),
    "link_count": (80, "<u4"),
    "mode": (84, "<u2"),
    "flags": (86, "<u2"),
}
NAME = {"parent": (0, "<u4"), "file": (4, "<u4"), "name_offset": (8, "<u4"), "name_size": (12, "<u4")}


@pytest.fixture(scope="module")
def sample() -> ExtentMap:
    """Root and one file of one extent, every field of it another value."""
    made = ExtentMap("ext4", bytes(16), 4096, 1 << 40)
    made.add_file(2, 0o40755, link_count=2)
    made.add_file(
        12,
        0o100640,
        size=0x0102030405060708,
        mtime=0x1112131415161718,
        ctime=0x2122232425262728,
        fingerprint=0x3132333435363738,
        generation=0x41424344,
        uid=0x51525354,
        gid=0x61626364,
        rdev=0x71727374,
        link_count=1,
        target=b"t",
    )
    made.add_extent(5, 77, 3, 0x800)
    made.add_name(0, 0, b"")
    made.add_name(0, 1, b"file")
    made.finish()
    return made


@pytest.mark.parametrize(
    ("column", "size", "fields"), [("extents", 24, EXTENT), ("files", 88, FILE), ("names", 16, NAME)]
)
def test_sizes_and_offsets(sample: ExtentMap, column: str, size: int, fields: dict[str, tuple[int, str]]) -> None:
    """Packed records of the declared size; each field at its offset; nothing in between."""
    dtype = np.asarray(getattr(sample, column)).dtype

    assert dtype.itemsize == size
    assert {name: (at, field.newbyteorder("<").str) for name, (field, at) in dtype.fields.items()} == fields
    assert sum(field.itemsize for field, _ in dtype.fields.values()) == size


def test_fields_hold_what_was_put_in(sample: ExtentMap) -> None:
    """The C structs lie as the format says: every value comes back from its field."""
    file = np.asarray(sample.files)[1]
    (extent,) = np.asarray(sample.extents)
    name = np.asarray(sample.names)[1]

    assert [int(file[field]) for field in ("inode", "size", "mtime", "ctime", "fingerprint")] == [
        12,
        0x0102030405060708,
        0x1112131415161718,
        0x2122232425262728,
        0x3132333435363738,
    ]
    assert [int(file[field]) for field in ("generation", "uid", "gid", "rdev", "link_count", "mode")] == [
        0x41424344,
        0x51525354,
        0x61626364,
        0x71727374,
        1,
        0o100640,
    ]
    assert [int(file[field]) for field in ("first_extent", "extent_count", "heap_offset", "heap_size")] == [0, 1, 0, 5]
    assert extent.tolist() == (5, 77, 3, 0x800)
    assert (int(name["parent"]), int(name["file"]), int(name["name_size"])) == (0, 1, 4)
