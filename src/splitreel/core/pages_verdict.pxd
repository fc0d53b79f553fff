# What a check says of one database page. Shared by the formats; holds no code.

cdef enum:                                         # page_verdict_t
    PAGE_GOOD = 0                                  # its checksum, or where it has none its header, is right
    PAGE_NEW = 1                                   # all zeros: allocated, never written
    PAGE_UNCHECKED = 2                             # nothing in it can be verified: encrypted, compressed, no checksum
    # Damage.
    PAGE_CHECKSUM = 3
    PAGE_HEADER = 4                                # a field is out of range
    PAGE_TORN = 5                                  # wrong checksum, and another LSN at its end than at its beginning
    PAGE_NUMBER = 6                                # right in itself, but another page's
    PAGE_SPACE = 7                                 # of another tablespace
    PAGE_SHORT = 8                                 # the file ends inside it
    PAGE_VERDICTS = 9
