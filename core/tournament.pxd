"""A tournament of numbered contenders: who comes first, kept up to date with one comparison a level.

It is the loser tree of Knuth, The Art of Computer Programming 3, section 5.4.1. A binary heap does the same work, but
its next load depends on its last comparison; here the path from leaf to root is known beforehand and nothing branches.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    ctypedef unsigned long long uint128_t "unsigned __int128"

cdef enum:
    INDEX_BITS = 20
    INDEX_MASK = (1 << 20) - 1


cdef inline uint64_t ordered_bits(double value) noexcept nogil:
    """An integer in the order of the doubles that are not negative (IEEE 754 has it so)."""
    cdef uint64_t bits
    memcpy(&bits, &value, sizeof(bits))
    return bits


cdef inline double double_of(uint64_t bits) noexcept nogil:
    """The double that ordered_bits was given."""
    cdef double value
    memcpy(&value, &bits, sizeof(value))
    return value


cdef inline uint128_t turn(uint64_t when, uint64_t order, uint32_t index) noexcept nogil:
    """When a contender comes: earlier `when` first, then lower `order` (its lowest 44 bits), then lower index."""
    return (<uint128_t>when << 64) | (order << INDEX_BITS) | index


cdef inline uint64_t when_of(uint128_t value) noexcept nogil:
    return <uint64_t>(value >> 64)


cdef inline uint32_t index_of(uint128_t value) noexcept nogil:
    return <uint32_t>(<uint64_t>value & INDEX_MASK)


cdef inline void start_tournament(uint128_t* nodes, uint128_t* turns, uint32_t count) noexcept nogil:
    """Play all matches. `turns` has room for 2 * count: the leaves in its upper half; the lower half is scratch."""
    cdef uint32_t at
    cdef uint128_t left
    cdef uint128_t right
    for at in range(count - 1, 0, -1):
        left = turns[2 * at]
        right = turns[2 * at + 1]
        turns[at] = left if left < right else right
        nodes[at] = right if left < right else left
    nodes[0] = turns[1]


cdef inline void move_winner(uint128_t* nodes, uint32_t count, uint128_t winner) noexcept nogil:
    """Give the contender that won (nodes[0]) another turn and find who wins now."""
    cdef uint32_t at = (count + index_of(winner)) >> 1
    cdef uint128_t loser
    cdef uint64_t when = when_of(winner)
    cdef uint64_t rest = <uint64_t>winner
    cdef uint64_t loser_when
    cdef uint64_t loser_rest
    cdef uint64_t mask
    cdef uint64_t swap_when
    cdef uint64_t swap_rest
    # In halves and with masks, because compilers make a branch of a comparison of 128 bits, mispredicted half the time.
    while at:
        loser = nodes[at]
        loser_when = when_of(loser)
        loser_rest = <uint64_t>loser
        mask = 0 - <uint64_t>((loser_when < when) | ((loser_when == when) & (loser_rest < rest)))
        swap_when = (loser_when ^ when) & mask
        swap_rest = (loser_rest ^ rest) & mask
        nodes[at] = (<uint128_t>(loser_when ^ swap_when) << 64) | (loser_rest ^ swap_rest)
        when ^= swap_when
        rest ^= swap_rest
        at >>= 1
    nodes[0] = (<uint128_t>when << 64) | rest
