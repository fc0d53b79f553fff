"""A plan says before the first byte where every member will lie; nothing overlaps, nothing is forgotten."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel import errors
from splitreel.core.plan import Plan
from splitreel.plan import member_record, records, select
from tests.core.source import S_IFDIR, S_IFLNK, S_IFREG, S_IFSOCK, Source, numbered, written_pieces

BLOCK = 16384


def tree(count: int = 40, seed: int = 1) -> Source:
    source = Source(seed=seed)
    for directory in (b"z", b"a", b"a/b"):
        source.add(directory, S_IFDIR | 0o755)
    for i in range(count):
        home = (b"z/", b"a/", b"a/b/", b"")[i % 4]
        source.file(home + b"f%03d" % ((i * 7) % count), [(0, i % 5, 0)], size=(i % 5) * 4096)
    return source


def build(source: Source, image: Path, **options: object) -> Plan:
    return Plan.build(source.finish(image), **{"block_size": BLOCK, "segment_size": 1 << 20, **options})


def end_of(plan: Plan, index: int) -> int:
    member = numbered(plan)[0][index]
    stored = -(-int(member["stored"]) // 512) * 512
    return int(member["block"]) * plan.block_size + int(member["offset"]) + int(member["header"]) + stored


def test_every_name_is_planned_once_in_path_order(tmp_path: Path) -> None:
    plan = build(tree(), tmp_path / "image")

    paths = [plan.member_path(i) for i in range(plan.member_count)]

    assert paths == sorted(plan.map.paths())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=25),
    segment_size=st.integers(BLOCK, 12 * BLOCK),
    block_size=st.sampled_from([4096, 8192, BLOCK]),
    first_object=st.integers(0, 1000),
    sync_segments=st.integers(1, 3),
)
def test_members_follow_one_another_and_segments_keep_their_size(
    sizes: list[int], segment_size: int, block_size: int, first_object: int, sync_segments: int, tmp_path: Path
) -> None:
    source = Source()
    for i, blocks in enumerate(sizes):
        source.file(b"f%d" % i, [(j + j // 7, 1, 0) for j in range(blocks)])
    plan = build(
        source,
        tmp_path / "image",
        segment_size=segment_size,
        block_size=block_size,
        first_object=first_object,
        sync_segments=sync_segments,
    )
    members, segments = numbered(plan)

    position, segment, stored = 0, 0, 0
    for index, member in enumerate(members):
        if member["segment"] != segment:
            segment, position = segment + 1, 0
        assert member["segment"] == segment
        assert member["block"] * block_size + member["offset"] == position
        position = end_of(plan, index)
        stored += int(member["stored"] - member["map_size"])
    objects = first_object
    for number, one in enumerate(segments):
        assert one["first_object"] == objects
        assert one["synchronise"] == (number == len(segments) - 1 or (number + 1) % sync_segments == 0)
        last = int(one["first_member"] + one["members"]) - 1
        assert one["manifest_start"] == end_of(plan, last)
        assert one["blocks"] * block_size <= segment_size or one["members"] == 1
        objects += int(one["blocks"]) + 1
    assert stored == sum(size for i in range(plan.member_count) for _, size in written_pieces(plan, i))
    assert plan.totals["bytes"] == stored
    assert plan.totals["files"] == len(sizes)


def test_inode_order_puts_directories_first(tmp_path: Path) -> None:
    plan = build(tree(), tmp_path / "image", order="inode")
    members, _ = numbered(plan)
    files = np.asarray(plan.map.files)[np.asarray(plan.map.names)[members["name"]]["file"]]
    directories = [plan.member_path(i) for i in range(4)]

    assert directories == [b"", b"a", b"a/b", b"z"]
    assert (np.diff(files["inode"][4:].astype(np.int64)) > 0).all()


def test_physical_order_follows_the_first_block(tmp_path: Path) -> None:
    plan = build(tree(), tmp_path / "image", order="physical")
    members, _ = numbered(plan)
    files = np.asarray(plan.map.files)[np.asarray(plan.map.names)[members["name"]]["file"]]
    extents = np.asarray(plan.map.extents)
    firsts = [int(extents[f["first_extent"]]["physical"]) if f["extent_count"] else -1 for f in files[4:]]

    assert firsts == sorted(firsts)


@pytest.mark.parametrize(("order", "holder"), [("path", b"a"), ("inode", b"z")])
def test_the_first_name_in_plan_order_holds_the_data(order: str, holder: bytes, tmp_path: Path) -> None:
    source = Source()
    file = source.add(b"z", S_IFREG | 0o644, size=0)
    source.add(b"a", 0, file=file)
    source.add(b"m", 0, file=file)
    plan = build(source, tmp_path / "image", order=order)
    kinds = {plan.member_path(i): chr(m["kind"]) for i, m in enumerate(numbered(plan)[0])}
    links = {plan.member_path(i): plan.link_path(i) for i in range(plan.member_count)}
    first = next(p for p, k in kinds.items() if k == "0")

    assert first == (holder if order == "path" else first)
    assert sorted(kinds.values()) == ["0", "1", "1", "5"]
    assert {links[p] for p, k in kinds.items() if k == "1"} == {first}


def test_a_selection_resolves_links_among_what_it_holds(tmp_path: Path) -> None:
    source = Source()
    source.add(b"d", S_IFDIR | 0o755)
    file = source.add(b"a", S_IFREG | 0o644, size=0)
    source.add(b"d/b", 0, file=file)
    target = source.finish(tmp_path / "image")
    plan = Plan.build(target, selection=select(target, [b"d"]))

    assert [plan.member_path(i) for i in range(plan.member_count)] == [b"d", b"d/b"]
    assert plan.link_path(1) is None


def test_selecting_takes_what_lies_below_and_refuses_what_is_not_there(tmp_path: Path) -> None:
    target = tree().finish(tmp_path / "image")
    chosen = select(target, [b"/a/", b"z/f028"])

    assert chosen is not None
    assert {target.path_of(int(i)) for i in chosen} == {
        p for p in target.paths() if p == b"a" or p.startswith(b"a/") or p == b"z/f028"
    }
    assert select(target, []) is None
    assert select(target, [b""]) is None
    with pytest.raises(errors.NotFound):
        select(target, [b"nowhere"])


def test_a_file_larger_than_a_segment_becomes_parts(tmp_path: Path) -> None:
    source = Source()
    content = source.file(b"big", [(0, 20, 0), (30, 20, 0)], size=60 * 4096 + 17)
    source.file(b"small", [(0, 1, 0)])
    plan = build(source, tmp_path / "image", segment_size=4 * BLOCK + 5)
    members, segments = numbered(plan)
    parts = members[members["part"] > 0]

    assert [plan.member_path(i) for i in range(1, 1 + len(parts))] == [
        b"big.splitreel-part-%04d-of-%04d" % (i, len(parts)) for i in range(1, len(parts) + 1)
    ]
    assert (parts["stored"] - parts["map_size"]).tolist() == [4 * BLOCK, 4 * BLOCK, 2 * BLOCK]
    assert parts["start"][0] == 0
    assert (parts["start"][1:] == (parts["start"] + parts["size"])[:-1]).all()
    assert parts["size"].sum() == len(content)
    assert segments["members"].tolist() == [1, 1, 1, 2]
    assert member_record(plan, 2)["part"] == [2, 3]
    assert plan.totals["files"] == 2


def test_damaged_files_are_left_out_and_named(tmp_path: Path) -> None:
    source = Source()
    source.file(b"bad", [(0, 1, 0)], flags=1)
    source.file(b"good", [(0, 1, 0)])
    source.add(b"link", S_IFLNK | 0o777)
    plan = build(source, tmp_path / "image")

    assert [path for path, _ in plan.skipped] == [b"bad", b"link"]
    assert [plan.member_path(i) for i in range(plan.member_count)] == [b"", b"good"]


def test_a_socket_takes_no_room(tmp_path: Path) -> None:
    source = Source()
    source.add(b"s", S_IFSOCK | 0o755)
    source.file(b"t", [(0, 1, 0)])
    plan = build(source, tmp_path / "image")
    members, _ = numbered(plan)

    assert (members["header"][1], members["stored"][1]) == (0, 0)
    assert members["offset"][1] == members["offset"][2]


@pytest.mark.parametrize("cut", [(0, 1), (1, 0), (1, 2), (3, 1)])
def test_a_truncated_plan_keeps_every_place_and_the_rest_follows(cut: tuple[int, int], tmp_path: Path) -> None:
    plan = build(tree(), tmp_path / "image", segment_size=6 * BLOCK)
    members, segments = numbered(plan)
    segment, kept = cut

    head = plan.truncated(segment, kept)
    tail = plan.remainder(segment, kept, first_object=7)

    count = int(segments["first_member"][segment]) + kept
    assert head.member_count == count
    assert (np.asarray(head.members) == members[:count]).all()
    assert head.segment_count == segment + (kept > 0)
    assert (np.asarray(head.segments)["blocks"][:segment] == segments["blocks"][:segment]).all()
    assert np.asarray(head.segments)["synchronise"][-1] == 1
    assert [tail.member_path(i) for i in range(tail.member_count)] == [
        plan.member_path(i) for i in range(count, plan.member_count)
    ]
    assert np.asarray(tail.segments)["first_object"][0] == 7


def test_records_name_segments_members_and_objects(tmp_path: Path) -> None:
    plan = build(tree(), tmp_path / "image", segment_size=6 * BLOCK)
    found = list(records(plan))
    segments = [r for r in found if r["kind"] == "segment"]

    assert len(found) == plan.member_count + plan.segment_count
    assert [r["segment"] for r in segments] == list(range(1, plan.segment_count + 1))
    assert found[1]["path"] == ""
    assert all(r["object"] >= segments[r["segment"] - 1]["object"] for r in found if r["kind"] == "member")


def test_memory_a_member_is_at_most_64_bytes(tmp_path: Path) -> None:
    plan = build(tree(), tmp_path / "image")

    assert np.asarray(plan.members).dtype.itemsize == 64
    assert np.asarray(plan.segments).dtype.itemsize == 64


@pytest.mark.parametrize(
    "options",
    [
        {"order": "size"},
        {"block_size": 1000},
        {"block_size": 0},
        {"segment_size": 0},
        {"segment_size": 1 << 44, "block_size": 4096},
        {"sync_segments": 0},
        {"first_number": 0},
    ],
)
def test_impossible_layouts_are_refused(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(errors.Misuse):
        build(tree(), tmp_path / "image", **options)


def test_a_selection_of_another_kind_is_refused(tmp_path: Path) -> None:
    target = tree().finish(tmp_path / "image")
    with pytest.raises(TypeError):
        Plan.build(target, selection=np.array([1], dtype=np.uint64))
    with pytest.raises(IndexError):
        Plan.build(target, selection=np.array([10**6], dtype=np.uint32))
    with pytest.raises(TypeError):
        Plan()
