"""backup writes one backup from a device to a drive: everything is checked first, then the tape is written."""

from splitreel.backup.run import Incomplete, Options, Progress, Result
from splitreel.backup.tapebackup import TapeBackup, back_up

__all__ = ["Incomplete", "Options", "Progress", "Result", "TapeBackup", "back_up"]
