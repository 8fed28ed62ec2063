/* What every part uses: giving up, the clock, bytes that grow. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define NS_PER_S 1000000000ull

/* A benchmark that meets anything unforeseen has measured nothing: say why on standard error and exit with 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* CLOCK_MONOTONIC, which is also what Python's time.perf_counter_ns() reads: both may be compared. */
uint64_t now_ns(void);

void *allocated(size_t count, size_t size); /* zeroed */

struct bytes {
    uint8_t *at;
    size_t length, room;
};

uint8_t *bytes_extend(struct bytes *bytes, size_t more); /* longer by `more`; where those begin */
void bytes_append(struct bytes *bytes, const void *from, size_t count);
void bytes_drop(struct bytes *bytes, size_t count); /* from the front */
void bytes_free(struct bytes *bytes);
struct bytes bytes_of_file(const char *path);

static inline uint32_t read_u24(const uint8_t *at) { return (uint32_t)at[0] << 16 | (uint32_t)at[1] << 8 | at[2]; }
static inline uint32_t read_u32(const uint8_t *at) { return (uint32_t)at[0] << 24 | read_u24(at + 1); }
static inline void write_u32(uint8_t *to, uint32_t value) {
    to[0] = (uint8_t)(value >> 24), to[1] = (uint8_t)(value >> 16), to[2] = (uint8_t)(value >> 8),
    to[3] = (uint8_t)value;
}
