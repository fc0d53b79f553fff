"""ext4_xattr decodes extended attributes of an inode's area and of a block, and verifies them. It reads no device.

Source: Linux Documentation/filesystems/ext4, "Extended Attributes"; fs/ext4/xattr.c for the checks; ACLs on disk are
shorter than what getxattr(2) shows (fs/ext4/acl.h against include/uapi/linux/posix_acl_xattr.h).
"""

from libc.stdint cimport int8_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memchr, memcmp, memcpy, memset

from splitreel.core.checksum cimport crc32c_update, crc_differs
from splitreel.core.ext4_disk cimport (
    INCOMPAT_EA_INODE,
    ext4_le16,
    ext4_le32,
    ext4_load32,
    ext4_xattr_entry_t,
    ext4_xattr_header_t,
)
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport fault_t
from splitreel.core.heap cimport HeapWriter
from splitreel.core.sweep cimport grow_array

cdef enum:
    XATTR_MAGIC = 0xEA020000
    HEADER = 32                                    # bytes of a block's header
    ENTRY = 16                                     # bytes of an entry without its name
    CHECKSUM = 16                                  # offset of h_checksum
    SOURCE_INODE = 0                               # of two attributes with one name the inode's is kept
    SOURCE_BLOCK = 1
    PREFIXES = 11
    INDEX_ACL_ACCESS = 2
    INDEX_ACL_DEFAULT = 3
    INDEX_SYSTEM = 7
    INDEX_ENCRYPTION = 9                           # how a file is encrypted
    INDEX_VERITY = 11                              # where the Merkle tree lies: nothing a user sees
    MAX_VALUE = 65536                              # what getxattr(2) gives at most
    HASH_SHIFT = 5                                 # of a character of the name
    ACL_VERSION_DISK = 1
    ACL_VERSION = 2
    ACL_USER = 2
    ACL_GROUP = 8
    ACL_UNDEFINED_ID = 0xFFFFFFFF

# By e_name_index; an index without a prefix is not shown by the kernel either.
cdef const char** prefixes = [
    NULL, "user.", "system.posix_acl_access", "system.posix_acl_default", "trusted.", NULL, "security.", NULL,
    "system.richacl", NULL, "gnu.",
]


