"""fault turns C-level fault records into exceptions. It is the one place where core raises; it decides nothing else."""

from libc.string cimport memset, strlen, strncpy

from splitreel import errors


cdef int set_fault(fault_t* fault, int code, const char* site, uint64_t object, uint64_t offset,
                   const char* detail) noexcept nogil:
    memset(fault, 0, sizeof(fault_t))
    fault.code = code
    fault.site = site
    fault.object = object
    fault.offset = offset
    if detail != NULL:
        strncpy(fault.detail, detail, sizeof(fault.detail) - 1)
    return code


cdef int set_os_fault(fault_t* fault, int code, int os_errno, const char* site, uint64_t offset) noexcept nogil:
    set_fault(fault, code, site, 0, offset, NULL)
    fault.os_errno = os_errno
    return code


cdef int raise_fault(const fault_t* fault) except -1:
    site = fault.site.decode("utf-8", "replace") if fault.site != NULL else ""
    detail = fault.detail[:strlen(fault.detail)].decode("utf-8", "replace")
    raise errors.from_fault(
        fault.code,
        site=site,
        detail=detail,
        object_id=fault.object,
        offset=fault.offset,
        os_errno=fault.os_errno,
        sense=(fault.sense_key, fault.asc, fault.ascq),
    )


def raise_code(int code, str site="", str detail=""):
    """Raise the exception that a fault of this code becomes; for tests of the table in splitreel.errors.

    Raises:
        SplitreelError: always, of the class that the table names.
    """
    cdef fault_t fault
    site_bytes = site.encode()
    detail_bytes = detail.encode()
    set_fault(&fault, code, site_bytes, 0, 0, detail_bytes)
    raise_fault(&fault)
