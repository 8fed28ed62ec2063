# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""How many retries a caller may make: a share of its calls and a few besides, as in Linkerd and Finagle.

https://linkerd.io/2/tasks/configuring-retries/ and com.twitter.finagle.service.RetryBudget: budget_percent is their
retry ratio.
"""

import cython
from libc.stdint cimport int64_t
from libc.string cimport memset

BUDGET_PERCENT_MAX = 1_000
MIN_RETRIES_PER_SECOND_MAX = 100_000
TTL_NS_MAX = 3_600_000_000_000
"""The largest settings."""

cdef int64_t NS_PER_SECOND = 1_000_000_000

cdef enum:
    SLOTS = 34
    PARTS = 32
    RETRY = 100

cdef struct Slot:
    int64_t net  # hundredths of retries, less what the calls are worth
    int64_t worst  # the most of that over any stretch that ends with the slot, at least 0


@cython.final
cdef class RetryBudget:
    """In each stretch of `ttl_ns`, wherever it begins,

        retries <= budget_percent / 100 x calls + min_retries_per_second x ttl

    where calls are those of that same stretch. So retries keep company with calls: what has been called before a
    retry is its due only as far as nobody can find a stretch that has the retries without the calls, and a flood of
    retries after the last call is no more than the few besides. Where `min_retries_per_second` is 0 but
    `budget_percent` is not, one takes the place of the few besides, as otherwise no retry could ever be made.

    Time is monotonic nanoseconds, and when it goes back, counts as the latest. What leaves a stretch is forgotten up
    to a 32nd of `ttl_ns` late, never early. Cost and memory are the same for any number of calls. Not to be shared by
    threads.

    ValueError: a setting out of range.
    """

    cdef Slot _slots[SLOTS]
    cdef int64_t _newest  # number of the slot that time is in; it stands at that modulo SLOTS
    cdef int64_t _slot_ns
    cdef int64_t _worth
    cdef int64_t _reserve

    def __cinit__(self, int64_t budget_percent=20, int64_t min_retries_per_second=3, int64_t ttl_ns=10_000_000_000):
        if not 0 <= budget_percent <= BUDGET_PERCENT_MAX:
            raise ValueError(f"budget_percent is in [0, {BUDGET_PERCENT_MAX}]: {budget_percent}")
        if not 0 <= min_retries_per_second <= MIN_RETRIES_PER_SECOND_MAX:
            raise ValueError(
                f"min_retries_per_second is in [0, {MIN_RETRIES_PER_SECOND_MAX}]: {min_retries_per_second}"
            )
        if not NS_PER_SECOND <= ttl_ns <= TTL_NS_MAX:
            raise ValueError(f"ttl_ns is in [{NS_PER_SECOND}, {TTL_NS_MAX}]: {ttl_ns}")
        self._worth = budget_percent
        # In two steps, so that nothing overflows; cut down to whole hundredths.
        self._reserve = (
            RETRY * min_retries_per_second * (ttl_ns // NS_PER_SECOND)
            + RETRY * min_retries_per_second * (ttl_ns % NS_PER_SECOND) // NS_PER_SECOND
        )
        if min_retries_per_second == 0 and budget_percent > 0:
            self._reserve = RETRY
        self._slot_ns = (ttl_ns + PARTS - 1) // PARTS

    cdef inline Slot* _slot(self, int64_t now_ns) noexcept:
        """The slot that `now_ns` is in, with all that lie between cleared."""
        cdef int64_t number = now_ns // self._slot_ns
        if number - self._newest >= SLOTS:
            memset(self._slots, 0, sizeof(self._slots))
            self._newest = number
        while self._newest < number:
            self._newest += 1
            memset(&self._slots[self._newest % SLOTS], 0, sizeof(Slot))
        return &self._slots[self._newest % SLOTS]

    def called(self, int64_t now_ns):
        """A call, not a retry, was made."""
        cdef Slot* slot = self._slot(now_ns)
        slot.net -= self._worth
        slot.worst = max(0, slot.worst - self._worth)

    def may(self, int64_t now_ns):
        """Whether a retry could be taken now."""
        self._slot(now_ns)
        return RETRY + self._most() <= self._reserve

    def take(self, int64_t now_ns):
        """Whether a retry may be made now; it is counted if so."""
        cdef Slot* slot = self._slot(now_ns)
        if RETRY + self._most() > self._reserve:
            return False
        slot.net += RETRY
        slot.worst += RETRY
        return True

    cdef int64_t _most(self) noexcept:
        """The most over any stretch that ends now and does not begin more than `ttl_ns` and a slot ago."""
        cdef int64_t most = 0
        cdef int64_t since = 0
        cdef int back
        cdef Slot* slot
        for back in range(PARTS + 1):
            if self._newest < back:
                break
            slot = &self._slots[(self._newest - back) % SLOTS]
            most = max(most, since + slot.worst)
            since += slot.net
        return most
