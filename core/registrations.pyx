"""RegisterRequests that are surely good, read from their bytes in one go, and the answer to them.

What every registration passes on its way in (parsing, the contract's rules, conversion), in a sixth of the time: see
`bench run wire`. Only what is plain is taken: whatever is unusual, or wrong, is left to protobuf and the rules
(trunkline.api.rules), which say exactly what is wrong. So a rule that is made stricter must be made so here, too; a
property test compares the two.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from trunkline.core.instances cimport instance_of
from trunkline.core.messages cimport Span, read_number, read_span, read_tag
from trunkline.core.writing cimport Out, free_out, open_out, put_fixed, put_number, taken

from trunkline.core.model import TTL_MS_DEFAULT as _TTL_MS_DEFAULT
from trunkline.core.model import Registration

cdef enum:
    _LABEL_BYTES_MAX = 63
    _ID_BYTES_MAX = 128
    _HOST_BYTES_MAX = 253
    _VALUE_BYTES_MAX = 256
    _LABELS_MAX = 64
    _PORT_MAX = 65_535
    _WEIGHT_MAX = 10_000
    _DECLARED_MAX = 4
    _SECRET_BYTES_MIN = 16
    _SECRET_BYTES_MAX = 64
    _TTL_S_MIN = 1
    _TTL_S_MAX = 300


cdef struct Fields:
    Span instance
    Span secret
    Span ttl
    uint64_t take_over
    uint32_t seen  # bits of the field numbers: what stands twice is not plain


def read_registration_request(bytes data not None):
    """The Registration that a serialized RegisterRequest asks for; None when it is not plain."""
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(data)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(data)
    cdef Fields fields
    cdef uint32_t tag
    cdef int64_t ttl_ms
    memset(&fields, 0, sizeof(Fields))
    try:
        while at < end:
            read_tag(&at, end, &tag)
            if tag >> 3 > 4 or _stands_twice(&fields.seen, tag):
                return None
            if tag == 0x0A:
                read_span(&at, end, &fields.instance)
            elif tag == 0x12:
                read_span(&at, end, &fields.secret)
            elif tag == 0x1A:
                read_span(&at, end, &fields.ttl)
            elif tag == 0x20:
                read_number(&at, end, &fields.take_over)
            else:
                return None
        ttl_ms = _ttl_ms(&fields)
        if ttl_ms < 0 or not _SECRET_BYTES_MIN <= fields.secret.size <= _SECRET_BYTES_MAX:
            return None
        if fields.instance.at == NULL or not _is_plain_instance(fields.instance):
            return None
        instance = instance_of(fields.instance, None)
    except ValueError:  # no message, or no text
        return None
    secret = PyBytes_FromStringAndSize(<const char*>fields.secret.at, fields.secret.size)
    return Registration(instance, secret, ttl_ms, fields.take_over != 0)


def write_registered(uint64_t lease_id, uint64_t modified_revision, bint changed):
    """The part of a RegisterResponse that is an instance's own."""
    cdef Out out
    open_out(&out)
    try:
        put_number(&out, 0x28, changed)
        put_number(&out, 0x20, modified_revision)
        put_fixed(&out, 0x11, lease_id)
        return taken(&out)
    finally:
        free_out(&out)


cdef inline bint _stands_twice(uint32_t* seen, uint32_t tag) noexcept:
    cdef uint32_t bit = <uint32_t>1 << (tag >> 3)
    cdef bint twice = seen[0] & bit != 0
    seen[0] |= bit
    return twice


