"""Values of extended attributes in inodes of their own: as the kernel reads them, and what becomes of damaged ones."""

import os
import re
import struct
from pathlib import Path

import numpy
import pytest

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.ext4 import Ext4
from splitreel.core.extent import ExtentMap
from tests import ext4_images as images
from tests import oracle
from tests.core.test_ext4_devices import unreadable
from tests.ext4_surgery import Surgeon, debugfs, raw_crc
from tests.support import need_programs

pytestmark = pytest.mark.root

EA_INODE_FL = 0x200000
VALUE = bytes(range(251)) * 40
ATIME, MTIME, FLAGS, GENERATION, SIZE = 0x08, 0x10, 0x20, 0x64, 0x04
ENTRY_INUM, ENTRY_SIZE, ENTRY_HASH = 4, 8, 12


def large_acl(users: int) -> bytes:
    """An access ACL as setxattr(2) takes it, of so many named users that it stands in an inode of its own."""
    entries = [(1, 6, 2**32 - 1), *((2, 4, 10_000 + n) for n in range(users)), (4, 4, 2**32 - 1), (16, 6, 2**32 - 1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in [*entries, (32, 0, 2**32 - 1)])


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks of 1 KiB: values of many extents, one shared by three files, beside small ones, beside a target."""
    images.need_ext4()
    options = ("-b", "1024", "-O", "ea_inode", "-J", "size=8")  # one large value is one large transaction
    image = images.make_image(tmp_path_factory.mktemp("good") / "image", 32, *options)
    with images.mounted(image) as point:
        for name in ("one", "same1", "same2", "same3", "full", "acl"):
            (point / name).write_bytes(name.encode() * 100)
        os.setxattr(point / "one", "user.value", VALUE)
        os.setxattr(point / "one", "user.a", b"small")
        os.setxattr(point / "one", "user.z", b"z" * 300)
        for number in (1, 2, 3):
            os.setxattr(point / f"same{number}", "user.same", b"s" * 9000)
            os.setxattr(point / f"same{number}", "user.number", b"%d" % number)
        for number in range(6):
            os.setxattr(point / "full", f"user.{number}", bytes([number]) * 65536)
        os.setxattr(point / "acl", "system.posix_acl_access", large_acl(400))
        for name, size in (("fast", 20), ("slow", 100)):  # the value's blocks are counted as the symlink's
            (point / name).symlink_to("t" * size)
        os.setxattr(point / "fast", "trusted.value", VALUE[:8000], follow_symlinks=False)
        os.setxattr(point / "slow", "trusted.value", VALUE[:7000], follow_symlinks=False)
        (point / "folder").mkdir()
        os.setxattr(point / "folder", "user.value", VALUE[:5000])
    return image


@pytest.fixture(scope="module")
def truth(good: Path) -> dict[bytes, oracle.Entry]:
    with images.mounted(good, "ro") as point:
        return oracle.walk(point)


@pytest.fixture
def surgeon(good: Path, tmp_path: Path) -> Surgeon:
    return Surgeon(images.copy_sparse(good, tmp_path / "image"))


def map_image(image: Path) -> ExtentMap:
    with BlockDevice(image) as device:
        return Ext4(device).map()


def entry_offset(surgeon: Surgeon, path: str, name: bytes) -> int:
    """Offset of an attribute's entry, in the inode or in its block."""
    number = surgeon.number(path)
    begin = surgeon.inode(number)
    for start, size in ((begin + 160, surgeon.inode_size - 160), (surgeon.xattr_block(number), surgeon.block_size)):
        found = surgeon.read(start, size).find(name) if start else -1
        if found >= 0:
            return start + found - 16
    raise AssertionError(f"{path} has no attribute {name!r}")


def holder(surgeon: Surgeon, path: str, name: bytes) -> int:
    """The inode that holds an attribute's value."""
    inum = surgeon.read(entry_offset(surgeon, path, name) + ENTRY_INUM, 4)
    assert inum != bytes(4)
    return int(struct.unpack("<I", inum)[0])


def change_entry(surgeon: Surgeon, path: str, name: bytes, field: int, value: int) -> None:
    number, block = surgeon.number(path), surgeon.xattr_block(surgeon.number(path))
    surgeon.write(entry_offset(surgeon, path, name) + field, struct.pack("<I", value))
    if block:
        surgeon.fix_xattr_block(block)
    surgeon.fix_inode(number)


def change_inode(surgeon: Surgeon, number: int, field: int, value: int) -> None:
    surgeon.write(surgeon.inode(number) + field, struct.pack("<I", value))
    surgeon.fix_inode(number)


def test_every_value_is_what_the_kernel_reads(good: Path, truth: dict[bytes, oracle.Entry]) -> None:
    """Of many extents, shared, 64 KiB each, an ACL that must be converted, a symlink's, a directory's."""
    extent_map = map_image(good)

    assert extent_map.problems == []
    assert oracle.differences(truth, oracle.map_entries(extent_map)) == []
    assert truth[b"acl"].xattrs["system.posix_acl_access"] == large_acl(400)
    assert {len(value) for value in truth[b"full"].xattrs.values()} == {65536}


def test_inodes_of_values_are_no_files(good: Path) -> None:
    """They are neither in the map nor counted among those without a name."""
    with BlockDevice(good) as device:
        filesystem = Ext4(device)
        extent_map = filesystem.map()
        statistics = filesystem.statistics
    inodes = set(numpy.asarray(extent_map.files)["inode"].tolist())

    assert statistics["unnamed"] == 0
    assert statistics["inodes"] == extent_map.file_count
    assert holder(Surgeon(good), "/one", b"value") not in inodes


def test_a_shared_value_is_read_once(good: Path) -> None:
    """Three files have it; its inode's blocks are read for the first alone."""
    surgeon = Surgeon(good)
    shared = {holder(surgeon, f"/same{number}", b"same") for number in (1, 2, 3)}
    extent_map = map_image(good)
    indexes = [extent_map.find_file(surgeon.number(f"/same{number}")) for number in (1, 2, 3)]

    assert len(shared) == 1
    assert [extent_map.xattrs(i) for i in indexes] == [
        {"user.number": b"%d" % number, "user.same": b"s" * 9000} for number in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        (ATIME, 12345, "an extended attribute whose value does not match its hash"),
        (FLAGS, 0x80000, "an extended attribute in an inode that holds none"),
        (SIZE, 10_041, "an extended attribute in an inode of another size"),
        (SIZE, 64 << 20, "an extended attribute in an inode that is damaged"),
        (0x68, 5000, "an extended attribute in an inode that is damaged"),
    ],
    ids=["hash", "flag", "size", "hole", "has xattrs"],
)
def test_a_bad_inode_costs_the_attributes_whose_values_it_holds(
    surgeon: Surgeon, truth: dict[bytes, oracle.Entry], field: int, value: int, text: str
) -> None:
    """The file, its other attributes and all other files stay; the kernel refuses the attribute too."""
    number = surgeon.number("/one")
    change_inode(surgeon, holder(surgeon, "/one", b"value"), field, value)
    extent_map = map_image(surgeon.image)
    entries = oracle.map_entries(extent_map)
    kept = {name: data for name, data in truth[b"one"].xattrs.items() if name != "user.value"}
    with images.mounted(surgeon.image, "ro") as point, pytest.raises(OSError, match="one"):
        os.getxattr(point / "one", "user.value")

    assert extent_map.problems == [(number, 0, text)]
    assert entries[b"one"].xattrs == kept
    del entries[b"one"]
    assert oracle.differences({path: entry for path, entry in truth.items() if path != b"one"}, entries) == []


