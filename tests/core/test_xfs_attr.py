"""XFS attribute forks made by an independent encoder, read back; and what of damaged ones is kept."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel.core.extent import ExtentMap
from splitreel.core.xfs_attr import write_attributes
from tests.xfs_encoder import (
    INCOMPLETE,
    PARENT,
    ROOT,
    SECURE,
    Attr,
    Fork,
    Form,
    attr_tree,
    leaf,
    seal,
    shortform,
    superblock,
)

OWNER = 0x1_0000_0083
FORMS = [Form(5, 1024), Form(5, 4096), Form(5, 65536, 65536), Form(4, 512), Form(4, 4096), Form(4, 65536, 65536)]
FLAGS = st.sampled_from([0, ROOT, SECURE, PARENT, INCOMPLETE, ROOT | INCOMPLETE])
NAME = st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name)
PREFIXES = {0: "user.", ROOT: "trusted.", SECURE: "security."}


def pattern(size: int) -> bytes:
    """Bytes that are nowhere the same for a whole block."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def an_attr(limit: int) -> st.SearchStrategy[Attr]:
    """A local one of up to 60 bytes, or a remote one of up to limit."""
    local = st.builds(Attr, FLAGS, NAME, st.binary(max_size=60))
    size = st.integers(0, min(limit, 65536))
    remote = st.builds(lambda flags, name, size: Attr(flags, name, pattern(size), True), FLAGS, NAME, size)
    return st.one_of(local, local, remote)


def shown(attrs: list[Attr]) -> dict[str, bytes]:
    """What the kernel shows of attributes without ACLs, the first of one name."""
    result: dict[str, bytes] = {}
    for attr in attrs:
        if not attr.flags & (PARENT | INCOMPLETE):
            name = PREFIXES[attr.flags] + attr.name.decode("utf-8", "surrogateescape")
            result.setdefault(name, attr.value)
    return result


def read(form: Form, fork: bytes, extents: list[tuple[int, int, int]] | None) -> tuple[dict[str, bytes], str | None]:
    """The attributes and the text of what is wrong."""
    made = ExtentMap("xfs", bytes(16), form.block_size, 1 << 40)
    made.add_file(2, 0o40755, link_count=2)
    made.add_name(0, 0, b"")
    text = write_attributes(made, 0, superblock(form), OWNER, fork, extents)
    made.finish()
    return made.xattrs(0), text


def read_fork(fork: Fork) -> tuple[dict[str, bytes], str | None]:
    return read(fork.form, fork.bytes, fork.extents)


@given(st.lists(st.builds(Attr, st.sampled_from([0, ROOT, SECURE, PARENT]), NAME, st.binary(max_size=40)), max_size=9))
@settings(max_examples=80, deadline=None)
def test_attributes_in_the_inode_come_back(attrs: list[Attr]) -> None:
    """Every namespace but parent pointers; bytes behind totsize are not looked at."""
    got, text = read(Form(), shortform(attrs) + b"\xff" * 8, None)

    assert text is None
    assert got == shown(attrs)


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_attributes_in_blocks_come_back(data: st.DataObject) -> None:
    """One leaf or many below nodes; values local or in blocks of their own; a fork in one extent or in many."""
    form = data.draw(st.sampled_from(FORMS))
    leaves = data.draw(st.lists(st.lists(an_attr(3 * form.block_size), max_size=3), min_size=1, max_size=4))
    fork = Fork(form, OWNER, run=data.draw(st.sampled_from([1, 2, 3, 1 << 20])))
    attr_tree(fork, leaves, data.draw(st.integers(1, 4)))

    assert read_fork(fork) == (shown([attr for attrs in leaves for attr in attrs]), None)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("size", [0, 1, 455, 456, 457, 967, 968, 969, 1024, 4039, 4040, 4041, 65535, 65536])
