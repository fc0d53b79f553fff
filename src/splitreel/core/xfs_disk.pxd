# xfs_disk declares the on-disk records of ext/xfs_disk.h. Fields are big-endian: read them through xfs_be16/be32/be64;
# checksums are little-endian: xfs_crc_ok of xfs_superblock.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum xfs_feature_bit_t:
    XFS_INCOMPAT_FTYPE = 0x1
    XFS_INCOMPAT_SPINODES = 0x2
    XFS_INCOMPAT_META_UUID = 0x4
    XFS_INCOMPAT_NEEDSREPAIR = 0x10
    XFS_RO_COMPAT_REFLINK = 0x4

cdef enum xfs_version_bit_t:                       # of sb_versionnum
    XFS_VERSION_NUMBITS = 0x000F
    XFS_VERSION_EXTFLGBIT = 0x1000
    XFS_VERSION_DIRV2BIT = 0x2000
    XFS_VERSION_MOREBITSBIT = 0x8000

cdef enum xfs_version2_bit_t:                      # of sb_features2
    XFS_VERSION2_FTYPE = 0x200

cdef enum xfs_magic_t:
    XFS_SB_MAGIC = 0x58465342                      # XFSB
    XFS_AGF_MAGIC = 0x58414746                     # XAGF
    XFS_AGI_MAGIC = 0x58414749                     # XAGI
    XFS_IBT_MAGIC = 0x49414254                     # IABT
    XFS_IBT_CRC_MAGIC = 0x49414233                 # IAB3
    XFS_REFC_CRC_MAGIC = 0x52334643                # R3FC
    XFS_BMAP_MAGIC = 0x424D4150                    # BMAP
    XFS_BMAP_CRC_MAGIC = 0x424D4133                # BMA3
    XFS_DINODE_MAGIC = 0x494E                      # IN

cdef enum xfs_format_t:                            # di_format, di_aformat
    XFS_DINODE_FMT_DEV = 0
    XFS_DINODE_FMT_LOCAL = 1
    XFS_DINODE_FMT_EXTENTS = 2
    XFS_DINODE_FMT_BTREE = 3

cdef enum xfs_diflag_t:                            # of di_flags
    XFS_DIFLAG_REALTIME = 0x1

cdef enum xfs_diflag2_t:                           # of di_flags2
    XFS_DIFLAG2_REFLINK = 0x2
    XFS_DIFLAG2_BIGTIME = 0x8
    XFS_DIFLAG2_NREXT64 = 0x10
    XFS_DIFLAG2_METADATA = 0x20

cdef extern from "xfs_disk.h" nogil:
    ctypedef struct xfs_dsb_t:
        uint32_t sb_magicnum, sb_blocksize, sb_rextsize, sb_agblocks, sb_agcount, sb_rbmblocks, sb_logblocks
        uint64_t sb_dblocks, sb_rblocks, sb_rextents, sb_logstart, sb_rootino, sb_rbmino, sb_rsumino
        uint16_t sb_versionnum, sb_sectsize, sb_inodesize, sb_inopblock, sb_logsectsize
        uint8_t sb_blocklog, sb_sectlog, sb_inodelog, sb_inopblog, sb_agblklog, sb_rextslog, sb_inprogress
        uint8_t sb_dirblklog, sb_logsectlog
        uint64_t sb_icount, sb_uquotino, sb_gquotino, sb_pquotino, sb_lsn, sb_metadirino, sb_rtstart
        uint32_t sb_logsunit, sb_inoalignmt, sb_features2, sb_bad_features2, sb_features_compat, sb_features_ro_compat
        uint32_t sb_features_incompat, sb_features_log_incompat, sb_crc
        uint8_t sb_uuid[16]
        uint8_t sb_meta_uuid[16]

    ctypedef struct xfs_agf_t:
        uint32_t agf_magicnum, agf_versionnum, agf_seqno, agf_length, agf_refcount_root, agf_refcount_level, agf_crc
        uint8_t agf_uuid[16]

    ctypedef struct xfs_agi_t:
        uint32_t agi_magicnum, agi_versionnum, agi_seqno, agi_length, agi_count, agi_root, agi_level, agi_freecount
        uint32_t agi_crc
        uint32_t agi_unlinked[64]
        uint8_t agi_uuid[16]

    ctypedef struct xfs_btree_sblock_t:
        uint32_t bb_magic, bb_leftsib, bb_rightsib, bb_owner, bb_crc
        uint16_t bb_level, bb_numrecs
        uint64_t bb_blkno
        uint8_t bb_uuid[16]

    ctypedef struct xfs_btree_lblock_t:
        uint32_t bb_magic, bb_crc
        uint16_t bb_level, bb_numrecs
        uint64_t bb_leftsib, bb_rightsib, bb_blkno, bb_owner
        uint8_t bb_uuid[16]

    ctypedef struct xfs_inobt_rec_t:
        uint32_t ir_startino
        uint16_t ir_holemask
        uint8_t ir_count, ir_freecount
        uint64_t ir_free

    ctypedef struct xfs_refcount_rec_t:
        uint32_t rc_startblock, rc_blockcount, rc_refcount

    ctypedef struct xfs_bmbt_rec_t:
        uint64_t l0, l1

    ctypedef struct xfs_bmdr_block_t:
        uint16_t bb_level, bb_numrecs

    ctypedef struct xfs_dinode_t:
        uint16_t di_magic, di_mode, di_onlink, di_projid_lo, di_projid_hi, di_anextents, di_flags
        uint8_t di_version, di_format, di_forkoff, di_aformat
        uint32_t di_uid, di_gid, di_nlink, di_extsize, di_nextents, di_gen, di_crc
        uint64_t di_big_nextents, di_atime, di_mtime, di_ctime, di_size, di_nblocks, di_lsn, di_flags2, di_ino
        uint8_t di_uuid[16]

    ctypedef struct xfs_feature_t:
        uint32_t bit
        int supported
        const char* name

    const xfs_feature_t* XFS_INCOMPAT
    const xfs_feature_t* XFS_RO_COMPAT
    const xfs_feature_t* XFS_LOG_INCOMPAT
    const xfs_feature_t* XFS_VERSION

    uint16_t xfs_be16(uint16_t value)
    uint32_t xfs_be32(uint32_t value)
    uint64_t xfs_be64(uint64_t value)
    uint16_t xfs_load16(const uint8_t* bytes)
    uint32_t xfs_load32(const uint8_t* bytes)
    uint64_t xfs_load64(const uint8_t* bytes)
    uint32_t xfs_load_crc(const uint8_t* bytes)

cdef extern from "digest.h" nogil:
    uint64_t digest_records(uint64_t seed, const uint8_t* data, size_t size)
