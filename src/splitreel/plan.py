"""plan turns paths into a tape layout and a layout into records to print. The layout itself is core's work."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitreel import errors
from splitreel.core.extent import ExtentMap
from splitreel.core.plan import Plan

TYPES = {"0": "file", "1": "link", "2": "symlink", "3": "chr", "4": "blk", "5": "dir", "6": "fifo", "s": "sock"}


def select(source: ExtentMap, paths: Sequence[bytes]) -> NDArray[np.uint32] | None:
    """Indexes of the names at ``paths`` and below them; None, which means all, without paths or with the root's.

    Raises:
        NotFound: the map has no such path.
    """
    chosen = [source.find(path) for path in paths]
    for path, index in zip(paths, chosen, strict=True):
        if index < 0:
            shown = path.decode("utf-8", "backslashreplace")
            raise errors.NotFound(f"path {shown}", "it is not in the map", "splitreel map DEVICE lists what is there.")
    if not chosen or 0 in chosen:
        return None
    parents = np.asarray(source.names)["parent"]
    wanted = np.zeros(len(parents), dtype=bool)
    wanted[chosen] = True
    count = -1
    while count != (count := int(wanted.sum())):  # once more for each level of directories
        wanted |= wanted[parents]
    return np.flatnonzero(wanted).astype(np.uint32)


def segment_record(plan: Plan, index: int) -> dict[str, Any]:
    """One segment as a JSON object; ``object`` is the number of its first tape block."""
    segment = np.asarray(plan.segments)[index]
    return {
        "kind": "segment",
        "segment": int(segment["number"]),
        "object": int(segment["first_object"]),
        "blocks": int(segment["blocks"]),
        "members": int(segment["members"]),
        "bytes": int(segment["data_bytes"]),
        "synchronise": bool(segment["synchronise"]),
    }


def member_record(plan: Plan, index: int) -> dict[str, Any]:
    """One member as a JSON object; ``object`` is the tape block that holds its header, ``offset`` the byte in it."""
    member = np.asarray(plan.members)[index]
    segment = np.asarray(plan.segments)[member["segment"]]
    record = {
        "kind": "member",
        "path": plan.member_path(index).decode("utf-8", "surrogateescape"),
        "type": TYPES[chr(member["kind"])],
        "size": int(member["size"]),
        "segment": int(segment["number"]),
        "block": int(member["block"]),
        "offset": int(member["offset"]),
        "object": int(segment["first_object"]) + int(member["block"]),
        "header": int(member["header"]),
        "stored": int(member["stored"]),
    }
    target = plan.link_path(index)
    if target is not None:
        record["target"] = target.decode("utf-8", "surrogateescape")
    if member["part"]:
        record["part"] = [int(member["part"]), int(member["parts"])]
        record["at"] = int(member["start"])
    return record


def records(plan: Plan) -> Iterator[dict[str, Any]]:
    """Every segment, each followed by its members."""
    segments = np.asarray(plan.segments)
    for number in range(plan.segment_count):
        yield segment_record(plan, number)
        first = int(segments[number]["first_member"])
        for index in range(first, first + int(segments[number]["members"])):
            yield member_record(plan, index)
