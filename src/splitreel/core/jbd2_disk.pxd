# jbd2_disk declares the journal's records of ext/jbd2_disk.h. Fields are big-endian: read them through jbd2_be16/32/64.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    JBD2_MAGIC = 0xC03B3998
    JBD2_MIN_BLOCKS = 1024
    JBD2_DEFAULT_FAST_COMMIT_BLOCKS = 256
    JBD2_CRC32_CHKSUM = 1                          # h_chksum_type of version 1
    JBD2_CRC32_CHKSUM_SIZE = 4
    JBD2_CRC32C_CHKSUM = 4                         # s_checksum_type

cdef enum jbd2_blocktype_t:
    JBD2_DESCRIPTOR_BLOCK = 1
    JBD2_COMMIT_BLOCK = 2
    JBD2_SUPERBLOCK_V1 = 3
    JBD2_SUPERBLOCK_V2 = 4
    JBD2_REVOKE_BLOCK = 5

cdef enum jbd2_feature_t:
    JBD2_COMPAT_CHECKSUM = 1
    JBD2_INCOMPAT_REVOKE = 1
    JBD2_INCOMPAT_64BIT = 2
    JBD2_INCOMPAT_ASYNC_COMMIT = 4
    JBD2_INCOMPAT_CSUM_V2 = 8
    JBD2_INCOMPAT_CSUM_V3 = 0x10
    JBD2_INCOMPAT_FAST_COMMIT = 0x20
    JBD2_INCOMPAT_KNOWN = 0x3F

cdef enum jbd2_tag_flag_t:
    JBD2_FLAG_ESCAPE = 1
    JBD2_FLAG_SAME_UUID = 2
    JBD2_FLAG_LAST_TAG = 8

cdef extern from "jbd2_disk.h" nogil:
    ctypedef struct jbd2_header_t:
        uint32_t h_magic, h_blocktype, h_sequence

    ctypedef struct jbd2_superblock_t:
        jbd2_header_t s_header
        uint32_t s_blocksize, s_maxlen, s_first, s_sequence, s_start, s_errno
        uint32_t s_feature_compat, s_feature_incompat, s_feature_ro_compat, s_num_fc_blks, s_checksum
        uint8_t s_checksum_type
        uint8_t s_uuid[16]

    ctypedef struct jbd2_tag_t:
        uint32_t t_blocknr, t_blocknr_high
        uint16_t t_checksum, t_flags

    ctypedef struct jbd2_tag3_t:
        uint32_t t_blocknr, t_flags, t_blocknr_high, t_checksum

    ctypedef struct jbd2_revoke_header_t:
        uint32_t r_count

    ctypedef struct jbd2_commit_header_t:
        uint8_t h_chksum_type, h_chksum_size
        uint32_t h_chksum[8]
        uint64_t h_commit_sec

    uint16_t jbd2_be16(uint16_t value)
    uint32_t jbd2_be32(uint32_t value)
    uint64_t jbd2_be64(uint64_t value)
    bint jbd2_tid_after(uint32_t a, uint32_t b)
