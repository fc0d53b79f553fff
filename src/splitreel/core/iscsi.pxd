# IscsiTransport: commands over one iSCSI session (RFC 7143) by libiscsi; no retry, no reconnect.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.fault cimport fault_t
from splitreel.core.iscsi_lib cimport iscsi_context, keeper_t, scsi_iovec, scsi_task, sigpipe_guard_t
from splitreel.core.sense cimport reply_t
from splitreel.core.tape cimport Transport

cdef enum:
    MAX_DEPTH = 16

# One command on its way. Lives in the transport, so that libiscsi's pointers into it stay good.
cdef struct slot_t:
    scsi_task* task                                # NULL: the slot is free
    scsi_iovec vector                              # the caller's memory: libiscsi reads and fills it in place
    uint64_t tag
    uint64_t order                                 # of submission
    int64_t deadline                               # monotonic milliseconds
    uint32_t size
    int finished
    int status                                     # SAM status, or one of libiscsi's own above FFh
    char reason[112]                               # libiscsi's text, where the status is its own

cdef class IscsiTransport(Transport):
    cdef iscsi_context* context                    # NULL: closed, or the path is lost
    cdef readonly str target_name
    cdef readonly int lun
    cdef readonly int depth                        # commands that submit() lets be outstanding
    cdef int wire_lun                              # SAM-5 single level LUN structure, upper 16 bits
    cdef slot_t slots[MAX_DEPTH]
    cdef uint64_t submitted
    cdef int outstanding
    cdef int owner                                 # the process that opened it
    cdef slot_t session                            # connect, login, logout
    cdef keeper_t* keeper
    cdef char lost[112]                            # why the path was lost; empty while it is not
    cdef char stale_text[256]                      # libiscsi's error text before the command: what was said earlier

    cdef int establish(self, const char* portal, uint32_t timeout_ms, fault_t* fault) noexcept nogil
    cdef int raise_refusal(self, const fault_t* fault, str initiator) except -1
    cdef int connect(self, const char* portal, int64_t deadline, fault_t* fault) noexcept nogil
    cdef int login(self, int64_t deadline, fault_t* fault) noexcept nogil
    cdef int start(self, const uint8_t* cdb, uint32_t cdb_size, int direction, uint8_t* data, uint32_t size,
                   uint32_t timeout_ms, slot_t** started, fault_t* fault) noexcept nogil
    cdef int step(self, int64_t deadline) noexcept nogil
    cdef int finish(self, slot_t* slot, reply_t* reply, fault_t* fault) noexcept nogil
    cdef void enter(self, sigpipe_guard_t* guard) noexcept nogil
    cdef void leave(self, sigpipe_guard_t* guard, int rc) noexcept nogil
    cdef int drain(self, int64_t deadline) noexcept nogil
    cdef int lose(self, const slot_t* slot, int reason, const char* site, fault_t* fault) noexcept nogil
    cdef int refuse(self, fault_t* fault) noexcept nogil
    cdef void release(self, slot_t* slot) noexcept nogil
    cdef void drop_session(self) noexcept nogil
    cdef void logout(self) noexcept nogil
    cdef void destroy(self) noexcept nogil
    cdef int submit_view(self, bytes cdb, int direction, BufferView view, uint32_t timeout_ms,
                         fault_t* fault) noexcept
    cdef int reap_into(self, list replies, fault_t* fault) noexcept

cdef class BufferView:
    # Holds a Python buffer while a command is on its way.
    cdef Py_buffer view
