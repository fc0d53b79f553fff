"""stack finds a volume inside devices: partition tables, LVM2 and md, in any order. It reads no file system.

Everything is read from the devices given, nothing from the host: it may have no device mapper, or a volume group with
the same UUID in use.
"""

from splitreel.stack.resolve import file_name, open_volume

__all__ = ["file_name", "open_volume"]
