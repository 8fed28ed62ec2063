#include "common.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROOM_MIN = 256 };

_Noreturn void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

void *allocated(size_t count, size_t size) {
    void *made = calloc(count ? count : 1, size);
    if (made == NULL) die("out of memory");
    return made;
}

uint8_t *bytes_extend(struct bytes *bytes, size_t more) {
    size_t wanted = bytes->length + more;
    if (wanted > bytes->room) {
        size_t room = bytes->room ? bytes->room : ROOM_MIN;
        while (room < wanted) room *= 2;
        bytes->at = realloc(bytes->at, room);
        if (bytes->at == NULL) die("out of memory");
        bytes->room = room;
    }
    uint8_t *begin = bytes->at + bytes->length;
    bytes->length = wanted;
    return begin;
}

void bytes_append(struct bytes *bytes, const void *from, size_t count) {
    if (count) memcpy(bytes_extend(bytes, count), from, count);
}

void bytes_drop(struct bytes *bytes, size_t count) {
    bytes->length -= count;
    if (bytes->length) memmove(bytes->at, bytes->at + count, bytes->length);
}

void bytes_free(struct bytes *bytes) {
    free(bytes->at);
    *bytes = (struct bytes){0};
}

struct bytes bytes_of_file(const char *path) {
    FILE *file = fopen(path, "rbe");
    if (file == NULL) die("%s cannot be read", path);
    struct bytes read = {0};
    char some[1 << 14];
    for (size_t count; (count = fread(some, 1, sizeof some, file)) > 0;) bytes_append(&read, some, count);
    if (ferror(file)) die("%s cannot be read", path);
    fclose(file);
    return read;
}
