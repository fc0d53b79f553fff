"""ext4_values reads values of extended attributes that stand in inodes of their own. It decodes no attribute.

Source: fs/ext4/xattr.c, ext4_xattr_inode_iget and ext4_xattr_inode_verify_hashes. Files that hold the same value may
share one such inode: it is read once. All of them are read in one sweep in disk order.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy

from splitreel.core.checksum cimport crc32c_update
from splitreel.core.columns cimport next_xattr, record_target, xattr_t
from splitreel.core.ext4_disk cimport ext4_digest, ext4_inode_t, ext4_le32
from splitreel.core.ext4_inode cimport inode_xattr_block, inode_xattrs
from splitreel.core.ext4_xattr cimport add_acl, value_t
from splitreel.core.extent cimport EXTENT_UNWRITTEN, FILE_DAMAGED, FILE_XATTRS, ExtentMap, extent_t, file_t
from splitreel.core.fault cimport FAULT_IO, FAULT_NO_MEMORY, fault_t, set_fault
from splitreel.core.sweep cimport SWEEP_SPAN, append_block, block_ref_t, free_blocks, grow_array, sort_blocks

cdef enum:
    HASH_SHIFT = 16                                # of a word of the value, in an entry's hash


cdef int compare_inodes(const void* left, const void* right) noexcept nogil:
    cdef const value_t* a = <const value_t*>left
    cdef const value_t* b = <const value_t*>right
    if a.inode != b.inode:
        return -1 if a.inode < b.inode else 1
    return (a.at > b.at) - (a.at < b.at)


cdef int compare_places(const void* left, const void* right) noexcept nogil:
    cdef uint64_t a = (<const value_t*>left).at
    cdef uint64_t b = (<const value_t*>right).at
    return (a > b) - (a < b)


cdef size_t group_end(const value_t* values, size_t count, size_t first) noexcept nogil:
    """Index behind the values that stand in the same inode as values[first]."""
    cdef size_t end = first + 1
    while end < count and values[end].inode == values[first].inode:
        end += 1
    return end


cdef size_t find_leader(const value_t* values, size_t first, size_t end) noexcept nogil:
    """The value of a group that is read; the others are copied from it. end when there is none."""
    while first < end and (values[first].at == 0 or values[first].wrong != NULL):
        first += 1
    return first


cdef bint is_whole(ExtentMap target, const file_t* file, uint32_t block_size) noexcept nogil:
    """Every byte of the value is mapped and written."""
    cdef uint64_t wanted = (file.size + block_size - 1) // block_size
    cdef uint64_t logical = 0, i
    cdef const extent_t* extent
    for i in range(file.first_extent, file.first_extent + file.extent_count):
        extent = &target.extents[i]
        if logical >= wanted:
            break
        if extent.logical != logical or extent.flags & EXTENT_UNWRITTEN:
            return False
        logical += extent.count
    return logical >= wanted


cdef class ValueReader:
    """The inodes that hold values of extended attributes. One map at a time, one thread at a time; no Python face."""

    def __dealloc__(self):
        self.reset()

    cdef void reset(self) noexcept nogil:
        free(self.inodes)
        free_blocks(&self.blocks)
        self.inodes = NULL
        self.inode_count = self.inode_capacity = 0

    cdef int keep(self, ExtentMap target, const uint8_t* raw, fault_t* fault) noexcept nogil:
        cdef const ext4_inode_t* inode = <const ext4_inode_t*>raw
        cdef value_inode_t* holder
        if grow_array(<void**>&self.inodes, &self.inode_capacity, self.inode_count, sizeof(value_inode_t), fault) < 0:
            return fault.code
        holder = &self.inodes[self.inode_count]
        holder.file = <uint32_t>(target.file_count - 1)
        holder.hash = ext4_le32(inode.i_atime)
        holder.parent = ext4_le32(inode.i_mtime)
        holder.has_xattrs = inode_xattrs(self.geometry, raw).size > 0 or inode_xattr_block(self.geometry, inode) != 0
        target.files[holder.file].mode = 0
        self.inode_count += 1
        return 0

    cdef const value_inode_t* find(self, ExtentMap target, uint32_t inode) noexcept nogil:
        cdef size_t low = 0, high = self.inode_count, middle
        while low < high:
            middle = low + (high - low) // 2
            if target.files[self.inodes[middle].file].inode < inode:
                low = middle + 1
            else:
                high = middle
        if low == self.inode_count or target.files[self.inodes[low].file].inode != inode:
            return NULL
        return &self.inodes[low]

    cdef const char* check(self, ExtentMap target, const value_inode_t* holder, const value_t* value) noexcept nogil:
        """What can be told before the value is read."""
        cdef const file_t* file
        if holder == NULL:
            return b"an extended attribute in an inode that holds none"
        file = &target.files[holder.file]
        if holder.has_xattrs or file.flags & FILE_DAMAGED or not is_whole(target, file, self.geometry.block_size):
            return b"an extended attribute in an inode that is damaged"
        if file.size != value.size:
            return b"an extended attribute in an inode of another size"
        return NULL

    cdef int list_blocks(self, ExtentMap target, fault_t* fault) noexcept nogil:
        """The blocks of one value for each inode: owner is its index, first the logical block."""
        cdef value_t* values = self.xattrs.values
        cdef size_t count = self.xattrs.value_count
        cdef size_t first = 0, end, leader, i
        cdef const value_inode_t* holder
        self.blocks.count = 0
        while first < count:
            end = group_end(values, count, first)
            holder = self.find(target, values[first].inode)
            for i in range(first, end):
                values[i].wrong = self.check(target, holder, &values[i])
            leader = find_leader(values, first, end)
            if leader < end and self.list_value(target, &target.files[holder.file], leader, fault) < 0:
                return fault.code
            first = end
        return 0

    cdef int list_value(self, ExtentMap target, const file_t* file, size_t leader, fault_t* fault) noexcept nogil:
        cdef uint32_t most = SWEEP_SPAN // self.geometry.block_size
        cdef uint64_t wanted = (file.size + self.geometry.block_size - 1) // self.geometry.block_size
        cdef uint64_t i, done, size
        cdef const extent_t* extent
        for i in range(file.first_extent, file.first_extent + file.extent_count):
            extent = &target.extents[i]
            if extent.logical >= wanted:
                break
            size = min(<uint64_t>extent.count, wanted - extent.logical)
            done = 0
            while done < size:
                if append_block(&self.blocks, extent.physical + done, <uint32_t>min(<uint64_t>most, size - done),
                                <uint32_t>leader, <uint32_t>(extent.logical + done), 0, fault) < 0:
                    return fault.code
                done += most
        return 0

    cdef int sweep_blocks(self, ExtentMap target, fault_t* fault) noexcept nogil:
        cdef const block_ref_t* ref
        cdef const uint8_t* data
        cdef value_t* value
        cdef uint64_t begin
        cdef int rc
        sort_blocks(&self.blocks)
        self.sweep.start(&self.blocks)
        while True:
            rc = self.sweep.next(&ref, &data, fault)
            if rc == 0:
                return 0
            if rc < 0 and rc != FAULT_IO:
                return rc
            value = &self.xattrs.values[ref.owner]
            begin = <uint64_t>ref.first * self.geometry.block_size
            if rc == FAULT_IO:
                value.wrong = b"an extended attribute in an inode that does not read"
            else:
                memcpy(target.heap + value.at + begin, data,
                       min(value.size - begin, <uint64_t>ref.count * self.geometry.block_size))

    cdef void verify(self, ExtentMap target, value_t* value, const value_t* leader) noexcept nogil:
        """Takes the value over from the one that was read, and checks it against the entry's hash and the inode's."""
        cdef const value_inode_t* holder = self.find(target, value.inode)
        cdef file_t* file = &target.files[value.file]
        cdef uint8_t* bytes = target.heap + value.at
        cdef uint32_t hash, i
        if leader.wrong != NULL:
            value.wrong = leader.wrong
            return
        if value != leader:
            memcpy(bytes, target.heap + leader.at, value.size)
        file.fingerprint += ext4_digest(2, bytes, value.size)
        if (value.entry_hash != holder.hash and holder.parent == file.inode
                and target.files[holder.file].generation == file.generation):
            return                                 # Lustre's form has no hash, but says whose it is
        hash = ~crc32c_update(self.geometry.csum_seed, bytes, value.size)
        if hash != holder.hash:
            value.wrong = b"an extended attribute whose value does not match its hash"
            return
        for i in range(2):
            if value.entry_hash == (value.name_hash[i] << HASH_SHIFT ^ value.name_hash[i] >> HASH_SHIFT ^ hash):
                return
        value.wrong = b"an extended attribute whose name and value do not match its hash"

    cdef int read(self, ExtentMap target, fault_t* fault) noexcept nogil:
        cdef value_t* values = self.xattrs.values
        cdef size_t count = self.xattrs.value_count
        cdef size_t first = 0, end, leader, i
        if count == 0:
            return 0
        qsort(values, count, sizeof(value_t), compare_inodes)
        if self.list_blocks(target, fault) < 0 or self.sweep_blocks(target, fault) < 0:
            return fault.code
        while first < count:
            end = group_end(values, count, first)
            leader = find_leader(values, first, end)
            # From the last to the first: the leader itself may turn out to be wrong, and is needed until then.
            for i in range(end - leader):
                if values[end - 1 - i].at != 0 and values[end - 1 - i].wrong == NULL:
                    self.verify(target, &values[end - 1 - i], &values[leader])
            first = end
        return self.settle(target, fault)

    cdef int settle(self, ExtentMap target, fault_t* fault) noexcept nogil:
        """Records with a value that cannot be had, or with an ACL to be converted, are written again."""
        cdef value_t* values = self.xattrs.values
        cdef size_t count = self.xattrs.value_count
        cdef size_t first = 0, end, i
        cdef bint again
        qsort(values, count, sizeof(value_t), compare_places)
        while first < count:
            end = first
            again = False
            while end < count and values[end].file == values[first].file and (values[end].at == 0) == (
                    values[first].at == 0):
                again = again or values[end].wrong != NULL or values[end].acl
                end += 1
            if again and values[first].at != 0:
                for i in range(first, end):
                    if values[i].wrong != NULL:
                        target.append_problem(target.files[values[i].file].inode, 0, values[i].wrong)
                if self.rewrite(target, values + first, end - first, fault) < 0:
                    return fault.code
            first = end
        return 0

    cdef int rewrite(self, ExtentMap target, value_t* values, size_t count, fault_t* fault) noexcept nogil:
        """The old record stays behind as a gap, which sealing closes."""
        cdef file_t* file = &target.files[values.file]
        cdef uint64_t begin = file.heap_offset
        cdef uint32_t size = file.heap_size, link_size, cursor
        cdef const uint8_t* link = record_target(target.heap + begin, &link_size)
        cdef uint8_t* copy = <uint8_t*>malloc(<size_t>link_size + 1)
        cdef const char* said
        cdef xattr_t xattr
        cdef int rc = 0
        if copy == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, b"reading extended attributes", 0, 0, NULL)
        memcpy(copy, link, link_size)              # the heap may move while the new record is written
        self.xattrs.begin()
        self.xattrs.heap.set_target(copy, link_size)
        cursor = 4 + link_size
        while rc == 0 and next_xattr(target.heap + begin, size, &cursor, &xattr) > 0:
            if count == 0 or xattr.value != target.heap + values.at or xattr.value_size != values.size:
                rc = self.xattrs.heap.add(b"", xattr.name, xattr.name_size, xattr.value, xattr.value_size, 0, fault)
                continue
            said = NULL
            if values.wrong == NULL and values.acl:
                rc = add_acl(self.xattrs.heap, b"", xattr.name, xattr.name_size, xattr.value, xattr.value_size, 0,
                             &said, fault)
            elif values.wrong == NULL:
                rc = self.xattrs.heap.add(b"", xattr.name, xattr.name_size, xattr.value, xattr.value_size, 0, fault)
            if said != NULL:
                target.append_problem(file.inode, 0, said)
            values += 1
            count -= 1
        file.flags &= ~FILE_XATTRS
        file.heap_size = 0
        if rc == 0:
            rc = self.xattrs.heap.finish(target, file, fault)
        free(copy)
        return rc
