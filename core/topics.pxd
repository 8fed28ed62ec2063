"""What a topic and a topic filter look like, for Cython callers that hold UTF-8."""

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    TOPIC_BYTES_MAX = 256
    TOPIC_WORDS_MAX = 16


cdef inline bint is_unprintable(uint32_t c) noexcept nogil:
    """Whether a code point is a control, white-space or invisible formatting character.

    Written out, so that the verdict on a topic does not change with the Unicode version of the interpreter.
    """
    if c < 0x80:
        return c <= 0x20 or c == 0x7F
    if c < 0x2000:
        return c <= 0xA0 or c == 0xAD or c == 0x61C or c == 0x1680 or c == 0x180E
    if c <= 0x206F:  # spaces, zero width, line separators, embedding and isolation of direction
        return c <= 0x200F or 0x2028 <= c <= 0x202F or c >= 0x205F
    return c == 0x3000 or c == 0xFEFF or 0xFFF9 <= c <= 0xFFFB or 0xE0000 <= c <= 0xE007F


cdef inline uint32_t next_code_point(const uint8_t** at) noexcept nogil:
    """Read one code point of valid UTF-8 and move `at` behind it."""
    cdef const uint8_t* p = at[0]
    if p[0] < 0x80:
        at[0] = p + 1
        return p[0]
    if p[0] < 0xE0:
        at[0] = p + 2
        return (<uint32_t>(p[0] & 0x1F) << 6) | (p[1] & 0x3F)
    if p[0] < 0xF0:
        at[0] = p + 3
        return (<uint32_t>(p[0] & 0x0F) << 12) | (<uint32_t>(p[1] & 0x3F) << 6) | (p[2] & 0x3F)
    at[0] = p + 4
    return (
        (<uint32_t>(p[0] & 0x07) << 18) | (<uint32_t>(p[1] & 0x3F) << 12)
        | (<uint32_t>(p[2] & 0x3F) << 6) | (p[3] & 0x3F)
    )


cdef inline bint words_are_valid(const uint8_t* text, Py_ssize_t size, bint wildcards) noexcept nogil:
    """Whether `size` bytes of valid UTF-8 at `text` are a topic or, with `wildcards`, a topic filter."""
    cdef const uint8_t* at = text
    cdef const uint8_t* end = text + size
    cdef const uint8_t* word = text
    cdef int words = 1
    cdef uint32_t c
    if size == 0 or size > TOPIC_BYTES_MAX:
        return False
    while at < end:
        c = next_code_point(&at)
        if c == 0x2E:  # '.'
            words += 1
            if at - word == 1 or words > TOPIC_WORDS_MAX:
                return False
            word = at
        elif c == 0x2A or c == 0x3E:  # '*', '>': a whole word, and '>' the last one
            if not wildcards or at - word != 1 or (at < end and (c == 0x3E or at[0] != 0x2E)):
                return False
        elif is_unprintable(c):
            return False
    return at != word
