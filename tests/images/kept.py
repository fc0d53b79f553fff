"""kept holds images that few kernels make or mount, compressed, each with what the kernel showed. It reads none raw.

``python -m tests.images.kept NAME...`` makes them anew, as root on a machine whose kernel and mkfs can.
"""

import base64
import json
import lzma
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests import oracle
from tests.images import build
from tests.images.table import KEPT_IMAGES, Image

FOLDER = Path(__file__).parent / "kept"


def packed(path: bytes, entry: oracle.Entry) -> dict[str, Any]:
    """A record for JSON; bytes as base64 or, of paths and targets, surrogate escapes."""
    record = {"path": os.fsdecode(path), **asdict(entry)}
    record["target"] = None if entry.target is None else os.fsdecode(entry.target)
    record["xattrs"] = {name: base64.b64encode(value).decode() for name, value in entry.xattrs.items()}
    return record


def unpacked(record: dict[str, Any]) -> tuple[bytes, oracle.Entry]:
    path = os.fsencode(record.pop("path"))
    entry = oracle.Entry(**record)
    entry.rdev = tuple(record["rdev"])
    entry.target = None if record["target"] is None else os.fsencode(record["target"])
    entry.xattrs = {name: base64.b64decode(value) for name, value in record["xattrs"].items()}
    entry.extents = None if record["extents"] is None else [tuple(extent) for extent in record["extents"]]
    return path, entry


def save(made: build.Made, folder: Path = FOLDER) -> None:
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps(packed(*item)) + "\n" for item in sorted(made.truth.items()))
    (folder / f"{made.image}.jsonl.xz").write_bytes(lzma.compress(lines.encode(), preset=9))
    (folder / f"{made.image}.img.xz").write_bytes(lzma.compress(made.path.read_bytes(), preset=9))


def load(image: Image, folder: Path) -> build.Made:
    """The image, unpacked into a folder, with its truth."""
    path = folder / "image"
    path.write_bytes(lzma.decompress((FOLDER / f"{image}.img.xz").read_bytes()))
    lines = lzma.decompress((FOLDER / f"{image}.jsonl.xz").read_bytes()).decode().splitlines()
    return build.Made(image, path, dict(unpacked(json.loads(line)) for line in lines))


def main(names: list[str]) -> None:
    for image in KEPT_IMAGES:
        if image.name in names:
            with tempfile.TemporaryDirectory() as folder:
                save(build.make(image, Path(folder)))
            print(image, (FOLDER / f"{image}.img.xz").stat().st_size)


if __name__ == "__main__":
    main(sys.argv[1:])
