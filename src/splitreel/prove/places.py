"""places are the job's volumes as a proof sees them: where to write, and where on tape that is. It writes nothing."""

import os
from pathlib import Path

from splitreel import config
from splitreel.errors import UsageError
from splitreel.session.checks import keep_apart

FOLDER = "splitreel-prove-"


class Places:
    """The volumes of ``job``, each with a directory of ours, named after ``run``, which is not made yet."""

    def __init__(self, job: config.Job, run: int, scratch: Path) -> None:
        """Raises UsageError: one cannot be stamped, or ``scratch`` lies on one."""
        for volume in job.mirrored:
            _refuse(job, volume)
        keep_apart([("scratch directory", str(scratch))], [volume.mount for volume in job.mirrored])
        self._volumes = [(Path(os.path.realpath(volume.mount)), volume.prefix) for volume in job.mirrored]
        self.mounts = [mount for mount, _ in self._volumes]
        self.folders = [mount / f"{FOLDER}{run:016x}" for mount in self.mounts]

    def leftovers(self) -> list[Path]:
        """Directories of proofs that were killed."""
        return [path for mount in self.mounts for path in mount.glob(f"{FOLDER}*") if path not in self.folders]

    def on_tape(self, path: Path) -> bytes:
        """Where on tape that is which has this path on the primary."""
        real = Path(os.path.realpath(path))
        mount, prefix = max(
            ((mount, prefix) for mount, prefix in self._volumes if real.is_relative_to(mount)),
            key=lambda found: len(found[0].parts),
        )
        return os.fsencode(Path(prefix) / real.relative_to(mount))


def _refuse(job: config.Job, volume: config.Volume) -> None:
    if volume.raw or not volume.mount or not os.path.ismount(volume.mount):
        raise UsageError(
            f"prove: job {job.name}",
            f"nothing is mounted at {volume.mount}" if volume.mount else "where its volume is mounted is not known",
            "Set `mount`; a raw volume and one that is not mounted cannot be stamped.",
        )
