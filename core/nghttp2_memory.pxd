"""The blocks of memory that libnghttp2 holds, counted: what Python's collector cannot see of a session."""

from trunkline.core.nghttp2 cimport nghttp2_mem

cdef nghttp2_mem counted
