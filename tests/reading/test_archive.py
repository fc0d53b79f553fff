"""Pax archives as tape blocks: what tarfile writes is read back; what is damaged is found, never believed."""

import os
import tarfile
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel.reading import archive, segment
from splitreel.reading.archive import Blocks, Entry, SegmentReader, Torn
from tests import tapes


def read(data: bytes, block_size: int = tapes.BLOCK) -> list[tuple[Entry, bytes]]:
    reader = SegmentReader(Blocks(data, block_size), block_size)
    found = []
    for entry in reader:
        content = bytearray()
        for offset, chunk in reader.pieces():
            content += bytes(offset - len(content)) + chunk
        content += bytes(entry.size - len(content))
        found.append((entry, bytes(content)))
    assert reader.ended
    return found


def test_every_type_and_attribute_that_tarfile_writes_is_read() -> None:
    made = tapes.Segment()
    made.add(b"d", kind="dir", mode=0o751)
    made.add(b"d/f", os.urandom(9001), mode=0o4755, uid=3_000_000, gid=7, mtime=1_700_000_000.125)
    made.add(b"d/" + b"long" * 60 + b"/" + b"x" * 200, b"deep")
    made.add(b"d/caf\xc3\xa9", b"utf8")
    made.add(b"d/raw\xff\xfe", b"not utf8")
    made.add(b"d/sym", kind="symlink", target=b"../nowhere")
    made.add(b"d/hard", kind="link", target=b"d/f")
    made.add(b"d/chr", kind="chr", device=(5, 1))
    made.add(b"d/fifo", kind="fifo")
    made.add(b"d/x", b"1", pax={"SCHILY.xattr.user.k": "v\n=2", "SCHILY.acl.access": "user::rw-"})
    made.add(b"old", b"", mtime=-12.5)

    found = {segment.normal(entry.path): (entry, content) for entry, content in read(made.close())}

    assert [r["path"].encode("utf-8", "surrogateescape") for r in made.members] == list(found)[: len(made.members)]
    entry = found[b"d/f"][0]
    assert (entry.uid, entry.gid, entry.mode, entry.mtime_ns) == (3_000_000, 7, 0o4755, 1_700_000_000_125_000_000)
    assert found[b"d/hard"][0].target == b"d/f"
    assert found[b"d/sym"][0].target == b"../nowhere"
    assert found[b"d/chr"][0].device == (5, 1)
    assert found[b"d/x"][0].xattrs == {b"user.k": b"v\n=2"}
    assert found[b"d/x"][0].acls == {"access": b"user::rw-"}
    assert found[b"old"][0].mtime_ns == -12_500_000_000
    for record in made.members:
        entry, content = found[record["path"].encode("utf-8", "surrogateescape")]
        assert (entry.block, entry.offset, entry.stored) == (record["block"], record["offset"], record["stored"])
        if record["type"] == "file":
            assert f"{tapes.crc32c(content):08x}" == record["crc32c"]


def test_sparse_members_are_read_with_their_holes() -> None:
    made = tapes.Segment()
    pieces = [(4096, b"a" * 5000), (100_000, b"b" * 512), (200_000, b"")]
    content, stored, pax = tapes.sparse(200_000, pieces, "d/s")
    made.add(b"GNUSparseFile.0/s", content, pax=pax, stored=stored)
    many = [(i * 8192, bytes([i % 251]) * 100) for i in range(500)]
    content_many, stored, pax = tapes.sparse(500 * 8192, many, "many")
    made.add(b"GNUSparseFile.0/many", content_many, pax=pax, stored=stored)

    first, second, *_ = read(made.close())

    assert (first[0].path, first[0].size, first[1]) == (b"d/s", 200_000, content)
    assert second[1] == content_many


def test_reading_from_the_middle_of_a_segment() -> None:
    made = tapes.Segment()
    for i in range(40):
        made.add(b"f%d" % i, bytes([i]) * 3000)
    data, record = made.close(), made.members[25]

    reader = SegmentReader(
        Blocks(data[record["block"] * tapes.BLOCK :], tapes.BLOCK), None, record["block"], record["offset"]
    )
    entry = next(iter(reader))

    assert (entry.path, entry.block, entry.offset) == (b"f25", record["block"], record["offset"])
    assert reader.content(1 << 20) == bytes([25]) * 3000


def change(header: bytearray, field: slice, value: bytes) -> bytes:
    """The header with a field replaced and its checksum made right again."""
    header[field] = value
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        (slice(156, 157), b"S", "member type"),
        (slice(124, 136), b"0000000000x\0", "octal"),
        (slice(257, 263), b"ustar ", "magic"),
        (slice(156, 157), b"5", "bytes of data"),
        (slice(124, 136), b"77777777777\0", "ends after"),
    ],
)
def test_a_header_that_lies_is_refused(field: slice, value: bytes, why: str) -> None:
    made = tapes.Segment()
    made.add(b"f", b"12345")
    data = bytearray(made.close())
    data[:512] = change(data[:512], field, value)

    with pytest.raises(Torn, match=why):
        read(bytes(data))


