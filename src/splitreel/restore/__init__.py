"""restore brings a backup, or part of it, from a tape into a directory, and believes only what it verified."""

from splitreel.restore.database import Restored, Wishes, restore_database
from splitreel.restore.run import Members, Outcome, restore

__all__ = ["Members", "Outcome", "Restored", "Wishes", "restore", "restore_database"]
