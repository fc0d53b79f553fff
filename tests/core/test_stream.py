"""What comes off the tape is what the map says lies on the device, byte for byte, whatever the layout."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.null import NullDrive
from splitreel.core.plan import Plan
from splitreel.core.softdrive import SoftDrive
from splitreel.core.stream import FINISHED, STOPPED_EARLY_WARNING, StreamWriter
from splitreel.core.tape import Tape
from tests.core.source import (
    BACKUP,
    S_IFDIR,
    S_IFIFO,
    S_IFLNK,
    S_IFSOCK,
    UNWRITTEN,
    Source,
    crc32c,
    manifest_records,
    member_content,
    members_archive,
    numbered,
    posix_cksum,
)
from tests.core.test_stream_reader import REWIND, tape_of
from tests.drive.tapfile import parse
from tests.support import need_programs

BLOCK = 16384
LOCATE = 0x92


def locate(drive: SoftDrive, tape: Tape, number: int) -> None:
    """LOCATE(16), SSC-4 7.3."""
    drive.run_command(bytes([LOCATE, 0, 0, 0]) + number.to_bytes(8, "big") + bytes(4))
    tape.object_id = number


@contextmanager
def writer(
    source: Source, directory: Path, plan: dict[str, object] | None = None, **options: object
) -> Iterator[tuple[StreamWriter, SoftDrive]]:
    """A stream from the source to a software drive that stands at object 3."""
    image = directory / "image"
    target = source.finish(image)
    built = Plan.build(target, **{"block_size": BLOCK, "segment_size": 1 << 20, "backup": BACKUP, **(plan or {})})
    with SoftDrive(directory / "tape") as drive, BlockDevice(image) as device:
        tape = tape_of(drive)
        for _ in range(2):
            tape.write(b"label")
        tape.filemarks(1)
        with StreamWriter(target, device, built, tape, **{"ring_blocks": 8, **options}) as stream:
            yield stream, drive


def tape_files(path: Path) -> list[list[bytes]]:
    """The blocks of each tape file behind the label's, read by another program than ours."""
    files: list[list[bytes]] = [[]]
    for block in parse(path)[3:]:
        if block is None:
            files.append([])
        else:
            files[-1].append(block)
    assert files.pop() == []
    return files


