"""Token buckets for what a peer may do so many times a second."""

from libc.stdint cimport int64_t


cdef struct Bucket:
    double spent     # of the burst; falls as time passes
    int64_t since_ns


cdef inline bint spend(Bucket* bucket, double per_s, double burst, int64_t now_ns) noexcept:
    """Take one token; False when there is none left."""
    cdef double passed_s = (now_ns - bucket.since_ns) / 1e9
    if passed_s > 0:
        bucket.spent = max(0.0, bucket.spent - passed_s * per_s)
        bucket.since_ns = now_ns
    bucket.spent += 1
    return bucket.spent <= burst
