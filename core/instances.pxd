"""Reading an instance that stands in another message."""

from trunkline.core.messages cimport Span


cdef object instance_of(Span message, object health_check)
