"""For Cython callers."""

cpdef object unseen(object made)