def test_remote_values_of_every_size(form: Form, size: int) -> None:
    """Round the ends of blocks with and without headers, up to the largest a value can be."""
    fork = Fork(form, OWNER, run=2)
    attr_tree(fork, [[Attr(0, b"big", pattern(size), True)]])

    assert read_fork(fork) == ({"user.big": pattern(size)}, None)


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(("name", "shown_as"), [(b"SGI_ACL_FILE", "access"), (b"SGI_ACL_DEFAULT", "default")])
def test_an_acl_is_shown_once_as_getxattr_shows_it(name: bytes, shown_as: str, remote: bool) -> None:
    """Version 2 and little-endian, an id only of named users and groups; the raw attribute is left out."""
    entries = [(1, 7, 0xFFFFFFFF), (2, 6, 70000), (4, 5, 9), (8, 4, 70001), (16, 7, 5), (32, 0, 0xFFFFFFFF)]
    value = struct.pack(">I", 6) + b"".join(struct.pack(">IIHH", tag, ident, perm, 0) for tag, perm, ident in entries)
    wanted = struct.pack("<I", 2)
    for tag, perm, ident in entries:
        wanted += struct.pack("<HHI", tag, perm, ident if tag in (2, 8) else 0xFFFFFFFF)
    fork = Fork(Form(), OWNER)
    attr_tree(fork, [[Attr(ROOT, name, value, remote), Attr(0, name, b"a user's own")]])

    assert read_fork(fork) == (
        {f"system.posix_acl_{shown_as}": wanted, f"user.{name.decode()}": b"a user's own"},
        None,
    )


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\0\0\0",
        struct.pack(">I", 1),
        struct.pack(">IIIHHB", 1, 2, 0, 0, 0, 0),
        struct.pack(">IIIHH", 2, 2, 0, 0, 0),
    ]
    + [struct.pack(">IIIHH", 1, tag, 0, 0, 0) for tag in (0, 3, 64, 0x10002)],
)
def test_a_malformed_acl_alone_is_left_out(value: bytes) -> None:
    """Its neighbours are kept."""
    fork = Fork(Form(), OWNER)
    attr_tree(fork, [[Attr(ROOT, b"SGI_ACL_FILE", value), Attr(0, b"n", b"v")]])
    got, text = read_fork(fork)

    assert got == {"user.n": b"v"}
    assert text is not None
    assert "ACL" in text


@pytest.mark.parametrize(
    ("attr", "word"),
    [
        (Attr(ROOT | SECURE, b"both", b"v"), "namespace"),
        (Attr(0x10, b"unknown", b"v"), "namespace"),
        (Attr(0, b"", b"v"), "name"),
        (Attr(0, b"nu\0ll", b"v"), "name"),
    ],
)
def test_what_is_wrong_with_one_attribute_costs_this_one(attr: Attr, word: str) -> None:
    """In the inode and in a leaf."""
    attrs = [Attr(0, b"before", b"1"), attr, Attr(0, b"behind", b"2")]
    fork = Fork(Form(), OWNER)
    attr_tree(fork, [attrs])

    for got, text in (read_fork(fork), read(Form(), shortform(attrs), None)):
        assert got == {"user.before": b"1", "user.behind": b"2"}
        assert text is not None
        assert word in text


@pytest.mark.parametrize("cut", range(4, 17))
def test_attributes_that_do_not_fit_the_inode_are_all_left_out(cut: int) -> None:
    """totsize as it was, the fork shorter; and the other way round."""
    whole = shortform([Attr(0, b"abc", b"1"), Attr(0, b"d", b"2")])
    assert len(whole) == 16

    short = read(Form(), whole[: cut - 1], None)
    lied = read(Form(), struct.pack(">H", cut) + whole[2:], None)

    assert short[0] == {}
    assert short[1] is not None
    if cut < 16:
        assert lied[0] == {}
        assert lied[1] is not None


def damaged(where: int, at: int, value: bytes) -> tuple[dict[str, bytes], str | None]:
    """Two leaves below a node, a remote value in block 3; some bytes of one block changed, its checksum not."""
    fork = Fork(Form(), OWNER)
    attr_tree(fork, [[Attr(0, b"first", b"1")], [Attr(0, b"far", b"f" * 10, True), Attr(0, b"near", b"n")]])
    block = bytearray(fork.blocks[where])
    block[at : at + len(value)] = value
    fork.blocks[where] = bytes(block)
    return read_fork(fork)


