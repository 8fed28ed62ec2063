"""JSON taken apart where it stands: where members and values begin and end, without building any of them.

Accepted is the grammar of RFC 8259 and nothing else, in UTF-8, with values nested at most DEPTH_MAX deep. It takes no
memory but for the members of the object that is asked for, and time in proportion to the bytes that it passes, whatever
they are.
"""

import cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

from trunkline.core.protowire cimport utf8_is_valid

from trunkline.core.errors import InvalidArgument

cdef enum:
    _DEPTH_MAX = 512
    _SHOWN_BYTES = 20
    _ESCAPE_BYTES = 6  # the most that is refused as a piece: \\u0041

DEPTH_MAX = _DEPTH_MAX

cdef str _ANY = f"JSON, nested at most {_DEPTH_MAX} deep,"


@cython.final
cdef class JsonText:
    """One text. Positions count bytes from 0; none that is given may lie behind the end.

    Its methods raise InvalidArgument, with the name that the text was given as the field, where something else stands.
    """

    cdef readonly bytes text
    cdef str _field
    cdef const uint8_t* _at
    cdef Py_ssize_t _end

    def __init__(self, bytes text not None, str field not None):
        """InvalidArgument unless the text is UTF-8 (RFC 8259, 8.1)."""
        self.text = text
        self._field = field
        self._at = <const uint8_t*>PyBytes_AS_STRING(text)
        self._end = PyBytes_GET_SIZE(text)
        if not utf8_is_valid(self._at, self._end):
            raise InvalidArgument.of(field, "must be UTF-8", "other bytes")

    def behind_space(self, Py_ssize_t at):
        """The first position from `at` on that is no white space."""
        self._check(at)
        return _space(self._at, at, self._end)

    def stands(self, Py_ssize_t at, str char not None):
        """Whether this ASCII character stands there."""
        self._check(at)
        return at < self._end and self._at[at] == ord(char)

    def expect(self, Py_ssize_t at, str char not None, str what not None):
        """The position behind a character that must stand there, and behind white space. `what` is for people."""
        if not self.stands(at, char):
            self._refuse(at, what)
        return _space(self._at, at + 1, self._end)

    def expect_end(self, Py_ssize_t at):
        """Nothing but white space may follow."""
        self._check(at)
        at = _space(self._at, at, self._end)
        if at != self._end:
            self._refuse(at, "nothing more")

    def value(self, Py_ssize_t at):
        """Where the value that begins there ends."""
        self._check(at)
        cdef Py_ssize_t end = _value(self._at, at, self._end)
        if end < 0:
            self._refuse(~end, _ANY)
        return end

    def members(self, Py_ssize_t at, Py_ssize_t count_max, Py_ssize_t value_bytes_max):
        """The members of the object that begins there, and where it ends.

        Each as (name, begin, end): the name as it stands between its quotes, and the place of the value. There are at
        most `count_max`, and a value has at most `value_bytes_max`: no more is looked at.
        """
        cdef list found = []
        cdef Py_ssize_t begin
        cdef Py_ssize_t name
        cdef Py_ssize_t behind
        at = self.expect(at, "{", "an object")
        if at < self._end and self._at[at] == c'}':
            return found, at + 1
        while True:
            name = at
            at = self._behind(_string(self._at, at, self._end))
            begin = self._behind(_colon(self._at, at, self._end))
            if len(found) == count_max:
                raise InvalidArgument.of(self._field, f"at most {count_max} members in an object", "more")
            behind = self._bounded(begin, value_bytes_max)
            found.append((self.text[name + 1:at - 1], begin, behind))
            at = _space(self._at, behind, self._end)
            if at < self._end and self._at[at] == c'}':
                return found, at + 1
            at = self.expect(at, ",", "a comma or the object's end")

    cdef Py_ssize_t _bounded(self, Py_ssize_t at, Py_ssize_t bytes_max) except -1:
        """The end of a value that has no more bytes."""
        cdef Py_ssize_t limit = min(self._end, at + bytes_max)
        cdef Py_ssize_t end = _value(self._at, at, limit)
        if end < 0 and ~end + _ESCAPE_BYTES > limit and limit < self._end:
            raise InvalidArgument.of(self._field, f"values of at most {bytes_max} bytes", f"a longer one at byte {at}")
        return self._behind(end)

    cdef Py_ssize_t _behind(self, Py_ssize_t at) except -1:
        if at < 0:
            self._refuse(~at, _ANY)
        return at

    cdef int _check(self, Py_ssize_t at) except -1:
        if not 0 <= at <= self._end:
            raise IndexError(at)
        return 0

    cdef int _refuse(self, Py_ssize_t at, str what) except -1:
        got = self.text[at:at + _SHOWN_BYTES].decode("utf-8", "replace") or "the end"
        raise InvalidArgument.of(self._field, f"{what} at byte {at}", got)


