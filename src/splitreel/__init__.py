"""splitreel: backs up a live database to tape, file by file, from a split mirror read raw."""

__version__ = "0.1.0"