def test_a_changed_byte_of_a_shared_value_costs_it_all_its_files(surgeon: Surgeon) -> None:
    shared = holder(surgeon, "/same1", b"same")
    offset = surgeon.block(shared, 3)
    surgeon.write(offset, b"!")
    extent_map = map_image(surgeon.image)
    numbers = [surgeon.number(f"/same{n}") for n in (1, 2, 3)]

    assert sorted(extent_map.problems) == [
        (number, 0, "an extended attribute whose value does not match its hash") for number in sorted(numbers)
    ]
    assert [extent_map.xattrs(extent_map.find_file(n)) for n in numbers] == [
        {"user.number": b"%d" % n} for n in (1, 2, 3)
    ]


def test_an_entrys_hash_covers_its_name(surgeon: Surgeon) -> None:
    """A value under another name than it was given is not believed: its inode may have been used anew."""
    change_entry(surgeon, "/one", b"value", ENTRY_HASH, 7)
    extent_map = map_image(surgeon.image)

    assert [text for _, _, text in extent_map.problems] == [
        "an extended attribute whose name and value do not match its hash"
    ]
    assert "user.value" not in extent_map.xattrs(extent_map.find_file(surgeon.number("/one")))


def test_a_hash_of_signed_characters_is_a_hash(surgeon: Surgeon) -> None:
    """Kernels on machines whose characters are signed made other hashes of names with bytes above 127."""
    number, offset = surgeon.number("/one"), entry_offset(surgeon, "/one", b"value")
    state = 0
    for byte in b"val\xe9e":
        signed = byte - 256 if byte > 127 else byte
        state = ((state << 5 ^ state >> 27) ^ signed) & 0xFFFFFFFF
    crc = raw_crc(surgeon.seed, VALUE)
    change_entry(surgeon, "/one", b"value", ENTRY_HASH, ((state << 16 ^ state >> 16) ^ crc) & 0xFFFFFFFF)
    surgeon.write(offset + 16, b"val\xe9e")
    surgeon.fix_inode(number)
    extent_map = map_image(surgeon.image)

    assert extent_map.problems == []
    assert extent_map.xattrs(extent_map.find_file(number))["user.val\udce9e"] == VALUE


