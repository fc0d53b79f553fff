# xfs_directory: directory blocks of XFS and directories in inodes, verified, and the names in them.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport fault_t
from splitreel.core.sweep cimport block_list_t, block_ref_t
from splitreel.core.walk cimport NameWalk, directory_t
from splitreel.core.xfs_superblock cimport xfs_geometry_t

cdef class XfsWalk(NameWalk):
    # set_geometry, sweep and blocks_left before a walk. keep_local takes di_size bytes. Not for Python.
    cdef const xfs_geometry_t* geometry
    cdef block_list_t pieces                       # of directory blocks that lie in pieces, in logical order
    cdef uint8_t* whole                            # such a block, joined
    # The geometry is borrowed for as long as the walk is used.
    cdef int set_geometry(self, const xfs_geometry_t* geometry, fault_t* fault) noexcept nogil
    cdef int list_run(self, const directory_t* directory, uint64_t logical, uint64_t block, uint64_t count,
                      fault_t* fault) noexcept nogil
    cdef int list_piece(self, const directory_t* directory, uint64_t logical, uint64_t block, uint64_t count,
                        fault_t* fault) noexcept nogil
    cdef int read_pieces(self, ExtentMap target, const directory_t* directory, fault_t* fault) noexcept nogil
    cdef int read_block(self, ExtentMap target, const directory_t* directory, uint64_t logical, uint64_t block,
                        const uint8_t* data, fault_t* fault) noexcept nogil
    cdef const char* verify_block(self, ExtentMap target, const directory_t* directory, uint64_t block,
                                  const uint8_t* data, uint32_t* end) noexcept nogil
    cdef const char* verify_entry(self, const uint8_t* data, uint32_t at, uint32_t end, uint32_t* size) noexcept nogil
    cdef int read_entries(self, ExtentMap target, const directory_t* directory, uint64_t logical, uint64_t offset,
                          const uint8_t* data, uint32_t end, fault_t* fault) noexcept nogil
    cdef void check_dot(self, ExtentMap target, const directory_t* directory, uint64_t offset, uint32_t number,
                        uint64_t inode) noexcept nogil
    cdef int add_typed(self, ExtentMap target, const directory_t* directory, uint64_t offset, uint64_t inode,
                       const uint8_t* name, uint32_t name_size, fault_t* fault) noexcept nogil
