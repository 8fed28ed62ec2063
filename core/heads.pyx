"""Heads of control records, and what a snapshot holds of them, from their binary form and back.

Read is what protobuf reads of what it has serialized: trunkline.api.journal.v1.RecordHead and AdmissionPiece. A head
may be two serialized messages, one behind the other, which protobuf merges.
"""

from sys import intern

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from trunkline.core.messages cimport Span, read_fixed, read_number, read_span, read_tag, skip, text
from trunkline.core.records cimport Draft, Record, Version, version_of
from trunkline.core.writing cimport (
    Out, free_out, open_out, put_fixed, put_message, put_number, put_text, taken, written,
)

from trunkline.core.records import NO_VERSION as _NO_VERSION

cdef Version _no_version = _NO_VERSION
cdef Draft _nothing = Draft("", b"")

cdef enum:
    _KEYS = 0x0A  # tag of a KeyVersion


cdef struct Named:  # a RecordVersion
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
    Named version
    Named expects
    uint64_t schema


def read_record(bytes head not None, int64_t offset, int64_t time_ns, str topic not None, bytes body not None):
    """The record at a position that has this head. ValueError when the bytes are no message."""
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(head)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(head)
    cdef Fields fields
    cdef Record made = Record.__new__(Record)
    memset(&fields, 0, sizeof(Fields))
    _read_fields(at, end, &fields)
    made.offset = offset
    made.time_ns = time_ns
    made.topic = topic
    made.body = body
    made.key = text(fields.key)
    made.id = text(fields.id)
    made.namespace = intern(text(fields.namespace))
    made.schema = <uint32_t>fields.schema
    made.version = _version(&fields.version) if fields.version.present else _no_version
    made.expects = _version(&fields.expects) if fields.expects.present else None
    made.author = intern(text(fields.author))
    made.reason = text(fields.reason)
    made.traceparent = text(fields.traceparent)
    return made


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


cdef int _read_version(const uint8_t** from_, const uint8_t* end, Named* into) except -1:
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


cdef Version _version(Named* named):
    return version_of(named.writer, named.epoch, named.sequence)


# Writing.


def write_heads(list drafts not None):
    """What the heads of drafts have in common, and each one's own rest.

    Common and rest, one behind the other, are the whole head: protobuf merges the parts of a message. Of versions that
    have writer and epoch in common the rest is the sequence.
    """
    cdef Draft first = drafts[0]
    cdef Draft draft
    cdef Draft common = _copy(first)
    cdef bint versions_alike = True
    cdef Py_ssize_t number
    for number in range(1, len(drafts)):
        draft = drafts[number]
        _keep_common(common, draft)
        if draft.version.writer != first.version.writer or draft.version.epoch != first.version.epoch:
            versions_alike = False
    common.version = version_of(first.version.writer, first.version.epoch, 0) if versions_alike else _no_version
    return _head(common, _nothing), [_head(draft, common) for draft in drafts]


cdef Draft _copy(Draft draft):
    cdef Draft made = Draft.__new__(Draft)
    made.key = draft.key
    made.id = draft.id
    made.namespace = draft.namespace
    made.schema = draft.schema
    made.author = draft.author
    made.reason = draft.reason
    made.traceparent = draft.traceparent
    return made


cdef int _keep_common(Draft common, Draft draft) except -1:
    """Leave in `common` what the draft has, too."""
    if common.key != draft.key:
        common.key = ""
    if common.id != draft.id:
        common.id = ""
    if common.namespace != draft.namespace:
        common.namespace = ""
    if common.schema != draft.schema:
        common.schema = 0
    if common.author != draft.author:
        common.author = ""
    if common.reason != draft.reason:
        common.reason = ""
    if common.traceparent != draft.traceparent:
        common.traceparent = ""
    return 0


cdef bytes _head(Draft draft, Draft common):
    """A head without what the common part says."""
    cdef Out out
    cdef Py_ssize_t mark
    open_out(&out)
    try:
        if not common.traceparent:
            put_text(&out, 0x4A, draft.traceparent)
        if not common.reason:
            put_text(&out, 0x42, draft.reason)
        if not common.author:
            put_text(&out, 0x3A, draft.author)
        if draft.expects is not None:
            mark = written(&out)
            _put_version(&out, draft.expects, _no_version)
            put_message(&out, 0x32, mark)
        mark = written(&out)
        _put_version(&out, draft.version, common.version)
        if written(&out) != mark:
            put_message(&out, 0x2A, mark)
        if not common.id:
            put_text(&out, 0x22, draft.id)
        if not common.key:
            put_text(&out, 0x1A, draft.key)
        if not common.namespace:
            put_text(&out, 0x12, draft.namespace)
        if not common.schema:
            put_number(&out, 0x08, draft.schema)
        return taken(&out)
    finally:
        free_out(&out)


cdef int _put_version(Out* out, Version version, Version common) except -1:
    if version.sequence != common.sequence:
        put_number(out, 0x18, version.sequence)
    if version.epoch != common.epoch:
        put_number(out, 0x10, version.epoch)
    if version.writer != common.writer:
        put_fixed(out, 0x09, version.writer)
    return 0


# What a snapshot holds of them.


def read_versions(bytes piece not None):
    """The keys of a piece with their versions, and what else it holds, as a piece without them.

    Keys are interned: the folds have the same. ValueError when the bytes are no message.
    """
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(piece)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(piece)
    cdef const uint8_t* start
    cdef uint32_t tag
    cdef Span message
    cdef list keys = []
    cdef list others = []
    while at < end:
        start = at
        read_tag(&at, end, &tag)
        if tag == _KEYS:
            read_span(&at, end, &message)
            keys.append(_key(message))
        else:
            skip(&at, end, tag)
            others.append(PyBytes_FromStringAndSize(<const char*>start, at - start))
    return keys, b"".join(others)


cdef tuple _key(Span message):
    cdef const uint8_t* at = message.at
    cdef const uint8_t* end = at + message.size
    cdef Named version
    cdef Span key
    cdef uint32_t tag
    memset(&version, 0, sizeof(Named))
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
    return intern(text(key)), _version(&version)


def write_versions(list keys not None, dict versions not None):
    """A piece of nothing but these keys, each with its version."""
    cdef Out out
    cdef Py_ssize_t number, mark
    cdef str key
    cdef Version version
    open_out(&out)
    try:
        for number in range(len(keys) - 1, -1, -1):
            key = keys[number]
            version = versions[key]
            mark = written(&out)
            _put_version(&out, version, _no_version)
            put_message(&out, 0x12, mark)
            put_text(&out, 0x0A, key)
            put_message(&out, _KEYS, mark)
        return taken(&out)
    finally:
        free_out(&out)
