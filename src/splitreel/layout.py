"""layout turns a plan that was streamed into the segments and members that a catalog holds. It lays nothing out."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from splitreel.core.plan import Plan
from splitreel.plan import TYPES
from splitreel.records import Member, Segment

UNWRITTEN = 0x800
SYMLINK = ord("2")
FILE = ord("0")


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of the first segments of a plan; ``bytes`` is content read from the device."""

    files: int
    bytes: int
    blocks: int


class Layout:
    """A plan's columns as records; checksums are right for segments that the stream has written."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
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
        files = int(((members["kind"] == FILE) & (members["part"] <= 1)).sum())
        return Totals(files, int(chosen["data_bytes"].sum()), int(chosen["blocks"].sum()))

    def members(self, index: int) -> Iterator[Member]:
        """The members of one segment, in archive order."""
        segment = self._segments[index]
        first = int(segment["first_member"])
        for i in range(first, first + int(segment["members"])):
            yield self._member(i, int(segment["number"]), int(segment["first_object"]))

    def all_members(self, segments: int) -> Iterator[Member]:
        """The members of the first ``segments`` segments."""
        for index in range(segments):
            yield from self.members(index)

    def _member(self, i: int, number: int, first_object: int) -> Member:
        m = self._members[i]
        kind, block = int(m["kind"]), int(m["block"])
        index = int(self._names[int(m["name"])]["file"])
        file = self._files[index]
        member = Member(
            self.plan.member_path(i),
            TYPES[chr(kind)],
            int(m["size"]),
            int(file["mode"]) & 0o7777,
            block,
            int(m["offset"]),
            int(m["stored"]),
            segment=number,
            object=first_object + block,
        )
        if kind == FILE:
            member.crc32c = int(self._crcs[i])
            member.extents = self._extent_count(m, file)
        elif kind == SYMLINK:
            member.target = self.plan.map.target(index)
        else:
            member.target = self.plan.link_path(i)
        if m["part"]:
            member.part = int(m["part"]), int(m["parts"])
            member.of = self.plan.map.path_of(int(m["name"]))
            member.at = int(m["start"])
        return member

    def _extent_count(self, m: np.void, file: np.void) -> int:
        first, count = int(file["first_extent"]), int(file["extent_count"])
        if m["part"]:
            extents = self._extents[first : first + count]
            size = self.plan.map.block_size
            start, end = int(m["start"]), int(m["start"]) + int(m["size"])
            begin, stop = extents["logical"] * size, (extents["logical"] + extents["count"]) * size
            inside = (begin < end) & (stop > start) & ((extents["flags"] & UNWRITTEN) == 0)
            return int(inside.sum())
        return int(self._written[first + count] - self._written[first])
