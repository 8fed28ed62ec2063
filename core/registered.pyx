"""What a registry holds of an instance, as values: a hundred thousand are kept, and thousands made a second.

Python's collector does not look at them (`no_gc`): they refer to declarations, texts and numbers, never back.
"""

import cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from trunkline.core.records cimport shown

cdef enum:
    _HASH_BYTES = 32

cdef tuple _REGISTERED_NAMES = (
    "instance", "status", "status_reason", "created_revision", "modified_revision", "registered_at_ns"
)
cdef tuple _LEASE_NAMES = ("id", "secret_hash", "ttl_ms", "keeper", "lapsed_revision", "lapsed_ns")
cdef tuple _ENTRY_NAMES = ("registered", "lease", "probe_failure", "override")


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class RegisteredInstance:
    """An instance with what the registry derived of it."""

    def __init__(self, instance, status, str status_reason not None, uint64_t created_revision,
                 uint64_t modified_revision, int64_t registered_at_ns):
        self.instance = instance
        self.status = status
        self.status_reason = status_reason
        self.created_revision = created_revision
        self.modified_revision = modified_revision
        self.registered_at_ns = registered_at_ns

    cdef tuple _fields(self):
        return (self.instance, self.status, self.status_reason, self.created_revision, self.modified_revision,
                self.registered_at_ns)

    def __eq__(self, other):
        if not isinstance(other, RegisteredInstance):
            return NotImplemented
        return self is other or self._fields() == (<RegisteredInstance>other)._fields()

    def __hash__(self):
        return hash(self._fields())

    def __repr__(self):
        return shown(self, _REGISTERED_NAMES, self._fields())

    def replace(self, *, instance=None, status=None, status_reason=None, modified_revision=None):
        """The same with other values in these fields; None leaves one as it is."""
        return RegisteredInstance(
            self.instance if instance is None else instance,
            self.status if status is None else status,
            self.status_reason if status_reason is None else status_reason,
            self.created_revision,
            self.modified_revision if modified_revision is None else modified_revision,
            self.registered_at_ns,
        )


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class Lease:
    """What keeps an instance registered."""

    def __init__(self, uint64_t id, bytes secret_hash not None, int64_t ttl_ms, uint64_t keeper, lapsed_revision=None,
                 int64_t lapsed_ns=0):
        self.id = id
        self.set_secret_hash(<const uint8_t*>PyBytes_AS_STRING(secret_hash), PyBytes_GET_SIZE(secret_hash))
        self.ttl_ms = ttl_ms
        self.keeper = keeper
        self._lapsed_revision = -1 if lapsed_revision is None else lapsed_revision
        self.lapsed_ns = lapsed_ns

    cdef int set_secret_hash(self, const uint8_t* hash, Py_ssize_t size) except -1:
        """ValueError unless it has 32 bytes: they lie in here, because an object for them would take 48 more."""
        if size != _HASH_BYTES:
            raise ValueError(f"a secret's hash has {_HASH_BYTES} bytes, not {size}")
        memcpy(self._secret_hash, hash, _HASH_BYTES)
        return 0

    @property
    def secret_hash(self):
        """SHA-256 of the holder's secret."""
        return PyBytes_FromStringAndSize(<const char*>self._secret_hash, _HASH_BYTES)

    @property
    def lapsed_revision(self):
        """The revision at which it lapsed; None while it has not."""
        return None if self._lapsed_revision < 0 else self._lapsed_revision

    @property
    def lapsed(self):
        """The lease ran out and the instance is kept."""
        return self._lapsed_revision >= 0

    cdef tuple _fields(self):
        return self.id, self.secret_hash, self.ttl_ms, self.keeper, self.lapsed_revision, self.lapsed_ns

    def __eq__(self, other):
        return self._fields() == (<Lease>other)._fields() if isinstance(other, Lease) else NotImplemented

    def __hash__(self):
        return hash(self._fields())

    def __repr__(self):
        return shown(self, _LEASE_NAMES, self._fields())

    def at(self, *, keeper=None, lapsed_revision=None, int64_t lapsed_ns=0):
        """The same, lapsed or (without a revision) alive, and with another keeper if one is given."""
        keeper = self.keeper if keeper is None else keeper
        return Lease(self.id, self.secret_hash, self.ttl_ms, keeper, lapsed_revision, lapsed_ns)


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class Entry:
    """An instance with everything that its status rests on."""

    def __init__(self, RegisteredInstance registered not None, Lease lease not None, str probe_failure=None,
                 override=None):
        self.registered = registered
        self.lease = lease
        self.probe_failure = probe_failure
        self.override = override

    cdef tuple _fields(self):
        return self.registered, self.lease, self.probe_failure, self.override

    def __eq__(self, other):
        return self._fields() == (<Entry>other)._fields() if isinstance(other, Entry) else NotImplemented

    def __hash__(self):
        return hash(self._fields())

    def __repr__(self):
        return shown(self, _ENTRY_NAMES, self._fields())
