"""The journal's records as values: thousands are made a second, and many are kept.

Python's collector does not look at them (`no_gc`): they refer to texts, bytes and each other's versions, never back.
"""

import cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

_DRAFT_NAMES = (
    "topic", "body", "key", "id", "namespace", "schema", "version", "expects", "author", "reason", "traceparent"
)


cdef str shown(object value, tuple names, tuple fields):
    """As a named tuple or a dataclass shows itself."""
    pairs = ", ".join([f"{name}={field!r}" for name, field in zip(names, fields)])
    return f"{type(value).__name__}({pairs})"


@cython.final
@cython.freelist(256)
@cython.auto_pickle(False)
cdef class Version:
    """Names one control record: who wrote it, in which start of the writer, as which of its records."""

    def __init__(self, uint64_t writer, uint64_t epoch, uint64_t sequence):
        self.writer = writer
        self.epoch = epoch
        self.sequence = sequence

    def __eq__(self, other):
        cdef Version theirs
        if not isinstance(other, Version):
            return NotImplemented
        theirs = <Version>other
        return self.sequence == theirs.sequence and self.writer == theirs.writer and self.epoch == theirs.epoch

    def __hash__(self):
        return hash((self.writer, self.epoch, self.sequence))

    def __repr__(self):
        return shown(self, ("writer", "epoch", "sequence"), (self.writer, self.epoch, self.sequence))


cdef Version version_of(uint64_t writer, uint64_t epoch, uint64_t sequence):
    cdef Version made = Version.__new__(Version)
    made.writer = writer
    made.epoch = epoch
    made.sequence = sequence
    return made


NO_VERSION = Version(0, 0, 0)
cdef Version _no_version = NO_VERSION


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class Change:
    """A fact that is to become a record: what a decision returns."""

    cdef readonly str topic
    cdef readonly str key
    cdef readonly bytes body
    cdef readonly str namespace
    cdef readonly uint32_t schema

    def __init__(self, str topic not None, str key not None, bytes body not None, str namespace not None="",
                 uint32_t schema=1):
        self.topic = topic
        self.key = key
        self.body = body
        self.namespace = namespace
        self.schema = schema

    cdef tuple _fields(self):
        return self.topic, self.key, self.body, self.namespace, self.schema

    def __eq__(self, other):
        return self._fields() == (<Change>other)._fields() if isinstance(other, Change) else NotImplemented

    def __hash__(self):
        return hash(self._fields())

    def __repr__(self):
        return shown(self, ("topic", "key", "body", "namespace", "schema"), self._fields())

    def draft(self, str id not None, Version version not None, Version expects, str author not None,
              str reason not None, str traceparent not None):
        """The control record that this becomes: on whose behalf, and against which record of its key."""
        cdef Draft made = Draft.__new__(Draft)
        made.topic = self.topic
        made.body = self.body
        made.key = self.key
        made.id = id
        made.namespace = self.namespace
        made.schema = self.schema
        made.version = version
        made.expects = expects
        made.author = author
        made.reason = reason
        made.traceparent = traceparent
        return made


@cython.no_gc
@cython.auto_pickle(False)
cdef class Draft:
    """A control record or a checkpoint before it has a position."""

    _names = _DRAFT_NAMES

    def __init__(self, str topic not None, bytes body not None, str key not None="", str id not None="",
                 str namespace not None="", uint32_t schema=0, Version version not None=_no_version,
                 Version expects=None, str author not None="", str reason not None="", str traceparent not None=""):
        self.topic = topic
        self.body = body
        self.key = key
        self.id = id
        self.namespace = namespace
        self.schema = schema
        self.version = version
        self.expects = expects
        self.author = author
        self.reason = reason
        self.traceparent = traceparent

    def _fields(self):
        return (self.topic, self.body, self.key, self.id, self.namespace, self.schema, self.version, self.expects,
                self.author, self.reason, self.traceparent)

    def __eq__(self, other):
        return self._fields() == other._fields() if type(self) is type(other) else NotImplemented

    def __hash__(self):
        return hash(self._fields())

    def __repr__(self):
        return shown(self, self._names, self._fields())

    def record(self, int64_t offset, int64_t time_ns):
        """The record that this becomes at a position."""
        cdef Record made = Record.__new__(Record)
        made.offset = offset
        made.time_ns = time_ns
        made.topic = self.topic
        made.body = self.body
        made.key = self.key
        made.id = self.id
        made.namespace = self.namespace
        made.schema = self.schema
        made.version = self.version
        made.expects = self.expects
        made.author = self.author
        made.reason = self.reason
        made.traceparent = self.traceparent
        return made


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class Record(Draft):
    """A record with its head: what the folds read.

    `offset` is its position in its stream; `time_ns` counts from the epoch.
    """

    _names = ("offset", "time_ns", *_DRAFT_NAMES)

    def __init__(self, int64_t offset, int64_t time_ns, str topic not None, bytes body not None, str key not None="",
                 str id not None="", str namespace not None="", uint32_t schema=0,
                 Version version not None=_no_version, Version expects=None, str author not None="",
                 str reason not None="", str traceparent not None=""):
        self.offset = offset
        self.time_ns = time_ns
        Draft.__init__(self, topic, body, key, id, namespace, schema, version, expects, author, reason, traceparent)

    def _fields(self):
        return self.offset, self.time_ns, *Draft._fields(self)
