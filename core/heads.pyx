"""Heads of control records, and what a snapshot holds of them, from their binary form and back.

Read is what protobuf reads of what it has serialized: trunkline.api.journal.v1.RecordHead and AdmissionPiece. A head
may be two serialized messages, one behind the other, which protobuf merges.
"""

from sys import intern

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from trunkline.core.messages cimport Span, read_fixed, read_number, read_span, read_tag, skip, text
from trunkline.core.writing cimport (
    Out, free_out, open_out, put_fixed, put_message, put_number, put_text, taken, written,
)

cdef enum:
    _KEYS = 0x0A  # tag of a KeyVersion


cdef struct Version:
    uint64_t writer
    uint64_t epoch
    uint64_t sequence
    bint present


cdef struct Fields:  # of a RecordHead
    Span namespace
    Span key
    Span id
    Span author
    Span reason
    Span traceparent
    Version version
    Version expects
    uint64_t schema


def read_head(bytes head not None):
    """Key, id, namespace, schema, version, expected version, author, reason, traceparent; versions may be None.

    ValueError when the bytes are no message.
    """
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(head)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(head)
    cdef Fields fields
    memset(&fields, 0, sizeof(Fields))
    _read_fields(at, end, &fields)
    return (
        text(fields.key),
        text(fields.id),
        intern(text(fields.namespace)),
        <uint32_t>fields.schema,
        _version(&fields.version),
        _version(&fields.expects),
        intern(text(fields.author)),
        text(fields.reason),
        text(fields.traceparent),
    )


cdef int _read_fields(const uint8_t* at, const uint8_t* end, Fields* fields) except -1:
    cdef uint32_t tag
    while at < end:
        read_tag(&at, end, &tag)
        if tag == 0x08:
            read_number(&at, end, &fields.schema)
        elif tag == 0x12:
            read_span(&at, end, &fields.namespace)
        elif tag == 0x1A:
            read_span(&at, end, &fields.key)
        elif tag == 0x22:
            read_span(&at, end, &fields.id)
        elif tag == 0x2A:
            _read_version(&at, end, &fields.version)
        elif tag == 0x32:
            _read_version(&at, end, &fields.expects)
        elif tag == 0x3A:
            read_span(&at, end, &fields.author)
        elif tag == 0x42:
            read_span(&at, end, &fields.reason)
        elif tag == 0x4A:
            read_span(&at, end, &fields.traceparent)
        else:
            skip(&at, end, tag)
    return 0


cdef int _read_version(const uint8_t** from_, const uint8_t* end, Version* into) except -1:
    """Merge a RecordVersion into what another part has said."""
    cdef Span message
    cdef const uint8_t* at
    cdef uint32_t tag
    read_span(from_, end, &message)
    at = message.at
    end = at + message.size
    into.present = True
    while at < end:
        read_tag(&at, end, &tag)
        if tag == 0x09:
            read_fixed(&at, end, &into.writer)
        elif tag == 0x10:
            read_number(&at, end, &into.epoch)
        elif tag == 0x18:
            read_number(&at, end, &into.sequence)
        else:
            skip(&at, end, tag)
    return 0


cdef _version(Version* version):
    return (version.writer, version.epoch, version.sequence) if version.present else None


def write_head(
    str key not None,
    str id not None,
    str namespace not None,
    uint32_t schema,
    version,
    expects,
    str author not None,
    str reason not None,
    str traceparent not None,
):
    """A head as `read_head` gives it; fields that are empty, or None, are left to another part."""
    cdef Out out
    open_out(&out)
    try:
        put_text(&out, 0x4A, traceparent)
        put_text(&out, 0x42, reason)
        put_text(&out, 0x3A, author)
        if expects is not None:
            _put_version(&out, 0x32, expects)
        if version is not None:
            _put_version(&out, 0x2A, version)
        put_text(&out, 0x22, id)
        put_text(&out, 0x1A, key)
        put_text(&out, 0x12, namespace)
        put_number(&out, 0x08, schema)
        return taken(&out)
    finally:
        free_out(&out)


cdef int _put_version(Out* out, uint8_t tag, object version) except -1:
    cdef Py_ssize_t mark = written(out)
    writer, epoch, sequence = version
    put_number(out, 0x18, sequence)
    put_number(out, 0x10, epoch)
    put_fixed(out, 0x09, writer)
    return put_message(out, tag, mark)


def read_versions(bytes piece not None):
    """The keys of a piece, each with writer, epoch and sequence; and what else it holds, as a piece without them.

    Keys are interned: the folds have the same. ValueError when the bytes are no message.
    """
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(piece)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(piece)
    cdef const uint8_t* start
    cdef uint32_t tag
    cdef Span message
    cdef list keys = []
    cdef list others = []
    writer = 0  # most have the same: it is kept once
    while at < end:
        start = at
        read_tag(&at, end, &tag)
        if tag == _KEYS:
            read_span(&at, end, &message)
            keys.append(_key(message, writer))
            writer = keys[-1][1]
        else:
            skip(&at, end, tag)
            others.append(PyBytes_FromStringAndSize(<const char*>start, at - start))
    return keys, b"".join(others)


cdef tuple _key(Span message, object writer_before):
    cdef const uint8_t* at = message.at
    cdef const uint8_t* end = at + message.size
    cdef Version version
    cdef Span key
    cdef uint32_t tag
    memset(&version, 0, sizeof(Version))
    key.at = NULL
    key.size = 0
    while at < end:
        read_tag(&at, end, &tag)
        if tag == 0x0A:
            read_span(&at, end, &key)
        elif tag == 0x12:
            _read_version(&at, end, &version)
        else:
            skip(&at, end, tag)
    writer = writer_before if version.writer == writer_before else version.writer
    return intern(text(key)), writer, version.epoch, version.sequence