def test_lustres_form_has_no_hash_but_names_its_file(surgeon: Surgeon, truth: dict[bytes, oracle.Entry]) -> None:
    """mtime holds the inode whose attribute it is, and both have one generation; the kernel reads it the same way."""
    number = surgeon.number("/one")
    value = holder(surgeon, "/one", b"value")
    generation = struct.unpack("<I", surgeon.read(surgeon.inode(number) + GENERATION, 4))[0]
    change_inode(surgeon, value, GENERATION, generation)
    change_inode(surgeon, value, MTIME, number)
    change_inode(surgeon, value, ATIME, 1)
    for node in surgeon.nodes(value):
        surgeon.fix_node(value, node)
    change_entry(surgeon, "/one", b"value", ENTRY_HASH, 0)
    with images.mounted(surgeon.image, "ro") as point:
        assert os.getxattr(point / "one", "user.value") == VALUE
    extent_map = map_image(surgeon.image)

    assert extent_map.problems == []
    assert extent_map.xattrs(extent_map.find_file(number)) == truth[b"one"].xattrs


@pytest.mark.parametrize(
    ("inode", "text"),
    [
        (2, "an extended attribute in an inode that cannot be"),
        (0xFFFFFF, "an extended attribute in an inode that cannot be"),
        (12, "an extended attribute in an inode that holds none"),
        (5000, "an extended attribute in an inode that holds none"),
    ],
)
def test_an_entry_that_leads_nowhere_is_left_out(surgeon: Surgeon, inode: int, text: str) -> None:
    change_entry(surgeon, "/one", b"value", ENTRY_INUM, inode)
    extent_map = map_image(surgeon.image)

    assert [found for _, _, found in extent_map.problems] == [text]
    assert "user.value" not in extent_map.xattrs(extent_map.find_file(surgeon.number("/one")))


def test_a_value_larger_than_any_is_left_out(surgeon: Surgeon) -> None:
    """Before there is room made for it."""
    change_entry(surgeon, "/one", b"value", ENTRY_SIZE, 1 << 24)
    extent_map = map_image(surgeon.image)

    assert [text[:42] for _, _, text in extent_map.problems] == ["an extended attribute larger than 64 KiB, "]


