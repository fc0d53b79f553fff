# ext4_entries: names added to and taken out of directories that an Editor holds.

from libc.stdint cimport uint32_t

from splitreel.core.ext4_edit cimport Editor

# The inode that a name stands for; 0: no such name.
cdef uint32_t find_name(Editor editor, uint32_t directory, bytes name) except? 0
cdef int remove_name(Editor editor, uint32_t directory, bytes name) except -1
cdef int add_name(Editor editor, uint32_t directory, bytes name, uint32_t number) except -1
# Gives a new directory its first block. False: it has one already.
cdef bint make_directory(Editor editor, uint32_t number, uint32_t parent) except -1
