# FastCommits: the changes behind a journal's last whole transaction that are no blocks, applied by an Editor.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from splitreel.core.ext4_disk cimport ext4_extent_t
from splitreel.core.ext4_edit cimport Editor
from splitreel.core.jbd2 cimport Journal

cdef extern from "ext4_fast_disk.h" nogil:
    ctypedef struct ext4_fc_tl_t:
        uint16_t fc_tag, fc_len

    ctypedef struct ext4_fc_head_t:
        uint32_t fc_features, fc_tid

    ctypedef struct ext4_fc_add_range_t:
        uint32_t fc_ino
        ext4_extent_t fc_ex

    ctypedef struct ext4_fc_del_range_t:
        uint32_t fc_ino, fc_lblk, fc_len

    ctypedef struct ext4_fc_dentry_info_t:
        uint32_t fc_parent_ino, fc_ino
        uint8_t* fc_dname

    ctypedef struct ext4_fc_inode_t:
        uint32_t fc_ino
        uint8_t* fc_raw_inode

    ctypedef struct ext4_fc_tail_t:
        uint32_t fc_tid, fc_crc

cdef class FastCommits:
    # scan, then apply. The journal has been recovered.
    cdef Journal journal
    cdef Editor editor
    cdef list records                              # (tag, value) of all whole fast commits
    cdef readonly uint32_t count                   # whole fast commits
    cdef size_t whole                              # records that belong to these
    cdef uint32_t crc
    cdef int scan(self) except -1
    cdef int apply(self) except -1

    cdef bint scan_block(self, const uint8_t* data) except -1
    cdef bint scan_record(self, const uint8_t* record, uint16_t tag, uint32_t size) except -1
    cdef bint scan_head(self, const ext4_fc_head_t* head) except -1
    cdef bint scan_tail(self, const ext4_fc_tail_t* tail) except -1
    cdef bint fits(self, uint16_t tag, uint32_t size) noexcept nogil
    cdef bint end_here(self, const char* text) except -1
    cdef int apply_record(self, uint16_t tag, bytes value) except -1
    cdef int add_range(self, const ext4_fc_add_range_t* value) except -1
    cdef int del_range(self, const ext4_fc_del_range_t* value) except -1
    cdef int write_inode(self, const ext4_fc_inode_t* value, uint32_t size) except -1
    cdef int create(self, uint32_t parent, uint32_t number, bytes name) except -1
    cdef int link(self, uint32_t parent, uint32_t number, bytes name) except -1
    cdef int unlink(self, uint32_t parent, uint32_t number, bytes name) except -1
    cdef bint is_directory(self, uint32_t number) except -1
    cdef int set_links(self, uint32_t number, uint32_t count) except -1
