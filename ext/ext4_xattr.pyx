"""ext4_xattr decodes extended attributes into the heap record of a file. It reads no device.

Source: Linux Documentation/filesystems/ext4, "Extended Attributes"; fs/ext4/xattr.c for the checks; ACLs on disk are
shorter than what getxattr(2) shows (fs/ext4/acl.h against include/uapi/linux/posix_acl_xattr.h).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memcmp, memcpy

from splitreel.core.checksum cimport crc32c_update
from splitreel.core.ext4_disk cimport (
    ext4_le16,
    ext4_le32,
    ext4_load32,
    ext4_xattr_entry_t,
    ext4_xattr_header_t,
)
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.extent cimport FILE_TARGET, FILE_XATTRS, ExtentMap, file_t
from splitreel.core.fault cimport FAULT_NO_MEMORY, fault_t, set_fault

cdef enum:
    XATTR_MAGIC = 0xEA020000
    HEADER = 32                                    # bytes of a block's header
    ENTRY = 16                                     # bytes of an entry without its name
    CHECKSUM = 16                                  # offset of h_checksum
    PREFIXES = 9
    INDEX_ACL_ACCESS = 2
    INDEX_ACL_DEFAULT = 3
    INDEX_SYSTEM = 7
    INDEX_VERITY = 11                              # where the Merkle tree lies: nothing a user sees
    ACL_VERSION_DISK = 1
    ACL_VERSION = 2
    ACL_USER = 2
    ACL_GROUP = 8
    ACL_UNDEFINED_ID = 0xFFFFFFFF

# By e_name_index; an index without a prefix is not shown by the kernel either.
cdef const char** prefixes = [
    NULL, "user.", "system.posix_acl_access", "system.posix_acl_default", "trusted.", NULL, "security.", "system.",
    "system.richacl",
]
cdef uint32_t* prefix_sizes = [0, 5, 23, 24, 8, 0, 9, 7, 14]


cdef void put16(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = value & 0xFF
    at[1] = value >> 8 & 0xFF


cdef void put32(uint8_t* at, uint32_t value) noexcept nogil:
    put16(at, value & 0xFFFF)
    put16(at + 2, value >> 16)


cdef uint32_t get16(const uint8_t* at) noexcept nogil:
    return at[0] | <uint32_t>at[1] << 8


# ACLs.

cdef bint is_acl(const attr_t* attr) noexcept nogil:
    return attr.prefix == INDEX_ACL_ACCESS or attr.prefix == INDEX_ACL_DEFAULT


cdef int acl_entries(const uint8_t* value, uint32_t size) noexcept nogil:
    """Entries of an ACL on disk, or -1 when malformed: version 1, then tag and permissions, an id for two tags."""
    cdef uint32_t at = 4, tag
    cdef int count = 0
    if size < 4 or ext4_load32(value) != ACL_VERSION_DISK:
        return -1
    while at + 4 <= size:
        tag = get16(value + at)
        at += 8 if tag == ACL_USER or tag == ACL_GROUP else 4
        count += 1
    return count if at == size else -1


cdef void convert_acl(const uint8_t* value, uint32_t size, uint8_t* out) noexcept nogil:
    """Version 2: every entry has an id, ~0 where it means nothing."""
    cdef uint32_t at = 4, tag
    put32(out, ACL_VERSION)
    out += 4
    while at + 4 <= size:
        tag = get16(value + at)
        memcpy(out, value + at, 4)
        put32(out + 4, ACL_UNDEFINED_ID)
        at += 4
        if tag == ACL_USER or tag == ACL_GROUP:
            memcpy(out + 4, value + at, 4)
            at += 4
        out += 8


# Order of names.

cdef uint8_t name_byte(const attr_t* attr, uint32_t at) noexcept nogil:
    cdef uint32_t prefix = prefix_sizes[attr.prefix]
    return <uint8_t>prefixes[attr.prefix][at] if at < prefix else attr.name[at - prefix]


cdef int compare_names(const attr_t* a, const attr_t* b) noexcept nogil:
    cdef uint32_t first = prefix_sizes[a.prefix] + a.name_size
    cdef uint32_t second = prefix_sizes[b.prefix] + b.name_size
    cdef uint32_t i
    cdef uint8_t x, y
    for i in range(min(first, second)):
        x = name_byte(a, i)
        y = name_byte(b, i)
        if x != y:
            return -1 if x < y else 1
    return (first > second) - (first < second)


cdef int compare_attrs(const void* left, const void* right) noexcept nogil:
    cdef int order = compare_names(<const attr_t*>left, <const attr_t*>right)
    if order != 0:
        return order
    return <int>(<const attr_t*>left).source - <int>(<const attr_t*>right).source


# Entries.

cdef const char* check_entry(const attr_t* attr, const ext4_xattr_entry_t* entry) noexcept nogil:
    """Text of why an entry that lies well is left out all the same, "" when that is nothing to speak of, or NULL."""
    if entry.e_value_inum != 0:
        return b"an extended attribute in an inode of its own is not supported"
    if attr.prefix == INDEX_VERITY:
        return b""
    if attr.prefix >= PREFIXES or prefixes[attr.prefix] == NULL:
        return b"an extended attribute of an unknown kind"
    if attr.prefix == INDEX_SYSTEM and attr.name_size == 4 and memcmp(attr.name, b"data", 4) == 0:
        return b""
    if is_acl(attr) and acl_entries(attr.value, attr.value_size) < 0:
        return b"a malformed ACL"
    return NULL


cdef class HeapWriter:
    """Decodes, merges and sorts the extended attributes of one file at a time. One thread at a time; no Python face."""

    def __dealloc__(self):
        free(self.attrs)
        free(self.record)

    cdef int prepare(self, const ext4_geometry_t* geometry, fault_t* fault) noexcept nogil:
        """Memory for the most that an inode and a block can hold.

        An entry of 16 bytes and more becomes at most 30 and its name, a value at most twice itself.
        """
        self.geometry = geometry
        self.attr_capacity = 2 * geometry.block_size // ENTRY
        self.record_capacity = 8 * geometry.block_size
        free(self.attrs)
        free(self.record)
        self.attrs = <attr_t*>calloc(self.attr_capacity, sizeof(attr_t))
        self.record = <uint8_t*>malloc(self.record_capacity)
        if self.attrs == NULL or self.record == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, b"reading extended attributes", 0, 0, NULL)
        return 0

    cdef void begin(self) noexcept nogil:
        self.attr_count = 0
        self.target = NULL
        self.target_size = 0

    cdef const char* add_inode(self, const uint8_t* area, uint32_t size) noexcept nogil:
        """area begins behind the magic number; offsets of values count from there."""
        return self.add_entries(area, size, area, size, 0)

    cdef const char* add_block(self, uint64_t block, const uint8_t* data) noexcept nogil:
        """Offsets of values count from the block's start. The checksum covers the block's number."""
        cdef const ext4_xattr_header_t* header = <const ext4_xattr_header_t*>data
        cdef uint32_t size = self.geometry.block_size
        cdef uint32_t number[2]
        cdef uint32_t zero = 0, crc
        if ext4_le32(header.h_magic) != XATTR_MAGIC or ext4_le32(header.h_blocks) != 1:
            return b"an extended attribute block without its magic number"
        if self.geometry.metadata_csum:
            number[0] = ext4_le32(<uint32_t>block)
            number[1] = ext4_le32(<uint32_t>(block >> 32))
            crc = crc32c_update(self.geometry.csum_seed, number, 8)
            crc = crc32c_update(crc, data, CHECKSUM)
            crc = crc32c_update(crc, &zero, 4)
            crc = ~crc32c_update(crc, data + CHECKSUM + 4, size - CHECKSUM - 4)
            if crc != ext4_le32(header.h_checksum):
                return b"an extended attribute block's checksum does not match"
        return self.add_entries(data + HEADER, size - HEADER, data, size, 1)

    cdef const char* add_entries(self, const uint8_t* entries, uint32_t room, const uint8_t* base, uint32_t end,
                                 uint32_t source) noexcept nogil:
        """Entries up to four zero bytes; the sum of the values must fit, so that overlapping ones cannot blow up."""
        cdef const ext4_xattr_entry_t* entry
        cdef attr_t* attr
        cdef uint32_t at = 0, total = 0, offset
        cdef uint32_t kept = self.attr_count
        cdef const char* text
        cdef const char* said = NULL
        while True:
            if at + 4 > room:
                self.attr_count = kept
                return b"extended attributes without an end"
            if ext4_load32(entries + at) == 0:
                return said
            entry = <const ext4_xattr_entry_t*>(entries + at)
            if at + ENTRY > room or at + ENTRY + entry.e_name_len > room or self.attr_count == self.attr_capacity:
                self.attr_count = kept
                return b"an extended attribute's name does not fit"
            attr = &self.attrs[self.attr_count]
            offset = ext4_le16(entry.e_value_offs)
            attr.name = entries + at + ENTRY
            attr.name_size = entry.e_name_len
            attr.prefix = entry.e_name_index
            if is_acl(attr):
                attr.name_size = 0                 # the index is the whole name; the kernel stores none behind it
            attr.value = base + offset
            attr.value_size = ext4_le32(entry.e_value_size) if entry.e_value_inum == 0 else <uint32_t>0
            attr.source = source
            at += (ENTRY + entry.e_name_len + 3) & ~3
            if attr.value_size > end or (attr.value_size > 0 and offset > end - attr.value_size):
                self.attr_count = kept
                return b"an extended attribute's value does not fit"
            total += attr.value_size
            if total > end:
                self.attr_count = kept
                return b"values of extended attributes overlap"
            text = check_entry(attr, entry)
            if text == NULL:
                self.attr_count += 1
            elif text[0] != 0:
                said = text

    cdef uint32_t encode(self) noexcept nogil:
        """The record in self.record, attributes already sorted; its size, or 0 when it does not fit."""
        cdef attr_t* attr
        cdef uint32_t at = 4 + self.target_size, i, size, prefix
        if at > self.record_capacity:
            return 0
        put32(self.record, self.target_size)
        if self.target_size > 0:
            memcpy(self.record + 4, self.target, self.target_size)
        for i in range(self.attr_count):
            attr = &self.attrs[i]
            if i > 0 and compare_names(attr - 1, attr) == 0:
                continue
            size = attr.value_size
            if is_acl(attr):
                size = 4 + 8 * <uint32_t>acl_entries(attr.value, attr.value_size)
            prefix = prefix_sizes[attr.prefix]
            if size > self.record_capacity or at + 6 + prefix + attr.name_size + size > self.record_capacity:
                return 0
            put16(self.record + at, prefix + attr.name_size)
            put32(self.record + at + 2, size)
            at += 6
            memcpy(self.record + at, prefixes[attr.prefix], prefix)
            memcpy(self.record + at + prefix, attr.name, attr.name_size)
            at += prefix + attr.name_size
            if is_acl(attr):
                convert_acl(attr.value, attr.value_size, self.record + at)
            elif size > 0:
                memcpy(self.record + at, attr.value, size)
            at += size
        return at

    cdef int finish(self, ExtentMap target, file_t* file, fault_t* fault) noexcept nogil:
        cdef uint32_t size
        cdef uint64_t offset = 0
        if self.attr_count == 0 and self.target_size == 0:
            return 0
        if self.attr_count > 1:
            qsort(self.attrs, self.attr_count, sizeof(attr_t), compare_attrs)
        size = self.encode()
        if size == 0:
            target.append_problem(file.inode, 0, b"its extended attributes are larger than can be")
            return 0
        if target.append_heap(self.record, size, &offset, fault) < 0:
            return fault.code
        file.heap_offset = offset
        file.heap_size = size
        if self.attr_count > 0:
            file.flags |= FILE_XATTRS
        if self.target_size > 0:
            file.flags |= FILE_TARGET
        return 0
