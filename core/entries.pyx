"""A registry's entries from their binary form in a snapshot and back: trunkline.api.journal.v1.RegistryPiece."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from trunkline.core.instances cimport instance_of, put_instance
from trunkline.core.messages cimport Span, read_fixed, read_number, read_span, read_tag, skip, text
from trunkline.core.registered cimport Entry, Lease, RegisteredInstance
from trunkline.core.writing cimport (
    Out, free_out, open_out, put_bytes, put_fixed, put_message, put_number, put_number_always, put_text,
    put_text_always, taken, written,
)

cdef enum:
    _ENTRIES = 0x22  # tag of an entry


cdef struct Fields:  # of a RegistryEntry
    Span instance
    Span lease
    Span probe_failure
    Span override
    uint64_t created_revision
    uint64_t modified_revision
    uint64_t registered_at_ns


def read_entries(bytes piece not None, health_check):
    """The entries of a piece in their order, and what else it holds, as the bytes of a piece without them.

    `health_check` makes a health check of its bytes. ValueError when the bytes are no message.
    """
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(piece)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(piece)
    cdef const uint8_t* start
    cdef Span message
    cdef uint32_t tag
    cdef list entries = []
    cdef list others = []
    while at < end:
        start = at
        read_tag(&at, end, &tag)
        if tag == _ENTRIES:
            read_span(&at, end, &message)
            entries.append(_entry(message, health_check))
        else:
            skip(&at, end, tag)
            others.append(PyBytes_FromStringAndSize(<const char*>start, at - start))
    return entries, b"".join(others)


cdef tuple _entry(Span message, object health_check):
    cdef const uint8_t* at = message.at
    cdef const uint8_t* end = at + message.size
    cdef Fields fields
    cdef uint32_t tag
    memset(&fields, 0, sizeof(Fields))
    while at < end:
        read_tag(&at, end, &tag)
        if tag == 0x0A:
            read_span(&at, end, &fields.instance)
        elif tag == 0x10:
            read_number(&at, end, &fields.created_revision)
        elif tag == 0x18:
            read_number(&at, end, &fields.modified_revision)
        elif tag == 0x20:
            read_number(&at, end, &fields.registered_at_ns)
        elif tag == 0x2A:
            read_span(&at, end, &fields.lease)
        elif tag == 0x32:
            read_span(&at, end, &fields.probe_failure)
        elif tag == 0x3A:
            read_span(&at, end, &fields.override)
        else:
            skip(&at, end, tag)
    return (
        instance_of(fields.instance, health_check),
        fields.created_revision,
        fields.modified_revision,
        <int64_t>fields.registered_at_ns,
        _lease(fields.lease),
        None if fields.probe_failure.at == NULL else text(fields.probe_failure),
        None if fields.override.at == NULL else _override(fields.override),
    )


cdef Lease _lease(Span message):
    cdef const uint8_t* at = message.at
    cdef const uint8_t* end = at + message.size
    cdef uint64_t lease_id = 0
    cdef uint64_t ttl_ms = 0
    cdef uint64_t keeper = 0
    cdef uint64_t lapsed_revision = 0
    cdef uint64_t lapsed_ns = 0
    cdef bint lapsed = False
    cdef Span secret_hash
    cdef uint32_t tag
    cdef Lease made = Lease.__new__(Lease)
    secret_hash.at = NULL
    secret_hash.size = 0
    while at < end:
        read_tag(&at, end, &tag)
        if tag == 0x09:
            read_fixed(&at, end, &lease_id)
        elif tag == 0x12:
            read_span(&at, end, &secret_hash)
        elif tag == 0x18:
            read_number(&at, end, &ttl_ms)
        elif tag == 0x21:
            read_fixed(&at, end, &keeper)
        elif tag == 0x28:
            read_number(&at, end, &lapsed_revision)
            lapsed = True
        elif tag == 0x30:
            read_number(&at, end, &lapsed_ns)
        else:
            skip(&at, end, tag)
    made.id = lease_id
    made.set_secret_hash(secret_hash.at, secret_hash.size)
    made.ttl_ms = <int64_t>ttl_ms
    made.keeper = keeper
    made._lapsed_revision = <int64_t>lapsed_revision if lapsed else -1
    made.lapsed_ns = <int64_t>lapsed_ns
    return made


cdef tuple _override(Span message):
    cdef const uint8_t* at = message.at
    cdef const uint8_t* end = at + message.size
    cdef uint64_t status = 0
    cdef Span reason
    cdef uint32_t tag
    reason.at = NULL
    reason.size = 0
    while at < end:
        read_tag(&at, end, &tag)
        if tag == 0x08:
            read_number(&at, end, &status)
        elif tag == 0x12:
            read_span(&at, end, &reason)
        else:
            skip(&at, end, tag)
    return <int32_t><uint32_t>status, text(reason)


# Writing.


def write_entries(entries, health_check_bytes):
    """A piece of nothing but these entries, a sequence.

    `health_check_bytes` makes bytes of a health check, and None of None. Equal entries are the same bytes.
    """
    cdef Out out
    cdef Py_ssize_t mark
    open_out(&out)
    try:
        for entry in reversed(entries):
            mark = written(&out)
            _put_entry(&out, entry, health_check_bytes)
            put_message(&out, _ENTRIES, mark)
        return taken(&out)
    finally:
        free_out(&out)


cdef int _put_entry(Out* out, Entry entry, object health_check_bytes) except -1:
    cdef Py_ssize_t mark
    cdef RegisteredInstance registered = entry.registered
    override = entry.override
    if override is not None:
        mark = written(out)
        status, reason = override
        put_text(out, 0x12, reason)
        put_number(out, 0x08, status)
        put_message(out, 0x3A, mark)
    if entry.probe_failure is not None:
        put_text_always(out, 0x32, entry.probe_failure)
    mark = written(out)
    _put_lease(out, entry.lease)
    put_message(out, 0x2A, mark)
    put_number(out, 0x20, <uint64_t>registered.registered_at_ns)
    put_number(out, 0x18, registered.modified_revision)
    put_number(out, 0x10, registered.created_revision)
    mark = written(out)
    put_instance(out, registered.instance, health_check_bytes(registered.instance.health_check))
    return put_message(out, 0x0A, mark)


cdef int _put_lease(Out* out, Lease lease) except -1:
    put_number(out, 0x30, <uint64_t>lease.lapsed_ns)
    if lease._lapsed_revision >= 0:
        put_number_always(out, 0x28, <uint64_t>lease._lapsed_revision)
    put_fixed(out, 0x21, lease.keeper)
    put_number(out, 0x18, <uint64_t>lease.ttl_ms)
    put_bytes(out, 0x12, lease.secret_hash)
    put_fixed(out, 0x09, lease.id)
    return 0
