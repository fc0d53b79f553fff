# ext4_superblock: the superblock, verified, as one ext4_geometry_t that the other parts read.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from splitreel.core.ext4_disk cimport ext4_mmp_t, ext4_superblock_t
from splitreel.core.fault cimport fault_t

# Stretches of blocks; arranged, they are sorted and neither touch nor overlap.
cdef struct stretch_t:
    uint64_t first
    uint64_t end                                   # the block behind the last

cdef struct stretches_t:
    stretch_t* items
    size_t count
    size_t capacity

cdef struct ext4_geometry_t:
    uint64_t block_count
    uint64_t group_count
    uint32_t block_size                            # bytes
    uint32_t cluster_size                          # bytes; the block size but for bigalloc
    uint32_t first_data_block
    uint32_t superblock_block                      # block that holds byte 1024
    uint32_t first_meta_bg                         # with meta_bg: descriptor blocks below it stand together
    uint32_t reserved_gdt_blocks
    uint32_t backup_groups[2]                      # with sparse_super2; 0 is none
    uint32_t blocks_per_group
    uint32_t inodes_per_group
    uint32_t inode_count
    uint32_t inode_size                            # bytes
    uint32_t desc_size                             # bytes
    uint32_t first_ino
    uint32_t compat
    uint32_t incompat
    uint32_t ro_compat
    uint32_t csum_seed                             # a finished CRC32C, ready for crc32c_update
    bint metadata_csum
    bint gdt_csum
    bint filetype
    uint64_t mmp_block                             # 0: no multiple mount protection
    uint32_t journal_inode                         # 0: none in this file system
    uint32_t hidden[4]                             # quota and orphan file inodes; 0 is none
    uint32_t revision
    uint16_t state
    uint32_t error_count
    uint32_t creator_os
    uint8_t uuid[16]
    const stretches_t* metadata                    # the file system's own blocks, arranged; NULL: not known yet

# What is known of how the image came to be: a frozen file system needs no clean mark, a live one no clean journal.
cdef enum ext4_trust_t:
    TRUST_CLEAN = 0
    TRUST_FROZEN = 1
    TRUST_LIVE = 2

cdef int decode_superblock(const ext4_superblock_t* raw, uint64_t device_size, int trust, ext4_geometry_t* geometry,
                           fault_t* fault) noexcept nogil
cdef object feature_names(const ext4_geometry_t* geometry)
cdef object geometry_warnings(const ext4_geometry_t* geometry)
cdef object mmp_warnings(const ext4_mmp_t* block)
cdef str family_name(const ext4_geometry_t* geometry)
