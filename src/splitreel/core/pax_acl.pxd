# pax_acl: text of system.posix_acl_access and system.posix_acl_default.

from libc.stdint cimport uint8_t, uint64_t

from splitreel.core.runs cimport sink_t

# "user::rw-,user:1000:rwx,…" with numeric ids; False, and part of the text, when the value has not the known form.
cdef bint emit_acl(sink_t* sink, const uint8_t* value, uint64_t size) noexcept nogil
