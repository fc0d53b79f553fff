# Medium: one tape as a SIMH .tap file, moved over object by object. A side file NAME.idx holds what the format cannot.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum medium_t:                                # what an operation met
    MEDIUM_BLOCK = 0                               # or simply: done
    MEDIUM_FILEMARK = 1
    MEDIUM_END = 2                                 # end of data
    MEDIUM_BEGIN = 3
    MEDIUM_FULL = 4                                # would pass the capacity, or the file system is full
    MEDIUM_DAMAGED = 5                             # framing or a record marked bad
    MEDIUM_FAILED = 6                              # os_errno says what the kernel said

cdef enum:
    MEDIUM_ATTRIBUTES = 16                         # host attributes kept, and the bytes of each
    MEDIUM_ATTRIBUTE_SIZE = 256

cdef struct point_t:
    uint64_t offset                                # bytes in the file
    uint64_t object_id
    uint64_t file_id

cdef struct attribute_t:
    uint16_t id                                    # 0: this slot is free
    uint16_t size
    uint32_t format                                # 0 binary, 1 ASCII, 2 text
    uint8_t value[MEDIUM_ATTRIBUTE_SIZE]

# What the side file keeps besides index points. Sizes in bytes; capacity 0 = no end.
cdef struct cartridge_t:
    uint64_t capacity
    uint64_t early_warning                         # distance of the early warning point from the end
    uint64_t programmable_early_warning            # distance of that point from the early warning point
    uint64_t loads
    uint64_t change_reference
    uint64_t bytes_written
    uint64_t bytes_read
    uint32_t write_protected
    uint32_t density
    attribute_t attributes[MEDIUM_ATTRIBUTES]

cdef class Medium:
    # One thread at a time. `here` is the position, `end` the end of data, `synced` the last point known to be on disk.
    cdef int fd
    cdef readonly object path
    cdef object index_path, temporary_path         # bytes; the C strings below point into them
    cdef const char* index_name
    cdef const char* temporary_name
    cdef readonly bint writable
    cdef readonly bint damaged             # framing breaks at `end`: reading there is a medium error, not end of data
    cdef readonly uint64_t repaired_bytes          # torn tail left out when the file was opened
    cdef bint dirty                                # changed since the side file was last written
    cdef int os_errno
    cdef point_t here, end, synced
    cdef point_t* points                           # sparse index, first one at the beginning
    cdef size_t point_count, point_capacity
    cdef cartridge_t cartridge

    cdef int peek(self, uint32_t* length) noexcept nogil           # what comes next; does not move
    cdef int forward(self) noexcept nogil                          # over one object; says which
    cdef int backward(self) noexcept nogil
    # Reads the block that comes next: up to capacity bytes of it, its true length in *length. Position is behind it.
    cdef int read_block(self, uint8_t* destination, uint32_t capacity, uint32_t* length) noexcept nogil
    cdef int write_block(self, const uint8_t* data, uint32_t size) noexcept nogil      # truncates what follows first
    cdef int write_filemarks(self, uint32_t count) noexcept nogil
    cdef int synchronize(self) noexcept nogil
    cdef int truncate(self) noexcept nogil                         # end of data is here
    cdef int locate_object(self, uint64_t object_id) noexcept nogil
    cdef int locate_file(self, uint64_t file_id) noexcept nogil
    cdef int save_index(self) noexcept nogil
    cdef attribute_t* attribute(self, uint16_t id, bint create) noexcept nogil         # NULL: absent, or no slot free
    cdef int begin_change(self) noexcept nogil
    cdef int scan(self, uint64_t file_size) noexcept nogil
    cdef int scan_record(self, uint32_t header, uint64_t file_size) noexcept nogil
    cdef int note_point(self) noexcept nogil
    cdef point_t* point_before(self, uint64_t target, bint files) noexcept nogil
    cdef int append(self, const uint8_t* data, uint32_t size, bint framed) noexcept nogil
    cdef int load_index(self, uint64_t file_size) noexcept nogil
