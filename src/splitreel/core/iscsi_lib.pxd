# What of libiscsi, and of ext/iscsi_shim.h beside it, the transport uses. Declarations alone.

from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef extern from "iscsi_shim.h" nogil:
    ctypedef struct iscsi_context "struct iscsi_context":
        pass
    ctypedef struct scsi_task "struct scsi_task":
        pass
    ctypedef struct scsi_iovec "struct scsi_iovec":
        void* iov_base
        size_t iov_len
    ctypedef struct sigpipe_guard_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct keeper_t:
        pthread_mutex_t lock
        iscsi_context* context
        int failed
    struct pollfd:
        int fd
        short events
        short revents
    enum:
        POLLOUT
        FD_CLOEXEC
        F_SETFD
        ISCSI_SESSION_NORMAL
        ISCSI_IMMEDIATE_DATA_YES
        ISCSI_HEADER_DIGEST_NONE
        ISCSI_HEADER_DIGEST_CRC32C
        SCSI_STATUS_GOOD
        SCSI_STATUS_REDIRECT
        SCSI_STATUS_ERROR
        SCSI_XFER_NONE
        SCSI_XFER_READ
        SCSI_XFER_WRITE
    ctypedef void (*iscsi_command_cb)(iscsi_context*, int, void*, void*) noexcept nogil
    int poll(pollfd* ready, unsigned long count, int timeout)
    int fcntl(int fd, int operation, ...)
    int getpid()
    int pthread_mutex_lock(pthread_mutex_t* lock)
    int pthread_mutex_unlock(pthread_mutex_t* lock)
    int64_t monotonic_ms()
    int says_why(const char* text)
    void copy_line(char* destination, size_t capacity, const char* text)
    void sigpipe_block(sigpipe_guard_t* guard)
    void sigpipe_restore(sigpipe_guard_t* guard, int failed)
    keeper_t* keeper_create(iscsi_context* context)
    void keeper_destroy(keeper_t* keeper)
    int sr_task_status(const scsi_task* task)
    uint32_t sr_residual(const scsi_task* task, uint32_t size)
    uint32_t sr_sense(const scsi_task* task, uint8_t* sense, uint32_t capacity)

    iscsi_context* iscsi_create_context(const char* initiator_name)
    int iscsi_destroy_context(iscsi_context* context)
    void iscsi_set_noautoreconnect(iscsi_context* context, int state)
    int iscsi_set_session_type(iscsi_context* context, int kind)
    int iscsi_set_header_digest(iscsi_context* context, int digest)
    int iscsi_set_immediate_data(iscsi_context* context, int use)
    int iscsi_set_targetname(iscsi_context* context, const char* name)
    int iscsi_set_initiator_username_pwd(iscsi_context* context, const char* user, const char* secret)
    int iscsi_connect_async(iscsi_context* context, const char* portal, iscsi_command_cb done, void* private_data)
    int iscsi_login_async(iscsi_context* context, iscsi_command_cb done, void* private_data)
    int iscsi_logout_async(iscsi_context* context, iscsi_command_cb done, void* private_data)
    int iscsi_disconnect(iscsi_context* context)
    int iscsi_is_logged_in(iscsi_context* context)
    const char* iscsi_get_error(iscsi_context* context)
    const char* iscsi_get_target_address(iscsi_context* context)
    int iscsi_get_fd(iscsi_context* context)
    int iscsi_which_events(iscsi_context* context)
    int iscsi_service(iscsi_context* context, int revents)
    int iscsi_out_queue_length(iscsi_context* context)
    int iscsi_scsi_command_async(iscsi_context* context, int lun, scsi_task* task, iscsi_command_cb done,
                                 void* data, void* private_data)
    scsi_task* scsi_create_task(int cdb_size, unsigned char* cdb, int direction, int size)
    void scsi_free_scsi_task(scsi_task* task)
    void scsi_task_set_iov_out(scsi_task* task, scsi_iovec* vector, int count)
    void scsi_task_set_iov_in(scsi_task* task, scsi_iovec* vector, int count)
