"""Threads that write and sync files without Python's lock.

What a thread of Python does begins when the interpreter lets go of its lock, and is known to be done when it lets go
once more: an append waits for both, beside its disk. These threads never take the lock. They are handed the addresses
of bytes that are kept here, and say through a pipe that something is done.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EIO, EINTR, errno
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free

import os
from threading import Thread

cdef extern from *:
    """
    #include <pthread.h>
    #include <sys/uio.h>
    #include <unistd.h>
    #ifdef __APPLE__
    #define fdatasync fsync
    #endif
    """
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    struct iovec:
        void* iov_base
        size_t iov_len
    int pthread_mutex_init(pthread_mutex_t*, void*) nogil
    int pthread_mutex_lock(pthread_mutex_t*) nogil
    int pthread_mutex_unlock(pthread_mutex_t*) nogil
    int pthread_mutex_destroy(pthread_mutex_t*) nogil
    int pthread_cond_init(pthread_cond_t*, void*) nogil
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*) nogil
    int pthread_cond_signal(pthread_cond_t*) nogil
    int pthread_cond_broadcast(pthread_cond_t*) nogil
    int pthread_cond_destroy(pthread_cond_t*) nogil
    Py_ssize_t pwritev(int, iovec*, int, int64_t) nogil
    int fdatasync(int) nogil
    Py_ssize_t write(int, const void*, size_t) nogil
    int close(int) nogil

cdef enum:
    _IOV_MAX = 1024

cdef struct Job:
    Job* next
    uint64_t ticket
    int fd
    int64_t offset
    bint sync
    Py_ssize_t pieces
    int64_t written
    int error
    bint failed_in_sync
    iovec data[1]  # as many as there are pieces


cdef struct Jobs:
    Job* first
    Job* last


@cython.final
cdef class WriteThreads:
    """At most so many threads, started when they are first needed. `submit` and `done` are called by one thread."""

    cdef pthread_mutex_t _mutex
    cdef pthread_cond_t _asked
    cdef Jobs _waiting
    cdef Jobs _done
    cdef int _undone
    cdef bint _ended
    cdef int _pipe_in
    cdef int _pipe_out
    cdef int _started
    cdef int _count_max
    cdef str _name
    cdef uint64_t _tickets
    cdef dict _kept

    def __cinit__(self, int count_max, str name not None):
        self._pipe_in = self._pipe_out = -1
        pthread_mutex_init(&self._mutex, NULL)
        pthread_cond_init(&self._asked, NULL)
        self._count_max = count_max
        self._name = name
        self._kept = {}
        self._pipe_out, self._pipe_in = os.pipe()
        os.set_blocking(self._pipe_out, False)
        os.set_blocking(self._pipe_in, False)

    def __dealloc__(self):
        # No thread is left: each holds a reference.
        _free(&self._waiting)
        _free(&self._done)
        if self._pipe_in >= 0:
            close(self._pipe_in)
            close(self._pipe_out)
        pthread_cond_destroy(&self._asked)
        pthread_mutex_destroy(&self._mutex)

    def fileno(self):
        """Readable when there is something for `done` to give."""
        return self._pipe_out

    def submit(self, int fd, list data not None, int64_t offset, bint sync):
        """Write these bytes one after the other at an offset, and sync them if asked to; gives a ticket, see `done`.

        The file must stay open until then. RuntimeError after `shutdown`; TypeError for what is not bytes.
        """
        cdef Py_ssize_t count = len(data)
        cdef Py_ssize_t i
        cdef bytes piece
        cdef Job* job
        if self._ended:
            raise RuntimeError("the disk was shut down")
        for piece in data:
            if piece is None:
                raise TypeError("bytes are written, not None")
        if self._undone >= self._started and self._started < self._count_max:
            # A daemon: whatever it does when the process ends without `shutdown` is cut off as by a kill.
            Thread(target=self._serve, name=f"{self._name}-{self._started + 1}", daemon=True).start()
            self._started += 1
        job = <Job*>calloc(1, sizeof(Job) + count * sizeof(iovec))
        if job == NULL:
            raise MemoryError
        self._tickets += 1
        job.ticket, job.fd, job.offset, job.sync, job.pieces = self._tickets, fd, offset, sync, count
        for i in range(count):
            piece = <bytes>data[i]
            job.data[i].iov_base = PyBytes_AS_STRING(piece)
            job.data[i].iov_len = PyBytes_GET_SIZE(piece)
        self._kept[self._tickets] = tuple(data)
        pthread_mutex_lock(&self._mutex)
        _push(&self._waiting, job)
        self._undone += 1
        pthread_cond_signal(&self._asked)
        pthread_mutex_unlock(&self._mutex)
        return self._tickets

    def done(self):
        """What has ended since the last call: (ticket, errno or 0, bytes written, whether the sync failed) of each."""
        cdef Job* job
        cdef Job* next
        cdef list found = []
        try:
            os.read(self._pipe_out, 64)
        except BlockingIOError:
            return found
        pthread_mutex_lock(&self._mutex)
        job = self._done.first
        self._done.first = self._done.last = NULL
        pthread_mutex_unlock(&self._mutex)
        while job != NULL:
            next = job.next
            del self._kept[job.ticket]
            found.append((job.ticket, job.error, job.written, bool(job.failed_in_sync)))
            free(job)
            job = next
        return found

    def shutdown(self):
        """Let the threads end, each when there is nothing more to do; what is on its way is done to its end."""
        pthread_mutex_lock(&self._mutex)
        self._ended = True
        pthread_cond_broadcast(&self._asked)
        pthread_mutex_unlock(&self._mutex)

    def _serve(self):
        with nogil:
            self._work()

    cdef void _work(self) noexcept nogil:
        cdef Job* job
        cdef bint is_first
        while True:
            pthread_mutex_lock(&self._mutex)
            while self._waiting.first == NULL and not self._ended:
                pthread_cond_wait(&self._asked, &self._mutex)
            job = _pop(&self._waiting)
            pthread_mutex_unlock(&self._mutex)
            if job == NULL:
                return
            _do(job)
            pthread_mutex_lock(&self._mutex)
            is_first = self._done.first == NULL
            _push(&self._done, job)
            self._undone -= 1
            pthread_mutex_unlock(&self._mutex)
            if is_first:  # who comes behind it is found with it; a pipe that takes no more is readable as it is
                write(self._pipe_in, b"!", 1)


cdef void _do(Job* job) noexcept nogil:
    """Write it, and sync it."""
    cdef Py_ssize_t first = 0
    cdef Py_ssize_t count
    while True:
        while first < job.pieces and job.data[first].iov_len == 0:
            first += 1
        if first == job.pieces:
            break
        count = pwritev(job.fd, &job.data[first], min(job.pieces - first, _IOV_MAX), job.offset + job.written)
        if count < 0 and errno == EINTR:
            continue
        if count <= 0:
            job.error = errno if count < 0 else EIO
            return
        job.written += count
        while count:
            if <size_t>count < job.data[first].iov_len:
                job.data[first].iov_base = <char*>job.data[first].iov_base + count
                job.data[first].iov_len -= count
                break
            count -= job.data[first].iov_len
            first += 1
    while job.sync and fdatasync(job.fd) < 0:
        if errno != EINTR:
            job.error = errno
            job.failed_in_sync = True
            return


cdef inline void _push(Jobs* jobs, Job* job) noexcept nogil:
    job.next = NULL
    if jobs.first == NULL:
        jobs.first = job
    else:
        jobs.last.next = job
    jobs.last = job


cdef inline Job* _pop(Jobs* jobs) noexcept nogil:
    cdef Job* job = jobs.first
    if job != NULL:
        jobs.first = job.next
    return job


cdef void _free(Jobs* jobs) noexcept:
    cdef Job* job = _pop(jobs)
    while job != NULL:
        free(job)
        job = _pop(jobs)