FIRST, FAR, NEAR = {"user.first": b"1"}, {"user.far": b"f" * 10}, {"user.near": b"n"}


@pytest.mark.parametrize(
    ("where", "kept"), [(0, {}), (1, {}), (2, FIRST), (3, {**FIRST, **NEAR}), (None, {**FIRST, **FAR, **NEAR})]
)
def test_a_block_that_fails_its_checksum_costs_what_is_in_it_and_behind(
    where: int | None, kept: dict[str, bytes]
) -> None:
    """The node everything, a leaf itself and those behind it, a value itself."""
    got, text = damaged(where or 0, 2000, b"!" if where is not None else b"")

    assert got == kept
    assert (text is None) == (where is None)


@pytest.mark.parametrize("what", ["owner", "blkno", "uuid"])
@pytest.mark.parametrize("where", [0, 1, 2, 3])
def test_a_block_that_says_it_is_another_is_not_believed(what: str, where: int) -> None:
    """With a right checksum: a block of another inode, place or file system."""
    made = Fork(Form(), OWNER)
    other = Fork(Form(), OWNER + (what == "owner"), base=1000 + (what == "blkno"))
    for fork in (made, other):
        attr_tree(fork, [[Attr(0, b"first", b"1")], [Attr(0, b"far", b"f" * 10, True), Attr(0, b"near", b"n")]])
    if what == "uuid":
        at = 16 if where == 3 else 32
        block = bytearray(other.blocks[where])
        block[at] ^= 1
        block[12:16] = bytes(4)
        made.blocks[where] = seal(block, 12)
    else:
        made.blocks[where] = other.blocks[where]
    got, text = read_fork(made)

    assert text is not None
    assert got == [{}, {}, FIRST, {**FIRST, **NEAR}][where]


def test_leaves_in_a_circle_end() -> None:
    """Each attribute is kept once."""
    fork = Fork(Form(4, 4096), OWNER)
    attr_tree(fork, [[Attr(0, b"a", b"1")], [Attr(0, b"b", b"2")]])
    leaf(fork, 2, [Attr(0, b"b", b"2")], [0], forward=1, back=1)
    got, text = read_fork(fork)

    assert got == {"user.a": b"1", "user.b": b"2"}
    assert text is not None
    assert "circle" in text


def test_values_that_overlap_cannot_blow_up() -> None:
    """Entries that all name one large value: no more bytes are taken than the fork has."""
    fork = Fork(Form(4, 65536, 65536), OWNER)
    fork.put(1, b"x" * 65536)
    leaf(fork, 0, [Attr(0, b"%04d" % i, b"x" * 65536, True) for i in range(2000)], [1] * 2000)
    got, text = read_fork(fork)

    assert len(got) == 1
    assert text is not None
    assert "larger" in text


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_change_of_bytes_ends_in_attributes_or_a_text(data: st.DataObject) -> None:
    """Version 4, which has no checksums: nothing that stands in a block is trusted to be in range."""
    form = data.draw(st.sampled_from([Form(4, 512), Form(4, 4096)]))
    fork = Fork(form, OWNER, run=data.draw(st.sampled_from([1, 1 << 20])))
    attr_tree(fork, [[Attr(0, b"a", b"1" * 30), Attr(ROOT, b"far", b"r" * 999, True)], [Attr(0, b"b", b"2")]], 2)
    for _ in range(data.draw(st.integers(1, 6))):
        block = bytearray(fork.blocks[data.draw(st.integers(0, 3))])
        at = data.draw(st.one_of(st.integers(0, 70), st.integers(0, form.block_size - 4)))
        block[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
        fork.blocks[data.draw(st.integers(0, 3))] = bytes(block[: form.block_size])
    read_fork(fork)


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_in_the_inode_end_in_attributes_or_a_text(fork: bytes) -> None:
    read(Form(), fork, None)
