"""The least that any call into Cython costs: what the pickers and the breaker are measured against."""

import cython


@cython.final
cdef class Nothing:
    """An object whose method does nothing."""

    def call(self):
        """Return None."""
        return None