# From a position to the one behind what stands there, or ~position of what cannot stand there.


cdef inline Py_ssize_t _space(const uint8_t* t, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    while at < end and (t[at] == c' ' or t[at] == c'\n' or t[at] == c'\r' or t[at] == c'\t'):
        at += 1
    return at


cdef Py_ssize_t _value(const uint8_t* t, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    cdef uint8_t[_DEPTH_MAX] closers  # of the objects and arrays that are open
    cdef int depth = 0
    while True:
        if at < end and (t[at] == c'{' or t[at] == c'['):
            if depth == _DEPTH_MAX:
                return ~at
            closers[depth] = t[at] + 2  # so they lie in ASCII
            depth += 1
            at = _space(t, at + 1, end)
            if at < end and t[at] == closers[depth - 1]:
                at += 1
                depth -= 1
            else:
                at = _item(t, at, end, closers[depth - 1])
                if at < 0:
                    return at
                continue
        else:
            at = _scalar(t, at, end)
            if at < 0:
                return at
        while depth:  # a value has ended
            at = _space(t, at, end)
            if at < end and t[at] == closers[depth - 1]:
                at += 1
                depth -= 1
                continue
            if at == end or t[at] != c',':
                return ~at
            at = _item(t, _space(t, at + 1, end), end, closers[depth - 1])
            if at < 0:
                return at
            break
        else:
            return at


cdef inline Py_ssize_t _item(const uint8_t* t, Py_ssize_t at, Py_ssize_t end, uint8_t closer) noexcept nogil:
    """To the value of an object's member, or of an array's item, which has no name."""
    if closer == c']':
        return at
    at = _string(t, at, end)
    return at if at < 0 else _colon(t, at, end)


cdef inline Py_ssize_t _colon(const uint8_t* t, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    at = _space(t, at, end)
    if at == end or t[at] != c':':
        return ~at
    return _space(t, at + 1, end)


cdef Py_ssize_t _scalar(const uint8_t* t, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    if at == end:
        return ~at
    if t[at] == c'"':
        return _string(t, at, end)
    if t[at] == c't':
        return _literal(t, at, end, b"true", 4)
    if t[at] == c'f':
        return _literal(t, at, end, b"false", 5)
    if t[at] == c'n':
        return _literal(t, at, end, b"null", 4)
    return _number(t, at, end)


cdef inline Py_ssize_t _literal(
    const uint8_t* t, Py_ssize_t at, Py_ssize_t end, const char* word, Py_ssize_t size
) noexcept nogil:
    cdef Py_ssize_t i
    if end - at < size:
        return ~at
    for i in range(size):
        if t[at + i] != word[i]:
            return ~at
    return at + size


cdef Py_ssize_t _string(const uint8_t* t, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    cdef int i
    if at == end or t[at] != c'"':
        return ~at
    at += 1
    while at < end:
        if t[at] == c'"':
            return at + 1
        if t[at] < 0x20:
            return ~at
        if t[at] != c'\\':
            at += 1
            continue
        if at + 1 == end:
            return ~at
        if t[at + 1] in (c'"', c'\\', c'/', c'b', c'f', c'n', c'r', c't'):
            at += 2
            continue
        if t[at + 1] != c'u' or end - at < 6:
            return ~at
        for i in range(2, 6):
            if not _is_hex(t[at + i]):
                return ~at
        at += 6
    return ~at


cdef Py_ssize_t _number(const uint8_t* t, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    if at < end and t[at] == c'-':
        at += 1
    if at < end and t[at] == c'0':
        at += 1
    else:
        at = _digits(t, at, end)
    if at >= 0 and at < end and t[at] == c'.':
        at = _digits(t, at + 1, end)
    if at >= 0 and at < end and (t[at] == c'e' or t[at] == c'E'):
        at += 1
        if at < end and (t[at] == c'+' or t[at] == c'-'):
            at += 1
        at = _digits(t, at, end)
    return at


cdef inline Py_ssize_t _digits(const uint8_t* t, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """One digit at least."""
    if at == end or not c'0' <= t[at] <= c'9':
        return ~at
    while at < end and c'0' <= t[at] <= c'9':
        at += 1
    return at


cdef inline bint _is_hex(uint8_t c) noexcept nogil:
    return c'0' <= c <= c'9' or c'a' <= c <= c'f' or c'A' <= c <= c'F'
