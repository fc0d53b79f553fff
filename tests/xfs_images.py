"""xfs_images makes XFS images with mkfs.xfs. It fills and reads none."""

import os
import subprocess
from pathlib import Path

from tests.ext4_images import MEGABYTE
from tests.images.table import SMALL_XFS
from tests.support import need_programs, need_root


def format_image(path: Path, megabytes: int, *options: str) -> Path:
    """A new sparse XFS image, however small; options are mkfs.xfs's."""
    need_programs("mkfs.xfs")
    with open(path, "wb") as image:
        image.truncate(megabytes * MEGABYTE)
    command = ["mkfs.xfs", "-q", "-f", *options, os.fspath(path)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **SMALL_XFS})
    return path


def make_image(path: Path, megabytes: int = 64, *options: str) -> Path:
    """The same, to be mounted."""
    need_root()
    need_programs("mount", "umount")
    return format_image(path, megabytes, *options)
