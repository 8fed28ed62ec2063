"""Objects that Python's collector need not look at.

For what refers to texts, bytes and numbers alone, or to others of its kind, and never back: it cannot be garbage in a
cycle, and to look at a hundred thousand of it holds the loop for tens of milliseconds.
"""

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(void*)


cpdef object unseen(object made):
    """The same object, which the collector does not look at any more. It must be of a type that the collector knows."""
    PyObject_GC_UnTrack(<void*>made)
    return made
