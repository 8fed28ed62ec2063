/* LD_PRELOAD: makes system calls on files below FAULTY_FOLDER fail as the file FAULTY_WORD says: lines of "CALL ERRNO",
   CALL being write or sync, read anew at every call; "short BYTES" lets a vectored write take no more than these, "slow
   MILLISECONDS" holds a sync up. Other files are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int told(const char *call) {
    const char *word = getenv("FAULTY_WORD");
    if (word == NULL) return 0;
    FILE *file = fopen(word, "re");
    if (file == NULL) return 0;
    char name[32];
    int number, found = 0;
    while (fscanf(file, "%31s %d", name, &number) == 2)
        if (strcmp(name, call) == 0) found = number;
    fclose(file);
    return found;
}

static int ours(int fd) {
    const char *folder = getenv("FAULTY_FOLDER");
    char link[64], path[PATH_MAX];
    if (folder == NULL) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int fails(const char *call, int fd) {
    int saved = errno;
    int number = ours(fd) ? told(call) : 0;
    errno = number ? number : saved;
    return number;
}

#define FAULTY(RESULT, CALL, NAME, PARAMETERS, ARGUMENTS)                                  \
    RESULT NAME PARAMETERS {                                                               \
        static RESULT (*real) PARAMETERS;                                                  \
        if (real == NULL) real = (RESULT(*) PARAMETERS)dlsym(RTLD_NEXT, #NAME);            \
        return fails(CALL, fd) ? -1 : real ARGUMENTS;                                      \
    }

/* As FAULTY, and takes a part only when told to. */
#define SHORT(NAME, OFFSET)                                                                \
    ssize_t NAME(int fd, const struct iovec *data, int count, OFFSET at) {                 \
        static ssize_t (*real)(int, const struct iovec *, int, OFFSET);                    \
        if (real == NULL) real = (ssize_t(*)(int, const struct iovec *, int, OFFSET))dlsym(RTLD_NEXT, #NAME); \
        if (fails("write", fd)) return -1;                                                 \
        size_t most = ours(fd) ? (size_t)told("short") : 0;                                \
        struct iovec first = data[0];                                                      \
        if (most == 0) return real(fd, data, count, at);                                   \
        if (first.iov_len > most) first.iov_len = most;                                    \
        return real(fd, &first, 1, at);                                                    \
    }

int fdatasync(int fd) {
    static int (*real)(int);
    if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (fails("sync", fd)) return -1;
    if (ours(fd)) usleep(1000 * (useconds_t)told("slow"));
    return real(fd);
}

FAULTY(int, "sync", fsync, (int fd), (fd))
FAULTY(ssize_t, "write", write, (int fd, const void *data, size_t size), (fd, data, size))
FAULTY(ssize_t, "write", pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
FAULTY(ssize_t, "write", pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
SHORT(pwritev, off_t)
SHORT(pwritev64, off64_t)
FAULTY(ssize_t, "write", pwritev2, (int fd, const struct iovec *data, int count, off_t at, int flags),
       (fd, data, count, at, flags))
FAULTY(ssize_t, "write", pwritev64v2, (int fd, const struct iovec *data, int count, off64_t at, int flags),
       (fd, data, count, at, flags))
