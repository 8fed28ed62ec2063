# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Token buckets, with Envoy's fields (envoy.type.v3.TokenBucket), in whole tokens and whole nanoseconds.

Tokens come at multiples of the interval from the bucket's begin, so that nothing is lost by asking often or late.
"""

from collections import OrderedDict

import cython
from libc.stdint cimport int64_t

TOKENS_MAX = 4_294_967_295
"""What a bucket may hold, and get at once."""
FILL_INTERVAL_NS_MAX = 86_400_000_000_000
"""A day."""
KEYS_MAX = 10_000
"""So many keys have a bucket of their own, unless said otherwise."""


cdef int64_t _checked(str name, int64_t value, int64_t most) except -1:
    if not 1 <= value <= most:
        raise ValueError(f"{name} is in [1, {most}]: {value}")
    return value


@cython.final
cdef class TokenBucket:
    """Full at `now_ns` with `max_tokens`; `tokens_per_fill` are added each `fill_interval_ns`; what is over is lost.

    So in any stretch of n intervals at most max_tokens + (n + 1) x tokens_per_fill are taken. Time is monotonic
    nanoseconds; when it goes back, nothing is added. Not to be shared by threads.

    ValueError: a setting out of range.
    """

    cdef int64_t _tokens
    cdef int64_t _filled_ns  # the last multiple at which tokens were added
    cdef int64_t _max_tokens
    cdef int64_t _per_fill
    cdef int64_t _interval_ns

    def __cinit__(self, int64_t max_tokens, int64_t tokens_per_fill, int64_t fill_interval_ns, int64_t now_ns):
        self._max_tokens = _checked("max_tokens", max_tokens, TOKENS_MAX)
        self._per_fill = _checked("tokens_per_fill", tokens_per_fill, TOKENS_MAX)
        self._interval_ns = _checked("fill_interval_ns", fill_interval_ns, FILL_INTERVAL_NS_MAX)
        self._tokens = max_tokens
        self._filled_ns = now_ns

    cdef inline bint _take(self, int64_t now_ns) noexcept:
        self._fill(now_ns)
        if self._tokens == 0:
            return False
        self._tokens -= 1
        return True

    cdef inline void _fill(self, int64_t now_ns) noexcept:
        if now_ns - self._filled_ns < self._interval_ns:
            return
        cdef int64_t fills = (now_ns - self._filled_ns) // self._interval_ns
        self._filled_ns += fills * self._interval_ns
        # Compared before it is multiplied, which could overflow.
        if fills > (self._max_tokens - self._tokens) // self._per_fill:
            self._tokens = self._max_tokens
        else:
            self._tokens += fills * self._per_fill

    def take(self, int64_t now_ns):
        """Take a token if there is one."""
        return self._take(now_ns)

    def next_ns(self, int64_t now_ns):
        """When there will be a token: `now_ns` if there is one."""
        self._fill(now_ns)
        return now_ns if self._tokens else self._filled_ns + self._interval_ns

    def tokens(self, int64_t now_ns):
        """How many there are."""
        self._fill(now_ns)
        return self._tokens


@cython.final
cdef class KeyedBuckets:
    """A TokenBucket for each key, which is full when the key is first asked for.

    Of at most `keys_max` keys: a new one takes the place of the one that has not been asked for for longest. A key that
    was forgotten so begins with a full bucket again: whoever may choose keys at will is not held to a limit per key.

    ValueError: a setting out of range.
    """

    cdef object _buckets
    cdef int64_t _max_tokens
    cdef int64_t _per_fill
    cdef int64_t _interval_ns
    cdef int64_t _keys_max

    def __cinit__(
        self, int64_t max_tokens, int64_t tokens_per_fill, int64_t fill_interval_ns, int64_t keys_max=KEYS_MAX
    ):
        self._buckets = OrderedDict()
        self._max_tokens = _checked("max_tokens", max_tokens, TOKENS_MAX)
        self._per_fill = _checked("tokens_per_fill", tokens_per_fill, TOKENS_MAX)
        self._interval_ns = _checked("fill_interval_ns", fill_interval_ns, FILL_INTERVAL_NS_MAX)
        self._keys_max = _checked("keys_max", keys_max, 10_000_000)

    cdef TokenBucket _bucket(self, bytes key, int64_t now_ns):
        bucket = self._buckets.get(key)
        if bucket is not None:
            self._buckets.move_to_end(key)
            return bucket
        if len(self._buckets) >= self._keys_max:
            self._buckets.popitem(last=False)
        bucket = TokenBucket(self._max_tokens, self._per_fill, self._interval_ns, now_ns)
        self._buckets[key] = bucket
        return bucket

    def take(self, bytes key not None, int64_t now_ns):
        """Take a token of a key's bucket if there is one."""
        return self._bucket(key, now_ns)._take(now_ns)

    def next_ns(self, bytes key not None, int64_t now_ns):
        """When there will be a token for a key: `now_ns` if there is one. One that is not known stays so."""
        bucket = self._buckets.get(key)
        return now_ns if bucket is None else bucket.next_ns(now_ns)

    def __len__(self):
        """How many keys have a bucket."""
        return len(self._buckets)
