"""faulty makes devices of which some bytes do not read. It knows no file system."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import missing, need_programs


@contextmanager
def unreadable(image: Path, offset: int) -> Iterator[Path]:
    """The image as a file of which the 512 bytes at an offset give an I/O error: blkdebug behind a FUSE export."""
    need_programs("qemu-storage-daemon")
    if not Path("/dev/fuse").exists():
        missing("needs /dev/fuse")
    point = image.with_suffix(".fuse")
    point.touch()
    rule = {"event": "none", "iotype": "read", "errno": 5, "sector": offset // 512}
    fault = ",".join(f"inject-error.0.{key}={value}" for key, value in rule.items())
    daemon = subprocess.Popen(
        [
            "qemu-storage-daemon",
            *("--blockdev", f"driver=file,filename={image},node-name=file,read-only=on"),
            *("--blockdev", f"driver=blkdebug,image=file,node-name=faulty,read-only=on,{fault}"),
            *("--export", f"type=fuse,id=export,node-name=faulty,mountpoint={point}"),
        ]
    )
    try:
        for _ in range(200):
            if point.stat().st_size > 0 or daemon.poll() is not None:
                break
            time.sleep(0.02)
        assert point.stat().st_size > 0, "qemu-storage-daemon exports nothing"
        yield point
    finally:
        daemon.terminate()
        daemon.wait()
