"""layout turns a plan that was streamed into the segments and members that a catalog holds. It lays nothing out."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from splitreel.core.plan import Plan
from splitreel.pages import Checks, Damage
from splitreel.plan import TYPES
from splitreel.records import DamagedPage, Member, Segment

UNWRITTEN = 0x800
BATCH = 4096  # members turned into records at a time
LINK = ord("1")
SYMLINK = ord("2")
FILE = ord("0")


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of the first segments of a plan.

    ``bytes`` is what the archive stores of files: content without holes, and the maps of these. The records on tape
    state the same for each member, so a rebuilt catalog gives the same number.
    """

    files: int
    bytes: int
    blocks: int


class Layout:
    """A plan's columns as records; checksums are right for segments that the stream has written."""

    def __init__(self, plan: Plan, checks: Checks | None = None) -> None:
        self.plan = plan
        self._checks = checks
        self._segments = np.asarray(plan.segments)
        self._members = np.asarray(plan.members)
        self._crcs = np.asarray(plan.crc32c)
        self._files = np.asarray(plan.map.files)
        self._names = np.asarray(plan.map.names)
        self._extents = np.asarray(plan.map.extents)
        written = (self._extents["flags"] & UNWRITTEN) == 0
        # written extents before each one: a member's count is a difference
        self._written = np.concatenate(([0], np.cumsum(written, dtype=np.int64)))

    def segment(self, index: int) -> Segment:
        """One segment as the catalog states it."""
        s = self._segments[index]
        return Segment(int(s["number"]), int(s["first_object"]), int(s["blocks"]), int(s["digest"]), int(s["members"]))

    def end_object(self) -> int:
        """The object number behind the last segment and its filemark."""
        if not len(self._segments):
            return self.plan.first_object
        last = self._segments[-1]
        return int(last["first_object"]) + int(last["blocks"]) + 1

    def totals(self, segments: int) -> Totals:
        """Counts of the first ``segments`` segments."""
        chosen = self._segments[:segments]
        last = int(chosen[-1]["first_member"]) + int(chosen[-1]["members"]) if len(chosen) else 0
        members = self._members[:last]
        is_file = members["kind"] == FILE
        files = int((is_file & (members["part"] <= 1)).sum())
        return Totals(files, int(members["stored"][is_file].sum()), int(chosen["blocks"].sum()))

    def members(self, index: int) -> Iterator[Member]:
        """The members of one segment, in archive order."""
        segment = self._segments[index]
        first, last = int(segment["first_member"]), int(segment["first_member"]) + int(segment["members"])
        damaged = self._checks.by_file() if self._checks is not None else {}
        for start in range(first, last, BATCH):
            yield from self._batch(
                start, min(start + BATCH, last), int(segment["number"]), int(segment["first_object"]), damaged
            )

    def _batch(
        self, first: int, last: int, number: int, first_object: int, damaged: dict[int, list[Damage]]
    ) -> Iterator[Member]:
        """Members as records. Columns become lists at once: an array's elements one by one cost ten times as much."""
        members = self._members[first:last]
        indexes = self._names["file"][members["name"]]
        files = self._files[indexes]
        extents = self._written[files["first_extent"] + files["extent_count"]] - self._written[files["first_extent"]]
        columns = (
            members["kind"],
            members["size"],
            files["mode"] & 0o7777,
            members["block"],
            members["offset"],
            members["stored"],
            members["part"],
            self._crcs[first:last],
            extents,
            indexes,
        )
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for i, (kind, size, mode, block, offset, stored, part, crc, count, file) in enumerate(rows, first):
            member = Member(self.plan.member_path(i), TYPES[chr(kind)], size, mode, block, offset, stored)
            member.segment, member.object = number, first_object + block
            if kind == FILE:
                member.crc32c, member.extents = crc, count
                if part:
                    self._part(member, i)
                if file in damaged:
                    member.damaged_pages = _pages_of(member, damaged[file])
            elif kind == SYMLINK:
                member.target = self.plan.map.target(file)
            elif kind == LINK:
                member.target = self.plan.link_path(i)
            yield member

    def _part(self, member: Member, i: int) -> None:
        m = self._members[i]
        member.part = int(m["part"]), int(m["parts"])
        member.of = self.plan.map.path_of(int(m["name"]))
        member.at = int(m["start"])
        file = self._files[self._names[int(m["name"])]["file"]]
        first, size = int(file["first_extent"]), self.plan.map.block_size
        extents = self._extents[first : first + int(file["extent_count"])]
        begin, end = extents["logical"] * size, (extents["logical"] + extents["count"]) * size
        inside = (begin < member.at + member.size) & (end > member.at) & ((extents["flags"] & UNWRITTEN) == 0)
        member.extents = int(inside.sum())

    def all_members(self, segments: int) -> Iterator[Member]:
        """The members of the first ``segments`` segments."""
        for index in range(segments):
            yield from self.members(index)


def _pages_of(member: Member, damaged: list[Damage]) -> tuple[DamagedPage, ...]:
    """The damaged pages that end in a member, a whole file or a part of one: only there all of them had passed by."""
    inside = (one for one in damaged if member.at < one.offset + one.size <= member.at + member.size)
    return tuple((one.page, one.offset, one.size, one.why) for one in inside)
