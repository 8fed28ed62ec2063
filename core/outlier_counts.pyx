# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""What outlier detection counts of each host: failures in a row, and calls of the interval. One addition or two a call.

What follows from the counts is decided in `trunkline.core.outliers`.
"""

from enum import IntEnum
from typing import NamedTuple

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t, uint32_t, uint64_t


class Detection(IntEnum):
    """How a host was found out; names and values are Envoy's (envoy.data.cluster.v3.OutlierEjectionType)."""

    CONSECUTIVE_5XX = 0
    CONSECUTIVE_GATEWAY_FAILURE = 1
    SUCCESS_RATE = 2
    CONSECUTIVE_LOCAL_ORIGIN_FAILURE = 3
    SUCCESS_RATE_LOCAL_ORIGIN = 4
    FAILURE_PERCENTAGE = 5
    FAILURE_PERCENTAGE_LOCAL_ORIGIN = 6


class Volume(NamedTuple):
    """Calls of a host in an interval, and how many of them were good."""

    total: int
    good: int


cdef enum:
    CONSECUTIVE_5XX = 0
    CONSECUTIVE_GATEWAY_FAILURE = 1
    CONSECUTIVE_LOCAL_ORIGIN_FAILURE = 3

cdef enum:
    OK = 0
    CANCELLED = 1
    CODES = 17
    # gRPC's codes as bits. UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS; of these the gateway's are
    # DEADLINE_EXCEEDED and UNAVAILABLE.
    GATEWAY_FAILURES = 1 << 4 | 1 << 14
    FAILURES = GATEWAY_FAILURES | 1 << 2 | 1 << 13 | 1 << 15

cdef struct Tally:
    uint32_t consecutive_5xx
    uint32_t consecutive_gateway_failure
    uint32_t consecutive_local_origin_failure
    uint64_t total
    uint64_t good
    uint64_t local_total
    uint64_t local_good


cdef class OutlierCounts:
    """Counts by host, numbered from 0; none at first. Made with a policy's OutlierDetection.

    A subclass says in `outlier` what is done when one has failed so often in a row; a threshold of 0 is never reached.
    """

    cdef Tally* _tallies
    cdef Py_ssize_t _size
    cdef uint32_t _consecutive_5xx
    cdef uint32_t _consecutive_gateway_failure
    cdef uint32_t _consecutive_local_origin_failure
    cdef bint _split

    def __cinit__(self, policy not None, *_):
        self._consecutive_5xx = policy.consecutive_5xx
        self._consecutive_gateway_failure = policy.consecutive_gateway_failure
        self._consecutive_local_origin_failure = policy.consecutive_local_origin_failure
        self._split = policy.split_external_local_origin_errors

    def __dealloc__(self):
        PyMem_Free(self._tallies)

    def renumber(self, list were not None):
        """Have as many hosts as the list is long; each is the number of one whose counts are kept, or -1 for a new one.

        IndexError: no such host; nothing has changed then.
        """
        cdef Py_ssize_t at, was
        cdef Py_ssize_t size = len(were)
        for was in were:
            if not -1 <= was < self._size:
                raise IndexError(f"no host {was}")
        cdef Tally* tallies = <Tally*>PyMem_Calloc(max(size, 1), sizeof(Tally))
        if tallies is NULL:
            raise MemoryError
        for at, was in enumerate(were):
            if was >= 0:
                tallies[at] = self._tallies[was]
        PyMem_Free(self._tallies)
        self._tallies = tallies
        self._size = size

    def record(self, Py_ssize_t index, int code, bint local_origin, int64_t now_ns):
        """Take in how a call to a host ended: gRPC's status code, and whether it failed before the host could answer.

        Says whether this has changed who is ejected. CANCELLED says nothing about a host and is not counted.
        IndexError: no such host. ValueError: no code, or a local origin failure that is OK.
        """
        if not 0 <= index < self._size:
            raise IndexError(f"no host {index}")
        if not 0 <= code < CODES or (local_origin and code == OK):
            raise ValueError(f"a call does not end with {code}{' of local origin' if local_origin else ''}")
        cdef Tally* tally = &self._tallies[index]
        if code == CANCELLED:
            return False
        if not self._split:
            if local_origin:
                return self._failed(index, True, now_ns)
        elif local_origin:
            tally.local_total += 1
            tally.consecutive_local_origin_failure += 1
            if tally.consecutive_local_origin_failure != self._consecutive_local_origin_failure:
                return False
            return self.outlier(index, CONSECUTIVE_LOCAL_ORIGIN_FAILURE, now_ns)
        else:
            tally.local_total += 1
            tally.local_good += 1
            tally.consecutive_local_origin_failure = 0
        if (FAILURES >> code) & 1:
            return self._failed(index, (GATEWAY_FAILURES >> code) & 1, now_ns)
        tally.total += 1
        tally.good += 1
        tally.consecutive_5xx = 0
        tally.consecutive_gateway_failure = 0
        return False

    cdef bint _failed(self, Py_ssize_t index, bint gateway, int64_t now_ns) except -1:
        cdef Tally* tally = &self._tallies[index]
        cdef bint changed = False
        tally.total += 1
        tally.consecutive_5xx += 1
        tally.consecutive_gateway_failure = tally.consecutive_gateway_failure + 1 if gateway else 0
        # What `outlier` does may move the tallies, so that they are looked at anew.
        if gateway and tally.consecutive_gateway_failure == self._consecutive_gateway_failure:
            changed = self.outlier(index, CONSECUTIVE_GATEWAY_FAILURE, now_ns)
        if index < self._size and self._tallies[index].consecutive_5xx == self._consecutive_5xx:
            changed |= self.outlier(index, CONSECUTIVE_5XX, now_ns)
        return changed

    def outlier(self, Py_ssize_t index, int detection, int64_t now_ns):
        """Asked when a host has reached the threshold of a consecutive Detection: has that changed who is ejected?"""
        return False

    def forgive(self, Py_ssize_t index, int detection):
        """Let the failures in a row of one consecutive Detection begin anew. IndexError: no such host."""
        if not 0 <= index < self._size:
            raise IndexError(f"no host {index}")
        if detection == CONSECUTIVE_5XX:
            self._tallies[index].consecutive_5xx = 0
        elif detection == CONSECUTIVE_GATEWAY_FAILURE:
            self._tallies[index].consecutive_gateway_failure = 0
        else:
            self._tallies[index].consecutive_local_origin_failure = 0

    def take_volumes(self):
        """Of each host the Volume of the interval, and that of local origin; the next interval begins."""
        cdef Py_ssize_t at
        cdef Tally* tally
        volumes = []
        local_volumes = []
        for at in range(self._size):
            tally = &self._tallies[at]
            volumes.append(Volume(tally.total, tally.good))
            local_volumes.append(Volume(tally.local_total, tally.local_good))
            tally.total = tally.good = tally.local_total = tally.local_good = 0
        return volumes, local_volumes
