"""filesystem is what all readers of file systems have in common, and how they are asked. It reads nothing itself."""

from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport FAULT_MISUSE, fault_t, raise_fault, set_fault

cdef extern from "<time.h>" nogil:
    ctypedef int clockid_t
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    const clockid_t CLOCK_MONOTONIC
    int clock_gettime(clockid_t clock, timespec* now)


cdef double now() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <double>time.tv_sec + <double>time.tv_nsec * 1e-9


cdef class Filesystem:
    """A reader of one kind of file system. A subclass opens a device, verifies its superblock and fills maps."""

    cdef int map_all(self, ExtentMap target, fault_t* fault) noexcept nogil:
        return set_fault(fault, FAULT_MISUSE, b"mapping a file system", 0, 0, b"the base class reads nothing")

    def map(self):
        """Read all metadata and return a sealed ExtentMap; what was damaged stands in its ``problems``.

        Raises:
            DeviceError: the device does not read.
            Corrupt: nothing can be read past the damage.
            LimitReached: memory, or one of the caps in extent.pxd.
        """
        cdef fault_t fault
        cdef int rc = MAP_AGAIN
        cdef ExtentMap target
        fs_type = self.fs_type or type(self).__name__.lower()
        while rc == MAP_AGAIN:
            target = ExtentMap(fs_type, self.uuid, self.block_size, self.device.size)
            with nogil:
                rc = self.map_all(target, &fault)
                if rc == 0:
                    rc = target.seal(&fault)
            if rc < 0:
                raise_fault(&fault)
        return target

    cdef int check_unchanged(self, fault_t* fault) noexcept nogil:
        return set_fault(fault, FAULT_MISUSE, b"mapping a file system", 0, 0, b"the base class reads nothing")

    def verify_unchanged(self):
        """Nothing was written to the device since it was mapped, as far as its superblock and log tell.

        Raises:
            Stale: it is the live device, not a mirror. DeviceError: it does not read.
        """
        cdef fault_t fault
        cdef int rc
        with nogil:
            rc = self.check_unchanged(&fault)
        if rc < 0:
            raise_fault(&fault)

    @property
    def statistics(self):
        """Of the last map: inodes, inodes left out for want of a name, what was read, seconds of each pass."""
        cdef double* seconds = self.counts.seconds
        return {
            "inodes": self.counts.inodes,
            "unnamed": self.counts.unnamed,
            "directory_blocks": self.counts.directory_blocks,
            "bytes_read": self.counts.bytes_read,
            "reads": self.counts.reads,
            "seconds": {"groups": seconds[0], "inodes": seconds[1], "xattrs": seconds[2], "names": seconds[3]},
        }