cdef int64_t _ttl_ms(Fields* fields) except? -1:
    """-1 when it is not plain."""
    cdef const uint8_t* at = fields.ttl.at
    cdef const uint8_t* end = at + fields.ttl.size
    cdef uint64_t seconds = 0
    cdef uint64_t nanos = 0
    cdef uint32_t seen = 0
    cdef uint32_t tag
    if at == NULL:
        return _TTL_MS_DEFAULT
    while at < end:
        read_tag(&at, end, &tag)
        if tag >> 3 > 2 or _stands_twice(&seen, tag):
            return -1
        if tag == 0x08:
            read_number(&at, end, &seconds)
        elif tag == 0x10:
            read_number(&at, end, &nanos)
        else:
            return -1
    if not _TTL_S_MIN <= seconds <= _TTL_S_MAX or nanos >= 1_000_000_000 or (seconds == _TTL_S_MAX and nanos):
        return -1
    return <int64_t>(seconds * 1_000 + nanos // 1_000_000)


cdef bint _is_plain_instance(Span message) except -1:
    cdef const uint8_t* at = message.at
    cdef const uint8_t* end = at + message.size
    cdef Span value
    cdef uint64_t number
    cdef uint32_t seen = 0
    cdef uint32_t tag
    cdef int labels = 0
    while at < end:
        read_tag(&at, end, &tag)
        if tag == 0x42:
            read_span(&at, end, &value)
            labels += 1
            if labels > _LABELS_MAX or not _is_label_entry(value):
                return False
            continue
        # One endpoint, and no health check, are plain.
        if tag >> 3 > 9 or _stands_twice(&seen, tag):
            return False
        if tag == 0x30 or tag == 0x48:
            read_number(&at, end, &number)
            if number > (<uint64_t>_WEIGHT_MAX if tag == 0x30 else <uint64_t>_DECLARED_MAX):
                return False
            continue
        if tag & 7 != 2:
            return False
        read_span(&at, end, &value)
        if tag == 0x0A or tag == 0x12:
            if not _is_dns_label(value):
                return False
        elif tag == 0x1A:
            if not _is_id(value):
                return False
        elif tag == 0x22:
            if value.size and not _is_plain_version(value):
                return False
        elif tag == 0x2A:
            if not _is_plain_endpoint(value):
                return False
        elif tag == 0x3A:
            if not _is_plain_locality(value):
                return False
        else:
            return False
    return seen & 0x2E == 0x2E  # namespace, service, id, endpoint: what is not there is not good


cdef bint _is_plain_endpoint(Span message) except -1:
    cdef const uint8_t* at = message.at
    cdef const uint8_t* end = at + message.size
    cdef Span value
    cdef uint64_t port = 0
    cdef uint32_t seen = 0
    cdef uint32_t tag
    while at < end:
        read_tag(&at, end, &tag)
        if tag >> 3 > 3 or _stands_twice(&seen, tag):
            return False
        if tag == 0x10:
            read_number(&at, end, &port)
        elif tag == 0x0A or tag == 0x1A:
            read_span(&at, end, &value)
            if tag == 0x0A and not (_is_plain_address(value) or _is_plain_host(value)):
                return False
            if tag == 0x1A and value.size and not _is_dns_label(value):
                return False
        else:
            return False
    return seen & 0x2 and 1 <= port <= _PORT_MAX


cdef bint _is_plain_locality(Span message) except -1:
    cdef Span[3] parts  # region, zone, sub_zone
    if not _read_texts(message, parts, 3):
        return False
    return (
        parts[0].size <= _LABEL_BYTES_MAX and parts[1].size <= _LABEL_BYTES_MAX and parts[2].size <= _LABEL_BYTES_MAX
    )


cdef bint _is_label_entry(Span message) except -1:
    cdef Span[2] pair  # key, value
    return _read_texts(message, pair, 2) and _is_label_key(pair[0]) and pair[1].size <= _VALUE_BYTES_MAX


cdef bint _read_texts(Span message, Span* into, uint32_t count) except -1:
    """The fields 1 to `count` of a message; False when anything else is there, or one of them stands twice."""
    cdef const uint8_t* at = message.at
    cdef const uint8_t* end = at + message.size
    cdef uint32_t seen = 0
    cdef uint32_t tag
    memset(into, 0, count * sizeof(Span))
    while at < end:
        read_tag(&at, end, &tag)
        if tag >> 3 > count or tag & 7 != 2 or _stands_twice(&seen, tag):
            return False
        read_span(&at, end, &into[(tag >> 3) - 1])
    return True


# Texts. All that is taken here is ASCII.


cdef inline bint _is_digit(uint8_t c) noexcept:
    return c"0" <= c <= c"9"


cdef inline bint _is_lower(uint8_t c) noexcept:
    return c"a" <= c <= c"z" or _is_digit(c)


cdef inline bint _is_alphanumeric(uint8_t c) noexcept:
    return _is_lower(c) or c"A" <= c <= c"Z"


cdef bint _is_dns_label(Span text) noexcept:
    cdef Py_ssize_t i
    if not 1 <= text.size <= _LABEL_BYTES_MAX or text.at[0] == c"-" or text.at[text.size - 1] == c"-":
        return False
    for i in range(text.size):
        if not (_is_lower(text.at[i]) or text.at[i] == c"-"):
            return False
    return True


cdef bint _is_id(Span text) noexcept:
    cdef Py_ssize_t i
    cdef uint8_t c
    for i in range(text.size):
        c = text.at[i]
        if not (_is_alphanumeric(c) or c in b"._:@/-"):
            return False
    return 1 <= text.size <= _ID_BYTES_MAX


cdef bint _is_label_key(Span text) noexcept:
    cdef Py_ssize_t i
    cdef uint8_t c
    for i in range(text.size):
        c = text.at[i]
        if not (_is_alphanumeric(c) or (i and c in b"._/-")):
            return False
    return 1 <= text.size <= _LABEL_BYTES_MAX


cdef bint _is_plain_version(Span text) noexcept:
    """Three numbers."""
    return _are_numbers(text, 3, 999_999)


cdef bint _is_plain_address(Span text) noexcept:
    """An IPv4 address that is not 0.0.0.0, and none of its network."""
    return _are_numbers(text, 4, 255) and text.at[0] != c"0"


cdef bint _are_numbers(Span text, int count, uint32_t number_max) noexcept:
    """So many decimal numbers between dots, without zeros before them."""
    cdef Py_ssize_t i
    cdef Py_ssize_t begin = 0
    cdef uint32_t number = 0
    cdef int dots = 0
    for i in range(text.size):
        if text.at[i] == c".":
            if i == begin:
                return False
            dots += 1
            begin = i + 1
            number = 0
        elif not _is_digit(text.at[i]) or (i > begin and number == 0):
            return False
        else:
            number = 10 * number + text.at[i] - c"0"
            if number > number_max:
                return False
    return dots == count - 1 and text.size > begin


cdef bint _is_plain_host(Span text) noexcept:
    """DNS labels between dots; the last begins with a letter, so that nobody reads it as a number."""
    cdef Span part
    cdef Py_ssize_t i
    cdef Py_ssize_t begin = 0
    if not 1 <= text.size <= _HOST_BYTES_MAX:
        return False
    for i in range(text.size + 1):
        if i == text.size or text.at[i] == c".":
            part.at = text.at + begin
            part.size = i - begin
            if not _is_dns_label(part):
                return False
            if i < text.size:
                begin = i + 1
    return not _is_digit(text.at[begin])
