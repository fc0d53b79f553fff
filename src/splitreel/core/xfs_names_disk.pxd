# xfs_names_disk declares the on-disk records of ext/xfs_names_disk.h: directories, attributes, remote symlinks.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum xfs_names_magic_t:
    XFS_DIR2_BLOCK_MAGIC = 0x58443242              # XD2B
    XFS_DIR2_DATA_MAGIC = 0x58443244               # XD2D
    XFS_DIR3_BLOCK_MAGIC = 0x58444233              # XDB3
    XFS_DIR3_DATA_MAGIC = 0x58444433               # XDD3
    XFS_DA_NODE_MAGIC = 0xFEBE
    XFS_DA3_NODE_MAGIC = 0x3EBE
    XFS_ATTR_LEAF_MAGIC = 0xFBEE
    XFS_ATTR3_LEAF_MAGIC = 0x3BEE
    XFS_ATTR3_RMT_MAGIC = 0x5841524D               # XARM
    XFS_SYMLINK_MAGIC = 0x58534C4D                 # XSLM

cdef enum xfs_attr_flag_t:
    XFS_ATTR_LOCAL = 0x1
    XFS_ATTR_ROOT = 0x2
    XFS_ATTR_SECURE = 0x4
    XFS_ATTR_PARENT = 0x8
    XFS_ATTR_INCOMPLETE = 0x80

cdef enum:
    XFS_DA_NODE_MAXDEPTH = 5
    XFS_DIR2_DATA_FREE_TAG = 0xFFFF
    XFS_DIR2_DATA_ALIGN = 8
    XFS_DIR3_FT_MAX = 9
    XFS_XATTR_SIZE_MAX = 65536                     # bytes of a value
    XFS_SYMLINK_MAXLEN = 1024

cdef extern from "xfs_names_disk.h" nogil:
    ctypedef struct xfs_dir2_data_hdr_t:
        uint32_t magic

    ctypedef struct xfs_dir3_data_hdr_t:
        uint32_t magic, crc
        uint64_t blkno, owner
        uint8_t uuid[16]

    ctypedef struct xfs_dir2_data_entry_t:
        uint64_t inumber
        uint8_t namelen
        uint8_t* name

    ctypedef struct xfs_dir2_data_unused_t:
        uint16_t freetag, length

    ctypedef struct xfs_dir2_leaf_entry_t:
        uint32_t hashval, address

    ctypedef struct xfs_dir2_block_tail_t:
        uint32_t count, stale

    ctypedef struct xfs_dir2_sf_hdr_t:
        uint8_t count, i8count
        uint8_t* parent

    ctypedef struct xfs_dir2_sf_entry_t:
        uint8_t namelen
        uint8_t* name

    ctypedef struct xfs_da3_blkinfo_t:
        uint32_t forw, back, crc
        uint16_t magic
        uint64_t blkno, owner
        uint8_t uuid[16]

    ctypedef struct xfs_da_node_count_t:
        uint16_t count, level

    ctypedef struct xfs_da_node_entry_t:
        uint32_t hashval, before

    ctypedef struct xfs_attr_leaf_count_t:
        uint16_t count, usedbytes, firstused

    ctypedef struct xfs_attr_leaf_entry_t:
        uint32_t hashval
        uint16_t nameidx
        uint8_t flags

    ctypedef struct xfs_attr_leaf_name_local_t:
        uint16_t valuelen
        uint8_t namelen
        uint8_t* nameval

    ctypedef struct xfs_attr_leaf_name_remote_t:
        uint32_t valueblk, valuelen
        uint8_t namelen
        uint8_t* name

    ctypedef struct xfs_attr_sf_hdr_t:
        uint16_t totsize
        uint8_t count

    ctypedef struct xfs_attr_sf_entry_t:
        uint8_t namelen, valuelen, flags
        uint8_t* nameval

    ctypedef struct xfs_acl_entry_t:
        uint32_t ae_tag, ae_id
        uint16_t ae_perm

    ctypedef struct xfs_attr3_rmt_hdr_t:
        uint32_t rm_magic, rm_offset, rm_bytes, rm_crc
        uint64_t rm_owner, rm_blkno
        uint8_t rm_uuid[16]

    ctypedef struct xfs_self_t:
        uint32_t crc, blkno, uuid, owner

    const xfs_self_t XFS_DIR_SELF                  # directory blocks
    const xfs_self_t XFS_DA_SELF                   # leaves and nodes of attributes
    const xfs_self_t XFS_REMOTE_SELF               # values of attributes, targets of symlinks
