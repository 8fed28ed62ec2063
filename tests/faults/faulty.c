/* LD_PRELOAD: makes system calls on files below FAULTY_FOLDER fail as the file FAULTY_WORD says: lines of "CALL ERRNO",
   CALL being write or sync, read anew at every call. Other files are left alone. */
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

FAULTY(int, "sync", fdatasync, (int fd), (fd))
FAULTY(int, "sync", fsync, (int fd), (fd))
FAULTY(ssize_t, "write", write, (int fd, const void *data, size_t size), (fd, data, size))
FAULTY(ssize_t, "write", pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
FAULTY(ssize_t, "write", pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
FAULTY(ssize_t, "write", pwritev, (int fd, const struct iovec *data, int count, off_t at), (fd, data, count, at))
FAULTY(ssize_t, "write", pwritev64, (int fd, const struct iovec *data, int count, off64_t at), (fd, data, count, at))
FAULTY(ssize_t, "write", pwritev2, (int fd, const struct iovec *data, int count, off_t at, int flags),
       (fd, data, count, at, flags))
FAULTY(ssize_t, "write", pwritev64v2, (int fd, const struct iovec *data, int count, off64_t at, int flags),
       (fd, data, count, at, flags))
