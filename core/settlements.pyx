"""What consumers say most (these are done, send so many more), read from bytes without a message for each part."""

import cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from trunkline.core.protowire cimport read_size, read_varint, read_varint_32

cdef enum:
    _ACKNOWLEDGEMENT = 0x12   # fields of SubscribeRequest
    _CREDIT = 0x1A
    _SUBSCRIPTION_ID = 0x08   # of both
    _OUTCOME = 0x10           # of Acknowledgement
    _OFFSETS = 0x1A           # packed
    _AMOUNT = 0x10            # of AddCredit
    _DONE = 1                 # OUTCOME_ACK
    _ACKNOWLEDGEMENTS_MAX = 10_000
    _OFFSETS_MAX = 10_000
    _CREDITS_MAX = 1_000
    _AMOUNT_MAX = 1_000_000


@cython.final
cdef class Settlement:
    """`done` has subscription ids, each with the offsets that are done; `credits`, each with how many more to send."""

    cdef readonly list done
    cdef readonly list credits

    def __cinit__(self):
        self.done = []
        self.credits = []


cdef inline int _read_id(const uint8_t** at, const uint8_t* end, uint32_t* subscription_id) noexcept nogil:
    """The first field of both, if it is there; 0 if not. -1 when it is malformed."""
    subscription_id[0] = 0
    if at[0] == end or at[0][0] != _SUBSCRIPTION_ID:
        return 0
    at[0] += 1
    return read_varint_32(at, end, subscription_id)


cdef list _read_offsets(const uint8_t* at, const uint8_t* end):
    """None for none, too many, or what is malformed."""
    cdef list offsets = []
    cdef uint64_t offset = 0
    while at < end:
        if read_varint(&at, end, &offset) < 0 or len(offsets) == _OFFSETS_MAX:
            return None
        offsets.append(offset)
    return offsets or None


cdef bint _read_done(const uint8_t* at, const uint8_t* end, Settlement settlement):
    cdef uint32_t subscription_id = 0
    cdef Py_ssize_t size = 0
    cdef list offsets
    if _read_id(&at, end, &subscription_id) < 0 or end - at < 3:
        return False
    if at[0] != _OUTCOME or at[1] != _DONE or at[2] != _OFFSETS:
        return False
    at += 3
    if read_size(&at, end, &size) < 0 or at + size != end:
        return False
    offsets = _read_offsets(at, end)
    if offsets is None or len(settlement.done) == _ACKNOWLEDGEMENTS_MAX:
        return False
    settlement.done.append((subscription_id, offsets))
    return True


cdef bint _read_credit(const uint8_t* at, const uint8_t* end, Settlement settlement):
    cdef uint32_t subscription_id = 0
    cdef uint32_t amount = 0
    if _read_id(&at, end, &subscription_id) < 0 or subscription_id == 0:
        return False
    if at < end:
        if at[0] != _AMOUNT:
            return False
        at += 1
        if read_varint_32(&at, end, &amount) < 0 or amount > _AMOUNT_MAX:
            return False
    if at != end or len(settlement.credits) == _CREDITS_MAX:
        return False
    settlement.credits.append((subscription_id, amount))
    return True


def read_settlement(bytes data not None):
    """A serialized SubscribeRequest that says only what is done and gives credit, as protobuf writes it.

    None for every other: what is unusual, or too much, is left to protobuf and the rules, which say what is wrong.
    """
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(data)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(data)
    cdef Settlement settlement = Settlement.__new__(Settlement)
    cdef Py_ssize_t size = 0
    cdef uint8_t tag
    while at < end:
        tag = at[0]
        at += 1
        if tag not in (_ACKNOWLEDGEMENT, _CREDIT) or read_size(&at, end, &size) < 0:
            return None
        if tag == _ACKNOWLEDGEMENT:
            if not _read_done(at, at + size, settlement):
                return None
        elif not _read_credit(at, at + size, settlement):
            return None
        at += size
    return settlement
