"""Reading one serialized CloudEvent, for the scanner of publish requests."""

from libc.stdint cimport uint8_t

cdef enum:
    REQUEST = -2  # index of what belongs to the request, not to one of its events
    ALONE = -1    # index of an event that stands in no request


cdef struct Span:
    const uint8_t* at  # NULL when absent
    Py_ssize_t size


cdef struct Event:
    Span id
    Span source
    Span spec_version
    Span type
    Span topic
    Span key  # absent when the event has none
    bint has_data
    int attributes


cdef int refuse(Py_ssize_t index, str field, str rule, object value) except -1
cdef int refuse_twice(Py_ssize_t index, str field) except -1
cdef int refuse_malformed(Py_ssize_t index) except -1
cdef str shown(Span span)
cdef int read_string(const uint8_t** at, const uint8_t* end, Span* into, Py_ssize_t index, str field) except -1
cdef int read_event(const uint8_t* at, const uint8_t* end, Event* event, Py_ssize_t index) except -1
cdef int check_topic(Event* event, Py_ssize_t index) except -1