cdef void put16(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = value & 0xFF
    at[1] = value >> 8 & 0xFF


cdef void put32(uint8_t* at, uint32_t value) noexcept nogil:
    put16(at, value & 0xFFFF)
    put16(at + 2, value >> 16)


cdef uint32_t get16(const uint8_t* at) noexcept nogil:
    return at[0] | <uint32_t>at[1] << 8


# ACLs.

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


cdef int add_acl(HeapWriter heap, const char* prefix, const uint8_t* name, uint32_t name_size, const uint8_t* value,
                 uint32_t size, uint32_t source, const char** said, fault_t* fault) noexcept nogil:
    cdef int count = acl_entries(value, size)
    cdef uint8_t* room
    if count < 0:
        said[0] = b"a malformed ACL"
        return 0
    if heap.add_room(prefix, name, name_size, 4 + 8 * <uint32_t>count, source, &room, fault) < 0:
        return fault.code
    convert_acl(value, size, room)
    return 0


# Entries.

cdef bint is_inline_data(const ext4_xattr_entry_t* entry) noexcept nogil:
    return (entry.e_name_index == INDEX_SYSTEM and entry.e_name_len == 4 and memcmp(entry.e_name, b"data", 4) == 0)


cdef bint is_hidden(const ext4_xattr_entry_t* entry) noexcept nogil:
    """The file system's own: nothing that listxattr(2) shows."""
    return entry.e_name_index == INDEX_ENCRYPTION or entry.e_name_index == INDEX_VERITY or is_inline_data(entry)


cdef uint32_t entry_size(const ext4_xattr_entry_t* entry) noexcept nogil:
    return (ENTRY + entry.e_name_len + 3) & ~3


cdef void hash_name(const ext4_xattr_entry_t* entry, uint32_t* hashes) noexcept nogil:
    """As the kernel does it, and as it did on machines whose characters are signed: both are on disks."""
    cdef uint32_t i
    hashes[0] = hashes[1] = 0
    for i in range(entry.e_name_len):
        hashes[0] = (hashes[0] << HASH_SHIFT ^ hashes[0] >> (32 - HASH_SHIFT)) ^ entry.e_name[i]
        hashes[1] = (hashes[1] << HASH_SHIFT ^ hashes[1] >> (32 - HASH_SHIFT)) ^ <uint32_t><int8_t>entry.e_name[i]


cdef const char* end_of_names(const uint8_t* entries, uint32_t room, uint32_t* end) noexcept nogil:
    """Offset of the four zero bytes behind the last entry, or text of why there is none."""
    cdef const ext4_xattr_entry_t* entry
    cdef uint32_t at = 0
    while at + 4 <= room and ext4_load32(entries + at) != 0:
        entry = <const ext4_xattr_entry_t*>(entries + at)
        if room - at < ENTRY or room - at - ENTRY < entry.e_name_len:
            return b"an extended attribute's name does not fit"
        at += entry_size(entry)
    if at + 4 > room:
        return b"extended attributes without an end"
    end[0] = at
    return NULL


cdef const char* check_value(const ext4_xattr_entry_t* entry, uint32_t begin, uint32_t end,
                             uint64_t* total) noexcept nogil:
    """The value lies behind the names and inside; the sum of all must fit too, that overlapping ones not blow up."""
    cdef uint32_t offset = ext4_le16(entry.e_value_offs)
    cdef uint32_t size = ext4_le32(entry.e_value_size)
    if size == 0:
        return NULL
    if offset < begin or size > end or offset > end - size:
        return b"an extended attribute's value does not fit"
    total[0] += size
    if total[0] > end:
        return b"values of extended attributes overlap"
    return NULL


cdef const char* find_inline_data(const uint8_t* area, uint32_t size, const uint8_t** value,
                                  uint32_t* value_size) noexcept nogil:
    cdef const ext4_xattr_entry_t* entry
    cdef uint32_t at = 0, end = 0
    cdef uint64_t total = 0
    cdef const char* text
    value[0] = NULL
    value_size[0] = 0
    if size == 0:
        return NULL
    text = end_of_names(area, size, &end)
    while text == NULL and at < end:
        entry = <const ext4_xattr_entry_t*>(area + at)
        at += entry_size(entry)
        text = check_value(entry, end + 4, size, &total) if entry.e_value_inum == 0 else NULL
        if is_inline_data(entry):
            value[0] = area + ext4_le16(entry.e_value_offs)
            value_size[0] = ext4_le32(entry.e_value_size)
            if entry.e_value_inum != 0:
                text = b"inline data in another inode"
    return text


cdef class XattrDecoder:
    """Extended attributes of one file at a time, into its heap record. One thread at a time; no Python face."""

    def __cinit__(self):
        self.heap = HeapWriter()

    def __dealloc__(self):
        free(self.values)

    cdef void reset(self, uint64_t value_room) noexcept nogil:
        free(self.values)
        self.values = NULL
        self.value_count = self.value_capacity = 0
        self.value_room = value_room
        self.verified_block = 0

    cdef void begin(self) noexcept nogil:
        self.heap.begin()

    cdef int finish(self, ExtentMap target, uint32_t file, fault_t* fault) noexcept nogil:
        cdef value_t* value
        cdef uint32_t i
        if self.heap.finish(target, &target.files[file], fault) < 0:
            return fault.code
        if self.value_count > 0:
            for i in range(self.heap.attr_count):
                if self.heap.attrs[i].tag > 0:
                    value = &self.values[self.heap.attrs[i].tag - 1]
                    value.at = self.heap.attrs[i].place
                    value.file = file
        return 0

    cdef int add_value(self, const ext4_xattr_entry_t* entry, uint32_t source, const char** said,
                       fault_t* fault) noexcept nogil:
        """Room for a value that stands in an inode of its own, to be filled when the whole record is in the map."""
        cdef uint32_t index = entry.e_name_index
        cdef bint acl = index == INDEX_ACL_ACCESS or index == INDEX_ACL_DEFAULT
        cdef uint32_t size = ext4_le32(entry.e_value_size)
        cdef uint8_t* room
        cdef value_t* value
        if size > MAX_VALUE or size > self.value_room:
            said[0] = b"an extended attribute larger than 64 KiB, or all of them larger than the device"
            return 0
        self.value_room -= size
        if grow_array(<void**>&self.values, &self.value_capacity, self.value_count, sizeof(value_t), fault) < 0:
            return fault.code
        if self.heap.add_room(prefixes[index], entry.e_name, 0 if acl else entry.e_name_len, size, source, &room,
                              fault) < 0:
            return fault.code
        memset(room, 0, size)
        value = &self.values[self.value_count]
        memset(value, 0, sizeof(value_t))
        value.size = size
        value.inode = ext4_le32(entry.e_value_inum)
        value.entry_hash = ext4_le32(entry.e_hash)
        value.acl = acl
        hash_name(entry, value.name_hash)
        self.value_count += 1
        self.heap.tag(<uint32_t>self.value_count)
        return 0

    cdef int add_entry(self, const ext4_xattr_entry_t* entry, const uint8_t* value, uint32_t source,
                       const char** said, fault_t* fault) noexcept nogil:
        """One entry that lies well; *said becomes why it is left out all the same, unless no user would see it."""
        cdef uint32_t index = entry.e_name_index
        cdef uint32_t size = ext4_le32(entry.e_value_size)
        if is_hidden(entry):
            return 0
        if index >= PREFIXES or prefixes[index] == NULL:
            said[0] = b"an extended attribute of an unknown kind"
            return 0
        if memchr(entry.e_name, 0, entry.e_name_len) != NULL:
            said[0] = b"an extended attribute whose name holds a null byte"
            return 0
        if entry.e_value_inum != 0:
            return self.add_value(entry, source, said, fault)
        if index == INDEX_ACL_ACCESS or index == INDEX_ACL_DEFAULT:
            # The index is the whole name; the kernel stores none behind it.
            return add_acl(self.heap, prefixes[index], NULL, 0, value, size, source, said, fault)
        return self.heap.add(prefixes[index], entry.e_name, entry.e_name_len, value, size, source, fault)

    cdef const char* check_inode(self, const ext4_xattr_entry_t* entry) noexcept nogil:
        """The inode that holds a value. What cannot be is refused with the whole area, as the kernel does."""
        cdef uint32_t inode = ext4_le32(entry.e_value_inum)
        if not self.geometry.incompat & INCOMPAT_EA_INODE:
            return b"an extended attribute in an inode of its own, without the feature"
        if inode < self.geometry.first_ino or inode > self.geometry.inode_count:
            return b"an extended attribute in an inode that cannot be"
        return NULL

    cdef int add_entries(self, const uint8_t* entries, uint32_t room, const uint8_t* base, uint32_t end,
                         uint32_t source, const char** text, fault_t* fault) noexcept nogil:
        """Of an area that does not hold together nothing is kept."""
        cdef const ext4_xattr_entry_t* entry
        cdef uint32_t kept = self.heap.attr_count
        cdef uint32_t at = 0, names_end = 0, begin
        cdef uint64_t total = 0
        cdef const char* wrong = end_of_names(entries, room, &names_end)
        text[0] = NULL
        begin = <uint32_t>(entries - base) + names_end + 4
        while wrong == NULL and at < names_end:
            entry = <const ext4_xattr_entry_t*>(entries + at)
            at += entry_size(entry)
            if entry.e_value_inum != 0:
                wrong = self.check_inode(entry)
            else:
                wrong = check_value(entry, begin, end, &total)
            if wrong == NULL:
                if self.add_entry(entry, base + ext4_le16(entry.e_value_offs), source, text, fault) < 0:
                    return fault.code
        if wrong != NULL:
            self.heap.keep_first(kept)
            text[0] = wrong
        return 0

    cdef int add_area(self, const uint8_t* area, uint32_t size, const char** text, fault_t* fault) noexcept nogil:
        return self.add_entries(area, size, area, size, SOURCE_INODE, text, fault)

    cdef int add_block(self, uint64_t block, const uint8_t* data, const char** text, fault_t* fault) noexcept nogil:
        cdef uint32_t size = self.geometry.block_size
        if block != self.verified_block:
            self.verified_block = block
            self.verified_text = verify_block(self.geometry, block, data)
        text[0] = self.verified_text
        if text[0] != NULL:
            return 0
        return self.add_entries(data + HEADER, size - HEADER, data, size, SOURCE_BLOCK, text, fault)


cdef const char* verify_block(const ext4_geometry_t* geometry, uint64_t block, const uint8_t* data) noexcept nogil:
    """The checksum covers the block's number."""
    cdef const ext4_xattr_header_t* header = <const ext4_xattr_header_t*>data
    cdef uint32_t number[2]
    cdef uint32_t zero = 0, crc
    if ext4_le32(header.h_magic) != XATTR_MAGIC or ext4_le32(header.h_blocks) != 1:
        return b"an extended attribute block without its magic number"
    if geometry.metadata_csum:
        number[0] = ext4_le32(<uint32_t>block)
        number[1] = ext4_le32(<uint32_t>(block >> 32))
        crc = crc32c_update(geometry.csum_seed, number, 8)
        crc = crc32c_update(crc, data, CHECKSUM)
        crc = crc32c_update(crc, &zero, 4)
        crc = ~crc32c_update(crc, data + CHECKSUM + 4, geometry.block_size - CHECKSUM - 4)
        if crc_differs(crc, ext4_le32(header.h_checksum)):
            return b"an extended attribute block's checksum does not match"
    return NULL
