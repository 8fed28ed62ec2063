"""Reading an instance that stands in another message, and writing it into one."""

from trunkline.core.messages cimport Span
from trunkline.core.writing cimport Out


cdef object instance_of(Span message, object health_check)
cdef int put_instance(Out* out, object instance, bytes health_check) except -1