def test_no_name_leads_to_an_inode_that_holds_a_value(surgeon: Surgeon) -> None:
    """The kernel refuses it as a file too."""
    value = holder(surgeon, "/one", b"value")
    root_block = surgeon.block(2, 0)
    raw = surgeon.read(root_block, surgeon.block_size)
    at = raw.find(struct.pack("<I", surgeon.number("/full")))
    surgeon.write(root_block + at, struct.pack("<I", value))
    surgeon.fix_directory_block(2, root_block)
    extent_map = map_image(surgeon.image)

    assert extent_map.find(b"full") == -1
    assert [text for _, _, text in extent_map.problems] == ["an entry leads to an inode that is not in use"]


def test_a_fingerprint_covers_values(surgeon: Surgeon) -> None:
    """In Lustre's form a value may change where it stands, without any change to the file's own records."""
    number = surgeon.number("/one")
    before = map_image(surgeon.image)
    surgeon.write(surgeon.block(holder(surgeon, "/one", b"value"), 2), b"changed")
    after = map_image(surgeon.image)
    prints = [int(numpy.asarray(m.files)["fingerprint"][m.find_file(number)]) for m in (before, after)]

    assert prints[0] != prints[1]


def test_without_the_feature_the_attributes_are_refused(surgeon: Surgeon) -> None:
    """As by the kernel, which takes such an area for damaged."""
    sb = surgeon.read(1024 + 96, 4)
    surgeon.write(1024 + 96, struct.pack("<I", struct.unpack("<I", sb)[0] & ~0x400))
    surgeon.fix_superblock()
    extent_map = map_image(surgeon.image)
    index = extent_map.find_file(surgeon.number("/full"))

    assert extent_map.xattrs(index) == {}
    assert "an extended attribute in an inode of its own, without the feature" in {t for _, _, t in extent_map.problems}


def test_all_values_together_are_no_larger_than_the_file_system(tmp_path: Path) -> None:
    """Files that share a value could ask for any amount of memory."""
    images.need_ext4()
    image = images.make_image(tmp_path / "image", 3, "-b", "1024", "-O", "ea_inode,^has_journal", "-N", "256")
    with images.mounted(image) as point:
        for number in range(60):
            (point / f"f{number}").touch()
            os.setxattr(point / f"f{number}", "user.v", b"v" * 65536)
    extent_map = map_image(image)
    sizes = [len(extent_map.xattrs(i).get("user.v", b"")) for i in range(extent_map.file_count)]

    assert sum(sizes) <= 3 << 20
    assert sum(sizes) > 2 << 20
    assert {text[-34:] for _, _, text in extent_map.problems} == {"all of them larger than the device"}


def test_a_block_of_a_value_that_does_not_read_costs_its_attribute(
    good: Path, truth: dict[bytes, oracle.Entry]
) -> None:
    need_programs("qemu-storage-daemon")
    surgeon = Surgeon(good)
    number = surgeon.number("/one")
    with unreadable(good, surgeon.block(holder(surgeon, "/one", b"value"), 5)) as faulty:
        extent_map = map_image(faulty)
    wanted = {name: data for name, data in truth[b"one"].xattrs.items() if name != "user.value"}

    assert extent_map.problems == [(number, 0, "an extended attribute in an inode that does not read")]
    assert extent_map.xattrs(extent_map.find_file(number)) == wanted


def test_the_image_holds_what_the_tests_are_about(good: Path) -> None:
    """Values in more than one extent, and a feature that says so."""
    surgeon = Surgeon(good)
    value = holder(surgeon, "/full", b"0")
    stat = debugfs(good, f"stat <{value}>")

    assert re.search(r"Flags: 0x28", stat)
    with BlockDevice(good) as device:
        assert "ea_inode" in Ext4(device).features["incompat"]
    with pytest.raises(errors.DeviceError), BlockDevice(good.with_name("absent")):
        pass
