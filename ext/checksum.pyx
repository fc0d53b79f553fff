"""checksum computes CRC32C and the POSIX cksum CRC, joins and extends them. It reads no file.

CRC32C: Castagnoli polynomial, RFC 3720 B.4. cksum: IEEE 1003.1-2017, cksum(1). Kernels stand in crc.h.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.fault cimport FAULT_MISUSE, fault_t, raise_fault, set_fault


cdef extern from "crc.h" nogil:
    ctypedef uint32_t (*crc_kernel_t)(uint32_t crc, const uint8_t* data, size_t size) noexcept nogil
    crc_kernel_t crc32c_kernel
    crc_kernel_t cksum_kernel
    const char* CRC32C_NATIVE_NAME
    const char* CKSUM_NATIVE_NAME
    uint32_t crc32c_shift(uint32_t crc, uint64_t size)
    uint32_t cksum_shift(uint32_t crc, uint64_t size)
    int crc_choose(int native)
    int crc_setup()


cdef extern from *:
    """
    #ifdef SPLITREEL_SANITIZE
    #define CAN_IGNORE 1
    #else
    #define CAN_IGNORE 0
    #endif
    """
    const bint CAN_IGNORE

cdef int chosen = crc_setup()
cdef bint ignored = False


cdef bint crc_differs(uint32_t stated, uint32_t computed) noexcept nogil:
    return stated != computed and not (CAN_IGNORE and ignored)


cdef uint32_t crc32c_update(uint32_t crc, const void* data, size_t size) noexcept nogil:
    return ~crc32c_kernel(~crc, <const uint8_t*>data, size)


cdef uint32_t crc32c_combine(uint32_t first, uint32_t second, uint64_t second_size) noexcept nogil:
    # The inversions of first's end and second's start cancel: both stand shifted by the same power of x.
    return crc32c_shift(first, second_size) ^ second


cdef uint32_t crc32c_zeros(uint32_t crc, uint64_t size) noexcept nogil:
    return ~crc32c_shift(~crc, size)


cdef uint32_t cksum_update(uint32_t register, const void* data, size_t size) noexcept nogil:
    return cksum_kernel(register, <const uint8_t*>data, size)


cdef uint32_t cksum_combine(uint32_t first, uint32_t second, uint64_t second_size) noexcept nogil:
    return cksum_shift(first, second_size) ^ second


cdef uint32_t cksum_zeros(uint32_t register, uint64_t size) noexcept nogil:
    return cksum_shift(register, size)


cdef uint32_t cksum_finish(uint32_t register, uint64_t size) noexcept nogil:
    # The length follows the data, lowest byte first, in as few bytes as hold it: none for an empty file.
    cdef uint8_t length[8]
    cdef size_t count = 0
    while size != 0:
        length[count] = <uint8_t>(size & 0xFF)
        size >>= 8
        count += 1
    return ~cksum_update(register, length, count)


def crc32c(data, uint32_t value=0):
    """CRC32C of the bytes of ``data`` (any contiguous buffer), continued from ``value``. The GIL is released.

    Raises:
        BufferError, TypeError: ``data`` is not a contiguous buffer.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            value = crc32c_update(value, view.buf, <size_t>view.len)
    finally:
        PyBuffer_Release(&view)
    return value


def crc32c_join(uint32_t first, uint32_t second, uint64_t second_size):
    """CRC32C of two byte strings in a row, from the CRC32C of each and the size of the second in bytes."""
    return crc32c_combine(first, second, second_size)


def crc32c_extend_zeros(uint32_t value, uint64_t size):
    """CRC32C after ``size`` further zero bytes, at the cost of a few multiplications."""
    return crc32c_zeros(value, size)


def cksum(data):
    """What cksum(1) prints for the bytes of ``data`` (any contiguous buffer). The GIL is released.

    Raises:
        BufferError, TypeError: ``data`` is not a contiguous buffer.
    """
    return cksum_finish(cksum_register(data), memoryview(data).nbytes)


def cksum_register(data, uint32_t register=0):
    """The cksum register after the bytes of ``data``, without the length, continued from ``register``.

    Raises:
        BufferError, TypeError: ``data`` is not a contiguous buffer.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            register = cksum_update(register, view.buf, <size_t>view.len)
    finally:
        PyBuffer_Release(&view)
    return register


def cksum_join(uint32_t first, uint32_t second, uint64_t second_size):
    """Register of two byte strings in a row, from the register of each and the size of the second in bytes."""
    return cksum_combine(first, second, second_size)


def cksum_extend_zeros(uint32_t register, uint64_t size):
    """Register after ``size`` further zero bytes."""
    return cksum_zeros(register, size)


def cksum_value(uint32_t register, uint64_t size):
    """What cksum(1) prints for ``size`` bytes that led to ``register``."""
    return cksum_finish(register, size)


def implementation():
    """Names of the kernels in use: ``{"crc32c": …, "cksum": …}``; ``slice8`` is the portable one."""
    return {
        "crc32c": CRC32C_NATIVE_NAME.decode() if chosen & 1 else "slice8",
        "cksum": CKSUM_NATIVE_NAME.decode() if chosen & 2 else "slice8",
    }


def force(str name):
    """Choose kernels: ``auto`` (the CPU's instructions where it has them) or ``slice8``; for tests and measurements.

    Raises:
        Misuse: another name.
    """
    global chosen
    cdef fault_t fault
    if name not in ("auto", "slice8"):
        set_fault(&fault, FAULT_MISUSE, "choosing a checksum kernel", 0, 0, "the kernels are auto and slice8")
        raise_fault(&fault)
    chosen = crc_choose(name == "auto")


def ignore_differences(bint ignore):
    """Take every metadata checksum for right from now on, or no longer; for tests that injure metadata.

    Raises:
        Misuse: only a build with sanitizers can; no other build has the code.
    """
    global ignored
    cdef fault_t fault
    if not CAN_IGNORE:
        set_fault(&fault, FAULT_MISUSE, b"ignoring checksums", 0, 0, b"this build cannot")
        raise_fault(&fault)
    ignored = ignore
