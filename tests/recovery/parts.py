"""parts puts a volume with a database on a tape, with the session.json that a session would write."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splitreel.backup import Options, TapeBackup
from splitreel.core.device import BlockDevice
from splitreel.mapping import map_device


def session_json(mount: Path, *databases: Mapping[str, Any]) -> bytes:
    """What the session's owner writes of one volume and its databases."""
    volume = {"name": "volume", "mount": str(mount), "prefix": "", "uuid": ""}
    return json.dumps({"version": 1, "volumes": [volume], "databases": databases}).encode()


def split(mount: Path, image: Path, copy: Path) -> None:
    """A copy of the image under the volume, made while it is frozen."""
    subprocess.run(["fsfreeze", "-f", mount], check=True)
    try:
        subprocess.run(["cp", "--sparse=always", image, copy], check=True)
    finally:
        subprocess.run(["fsfreeze", "-u", mount], check=True)


def to_tape(image: Path, tape: Path, redo: Mapping[str, bytes], state: Path | None = None) -> str:
    """Back an image up; the TAPE argument."""
    url = f"file:{tape}"
    with BlockDevice(image) as device, TapeBackup(Options(url, block_size=65536), state) as made:
        made.run(device, map_device(device, frozen=True), redo=redo)
    return url


def names(directory: Path) -> list[str]:
    """What is in a directory."""
    return sorted(path.name for path in directory.iterdir())