@pytest.mark.parametrize(
    "text",
    [b"3 a", b"99 path=x\n", b"x path=x\n", b"9 path x\n", b"10 path=xy", b"0 =\n", b"-9 path=x\n", b"11 path=\n"],
)
def test_a_malformed_pax_record_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"header record|number"):
        archive.pax_records(text)


@pytest.mark.parametrize(
    ("size", "pieces"),
    [(100, [(0, b"x" * 101)]), (1000, [(500, b"a" * 10), (400, b"b" * 10)]), (1000, [(990, b"a" * 20)])],
)
def test_a_sparse_map_out_of_range_is_refused(size: int, pieces: list[tuple[int, bytes]]) -> None:
    made = tapes.Segment()
    _, stored, pax = tapes.sparse(size, pieces, "s")
    made.add(b"s", b"", pax=pax, stored=stored)

    with pytest.raises(Torn, match="sparse map"):
        read(made.close())


def test_a_sparse_map_that_claims_endless_pieces_is_refused_before_memory_is_taken() -> None:
    made = tapes.Segment()
    _, _, pax = tapes.sparse(100, [], "s")
    made.add(b"s", b"", pax=pax, stored=b"9999999999999\n".ljust(512, b"0") * 4)

    with pytest.raises(Torn, match="sparse map of 9999999999999 pieces"):
        read(made.close())


def test_a_huge_extended_header_is_refused_before_memory_is_taken() -> None:
    header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    header = bytearray(change(header, slice(124, 136), b"77777777777\0"))

    with pytest.raises(Torn, match="extended header of"):
        read(change(header, slice(156, 157), b"x") + bytes(tapes.BLOCK - 512))


def walk(data: bytes, *, cksums: bool = True) -> segment.Report:
    return segment.Walk(SegmentReader(Blocks(data, tapes.BLOCK), tapes.BLOCK), cksums=cksums).run()


def full_segment() -> tapes.Segment:
    made = tapes.Segment()
    made.add(b"a", kind="dir")
    for i in range(20):
        made.add(b"a/f%d" % i, bytes([i]) * (i * 700))
    made.add(b"a/l", kind="link", target=b"a/f3")
    made.add(b"a/new\nline", b"odd")
    content, stored, pax = tapes.sparse(50_000, [(8192, b"q" * 4096)], "a/sparse")
    made.add(b"a/sparse", content, pax=pax, stored=stored)
    return made


def test_a_whole_segment_verifies_against_its_manifest_and_checksums() -> None:
    report = walk(full_segment().close())

    assert report.sound
    assert (report.members, report.files, report.number, report.cksums) == (24, 22, 1, 21)
    assert not report.bad


def test_a_changed_data_byte_is_found_in_file_and_block() -> None:
    made = full_segment()
    data = bytearray(made.close())
    record = made.members[15]
    data[record["block"] * tapes.BLOCK + record["offset"] + 600] ^= 1

    report = walk(bytes(data))

    assert list(report.bad) == [b"a/f14"]
    assert any(why.startswith("tape block") for path, why in report.findings if not path)


def test_a_lost_swapped_or_doubled_block_never_verifies() -> None:
    made = full_segment()
    data = made.close()
    blocks = [data[i : i + tapes.BLOCK] for i in range(0, len(data), tapes.BLOCK)]
    for i in range(1, len(blocks) - 1):
        assert not walk(b"".join(blocks[:i] + blocks[i + 1 :])).sound, f"block {i} lost"
        assert not walk(b"".join(blocks[:i] + blocks[i : i + 1] + blocks[i:])).sound, f"block {i} doubled"
        swapped = [*blocks[: i - 1], blocks[i], blocks[i - 1], *blocks[i + 1 :]]
        assert blocks[i] == blocks[i - 1] or not walk(b"".join(swapped)).sound, f"blocks {i - 1}, {i} swapped"


def test_a_segment_without_manifest_is_not_sound() -> None:
    report = walk(full_segment().close(with_manifest=False))

    assert not report.verified
    assert (b"", "it has no manifest") in report.findings


def test_a_segment_cut_short_is_torn() -> None:
    data = full_segment().close()

    report = walk(data[: 5 * tapes.BLOCK])

    assert "ends after 5 blocks" in report.torn
    assert not report.verified


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_flipped_bytes_are_always_found(data: st.DataObject) -> None:
    image = bytearray(full_segment().close())
    report = walk(bytes(image))
    last = report.blocks * tapes.BLOCK
    at = data.draw(st.integers(0, last - 1))
    image[at] ^= data.draw(st.integers(1, 255))

    report = walk(bytes(image))

    # the padding behind the checksum file's last line and the archive's end carry nothing
    tail = bytes(image).rfind(b"a/sparse\n") + 9
    assert not report.sound or at >= tail


def test_blocks_crc32c_is_over_little_endian_words() -> None:
    crcs = array("I", [1, 0xDEADBEEF])

    assert segment.blocks_crc32c(crcs) == tapes.crc32c(b"\x01\0\0\0\xef\xbe\xad\xde")