def expected_lines(plan: Plan, source: Source, segment: int, blocks: list[bytes]) -> list[dict[str, object]]:
    """A segment's manifest but for its last line, by Python and crcmod."""
    members, segments = numbered(plan)
    one = segments[segment]
    lines: list[dict[str, object]] = [
        {
            "kind": "segment",
            "backup": BACKUP,
            "segment": int(one["number"]),
            "block_size": plan.block_size,
            "members": int(one["members"]),
        }
    ]
    kinds = {"0": "file", "1": "link", "2": "symlink", "3": "chr", "4": "blk", "5": "dir", "6": "fifo", "s": "sock"}
    for index in range(int(one["first_member"]), int(one["first_member"] + one["members"])):
        member = members[index]
        file = np.asarray(plan.map.files)[np.asarray(plan.map.names)[member["name"]]["file"]]
        line: dict[str, object] = {
            "kind": "member",
            "path": plan.member_path(index).decode("utf-8", "surrogateescape"),
            "type": kinds[chr(member["kind"])],
            "size": int(member["size"]),
            "mode": int(file["mode"]) & 0o7777,
            "block": int(member["block"]),
            "offset": int(member["offset"]),
            "stored": int(member["stored"]),
        }
        if line["type"] == "file":
            line["extents"] = count_extents(plan, index)
            line["crc32c"] = f"{crc32c(member_content(plan, source, index)):08x}"
        if member["part"]:
            line["part"] = [int(member["part"]), int(member["parts"])]
            line["of"] = plan.map.path_of(int(member["name"])).decode("utf-8", "surrogateescape")
            line["at"] = int(member["start"])
        link = plan.link_path(index)
        target = plan.map.target(int(np.asarray(plan.map.names)[member["name"]]["file"])) if link is None else link
        if line["type"] in ("link", "symlink") and target is not None:
            line["target"] = target.decode("utf-8", "surrogateescape")
        lines.append(line)
    whole = blocks[: int(one["manifest_start"]) // plan.block_size]
    for first in range(0, len(whole), 64):
        sums = "".join(f"{crc32c(block):08x}" for block in whole[first : first + 64])
        lines.append({"kind": "blocks", "first": first, "crc32c": sums})
    return lines


def count_extents(plan: Plan, index: int) -> int:
    """Written extents of the map that a member's content touches."""
    member = numbered(plan)[0][index]
    file = np.asarray(plan.map.files)[np.asarray(plan.map.names)[member["name"]]["file"]]
    first = int(file["first_extent"])
    extents = np.asarray(plan.map.extents)[first : first + int(file["extent_count"])]
    starts = extents["logical"].astype(np.int64) * plan.map.block_size
    ends = starts + extents["count"].astype(np.int64) * plan.map.block_size
    start, end = int(member["start"]), int(member["start"] + member["size"])
    return int(((starts < end) & (ends > start) & (extents["flags"] & UNWRITTEN == 0)).sum())


def check_segment(plan: Plan, source: Source, segment: int, blocks: list[bytes]) -> None:
    """One tape file against the map: every byte."""
    one = numbered(plan)[1][segment]
    archive = b"".join(blocks)
    start = int(one["manifest_start"])
    assert {len(block) for block in blocks} == {plan.block_size}
    assert len(blocks) == one["blocks"]
    assert archive[:start] == members_archive(plan, source, segment)
    manifest = archive[start + 1536 :][: int(one["manifest_size"])]
    lines = manifest_records(manifest)
    body = manifest[: manifest.rindex(b'{"kind":"end"')]
    assert lines[-1] == {"kind": "end", "crc32c": f"{crc32c(body):08x}"}
    assert lines[:-1] == expected_lines(plan, source, segment, blocks)
    with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8", errors="surrogateescape") as tar:
        control = tar.getmembers()[-2:]
        assert [c.name for c in control] == [
            f".splitreel/segment-{one['number']:04}.{kind}" for kind in ("manifest", "cksums")
        ]
        assert control[0].pax_headers["SPLITREEL.kind"] == "manifest"
        reader = tar.extractfile(control[1])
        assert reader is not None
        check_cksums(plan, source, segment, reader.read())
    assert one["digest"] == crc32c(b"".join(crc32c(block).to_bytes(4, "little") for block in blocks))


def check_cksums(plan: Plan, source: Source, segment: int, text: bytes) -> None:
    members, segments = numbered(plan)
    one = segments[segment]
    expected = []
    for index in range(int(one["first_member"]), int(one["first_member"] + one["members"])):
        path = plan.member_path(index)
        if chr(members[index]["kind"]) == "0" and b"\n" not in path:
            content = member_content(plan, source, index)
            expected.append(b"%d %d %s\n" % (posix_cksum(content), len(content), path))
    assert text.rstrip(b"\n") == b"".join(expected).rstrip(b"\n")
    assert len(text) == one["cksums_size"]


def mixed_source(seed: int = 3) -> Source:
    source = Source(seed=seed)
    source.add(b"d", S_IFDIR | 0o755)
    source.file(b"d/large", [(0, 8 * 4, 0), (32, 20, 0)], mtime_ns=5)
    source.file(b"d/sparse", [(1, 3, 0), (9, 2, UNWRITTEN), (11, 2, 0)], size=20 * 4096)
    source.file(b"d/hole", size=99999)
    source.file(b"d/empty")
    source.add(b"d/link", S_IFLNK | 0o777, target=b"\xff to")
    source.add(b"fifo", S_IFIFO | 0o644)
    source.add(b"sock", S_IFSOCK | 0o755)
    for i in range(60):
        source.file(b"small%d" % i, [(0, 1 + i % 3, 0)], size=1 + i * 150 % 4000)
    source.file(b"inline", size=0)
    source.add(b"z\n", 0, file=2)
    source.file(b"line\nbreak", [(0, 1, 0)])
    return source


def test_a_mixed_tree_goes_to_tape_as_planned(tmp_path: Path) -> None:
    source = mixed_source()
    with writer(source, tmp_path) as (stream, _):
        assert stream.run() == FINISHED
        plan = stream.plan
        progress = stream.progress()
        run_crc = stream.crc32c
    files = tape_files(tmp_path / "tape")

    assert len(files) == plan.segment_count
    for segment, blocks in enumerate(files):
        check_segment(plan, source, segment, blocks)
    every = [block for blocks in files for block in blocks]
    assert run_crc == crc32c(b"".join(crc32c(block).to_bytes(4, "little") for block in every))
    assert progress["bytes_read"] == plan.totals["bytes"]
    assert progress["bytes_written"] == sum(map(len, every))
    assert progress["objects_confirmed"] == progress["objects_written"] == 3 + len(every) + len(files)
    assert progress["segments_confirmed"] == len(files)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_map_goes_to_tape_as_planned(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    source = Source(block_size=data.draw(st.sampled_from([1024, 4096])), seed=data.draw(st.integers(0, 99)))
    for i in range(data.draw(st.integers(0, 12))):
        layout, at = [], 0
        for gap, count, flags in data.draw(
            st.lists(
                st.tuples(st.integers(0, 3), st.integers(1, 40), st.sampled_from([0, 0, 0, UNWRITTEN])), max_size=5
            )
        ):
            layout.append((at + gap, count, flags))
            at += gap + count
        size = data.draw(st.integers(0, (at + 2) * source.block_size))
        source.file(b"f%d" % i, layout, size)
    block_size = data.draw(st.sampled_from([4096, BLOCK]))
    directory = tmp_path_factory.mktemp("any")
    plan = {
        "block_size": block_size,
        "segment_size": data.draw(st.integers(1, 30)) * 4096,
        "order": data.draw(st.sampled_from(["path", "inode", "physical"])),
        "sync_segments": data.draw(st.integers(1, 3)),
    }
    options = {
        "ring_blocks": data.draw(st.integers(2, 9)),
        "depth": data.draw(st.integers(1, 8)),
        "engine": data.draw(st.sampled_from(["threads", "auto"])),
    }
    with writer(source, directory, plan, **options) as (stream, _):
        assert stream.run() == FINISHED
        files = tape_files(directory / "tape")
        for segment, blocks in enumerate(files):
            check_segment(stream.plan, source, segment, blocks)
        assert len(files) == stream.plan.segment_count


@pytest.mark.parametrize("tool", ["tar", "bsdtar"])
def test_segments_extract_with_a_stock_tar_and_compare_with_cksum(tool: str, tmp_path: Path) -> None:
    need_programs(tool, "cksum")
    source = mixed_source()
    with writer(source, tmp_path) as (stream, _):
        stream.run()
    out = tmp_path / "out"
    out.mkdir()
    for blocks in tape_files(tmp_path / "tape"):
        subprocess.run([tool, "-xf", "-"], input=b"".join(blocks), cwd=out, check=True, stderr=subprocess.DEVNULL)

    for path, content in source.content.items():
        assert (out / os.fsdecode(path)).read_bytes() == content
    for sums in sorted((out / ".splitreel").glob("*.cksums")):
        lines = sums.read_text().split("\n")
        names = [line.split(" ", 2)[2] for line in lines if line]
        said = subprocess.run(["cksum", *names], cwd=out, capture_output=True, text=True, check=True).stdout
        assert said.split("\n") == [line for line in lines if line] + [""]


def test_extents_that_files_share_are_read_for_each(tmp_path: Path) -> None:
    noise = os.urandom(40 * 4096)
    (tmp_path / "image").write_bytes(noise)
    places = [(1, 8), (3, 1), (2, 8), (1, 8), (30, 4), (4, 2)]
    target = ExtentMap("test", bytes(16), 4096, 40 * 4096)
    target.add_file(2, S_IFDIR | 0o755, link_count=2)
    target.add_name(0, 0, b"")
    for i, (block, count) in enumerate(places):
        target.add_file(i + 3, 0o100644, size=count * 4096)
        target.add_extent(0, block, count, 0x2000)
        target.add_name(0, i + 1, b"f%d" % i)
    target.finish()
    plan = Plan.build(target, block_size=1 << 20, first_object=0)
    with (
        SoftDrive(tmp_path / "tape") as drive,
        BlockDevice(tmp_path / "image") as device,
        StreamWriter(target, device, plan, tape_of(drive)) as stream,
    ):
        stream.run()

    archive = b"".join(block for block in parse(tmp_path / "tape") if block is not None)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for i, (block, count) in enumerate(places):
            reader = tar.extractfile(f"f{i}")
            assert reader is not None
            assert reader.read() == noise[block * 4096 : (block + count) * 4096]


def test_inline_data_come_from_the_map(tmp_path: Path) -> None:
    source = Source()
    content = source.file(b"f", size=0)
    target = ExtentMap("test", bytes(16), 4096, 3 * 4096)
    target.add_file(2, S_IFDIR | 0o755, link_count=2)
    target.add_file(3, 0o100644, size=60, flags=8, target=b"i" * 60)
    target.add_extent(0, 1, 1, 0x200)
    target.add_name(0, 0, b"")
    target.add_name(0, 1, b"f")
    target.finish()
    (tmp_path / "image").write_bytes(bytes(3 * 4096))
    plan = Plan.build(target, block_size=BLOCK, backup=BACKUP)
    with SoftDrive(tmp_path / "tape") as drive, BlockDevice(tmp_path / "image") as device:
        tape = tape_of(drive)
        tape.object_id = 3
        with pytest.raises(errors.PositionLost), StreamWriter(target, device, plan, tape) as stream:
            tape.object_id = 2
            stream.run()
        tape.object_id = 3
        with StreamWriter(target, device, plan, tape) as stream:
            stream.run()

    archive = b"".join(block for block in parse(tmp_path / "tape") if block is not None)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        reader = tar.extractfile("f")
        assert reader is not None
        assert reader.read() == b"i" * 60
    assert np.asarray(plan.crc32c)[1] == crc32c(b"i" * 60)
    assert content == b""


def test_resuming_at_a_synchronised_segment_gives_the_same_tape(tmp_path: Path) -> None:
    source = mixed_source()
    with writer(source, tmp_path, {"segment_size": 5 * BLOCK}) as (stream, drive):
        stream.run()
        whole = parse(tmp_path / "tape")
        plan = stream.plan
        first = np.asarray(plan.segments)["first_object"]
        for segment, block in ((plan.segment_count - 2, 0), (1, 0), (1, 2)):
            locate(drive, stream.tape, int(first[segment]) + block)
            assert stream.run(segment, block) == FINISHED
            assert parse(tmp_path / "tape") == whole


@pytest.mark.parametrize("room", [3, 7, 10, 16, 23, 24])
def test_early_warning_ends_in_a_readable_tape_and_the_rest_follows_on_another(room: int, tmp_path: Path) -> None:
    source = mixed_source()
    image, tapes = tmp_path / "image", [tmp_path / "one", tmp_path / "two"]
    target = source.finish(image)
    plan = Plan.build(target, block_size=BLOCK, segment_size=9 * BLOCK, backup=BACKUP, first_object=0)
    capacity = 200 * BLOCK
    warning = capacity - room * (BLOCK + 8)
    with SoftDrive.create(tapes[0], capacity=capacity, early_warning=warning) as drive, BlockDevice(image) as device:
        tape = tape_of(drive)
        with StreamWriter(target, device, plan, tape, ring_blocks=8) as stream:
            assert stream.run() == STOPPED_EARLY_WARNING
            stop = stream.stopped_at
        assert stop is not None
        kept = plan.truncated(stop["segment"], stop["members"])
        if not stop["complete"]:
            locate(drive, tape, stop["object"])
            if stop["members"]:
                with StreamWriter(target, device, kept, tape) as stream:
                    assert stream.run(stop["segment"], stop["rewrite_block"], past_early_warning=True) == FINISHED
            else:
                tape.filemarks(0)
    rest = plan.remainder(stop["segment"], stop["members"], first_object=0)
    with (
        SoftDrive(tapes[1]) as drive,
        BlockDevice(image) as device,
        StreamWriter(target, device, rest, tape_of(drive)) as stream,
    ):
        assert stream.run() == FINISHED

    assert kept.member_count + rest.member_count == plan.member_count
    for path, part in zip(tapes, (kept, rest), strict=True):
        files: list[list[bytes]] = [[]]
        for block in parse(path):
            files[-1].append(block) if block is not None else files.append([])
        for segment in range(part.segment_count):
            check_segment(part, source, segment, files[segment])


def test_a_read_error_names_inode_and_offset(tmp_path: Path) -> None:
    """The image is cut short behind the map's back: reading beyond its end fails."""
    source = mixed_source()
    with writer(source, tmp_path) as (stream, _):
        os.truncate(tmp_path / "image", 40 * 4096)
        with pytest.raises(errors.DeviceError) as caught:
            stream.run()
    assert 2 <= caught.value.object_id < 200
    assert caught.value.offset >= 40 * 4096
    assert threading.active_count() == 1


def test_a_drive_that_runs_full_fails_the_run_and_both_threads_end(tmp_path: Path) -> None:
    source = mixed_source()
    image = tmp_path / "image"
    target = source.finish(image)
    plan = Plan.build(target, block_size=BLOCK, first_object=0)
    with (
        SoftDrive.create(tmp_path / "tape", capacity=4 * BLOCK, early_warning=0) as drive,
        BlockDevice(image) as device,
        StreamWriter(target, device, plan, tape_of(drive), ring_blocks=3) as stream,
        pytest.raises(errors.EndOfMedium),
    ):
        stream.run(past_early_warning=True)
    assert threading.active_count() == 1


def test_cancelling_ends_the_run(tmp_path: Path) -> None:
    source = mixed_source()
    with writer(source, tmp_path) as (stream, _):
        stream.cancel()
        with pytest.raises(errors.Cancelled):
            stream.run()
    assert threading.active_count() == 1


def big_source(files: int) -> Source:
    source = Source()
    for i in range(files):
        source.file(b"f%05d" % i, [(0, 1, 0)], size=100 + i % 3000)
    return source


def null_stream(source: Source, directory: Path, **options: object) -> tuple[StreamWriter, BlockDevice]:
    target = source.finish(directory / "image")
    plan = Plan.build(target, block_size=65536, first_object=0)
    device = BlockDevice(directory / "image")
    return StreamWriter(target, device, plan, tape_of(NullDrive()), **options), device


def test_no_python_runs_for_a_file_or_a_block(tmp_path: Path) -> None:
    """The number of Python calls during run() is the same for 100 files and for 5000."""
    counts = []
    for files in (100, 5000):
        (tmp_path / str(files)).mkdir()
        stream, device = null_stream(big_source(files), tmp_path / str(files))
        calls = [0]

        def count(*_: object, calls: list[int] = calls) -> None:
            calls[0] += 1

        threading.setprofile(count)
        sys.setprofile(count)
        try:
            stream.run()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        counts.append(calls[0])
        assert stream.progress()["members"] == files + 1
        stream.close()
        device.close()
    assert abs(counts[0] - counts[1]) < 40


def test_the_gil_is_free_while_it_runs(tmp_path: Path) -> None:
    stream, device = null_stream(big_source(3000), tmp_path)
    ticks = []
    done = threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks.append(stream.progress()["blocks"])
            time.sleep(0.0005)

    ticker = threading.Thread(target=tick)
    ticker.start()
    stream.run()
    done.set()
    ticker.join()
    stream.close()
    device.close()
    assert len(set(ticks)) > 2


def endless_stream(directory: Path) -> tuple[StreamWriter, BlockDevice]:
    """A file of 200 GB whose extents all lie in the same megabyte of a small image."""
    image = directory / "image"
    image.write_bytes(bytes(2 << 20))
    target = ExtentMap("test", bytes(16), 4096, 2 << 20)
    target.add_file(2, S_IFDIR | 0o755, link_count=2)
    target.add_file(3, 0o100644, size=200_000 << 20)
    for i in range(200_000):
        target.add_extent(i * 256, 1, 256)
    target.add_name(0, 0, b"")
    target.add_name(0, 1, b"f")
    target.finish()
    plan = Plan.build(target, first_object=0, segment_size=1 << 40)
    device = BlockDevice(image)
    return StreamWriter(target, device, plan, tape_of(NullDrive()), ring_blocks=8), device


def test_a_signal_ends_the_run_within_a_second_or_so(tmp_path: Path) -> None:
    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    stream, device = endless_stream(tmp_path)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            stream.run()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 10  # 200 GB take minutes
    assert threading.active_count() == 1
    stream.close()
    device.close()


def test_cancelling_from_another_thread_ends_a_run_under_way(tmp_path: Path) -> None:
    stream, device = endless_stream(tmp_path)
    timer = threading.Timer(0.2, stream.cancel)
    timer.start()
    with pytest.raises(errors.Cancelled):
        stream.run()
    timer.join()
    assert 0 < stream.progress()["bytes_read"] < 200_000 << 20
    stream.close()
    device.close()


def test_parts_that_do_not_fit_one_another_are_refused(tmp_path: Path) -> None:
    target = mixed_source().finish(tmp_path / "image")
    other = mixed_source().finish(tmp_path / "image")
    plan = Plan.build(target, block_size=BLOCK)
    tape = tape_of(NullDrive())
    with BlockDevice(tmp_path / "image") as device:
        with pytest.raises(errors.Misuse):
            StreamWriter(other, device, plan, tape)
        with pytest.raises(errors.Misuse):
            StreamWriter(target, device, plan, tape, ring_blocks=1)
        with StreamWriter(target, device, plan, tape) as stream:
            with pytest.raises(errors.Misuse):
                stream.run(99)
            with pytest.raises(errors.Misuse):
                stream.run(0, 10**6)
        with pytest.raises(errors.Misuse):
            stream.run()
    assert REWIND
