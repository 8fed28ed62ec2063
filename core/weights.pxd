"""Reads lists of weights and addresses, for everything that picks by them."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.number cimport PyNumber_Index
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    PICKABLE_COUNT_MAX = 1_000_000
    WEIGHT_MAX = 0x7FFFFFFF


cdef inline uint32_t checked_count(Py_ssize_t count) except 0:
    """How many there are to pick from; ValueError when there are none or too many."""
    if count < 1:
        raise ValueError("there is nothing to pick from")
    if count > PICKABLE_COUNT_MAX:
        raise ValueError(f"more than {PICKABLE_COUNT_MAX} to pick from: {count}")
    return <uint32_t>count


cdef inline int64_t checked_weight(object weight) except -1:
    cdef int64_t value = -1
    try:
        value = PyNumber_Index(weight)
    except OverflowError:
        pass
    if value < 0 or value > WEIGHT_MAX:
        raise ValueError(f"a weight is in [0, {WEIGHT_MAX}]: {weight}")
    return value


cdef inline uint32_t* read_weights(object weights, uint64_t* total) except NULL:
    """Copy the weights to memory that the caller gives back with PyMem_Free, and add them up.

    ValueError when there are none or too many, when one is out of range, or when all are zero; TypeError when one is no
    integer.
    """
    # A list or tuple of its own, because a sequence may change while its items are converted.
    cdef tuple items = tuple(weights)
    cdef uint32_t count = checked_count(len(items))
    cdef uint32_t* copied = <uint32_t*>PyMem_Malloc(count * sizeof(uint32_t))
    cdef uint32_t at
    if copied is NULL:
        raise MemoryError
    total[0] = 0
    try:
        for at in range(count):
            copied[at] = <uint32_t>checked_weight(items[at])
            total[0] += copied[at]
        if total[0] == 0:
            raise ValueError("all weights are zero")
    except BaseException:
        PyMem_Free(copied)
        raise
    return copied


cdef inline list addresses_of(object hosts, Py_ssize_t count):
    """The bytes of `count` addresses; ValueError when there are more or fewer, or when one is empty."""
    cdef list addresses = [host.encode() for host in hosts]
    if len(addresses) != count:
        raise ValueError(f"{len(addresses)} hosts have {count} weights")
    if b"" in addresses:
        raise ValueError("a host has an empty address")
    return addresses
