"""The blocks of memory that libnghttp2 holds, counted: what Python's collector cannot see of a session.

The library is called with the GIL held, so that one counter does for all threads.
"""

from libc.stdlib cimport calloc, free, malloc, realloc

from trunkline.core.nghttp2 cimport nghttp2_mem

cdef Py_ssize_t _blocks = 0


def blocks():
    """How many there are: none when there is no session."""
    return _blocks


cdef void* _allocate(size_t size, void* user) noexcept:
    global _blocks
    cdef void* block = malloc(size)
    _blocks += block != NULL
    return block


cdef void* _allocate_zeros(size_t count, size_t size, void* user) noexcept:
    global _blocks
    cdef void* block = calloc(count, size)
    _blocks += block != NULL
    return block


cdef void* _reallocate(void* block, size_t size, void* user) noexcept:
    global _blocks
    cdef void* other = realloc(block, size)
    _blocks += block == NULL and other != NULL
    return other


cdef void _free(void* block, void* user) noexcept:
    global _blocks
    _blocks -= block != NULL
    free(block)


cdef nghttp2_mem counted
counted.mem_user_data = NULL
counted.malloc = _allocate
counted.calloc = _allocate_zeros
counted.realloc = _reallocate
counted.free = _free
