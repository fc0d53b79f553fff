"""xfs_attr decodes XFS's extended attributes into the heap record of a file. It reads no device.

Source: "XFS Algorithms & Data Structures", Extended Attributes; fs/xfs/libxfs/xfs_attr_leaf.c for the checks;
fs/xfs/xfs_acl.c and xfs_xattr.c for what listxattr(2) and getxattr(2) show. A leaf is found from the root of the tree
downward and then by forward links, never by its magic number: values may hold anything.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memset

from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport FAULT_NO_MEMORY, fault_t, raise_fault, set_fault
from splitreel.core.xfs_disk cimport xfs_be16, xfs_be32, xfs_load32
from splitreel.core.xfs_fork cimport (
    close_fork,
    extents_of,
    fork_block,
    geometry_of,
    open_fork,
    remote_value,
    verify_self,
)
from splitreel.core.xfs_names_disk cimport (
    XFS_ATTR3_LEAF_MAGIC,
    XFS_ATTR_INCOMPLETE,
    XFS_ATTR_LEAF_MAGIC,
    XFS_ATTR_LOCAL,
    XFS_ATTR_PARENT,
    XFS_ATTR_ROOT,
    XFS_ATTR_SECURE,
    XFS_DA3_NODE_MAGIC,
    XFS_DA_NODE_MAGIC,
    XFS_DA_NODE_MAXDEPTH,
    XFS_DA_SELF,
    XFS_XATTR_SIZE_MAX,
    xfs_acl_entry_t,
    xfs_attr_leaf_count_t,
    xfs_attr_leaf_entry_t,
    xfs_attr_leaf_name_local_t,
    xfs_attr_leaf_name_remote_t,
    xfs_attr_sf_entry_t,
    xfs_attr_sf_hdr_t,
    xfs_da3_blkinfo_t,
    xfs_da_node_count_t,
    xfs_da_node_entry_t,
)

cdef enum:
    BLKINFO = 12                                   # bytes of the header that leaves and nodes begin with, version 4
    BLKINFO_CRC = 56                               # and version 5
    LEAF = 32                                      # bytes before a leaf's entries
    LEAF_CRC = 80
    NODE = 16                                      # and before a node's
    NODE_CRC = 64
    ENTRY = 8
    LOCAL = 3                                      # bytes before a name
    REMOTE = 9
    SHORT = 3
    ACL_HEAD = 4                                   # bytes: the count on disk, the version in memory
    ACL_ENTRY = 12
    ACL_VERSION = 2                                # of the form getxattr(2) shows
    ACL_VERSION_ENTRY = 8
    ACL_USER = 2
    ACL_GROUP = 8
    ACL_TAGS = 0x3F                                # user, named users, group, named groups, mask, other: one bit each
    ACL_UNDEFINED_ID = 0xFFFFFFFF


# Names and values.

cdef const char* prefix_of(uint32_t flags) noexcept nogil:
    """NULL for a namespace that no kernel knows."""
    flags &= ~<uint32_t>XFS_ATTR_LOCAL
    if flags == 0:
        return b"user."
    if flags == XFS_ATTR_ROOT:
        return b"trusted."
    if flags == XFS_ATTR_SECURE:
        return b"security."
    return NULL


cdef const char* acl_name(uint32_t flags, const uint8_t* name, uint32_t size) noexcept nogil:
    """The full name of an ACL, which stands in the root namespace and is shown there too: it is saved once."""
    if not flags & XFS_ATTR_ROOT:
        return NULL
    if size == 12 and memcmp(name, b"SGI_ACL_FILE", 12) == 0:
        return b"system.posix_acl_access"
    if size == 15 and memcmp(name, b"SGI_ACL_DEFAULT", 15) == 0:
        return b"system.posix_acl_default"
    return NULL


cdef void put_le(uint8_t* at, uint32_t value, int size) noexcept nogil:
    cdef int i
    for i in range(size):
        at[i] = value & 0xFF
        value >>= 8


cdef const char* verify_acl(const uint8_t* value, uint32_t size) noexcept nogil:
    cdef const xfs_acl_entry_t* entries = <const xfs_acl_entry_t*>(value + ACL_HEAD)
    cdef uint32_t count, i, tag
    if size < ACL_HEAD or (size - ACL_HEAD) % ACL_ENTRY != 0:
        return b"a malformed ACL"
    count = xfs_load32(value)
    if count != (size - ACL_HEAD) // ACL_ENTRY:
        return b"a malformed ACL"
    for i in range(count):
        tag = xfs_be32(entries[i].ae_tag)
        if tag == 0 or tag & (tag - 1) or tag & ~<uint32_t>ACL_TAGS:
            return b"an ACL with an entry of an unknown kind"
    return NULL


cdef const char* add_acl(HeapWriter heap, const char* name, const uint8_t* value, uint32_t size,
                         fault_t* fault) noexcept nogil:
    """As getxattr(2) shows it: version 2, little-endian, an id only where it means something."""
    cdef const xfs_acl_entry_t* entries = <const xfs_acl_entry_t*>(value + ACL_HEAD)
    cdef const char* text = verify_acl(value, size)
    cdef uint32_t count, i, tag
    cdef uint8_t* out
    if text != NULL:
        return text
    count = (size - ACL_HEAD) // ACL_ENTRY
    if heap.add_room(name, NULL, 0, ACL_HEAD + count * ACL_VERSION_ENTRY, heap.attr_count, &out, fault) < 0:
        return NULL
    put_le(out, ACL_VERSION, 4)
    out += ACL_HEAD
    for i in range(count):
        tag = xfs_be32(entries[i].ae_tag)
        put_le(out, tag, 2)
        put_le(out + 2, xfs_be16(entries[i].ae_perm), 2)
        put_le(out + 4, xfs_be32(entries[i].ae_id) if tag == ACL_USER or tag == ACL_GROUP else ACL_UNDEFINED_ID, 4)
        out += ACL_VERSION_ENTRY
    return NULL


cdef const char* add_attr(HeapWriter heap, uint32_t flags, const uint8_t* name, uint32_t name_size,
                          const uint8_t* value, uint32_t value_size, fault_t* fault) noexcept nogil:
    cdef const char* prefix = prefix_of(flags)
    cdef const char* acl = acl_name(flags, name, name_size)
    if prefix == NULL:
        return b"an extended attribute of an unknown namespace"
    if name_size == 0 or memchr(name, 0, name_size) != NULL:
        return b"an extended attribute without a name, or with a null byte in it"
    if acl != NULL:
        return add_acl(heap, acl, value, value_size, fault)
    # The first of two with one name is kept, as a search of the tree finds it.
    heap.add(prefix, name, name_size, value, value_size, heap.attr_count, fault)
    return NULL


# In the inode.

cdef const char* attr_shortform(HeapWriter heap, const uint8_t* fork, uint32_t size, fault_t* fault) noexcept nogil:
    cdef const xfs_attr_sf_hdr_t* header = <const xfs_attr_sf_hdr_t*>fork
    cdef const xfs_attr_sf_entry_t* entry
    cdef const char* said = NULL
    cdef const char* text
    cdef uint32_t kept = heap.attr_count
    cdef uint32_t at = sizeof(xfs_attr_sf_hdr_t), end, _i
    fault.code = 0
    if size < at or xfs_be16(header.totsize) < at or xfs_be16(header.totsize) > size:
        return b"extended attributes that do not fit their inode"
    end = xfs_be16(header.totsize)
    for _i in range(header.count):
        entry = <const xfs_attr_sf_entry_t*>(fork + at)
        if end - at < SHORT or end - at - SHORT < <uint32_t>entry.namelen + entry.valuelen:
            heap.keep_first(kept)
            return b"extended attributes that do not fit their inode"
        text = NULL
        if not entry.flags & XFS_ATTR_PARENT:      # where the file's names are: the directories say so too
            text = add_attr(heap, entry.flags, entry.nameval, entry.namelen, entry.nameval + entry.namelen,
                            entry.valuelen, fault)
        if fault.code < 0:
            return NULL
        if text != NULL:
            said = text
        at += SHORT + <uint32_t>entry.namelen + entry.valuelen
    return said


# In blocks.

cdef const char* verify_block(const xfs_fork_t* fork, const uint8_t* data, uint64_t block) noexcept nogil:
    """What leaves and nodes have in common, but for the magic number."""
    if not fork.geometry.crc:
        return NULL
    return verify_self(fork.geometry, &XFS_DA_SELF, data, fork.geometry.block_size, block, fork.owner)


cdef const char* first_leaf(const xfs_fork_t* fork, uint32_t* leaf) noexcept nogil:
    """Block of the leaf with the lowest hashes: always the first child, on every level one lower."""
    cdef bint crc = fork.geometry.crc
    cdef uint32_t header = NODE_CRC if crc else NODE
    cdef uint32_t logical = 0, count, _step
    cdef int level = -1
    cdef const xfs_da_node_count_t* node
    cdef const char* text
    cdef const uint8_t* data
    cdef uint64_t block
    cdef uint16_t magic
    for _step in range(XFS_DA_NODE_MAXDEPTH + 1):
        data = fork_block(fork, logical, &block)
        if data == NULL:
            return b"a block of its extended attributes is not mapped"
        magic = xfs_be16((<const xfs_da3_blkinfo_t*>data).magic)
        if magic != (XFS_DA3_NODE_MAGIC if crc else XFS_DA_NODE_MAGIC):
            leaf[0] = logical
            if level <= 0:
                return NULL
            return b"a tree of extended attributes with branches of different lengths"
        text = verify_block(fork, data, block)
        if text != NULL:
            return text
        node = <const xfs_da_node_count_t*>(data + (BLKINFO_CRC if crc else BLKINFO))
        count = xfs_be16(node.count)
        if count == 0 or header + count * ENTRY > fork.geometry.block_size:
            return b"a node of extended attributes with more entries than fit, or with none"
        if level >= 0 and xfs_be16(node.level) != level:
            return b"a tree of extended attributes with branches of different lengths"
        level = <int>xfs_be16(node.level) - 1
        if level < 0 or level >= XFS_DA_NODE_MAXDEPTH - 1:
            break
        logical = xfs_be32((<const xfs_da_node_entry_t*>(data + header)).before)
    return b"a tree of extended attributes that is too deep"


cdef const char* read_remote(attr_reader_t* reader, const xfs_attr_leaf_name_remote_t* name, uint32_t size,
                             fault_t* fault) noexcept nogil:
    if reader.value == NULL:
        reader.value = <uint8_t*>malloc(XFS_XATTR_SIZE_MAX)
        if reader.value == NULL:
            set_fault(fault, FAULT_NO_MEMORY, b"reading extended attributes", reader.fork.owner, 0, NULL)
            return NULL
    return remote_value(&reader.fork, xfs_be32(name.valueblk), size, reader.value)


cdef const char* add_remote(attr_reader_t* reader, HeapWriter heap, const uint8_t* data, uint32_t at, uint32_t flags,
                            bint* fits, fault_t* fault) noexcept nogil:
    cdef const xfs_attr_leaf_name_remote_t* name = <const xfs_attr_leaf_name_remote_t*>(data + at)
    cdef uint32_t room = reader.fork.geometry.block_size - at
    cdef const char* text
    cdef uint32_t size
    fits[0] = room >= REMOTE and room - REMOTE >= name.namelen
    if not fits[0]:
        return NULL
    size = xfs_be32(name.valuelen)
    if size > XFS_XATTR_SIZE_MAX or size + name.namelen > reader.room:
        return b"an extended attribute's value is larger than can be"
    reader.room -= size + name.namelen
    text = read_remote(reader, name, size, fault)
    if text != NULL or fault.code < 0:
        return text
    return add_attr(heap, flags, name.name, name.namelen, reader.value, size, fault)


cdef const char* add_local(attr_reader_t* reader, HeapWriter heap, const uint8_t* data, uint32_t at, uint32_t flags,
                           bint* fits, fault_t* fault) noexcept nogil:
    cdef const xfs_attr_leaf_name_local_t* name = <const xfs_attr_leaf_name_local_t*>(data + at)
    cdef uint32_t room = reader.fork.geometry.block_size - at
    cdef uint32_t size
    fits[0] = room >= LOCAL and room - LOCAL >= <uint32_t>name.namelen + xfs_be16(name.valuelen)
    if not fits[0]:
        return NULL
    size = xfs_be16(name.valuelen)
    if size + name.namelen > reader.room:
        return b"extended attributes that overlap"
    reader.room -= size + name.namelen
    return add_attr(heap, flags, name.nameval, name.namelen, name.nameval + name.namelen, size, fault)


cdef const char* add_leaf(attr_reader_t* reader, HeapWriter heap, const uint8_t* data, bint* good,
                          fault_t* fault) noexcept nogil:
    """All attributes of a verified leaf; of one whose entries do not fit it none, and good is False."""
    cdef bint crc = reader.fork.geometry.crc
    cdef uint32_t count = xfs_be16((<const xfs_attr_leaf_count_t*>(data + (BLKINFO_CRC if crc else BLKINFO))).count)
    cdef const xfs_attr_leaf_entry_t* entry = <const xfs_attr_leaf_entry_t*>(data + (LEAF_CRC if crc else LEAF))
    cdef uint32_t first = (LEAF_CRC if crc else LEAF) + count * ENTRY       # where names may begin
    cdef uint32_t kept = heap.attr_count, at, i
    cdef const char* said = NULL
    cdef const char* text
    good[0] = first <= reader.fork.geometry.block_size
    for i in range(count if good[0] else 0):
        at = xfs_be16(entry[i].nameidx)
        if entry[i].flags & (XFS_ATTR_INCOMPLETE | XFS_ATTR_PARENT):
            continue
        text = NULL
        good[0] = at >= first and at < reader.fork.geometry.block_size
        if good[0] and entry[i].flags & XFS_ATTR_LOCAL:
            text = add_local(reader, heap, data, at, entry[i].flags, good, fault)
        elif good[0]:
            text = add_remote(reader, heap, data, at, entry[i].flags, good, fault)
        if fault.code < 0:
            return NULL
        if not good[0]:
            break
        if text != NULL:
            said = text
    if good[0]:
        return said
    heap.keep_first(kept)
    return b"a leaf of extended attributes with entries that do not fit"


cdef const char* read_leaves(attr_reader_t* reader, HeapWriter heap, fault_t* fault) noexcept nogil:
    cdef const xfs_geometry_t* geometry = reader.fork.geometry
    cdef uint16_t magic = XFS_ATTR3_LEAF_MAGIC if geometry.crc else XFS_ATTR_LEAF_MAGIC
    cdef uint32_t leaf = 0
    cdef const char* text = first_leaf(&reader.fork, &leaf)
    cdef const char* said = NULL
    cdef const uint8_t* data
    cdef uint64_t block, left = reader.fork.block_count
    cdef bint good = text == NULL
    while good:
        data = fork_block(&reader.fork, leaf, &block)
        if data == NULL:
            return b"a block of its extended attributes is not mapped"
        if xfs_be16((<const xfs_da3_blkinfo_t*>data).magic) != magic:
            return b"a leaf of extended attributes without its magic number"
        if left == 0:
            return b"leaves of extended attributes that lead round in a circle"
        left -= 1
        text = verify_block(&reader.fork, data, block)
        if text != NULL:
            return text
        text = add_leaf(reader, heap, data, &good, fault)
        if fault.code < 0:
            return NULL
        if text != NULL:
            said = text
        leaf = xfs_be32((<const xfs_da3_blkinfo_t*>data).forw)
        if leaf == 0:
            break
    return text if said == NULL else said


cdef const char* attr_fork(HeapWriter heap, const xfs_geometry_t* geometry, uint64_t owner, const extent_t* extents,
                           uint32_t count, const uint8_t* bytes, fault_t* fault) noexcept nogil:
    cdef attr_reader_t reader
    cdef const char* text = NULL
    fault.code = 0
    if count == 0:
        return NULL
    memset(&reader, 0, sizeof(reader))
    if open_fork(&reader.fork, geometry, owner, extents, count, bytes, fault) < 0:
        return NULL
    reader.room = reader.fork.block_count * geometry.block_size
    text = read_leaves(&reader, heap, fault)
    close_fork(&reader.fork)
    free(reader.value)
    return text


def write_attributes(ExtentMap target not None, uint64_t file_index, bytes sector not None, uint64_t owner,
                     bytes fork not None, list extents=None):
    """Give a file of an unsealed map the record of its attribute fork; for tests.

    fork is what stands in the inode, or with extents, (logical, physical, count) in blocks, their blocks one behind the
    other; sector the first 32768 bytes of the file system. Returns the text of what is wrong, or None.

    Raises:
        Corrupt, Unsupported: the superblock is not one that is read.
        Misuse: the extents are not as long as the blocks.
    """
    cdef HeapWriter heap = HeapWriter()
    cdef xfs_geometry_t geometry
    cdef fault_t fault
    cdef extent_t* rows
    cdef const char* text
    cdef const uint8_t* data = <const uint8_t*><const char*>fork
    if file_index >= target.file_count or target.sealed:
        raise IndexError(file_index)
    geometry_of(sector, &geometry)
    heap.begin()
    if extents is None:
        text = attr_shortform(heap, data, len(fork), &fault)
    else:
        rows = extents_of(extents, len(fork) // geometry.block_size)
        text = attr_fork(heap, &geometry, owner, rows, len(extents), data, &fault)
        free(rows)
    if fault.code < 0 or heap.finish(target, &target.files[file_index], &fault) < 0:
        raise_fault(&fault)
    return None if text == NULL else text.decode()
