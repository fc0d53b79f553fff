# SgTransport: commands through the kernel's SCSI generic driver, SG_IO version 3.

from libc.stdint cimport uint8_t, uint32_t

from splitreel.core.fault cimport fault_t
from splitreel.core.sense cimport reply_t
from splitreel.core.tape cimport Transport

cdef extern from "sg_shim.h" nogil:
    ctypedef struct sg_io_hdr_t:
        int interface_id
        int dxfer_direction
        unsigned char cmd_len
        unsigned char mx_sb_len
        unsigned int dxfer_len
        void* dxferp
        unsigned char* cmdp
        unsigned char* sbp
        unsigned int timeout
        unsigned int flags
        unsigned char status
        unsigned char sb_len_wr
        unsigned short host_status
        unsigned short driver_status
        int resid
        unsigned int duration

# Everything but the result; reply's sense buffer receives the sense data.
cdef void fill_header(sg_io_hdr_t* header, const uint8_t* cdb, uint32_t cdb_size, int direction, uint8_t* data,
                      uint32_t size, uint32_t timeout_ms, reply_t* reply) noexcept nogil
# DONE when the target answered; FAULT_TRANSPORT when the host or the driver says that it did not.
cdef int decode_header(const sg_io_hdr_t* header, reply_t* reply, fault_t* fault) noexcept nogil

cdef class SgTransport(Transport):
    cdef int fd
    cdef readonly uint32_t duration_ms             # of the last command, by the kernel's clock
    cdef readonly object limit_reason              # why max_transfer is what it is
