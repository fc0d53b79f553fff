# Ext4: the reader of ext4 file systems. Everything it needs to map is allocated when it is opened.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.ext4_directory cimport DirectoryWalk, inode_index_t
from splitreel.core.ext4_disk cimport ext4_inode_t, ext4_mmp_t, ext4_superblock_t
from splitreel.core.ext4_groups cimport ext4_group_t
from splitreel.core.ext4_indirect cimport IndirectTrees
from splitreel.core.ext4_records cimport RecordPass
from splitreel.core.ext4_journal cimport Recovery
from splitreel.core.ext4_superblock cimport ext4_geometry_t, stretches_t
from splitreel.core.sweep cimport Sweep, block_list_t, block_ref_t
from splitreel.core.ext4_tree cimport ExtentTrees
from splitreel.core.extent cimport ExtentMap, file_t
from splitreel.core.fault cimport fault_t
from splitreel.core.filesystem cimport Filesystem
from splitreel.core.trees cimport tree_t

cdef class Ext4(Filesystem):
    # One thread at a time.
    cdef ext4_geometry_t geometry
    cdef ext4_superblock_t superblock              # as it was when the map was begun
    cdef int trust                                 # ext4_trust_t
    cdef Recovery recovery                         # None: the journal was empty, or is not replayed
    cdef readonly str kind                         # "ext2", "ext3" or "ext4"
    cdef ext4_mmp_t mmp                            # multiple mount protection, as superblock
    cdef Sweep table_sweep, block_sweep, pointer_sweep
    cdef ExtentTrees trees
    cdef IndirectTrees indirects
    cdef stretches_t metadata                      # the file system's own blocks
    cdef stretches_t tables                        # inode tables alone
    cdef block_list_t descriptors
    cdef RecordPass records
    cdef DirectoryWalk directories
    cdef inode_index_t index
    cdef uint64_t indexed_groups
    cdef uint32_t attempt                          # 0; then how often the map was begun again
    cdef tree_t* slots                             # one for each inode of a piece of inode table
    cdef uint8_t* scratch                          # an inode
    cdef block_list_t blocks
    cdef int read_superblock(self, ext4_superblock_t* raw, fault_t* fault) noexcept nogil
    cdef int read_mmp(self, ext4_mmp_t* raw, fault_t* fault) noexcept nogil
    cdef int open_superblock(self, fault_t* fault) noexcept nogil
    cdef int allocate(self, fault_t* fault) noexcept nogil
    cdef void forget(self) noexcept nogil
    cdef int run_passes(self, ExtentMap target, fault_t* fault) noexcept nogil
    cdef int prepare_index(self, fault_t* fault) noexcept nogil
    cdef int read_groups(self, ExtentMap target, fault_t* fault) noexcept nogil
    cdef int protect_journal(self, fault_t* fault) noexcept nogil
    cdef int add_table(self, ExtentMap target, uint64_t group, const uint8_t* raw, fault_t* fault) noexcept nogil
    cdef uint32_t used_inodes(self, ExtentMap target, uint64_t group, const ext4_group_t* decoded) noexcept nogil
    cdef int scan_tables(self, ExtentMap target, fault_t* fault) noexcept nogil
    cdef void index_groups(self, ExtentMap target, uint64_t end) noexcept nogil
    cdef void read_piece_by_block(self, ExtentMap target, const block_ref_t* ref, uint8_t* data) noexcept nogil
    cdef int scan_piece(self, ExtentMap target, const block_ref_t* ref, const uint8_t* data,
                        fault_t* fault) noexcept nogil
    cdef int gather_trees(self, const block_ref_t* ref, const uint8_t* data, fault_t* fault) noexcept nogil
    cdef int gather_tree(self, uint32_t number, const ext4_inode_t* inode, uint32_t slot,
                         fault_t* fault) noexcept nogil
    cdef int append_inode(self, ExtentMap target, uint32_t number, const uint8_t* raw, uint32_t slot, uint64_t block,
                          fault_t* fault) noexcept nogil
    cdef int append_extents(self, ExtentMap target, const uint8_t* raw, int layout, uint32_t slot,
                            fault_t* fault) noexcept nogil
