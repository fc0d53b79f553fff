# reply_t, sense_t: what a target answers. decode_reply: from a reply to a status.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from splitreel.core.fault cimport fault_t

cdef struct reply_t:
    uint8_t status                                 # SAM-5: 0 GOOD, 2 CHECK CONDITION, 8 BUSY, 18h RESERVATION CONFLICT
    uint32_t transferred                           # data bytes moved, as far as the transport knows
    uint32_t sense_size
    uint8_t sense[252]

cdef struct sense_t:
    bint valid                                     # sense data were there and had a known format
    bint deferred                                  # response code 71h or 73h
    uint8_t key
    uint8_t asc
    uint8_t ascq
    bint filemark
    bint eom
    bint ili
    bint information_valid
    int64_t information                            # signed: ILI residue may be negative

cdef void decode_sense(const uint8_t* sense, uint32_t size, sense_t* out) noexcept nogil
# DONE, a condition, or a fault with sense filled in. Never treats a filemark, end of data or early warning as a fault.
cdef int decode_reply(const reply_t* reply, sense_t* sense, const char* site, fault_t* fault) noexcept nogil
# Fill fault from sense data: their numbers, and in words what is known of them. Returns code.
cdef int sense_fault(int code, const sense_t* sense, const char* site, fault_t* fault) noexcept nogil
