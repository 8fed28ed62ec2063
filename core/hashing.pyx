"""xxHash64, the hash that ring hash, Maglev and the journal's indexes share."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t


def xxh64(bytes data not None, uint64_t seed=0):
    """XXH64 of `data`, in [0, 2**64).

    `seed` is in [0, 2**64), else OverflowError.
    """
    return xxh64_raw(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), seed)
