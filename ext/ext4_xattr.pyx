"""ext4_xattr decodes extended attributes of an inode's area and of a block, and verifies them. It reads no device.

Source: Linux Documentation/filesystems/ext4, "Extended Attributes"; fs/ext4/xattr.c for the checks; ACLs on disk are
shorter than what getxattr(2) shows (fs/ext4/acl.h against include/uapi/linux/posix_acl_xattr.h).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from splitreel.core.checksum cimport crc32c_update, crc_differs
from splitreel.core.ext4_disk cimport (
    ext4_le16,
    ext4_le32,
    ext4_load32,
    ext4_xattr_entry_t,
    ext4_xattr_header_t,
)
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.fault cimport fault_t
from splitreel.core.heap cimport HeapWriter

cdef enum:
    XATTR_MAGIC = 0xEA020000
    HEADER = 32                                    # bytes of a block's header
    ENTRY = 16                                     # bytes of an entry without its name
    CHECKSUM = 16                                  # offset of h_checksum
    SOURCE_INODE = 0                               # of two attributes with one name the inode's is kept
    SOURCE_BLOCK = 1
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


cdef int add_acl(HeapWriter heap, const char* name, const uint8_t* value, uint32_t size, uint32_t source,
                 const char** said, fault_t* fault) noexcept nogil:
    """The index is the whole name; the kernel stores none behind it."""
    cdef int count = acl_entries(value, size)
    cdef uint8_t* room
    if count < 0:
        said[0] = b"a malformed ACL"
        return 0
    if heap.add_room(name, NULL, 0, 4 + 8 * <uint32_t>count, source, &room, fault) < 0:
        return fault.code
    convert_acl(value, size, room)
    return 0


# Entries.

cdef int add_entry(HeapWriter heap, const ext4_xattr_entry_t* entry, const uint8_t* value, uint32_t source,
                   const char** said, fault_t* fault) noexcept nogil:
    """One entry that lies well; *said becomes why it is left out all the same, unless that is nothing to speak of."""
    cdef uint32_t index = entry.e_name_index
    cdef uint32_t size = ext4_le32(entry.e_value_size)
    if entry.e_value_inum != 0:
        said[0] = b"an extended attribute in an inode of its own is not supported"
        return 0
    if index == INDEX_VERITY:
        return 0
    if index >= PREFIXES or prefixes[index] == NULL:
        said[0] = b"an extended attribute of an unknown kind"
        return 0
    if index == INDEX_SYSTEM and entry.e_name_len == 4 and memcmp(entry.e_name, b"data", 4) == 0:
        return 0
    if index == INDEX_ACL_ACCESS or index == INDEX_ACL_DEFAULT:
        return add_acl(heap, prefixes[index], value, size, source, said, fault)
    return heap.add(prefixes[index], entry.e_name, entry.e_name_len, value, size, source, fault)


cdef const char* check_entry(const ext4_xattr_entry_t* entry, uint32_t room, uint32_t end,
                             uint64_t* total) noexcept nogil:
    """The sum of the values must fit too, so that overlapping ones cannot blow up."""
    cdef uint32_t offset = ext4_le16(entry.e_value_offs)
    cdef uint32_t size = ext4_le32(entry.e_value_size)
    if room < ENTRY or room - ENTRY < entry.e_name_len:
        return b"an extended attribute's name does not fit"
    if entry.e_value_inum != 0:
        return NULL
    if size > end or (size > 0 and offset > end - size):
        return b"an extended attribute's value does not fit"
    total[0] += size
    if total[0] > end:
        return b"values of extended attributes overlap"
    return NULL


cdef int add_entries(HeapWriter heap, const uint8_t* entries, uint32_t room, const uint8_t* base, uint32_t end,
                     uint32_t source, const char** text, fault_t* fault) noexcept nogil:
    """Entries up to four zero bytes. Of an area that does not hold together nothing is kept."""
    cdef const ext4_xattr_entry_t* entry
    cdef uint32_t kept = heap.attr_count
    cdef uint32_t at = 0
    cdef uint64_t total = 0
    cdef const char* wrong = NULL
    text[0] = NULL
    while at + 4 <= room and ext4_load32(entries + at) != 0:
        entry = <const ext4_xattr_entry_t*>(entries + at)
        wrong = check_entry(entry, room - at, end, &total)
        if wrong != NULL:
            break
        if add_entry(heap, entry, base + ext4_le16(entry.e_value_offs), source, text, fault) < 0:
            return fault.code
        at += (ENTRY + entry.e_name_len + 3) & ~3
    if wrong == NULL and at + 4 > room:
        wrong = b"extended attributes without an end"
    if wrong != NULL:
        heap.keep_first(kept)
        text[0] = wrong
    return 0


cdef int add_area(HeapWriter heap, const uint8_t* area, uint32_t size, const char** text,
                  fault_t* fault) noexcept nogil:
    return add_entries(heap, area, size, area, size, SOURCE_INODE, text, fault)


cdef const char* verify_xattr_block(const ext4_geometry_t* geometry, uint64_t block,
                                    const uint8_t* data) noexcept nogil:
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


cdef int add_block(HeapWriter heap, const ext4_geometry_t* geometry, uint64_t block, const uint8_t* data,
                   const char** text, fault_t* fault) noexcept nogil:
    text[0] = verify_xattr_block(geometry, block, data)
    if text[0] != NULL:
        return 0
    return add_entries(heap, data + HEADER, geometry.block_size - HEADER, data, geometry.block_size, SOURCE_BLOCK,
                       text, fault)
