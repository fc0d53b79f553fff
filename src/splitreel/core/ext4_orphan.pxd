# ext4_orphan: files whose truncation a crash cut short, shortened by an Editor as recovery would.

from splitreel.core.ext4_disk cimport ext4_superblock_t
from splitreel.core.ext4_edit cimport Editor

# How many files were shortened; unlinked ones have no name and are left alone.
cdef int cut_orphans(Editor editor, const ext4_superblock_t* superblock) except -1
